//! The attribution ladder: what `check` says of it, and an agent with the same flags.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent, WITHOUT, finish};
use esnode_tests::page::Page;
use esnode_tests::workload::{self, Name};
use serde_json::Value;

use crate::Case;
use crate::check::ensure_eq;

/// The signals and their rungs, best first.
const LADDER: [(&str, &[&str]); 6] = [
    ("process_table", &["iter_task", "procfs"]),
    ("ended_processes", &["sched_process_exit", "taskstats"]),
    ("network", &["sock_length", "fexit", "kprobe", "sock_diag"]),
    (
        "splice_receive",
        &["fexit", "kprobe", "tcp_sock", "sock_diag"],
    ),
    ("splice_receive_unix", &["fexit", "kprobe"]),
    ("disk_latency", &["block_rq"]),
];

/// The rungs that need no BPF.
const BELOW_BPF: [&str; 3] = ["procfs", "taskstats", "sock_diag"];

/// Flags that put the agent on different rungs.
const SETTINGS: &[&[&str]] = &[
    &[],
    &["--disk-latency"],
    &["--no-bpf"],
    &["--no-bpf", "--disk-latency"],
    &["--without", "sock_length"],
    &["--without", "sock_length,fexit"],
    &["--without", "sock_length,fexit,kprobe"],
    &["--without", "sock_length,fexit,kprobe,sock_diag"],
    &["--without", "tcp_sock"],
    &["--without", "fexit,kprobe,tcp_sock"],
    &["--without", "sched_process_exit"],
    &["--without", "sched_process_exit,taskstats"],
    &["--without", "iter_task"],
    &["--without", "taskstats,sock_diag"],
    &["--without", "block_rq", "--disk-latency"],
    &["--disable-collector", "process"],
];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("check::exit_code_says_whether_all_is_well", exit_codes),
        Case::new("check::agrees_with_the_page_and_the_log", agreement),
        Case::new(
            "check::every_better_rung_has_a_reason_and_a_remedy",
            reasons,
        ),
        Case::new("check::table_says_what_the_json_says", tables),
        Case::new("check::bad_flags", bad_flags),
    ]
}

/// How the agent is run: with which flags, and through which command of the workload. The rungs
/// that a run of the suite leaves out don't matter: these tests name their own.
#[derive(Default)]
pub(crate) struct Run<'a> {
    pub(crate) flags: &'a [&'a str],
    pub(crate) through: Option<&'a str>,
}

impl Run<'_> {
    fn command(&self) -> Result<Command> {
        let plain = agent::command()?;
        let mut command = match self.through {
            None => plain,
            Some(word) => {
                let mut outer = Command::new(Name::new("way")?.path);
                for (name, value) in plain.get_envs() {
                    match value {
                        Some(value) => outer.env(name, value),
                        None => outer.env_remove(name),
                    };
                }
                outer.stdin(Stdio::null()).stderr(Stdio::piped());
                outer.arg(word).arg(agent::binary()?);
                outer
            }
        };
        command.env_remove(WITHOUT).stdout(Stdio::null());
        Ok(command)
    }

    /// An agent that shows every workload.
    pub(crate) fn agent(&self) -> Result<Agent> {
        let select = workload::select_all();
        let mut command = self.command()?;
        command
            .args(["--listen-address", "127.0.0.1:0", "--select", &select])
            .args(["--group-limit", "100000"])
            .args(self.flags);
        Agent::launch(command, 1)
    }

    /// What `check` says.
    pub(crate) fn check(&self) -> Result<Report> {
        let mut command = self.command()?;
        command.args(["check", "--json"]).args(self.flags);
        let output = finish({
            command.stdout(Stdio::piped());
            command
        })?;
        let json: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let code = output.status.code().context("ended by a signal")?;
        Ok(Report { code, json })
    }
}

/// What `check --json` said.
pub(crate) struct Report {
    pub(crate) code: i32,
    json: Value,
}

/// A rung that a signal isn't on.
pub(crate) struct Refused<'a> {
    pub(crate) rung: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) remedy: &'a str,
}

impl Report {
    fn list(&self, name: &str) -> Result<&Vec<Value>> {
        let list = self.json.get(name).and_then(Value::as_array);
        list.with_context(|| format!("no list of {name}"))
    }

