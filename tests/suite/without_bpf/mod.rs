//! The rungs that need no BPF: each test names those it must land on, and nothing that they can't
//! know is on the page, not even as a zero.

mod ended;
mod sockets;
mod surroundings;

use anyhow::{Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::page::{Page, Sample};
use esnode_tests::{skip, workload};
use nix::unistd::geteuid;

use crate::Case;
use crate::check::ensure_eq;

/// Flags that put an agent of root on rungs below BPF, on a kernel that has them all.
#[derive(Clone, Copy)]
struct Setting {
    flags: &'static [&'static str],
    /// Of the process table, of ended processes and of the network.
    rungs: [&'static str; 3],
}

/// No BPF at all.
const NO_BPF: Setting = Setting {
    flags: &["--no-bpf"],
    rungs: ["procfs", "taskstats", "sock_diag"],
};

/// BPF reads the living, and tells nothing of the ended.
const MIXED: Setting = Setting {
    flags: &["--without", "sched_process_exit"],
    rungs: ["iter_task", "taskstats", "sock_diag"],
};

/// An agent in a setting.
struct Landed {
    agent: Agent,
    rungs: [&'static str; 3],
}

impl Setting {
    /// An agent that shows every workload.
    fn start(self, flags: &[&str]) -> Result<Landed> {
        if !geteuid().is_root() {
            skip!("needs root to read what others use");
        }
        if self.rungs.contains(&"iter_task") {
            need_bpf()?;
        }
        let select = workload::select_all();
        let mut all = vec!["--select", &select, "--group-limit", "100000"];
        all.extend(self.flags);
        all.extend(flags);
        Ok(Landed {
            agent: Agent::start(&all)?,
            rungs: self.rungs,
        })
    }
}

impl Landed {
    /// Reads the page, which must be on the rungs of the setting.
    fn page(&self) -> Result<Page> {
        let page = self.agent.page()?;
        check_rungs(&page, self.rungs)?;
        Ok(page)
    }
}

/// A test by itself.
type Run = fn(Setting) -> Result<()>;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, run) in ended::TESTS.iter().chain(sockets::TESTS) {
        cases.push(Case::new(format!("without_bpf::{name}"), || run(NO_BPF)));
        cases.push(Case::new(format!("ladder::mixed::{name}"), || run(MIXED)));
    }
    cases.extend(sockets::cases());
    cases.extend(surroundings::cases());
    cases
}

/// Fails where a signal is on another rung.
pub(crate) fn check_rungs(page: &Page, rungs: [&str; 3]) -> Result<()> {
    for (signal, rung) in ["process_table", "ended_processes", "network"]
        .into_iter()
        .zip(rungs)
    {
        let seen = page.label_values("esnode_attribution_source", &[("signal", signal)], "source");
        ensure!(
            seen.len() == 1 && seen.contains(rung),
            "the source of {signal} is {seen:?}, not {rung}"
        );
    }
    check_honest(page, rungs)
}

/// Fails where something is on the page that these rungs can't know.
fn check_honest(page: &Page, [table, ended, network]: [&str; 3]) -> Result<()> {
    for family in &page.families {
        let name = family.name.as_str();
        let moved = name.contains("_network_receive") || name.contains("_network_transmit");
        let of_processes = name.starts_with("esnode_process_") || name.starts_with("esnode_group_");
        let made_up = match network {
            "none" => moved && of_processes,
            "sock_diag" => {
                (name.contains("network_receives") || name.contains("network_transmits"))
                    || (moved && of_processes && !family.samples.iter().all(is_tcp))
            }
            _ => false,
        };
        ensure!(!made_up, "nobody can know this here: {family:?}");
        ensure!(
            table == "iter_task" || !name.starts_with("esnode_bpf_"),
            "without BPF: {family:?}"
        );
    }
    let overruns = page.value("esnode_listener_overruns_total", &[("source", "taskstats")]);
    ensure_eq!(
        overruns,
        (ended == "taskstats").then_some(0.0),
        "records lost by taskstats"
    );
    Ok(())
}

fn is_tcp(sample: &Sample) -> bool {
    sample.has(&[("protocol", "tcp")])
}
