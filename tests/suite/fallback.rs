//! Without BPF, and without root: less is on the page, and nothing on it is made up.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use anyhow::{Result, ensure};
use esnode_tests::agent::{self, Agent};
use esnode_tests::skip;
use esnode_tests::tally::Io;
use esnode_tests::workload::{self, Name, Workload};
use nix::unistd::geteuid;

use crate::check::{check_gone, ensure_eq, group, process};
use crate::without_bpf::check_rungs;
use crate::{Case, disk};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("fallback::no_bpf_says_so", no_bpf),
        Case::new("fallback::no_bpf_reads_the_same_account", same_account),
        Case::new("fallback::groups_keep_what_they_had", groups_stay),
        Case::new("fallback::reaped_child_counts_once", reaped_child),
        Case::new("fallback::unprivileged_user_gets_a_page", unprivileged),
    ]
}

fn no_bpf() -> Result<()> {
    let agent = Agent::start(&["--no-bpf"])?;
    let page = agent.page()?;
    let ended = if geteuid().is_root() {
        "taskstats"
    } else {
        "none"
    };
    check_rungs(&page, ["procfs", ended, "sock_diag"])?;
    let own = agent.pid().to_string();
    ensure!(
        page.value("process_threads", &[]).is_some(),
        "nothing about the agent itself"
    );
    let comm = fs::read_to_string(format!("/proc/{own}/comm"))?;
    ensure_eq!(
        group(&page, &[("group", comm.trim_end())]).number("_processes")? > 0,
        true,
        "the agent lives"
    );
    Ok(())
}

/// The fallback reads `/proc/PID/io`, which is the same account.
fn same_account() -> Result<()> {
    if !geteuid().is_root() {
        skip!("needs root to read the account of any process");
    }
    let name = Name::new("slow")?;
    let agent = Agent::start(&[
        "--no-bpf",
        "--select",
        &format!("^{}$", name.comm.replace('.', "\\.")),
    ])?;
    let file = name.file(".data").to_string_lossy().into_owned();
    let workload = Workload::run(&name, &["disk", "write", &file, "1048576"])?;
    let pid = workload.pid().to_string();
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    let page = agent.page()?;
    let truth = Io::of(&pid)?;
    process(&page, &labels).check_io(truth)?;
    group(&page, &[("group", &name.comm)]).check_io(truth)?;
    ensure_eq!(process(&page, &labels).number("_threads")?, 1, "threads");
    workload.release()?;
    check_gone(&agent.page()?, &pid, &name.comm)
}

/// What was seen of a group once doesn't go away with its processes.
fn groups_stay() -> Result<()> {
    let agent = Agent::start(&["--no-bpf", "--group-limit", "100000"])?;
    let name = Name::new("slow")?;
    let file = name.file(".data").to_string_lossy().into_owned();
    let workload = Workload::run(&name, &["disk", "write", &file, "1048576"])?;
    let alive = agent.page()?;
    workload.release()?;
    let gone = agent.page()?;
    gone.check_monotonic(&alive, "esnode_group_")?;
    let again = Workload::run(&name, &["disk", "write", &file, "4096"])?;
    agent.page()?.check_monotonic(&gone, "esnode_group_")?;
    again.release()?;
    Ok(())
}

/// Nothing is counted twice, and nothing that a child did is given to another group's parent.
fn reaped_child() -> Result<()> {
    if !geteuid().is_root() {
        skip!("needs root to read the account of any process");
    }
    let agent = Agent::start(&[
        "--no-bpf",
        "--without",
        "taskstats",
        "--select",
        &workload::select_all(),
        "--group-limit",
        "100000",
    ])?;
    disk::reaped_child(&agent, |seen, truth| {
        seen.read_bytes <= truth.read_bytes && seen.write_bytes <= truth.write_bytes
    })
}

/// Fails as ignored where other users can't run the agent.
pub(crate) fn need_open_binary() -> Result<()> {
    for folder in agent::binary()?.ancestors().skip(1) {
        if fs::metadata(folder)?.permissions().mode() & 0o001 == 0 {
            skip!("{} isn't open to other users", folder.display());
        }
    }
    Ok(())
}

/// Whoever may run the binary gets what `/proc` shows to everyone.
fn unprivileged() -> Result<()> {
    if !geteuid().is_root() {
        skip!("needs root to become another user");
    }
    need_open_binary()?;
    let mut command = agent::command()?;
    command
        .uid(NOBODY)
        .gid(NOBODY)
        .args(["--listen-address", "127.0.0.1:0"]);
    let agent = Agent::launch(command, 1)?;
    let page = agent.page()?;
    check_rungs(&page, ["procfs", "none", "sock_diag"])?;
    ensure!(
        page.value("esnode_memory_total_bytes", &[]).is_some(),
        "no memory on the page"
    );
    ensure!(
        page.value("esnode_group_processes", &[]).unwrap_or(0.0) > 1.0,
        "no processes on the page"
    );
    let zero = page.value("esnode_process_disk_read_bytes_total", &[("pid", "1")]);
    ensure!(
        zero.is_none(),
        "an account that can't be read has the value {zero:?}"
    );
    let ended = agent.stop()?;
    ensure_eq!(ended.status.code(), Some(0), "exit code");
    Ok(())
}
