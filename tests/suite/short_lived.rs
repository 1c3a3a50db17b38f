//! Processes that are gone before anyone could have seen them.

use std::fs;

use anyhow::Result;
use esnode_tests::agent::Agent;
use esnode_tests::tally::{Io, Protocol};
use esnode_tests::workload::{Name, Workload};

use crate::Case;
use crate::check::{Calls, ensure_eq, group};

/// How many processes.
const COUNT: u64 = 5_000;
/// Bytes that each sends.
const SENT: u64 = 1_000;
/// Bytes that each writes to a file of its own.
const WRITTEN: u64 = 64 * 1024;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new(
        "short_lived::five_thousand_between_two_scrapes",
        five_thousand,
    )]
}

fn five_thousand() -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("short")?;
    let directory = name.file(".d");
    fs::create_dir(&directory)?;
    let mut workload = Workload::start(
        &name,
        &[
            "short-lived",
            &COUNT.to_string(),
            &SENT.to_string(),
            &WRITTEN.to_string(),
            &directory.to_string_lossy(),
        ],
    )?;
    workload.wait_for("at start")?;
    let before = agent.page()?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let after = agent.page()?;

    let labels = [("group", name.comm.as_str())];
    let (before, after) = (group(&before, &labels), group(&after, &labels));
    let tally = workload.report.total();
    ensure_eq!(
        tally.of(Protocol::Udp).transmit_bytes,
        COUNT * SENT,
        "sent by the children"
    );
    after.check_moved(&tally, Calls::Exact)?;
    for counter in ["_started_total", "_exited_total"] {
        let moved = after.number(counter)? - before.number(counter)?;
        ensure_eq!(moved, COUNT, "{counter} moved by");
    }
    ensure_eq!(after.number("_processes")?, 1, "processes alive");

    let children = workload.report.io_at("children")?;
    anyhow::ensure!(
        children.write_bytes >= COUNT * WRITTEN,
        "the children wrote {children:?}"
    );
    // The kernel adds a child's account to the one that reaps it: what the parent has is the sum.
    after.check_io(Io::of(workload.pid())?)?;
    fs::remove_dir_all(&directory)?;
    Ok(())
}