    fn signal(&self, name: &str) -> Result<&Value> {
        let mut signals = self.list("signals")?.iter();
        let found = signals.find(|signal| text(signal, "signal").is_ok_and(|text| text == name));
        found.with_context(|| format!("no signal {name}"))
    }

    /// The rung that a signal is on.
    pub(crate) fn source(&self, signal: &str) -> Result<Option<&str>> {
        let source = self.signal(signal)?.get("source").context("no source")?;
        ensure!(source.is_null() || source.is_string(), "source: {source}");
        Ok(source.as_str())
    }

    /// The rung that the network falls to where it isn't on `sock_length`.
    pub(crate) fn next_of_network(&self) -> Result<&str> {
        let functions = self.source("splice_receive")?;
        let functions = functions.filter(|rung| ["fexit", "kprobe"].contains(rung));
        Ok(functions.unwrap_or("sock_diag"))
    }

    /// How well a signal is known.
    pub(crate) fn state(&self, signal: &str) -> Result<&str> {
        text(self.signal(signal)?, "state")
    }

    /// The better rungs of a signal.
    pub(crate) fn refused(&self, signal: &str) -> Result<Vec<Refused<'_>>> {
        let refused = self.signal(signal)?.get("refused");
        let refused = refused.and_then(Value::as_array).context("no refused")?;
        refused
            .iter()
            .map(|refused| {
                Ok(Refused {
                    rung: text(refused, "source")?,
                    reason: text(refused, "reason")?,
                    remedy: text(refused, "remedy")?,
                })
            })
            .collect()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    let text = value.get(key).and_then(Value::as_str);
    text.with_context(|| format!("no {key} in {value}"))
}

/// The source of a signal on the page.
pub(crate) fn source_of<'a>(page: &'a Page, signal: &str) -> Result<Option<&'a str>> {
    let labels = [("signal", signal)];
    let sources = page.label_values("esnode_attribution_source", &labels, "source");
    ensure!(sources.len() <= 1, "{signal} has the sources {sources:?}");
    Ok(sources.first().copied())
}

/// 0 where nothing could be better, else 3; `degraded` says the same.
fn exit_codes() -> Result<()> {
    for flags in SETTINGS {
        let run = Run {
            flags,
            ..Run::default()
        };
        let report = run.check()?;
        let states = [report.list("signals")?, report.list("collectors")?];
        let states = states.into_iter().flatten().map(|it| text(it, "state"));
        let states = states.collect::<Result<Vec<_>>>()?;
        let known = ["ok", "degraded", "missing", "off"];
        ensure!(
            states.iter().all(|state| known.contains(state)),
            "{states:?}"
        );
        let well = states.iter().all(|state| ["ok", "off"].contains(state));
        ensure_eq!(
            report.code,
            if well { 0 } else { 3 },
            "exit code of {flags:?}"
        );
        let degraded = report.json.get("degraded").and_then(Value::as_bool);
        ensure_eq!(degraded, Some(!well), "degraded of {flags:?}");
        for (signal, _) in LADDER {
            let source = report.source(signal)?;
            let expected = match (report.state(signal)?, source) {
                ("ok", Some("sock_diag")) => signal == "splice_receive",
                ("ok", Some(rung)) => !BELOW_BPF.contains(&rung),
                ("degraded", Some(rung)) => BELOW_BPF.contains(&rung),
                ("missing" | "off", None) => true,
                _ => false,
            };
            ensure!(expected, "{flags:?}: {}", report.signal(signal)?);
        }
        if flags.contains(&"--no-bpf") {
            ensure_eq!(report.code, 3, "exit code of {flags:?}");
        }
        if flags.contains(&"--disable-collector") {
            // What nobody asked for isn't missing.
            ensure_eq!(report.code, 0, "exit code of {flags:?}");
        }
    }
    Ok(())
}

