//! What the kernel or the surroundings may refuse: each test names the rung that is left, and
//! nothing else falls with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::skip;
use esnode_tests::workload;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::Case;
use crate::check::ensure_eq;
use crate::ladder::{Report, Run, source_of};
use crate::rungs::check_landing;
use crate::without_bpf::check_rungs;

/// More entries than any kernel makes a map for, whatever its memory.
const TOO_MANY: &str = "4294967295";

/// Where tracefs may be mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("faults::no_btf", no_btf),
        Case::new("faults::bpf_is_refused_by_seccomp", seccomp),
        Case::new("faults::one_of_two_network_hooks", one_network_hook),
        Case::new("faults::one_of_four_hooks_of_ends", one_hook_of_ends),
        Case::new("faults::no_memory_for_the_threads", no_map_of_threads),
        Case::new("faults::no_memory_for_the_groups", no_map_of_groups),
        Case::new("faults::no_memory_for_the_sockets", no_map_of_sockets),
        Case::alone("faults::no_tracefs", no_tracefs),
        Case::alone("faults::killed_agent_leaves_no_probes", killed),
    ]
}

/// Fails as ignored where the agent wouldn't be on the best rungs of BPF without the fault.
fn need_all() -> Result<Report> {
    if !geteuid().is_root() {
        skip!("needs root, for rungs to fall from");
    }
    let report = Run::default().check()?;
    for (signal, rung) in [
        ("process_table", "iter_task"),
        ("ended_processes", "sched_process_exit"),
    ] {
        if report.source(signal)? != Some(rung) {
            skip!("the kernel has no {rung} to begin with");
        }
    }
    Ok(report)
}

/// Fails where a reason or a remedy for a signal doesn't say this.
fn check_said(report: &Report, signal: &str, rung: &str, words: &str) -> Result<()> {
    let refused = report.refused(signal)?;
    let refusal = refused.iter().find(|refused| refused.rung == rung);
    let refusal = refusal.with_context(|| format!("nothing is said of {signal} by {rung}"))?;
    let (reason, remedy) = (refusal.reason, refusal.remedy);
    ensure!(
        reason.contains(words) || remedy.contains(words),
        "{signal} by {rung}: neither {reason:?} nor {remedy:?} says {words:?}"
    );
    Ok(())
}

/// No BPF at all: the agent is on the rungs below, says so in `words`, and counts what they can.
fn check_no_bpf(run: &Run<'_>, words: &str) -> Result<()> {
    let report = run.check()?;
    ensure_eq!(report.code, 3, "exit code of check");
    for (signal, rung) in [
        ("process_table", "iter_task"),
        ("ended_processes", "sched_process_exit"),
        ("network", "sock_length"),
        ("network", "kprobe"),
        ("splice_receive", "tcp_sock"),
    ] {
        check_said(&report, signal, rung, words)?;
    }
    let agent = run.agent()?;
    let log = agent.log.lines().join("\n");
    ensure!(log.contains(words), "the log doesn't say {words:?}");
    let rungs = ["procfs", "taskstats", "sock_diag"];
    check_rungs(&agent.page()?, rungs)?;
    check_landing(&agent, rungs)?;
    check_rungs(&agent.page()?, rungs)
}

/// A kernel that doesn't describe its types.
fn no_btf() -> Result<()> {
    need_all()?;
    let sysfs = sysfs_without_btf()?;
    let sysfs = sysfs.to_string_lossy();
    let run = Run {
        flags: &["--sysfs", &sysfs],
        ..Run::default()
    };
    check_no_bpf(&run, "CONFIG_DEBUG_INFO_BTF")
}

/// A folder that has all that `/sys` has, but for `kernel/btf`.
fn sysfs_without_btf() -> Result<PathBuf> {
    let folder = workload::directory()?.join("sysfs");
    link_all(Path::new("/sys"), &folder, "kernel")?;
    link_all(Path::new("/sys/kernel"), &folder.join("kernel"), "btf")?;
    Ok(folder)
}

