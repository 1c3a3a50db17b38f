//! Surroundings that refuse more than BPF, and what is left then.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent};
use esnode_tests::page::Page;
use esnode_tests::{skip, workload};
use nix::unistd::geteuid;

use super::{NO_BPF, check_rungs};
use crate::Case;
use crate::check::ensure_eq;
use crate::fallback::need_open_binary;

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("without_bpf::rungs_can_be_left_out", left_out),
        Case::new("without_bpf::hidepid", hidepid),
        Case::new("without_bpf::user_namespace", user_namespace),
        Case::new("without_bpf::container_with_only_proc", only_proc),
    ]
}

/// Each rung can be refused alone, and takes nothing else with it.
fn left_out() -> Result<()> {
    for (without, rungs) in [
        ("sock_diag", ["procfs", "taskstats", "none"]),
        ("taskstats", ["procfs", "none", "sock_diag"]),
        ("taskstats,sock_diag", ["procfs", "none", "none"]),
    ] {
        let agent = NO_BPF.start(&["--without", without])?.agent;
        check_rungs(&agent.page()?, rungs).with_context(|| format!("--without {without}"))?;
        let log = agent.log.lines().join("\n");
        for rung in without.split(',') {
            ensure!(
                log.contains(&format!("not read from {rung}:")),
                "the log doesn't say that {rung} is left out"
            );
        }
    }
    Ok(())
}

/// Starts an agent with these flags behind a command that changes its surroundings, in a mount
/// namespace of its own; these are the tools that it takes.
fn surrounded(prelude: &str, flags: &str, tools: &[&str]) -> Result<Agent> {
    if !geteuid().is_root() {
        skip!("needs root to make namespaces");
    }
    for tool in tools.iter().chain(&["sh", "unshare"]) {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        if !found.is_ok_and(|output| output.status.success()) {
            skip!("there is no {tool} here");
        }
    }
    let script = format!(
        "{prelude} {} --listen-address 127.0.0.1:0 {flags}",
        agent::binary()?.display()
    );
    let mut command = Command::new("unshare");
    for (name, value) in agent::command()?.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .args(["--mount", "sh", "-ec", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Agent::launch(command, 1)
}

/// Fails where a process whose account can't be read has one.
fn check_no_disk(page: &Page, pid: &str) -> Result<()> {
    let seen = page.value("esnode_process_disk_read_bytes_total", &[("pid", pid)]);
    ensure!(seen.is_none(), "an account that can't be read has {seen:?}");
    Ok(())
}

/// Other users' processes are hidden: there are fewer on the page, and no zeros for them.
fn hidepid() -> Result<()> {
    need_open_binary()?;
    let folder = workload::directory()?.join("hidepid");
    fs::create_dir_all(&folder)?;
    let folder = folder.display();
    let prelude = format!(
        "mount -t proc -o hidepid=2 proc {folder}; exec setpriv --reuid {NOBODY} --regid {NOBODY} \
         --clear-groups"
    );
    let agent = surrounded(
        &prelude,
        &format!("--no-bpf --procfs {folder}"),
        &["setpriv", "mount"],
    )?;
    let page = agent.page()?;
    check_rungs(&page, ["procfs", "none", "sock_diag"])?;
    let shown = page.value("esnode_processes", &[]).unwrap_or_default();
    ensure!(
        (1.0..10.0).contains(&shown),
        "{shown} processes, though others are hidden"
    );
    check_no_disk(&page, "1")
}

/// Root in a user namespace is nobody outside.
fn user_namespace() -> Result<()> {
    let agent = surrounded("exec unshare --user --map-root-user", "", &[])?;
    let page = agent.page()?;
    check_rungs(&page, ["procfs", "none", "sock_diag"])?;
    ensure!(
        page.value("esnode_group_processes", &[]).unwrap_or(0.0) > 1.0,
        "no processes on the page"
    );
    check_no_disk(&page, "1")
}

/// A container: its own processes in `/proc`, and nothing in `/sys`.
fn only_proc() -> Result<()> {
    let empty = workload::directory()?.join("empty");
    fs::create_dir_all(&empty)?;
    let agent = surrounded(
        "exec unshare --pid --fork --kill-child --mount-proc",
        &format!("--sysfs {}", empty.display()),
        &[],
    )?;
    let page = agent.page()?;
    check_rungs(&page, ["procfs", "none", "sock_diag"])?;
    ensure_eq!(
        page.value("esnode_processes", &[]),
        Some(1.0),
        "processes in this container"
    );
    ensure_eq!(
        page.value("esnode_collector_success", &[("collector", "process")]),
        Some(1.0),
        "the process collector"
    );
    Ok(())
}