/// `check` finds what an agent with the same flags uses, and both say it.
fn agreement() -> Result<()> {
    for flags in SETTINGS {
        let run = Run {
            flags,
            ..Run::default()
        };
        let report = run.check()?;
        let agent = run.agent()?;
        let page = agent.page()?;
        let log = agent.log.lines();
        for (signal, _) in LADDER {
            let place = || format!("{flags:?}: {signal}");
            let source = report.source(signal)?;
            let off = report.state(signal)? == "off";
            // What a histogram is made of needs no name on the page.
            let named = !off && signal != "disk_latency";
            ensure_eq!(
                source_of(&page, signal)?,
                named.then(|| source.unwrap_or("none")),
                "{}, on the page",
                place()
            );
            let said = source.map_or_else(
                || format!(" {signal} is not known"),
                |rung| format!(" {signal} is read from {rung}"),
            );
            let lines = log.iter().filter(|line| line.ends_with(&said)).count();
            ensure_eq!(
                lines,
                usize::from(!off),
                "{}, lines of the log that end in {said:?}",
                place()
            );
            for Refused { rung, remedy, .. } in report.refused(signal)? {
                let said = format!(" {signal} is not read from {rung}: ");
                let line = log.iter().find(|line| line.contains(&said));
                let line = line.with_context(|| format!("{}: no {said:?} in the log", place()))?;
                ensure!(line.contains(remedy), "{line}: no {remedy:?}");
            }
        }
    }
    Ok(())
}

/// All rungs above the one in use are told, in their order, and why they are not.
fn reasons() -> Result<()> {
    for flags in SETTINGS {
        let run = Run {
            flags,
            ..Run::default()
        };
        let report = run.check()?;
        for (signal, rungs) in LADDER {
            let refused = report.refused(signal)?;
            for Refused {
                rung,
                reason,
                remedy,
            } in &refused
            {
                ensure!(
                    reason.len() > 5 && remedy.len() > 5,
                    "{flags:?}: {signal}, {rung}: {reason:?}, {remedy:?}"
                );
            }
            if report.state(signal)? == "off" {
                ensure!(refused.is_empty(), "{flags:?}: {signal} is off");
                continue;
            }
            let source = report.source(signal)?;
            let better: Vec<_> = rungs
                .iter()
                .copied()
                .take_while(|rung| Some(*rung) != source)
                // Sockets tell what is spliced with the rest of the network, never alone.
                .filter(|rung| (signal, *rung) != ("splice_receive", "sock_diag"))
                .collect();
            let told: Vec<_> = refused.iter().map(|refused| refused.rung).collect();
            ensure_eq!(told, better, "{flags:?}: rungs above that of {signal}");
        }
    }
    Ok(())
}

/// The table for people has every signal with its source and state, and every reason.
fn tables() -> Result<()> {
    for flags in SETTINGS {
        let run = Run {
            flags,
            ..Run::default()
        };
        let report = run.check()?;
        let mut command = run.command()?;
        command.arg("check").args(*flags).stdout(Stdio::piped());
        let output = finish(command)?;
        ensure_eq!(output.status.code(), Some(report.code), "exit code");
        let table = String::from_utf8(output.stdout)?;
        for (signal, _) in LADDER {
            let row = [
                signal,
                report.source(signal)?.unwrap_or("none"),
                report.state(signal)?,
            ];
            let rows = table
                .lines()
                .filter(|line| line.split_whitespace().eq(row))
                .count();
            ensure_eq!(rows, 1, "{flags:?}: rows {row:?} of\n{table}");
            for Refused { reason, remedy, .. } in report.refused(signal)? {
                // The name of a probe has the process id of the agent in it.
                let start = reason.split(" `").next().unwrap_or_default();
                ensure!(table.contains(start), "no {reason:?} in\n{table}");
                ensure!(
                    table.contains(&format!("to do: {remedy}\n")),
                    "no {remedy:?} in\n{table}"
                );
            }
        }
    }
    Ok(())
}

fn bad_flags() -> Result<()> {
    for flags in [
        &["check", "--no-such-flag"][..],
        &["check", "--without", "no_such_rung"],
        &["check", "--listen-address", "127.0.0.1:0"],
        &["check", "--bpf-threads", "0"],
        &["check", "check"],
    ] {
        let output = agent::run(flags)?;
        ensure_eq!(output.status.code(), Some(2), "exit code of {flags:?}");
        ensure_eq!(output.stdout.len(), 0, "bytes on stdout");
        ensure!(!output.stderr.is_empty(), "no word about {flags:?}");
    }
    let output = agent::run(&["check", "--json", "--procfs", "/no/such/folder"])?;
    ensure_eq!(output.status.code(), Some(1), "exit code without a procfs");
    ensure_eq!(output.stdout.len(), 0, "bytes on stdout");
    Ok(())
}