/// Makes a folder of links to all that is in another, except one name.
fn link_all(from: &Path, to: &Path, except: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name != except {
            symlink(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// A container whose seccomp profile has no bpf(2).
fn seccomp() -> Result<()> {
    need_all()?;
    let run = Run {
        through: Some("refuse-bpf"),
        ..Run::default()
    };
    check_no_bpf(&run, "seccomp")?;
    check_said(
        &run.check()?,
        "process_table",
        "iter_task",
        "Operation not permitted",
    )
}

/// Fails where a program is attached.
fn check_not_attached(agent: &Agent, programs: &[&str]) -> Result<()> {
    let page = agent.page()?;
    let attached = page.label_values("esnode_bpf_program_info", &[], "program");
    for program in programs {
        ensure!(!attached.contains(program), "{program} is half of a rung");
    }
    Ok(())
}

/// Sends without receives, or the other way round, only look like the network.
fn one_network_hook() -> Result<()> {
    let plain = need_all()?;
    if plain.source("network")? != Some("sock_length") {
        skip!("the kernel has no sock_length to begin with");
    }
    let next = plain.next_of_network()?;
    for hook in ["sock_recv_length", "sock_send_length"] {
        let run = Run {
            flags: &["--refuse-hook", hook],
            ..Run::default()
        };
        let report = run.check()?;
        check_said(&report, "network", "sock_length", hook)?;
        ensure_eq!(report.source("network")?, Some(next), "without {hook}");
        let agent = run.agent()?;
        check_not_attached(&agent, &["sock_send_length", "sock_recv_length"])?;
        check_landing(&agent, ["iter_task", "sched_process_exit", next])
            .with_context(|| format!("without {hook}"))?;
    }
    Ok(())
}

/// Each of the hooks on the end is needed, and the network needs them all.
fn one_hook_of_ends() -> Result<()> {
    need_all()?;
    for hook in [
        "task_newtask",
        "task_rename",
        "sched_process_free",
        "sched_process_exit",
    ] {
        let run = Run {
            flags: &["--refuse-hook", hook],
            ..Run::default()
        };
        let report = run.check()?;
        check_said(&report, "ended_processes", "sched_process_exit", hook)?;
        for rung in ["sock_length", "fexit", "kprobe"] {
            check_said(&report, "network", rung, "ended_processes")?;
        }
        let agent = run.agent()?;
        let page = agent.page()?;
        let attached = page.label_values("esnode_bpf_program_info", &[], "program");
        ensure_eq!(
            attached.into_iter().collect::<Vec<_>>(),
            ["tasks"],
            "programs without {hook}"
        );
        check_landing(&agent, ["iter_task", "taskstats", "sock_diag"])
            .with_context(|| format!("without {hook}"))?;
    }
    Ok(())
}

/// A map that all hooks of processes count in.
fn no_map_of_threads() -> Result<()> {
    no_map_of_hooks("--bpf-threads", "THREADS")
}

fn no_map_of_groups() -> Result<()> {
    no_map_of_hooks("--bpf-groups", "GROUPS")
}

fn no_map_of_hooks(flag: &str, map: &str) -> Result<()> {
    need_all()?;
    let run = Run {
        flags: &[flag, TOO_MANY],
        ..Run::default()
    };
    let report = run.check()?;
    let said = format!("cannot create the BPF map {map} with {TOO_MANY} entries");
    check_said(&report, "ended_processes", "sched_process_exit", &said)?;
    check_said(&report, "ended_processes", "sched_process_exit", flag)?;
    check_landing(&run.agent()?, ["iter_task", "taskstats", "sock_diag"])
}

/// A map that only one rung of one signal needs.
fn no_map_of_sockets() -> Result<()> {
    let plain = need_all()?;
    if plain.source("splice_receive")? != Some("tcp_sock") {
        skip!("the kernel has a better rung than the one with this map");
    }
    let run = Run {
        flags: &["--bpf-sockets", TOO_MANY],
        ..Run::default()
    };
    let report = run.check()?;
    let said = format!("cannot create the BPF map SOCKETS with {TOO_MANY} entries");
    check_said(&report, "splice_receive", "tcp_sock", &said)?;
    ensure_eq!(report.state("splice_receive")?, "missing", "splice_receive");
    let agent = run.agent()?;
    check_not_attached(
        &agent,
        &[
            "tcp_rcv_space_adjust",
            "tcp_destroy_sock",
            "inet_sock_set_state",
        ],
    )?;
    let page = agent.page()?;
    ensure_eq!(
        source_of(&page, "splice_receive")?,
        Some("none"),
        "source of splice_receive"
    );
    let capacity = page.value("esnode_bpf_map_capacity", &[("map", "SOCKETS")]);
    ensure!(capacity.is_none(), "a map of {capacity:?} that isn't there");
    let network = plain.source("network")?.unwrap_or("none");
    check_landing(&agent, ["iter_task", "sched_process_exit", network])
}

/// The lines of a process' mounts that have to do with tracing.
fn tracing_mounts(process: &str) -> Result<Vec<String>> {
    let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo"))?;
    let traces = |line: &&str| line.contains(" - tracefs ") || line.contains(" - debugfs ");
    Ok(mounts.lines().filter(traces).map(str::to_owned).collect())
}

/// The agent needs no mount of tracefs, and leaves none behind.
fn no_tracefs() -> Result<()> {
    need_all()?;
    let mounts = tracing_mounts("self")?;
    for flags in [
        &[][..],
        &["--without", "fexit"],
        &["--without", "sock_length,fexit"],
    ] {
        let with = Run {
            flags,
            ..Run::default()
        };
        let without = Run {
            flags,
            through: Some("without-tracefs"),
        };
        let (with, report) = (with.check()?, without.check()?);
        for signal in ["network", "splice_receive", "splice_receive_unix"] {
            ensure_eq!(
                report.source(signal)?,
                with.source(signal)?,
                "{flags:?}: {signal} without a mount of tracefs"
            );
        }
        let agent = without.agent()?;
        let pid = agent.pid().to_string();
        ensure_eq!(
            tracing_mounts(&pid)?,
            Vec::<String>::new(),
            "what the agent has mounted"
        );
        let network = with.source("network")?.unwrap_or("none");
        check_landing(&agent, ["iter_task", "sched_process_exit", network])?;
        let ended = agent.stop()?;
        ensure_eq!(ended.status.code(), Some(0), "exit code");
        ensure_eq!(tracing_mounts("self")?, mounts, "mounts after the end");
        ensure_eq!(
            probes_of(&pid),
            Vec::<String>::new(),
            "probes after the end"
        );
    }
    Ok(())
}

/// The lines of tracefs about probes of an agent, where it's mounted.
fn probes_of(pid: &str) -> Vec<String> {
    let read = |folder| fs::read_to_string(format!("{folder}/kprobe_events")).ok();
    let events = TRACEFS.into_iter().find_map(read).unwrap_or_default();
    let own = format!(":esnode_{pid}/");
    let lines = events.lines().filter(|line| line.contains(&own));
    lines.map(str::to_owned).collect()
}

/// The next agent takes away the probes that a killed one left.
fn killed() -> Result<()> {
    need_all()?;
    let run = Run {
        flags: &["--without", "sock_length,fexit"],
        ..Run::default()
    };
    if run.check()?.source("network")? != Some("kprobe") {
        skip!("the kernel has no kprobes");
    }
    let agent = run.agent()?;
    let pid = agent.pid().to_string();
    if probes_of(&pid).is_empty() {
        skip!("no tracefs is mounted to see the probes in");
    }
    agent.stop_by(Signal::SIGKILL)?;
    let next = run.agent()?;
    ensure_eq!(
        probes_of(&pid),
        Vec::<String>::new(),
        "probes of the killed"
    );
    check_landing(&next, ["iter_task", "sched_process_exit", "kprobe"])?;
    let pid = next.pid().to_string();
    next.stop()?;
    ensure_eq!(
        probes_of(&pid),
        Vec::<String>::new(),
        "probes after the end"
    );
    Ok(())
}
