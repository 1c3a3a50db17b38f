//! Threads that end, leaders that end first, programs that change, process ids that come again.

use anyhow::{Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::tally::{Io, Protocol, Tally};
use esnode_tests::workload::{Name, Workload};

use crate::Case;
use crate::check::{Calls, check_gone, ensure_eq, group, process};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("threads::half_of_64_end_before_the_scrape", || many(64, 32)),
        Case::new("threads::all_but_the_first_end_before_the_scrape", || {
            many(64, 64)
        }),
        Case::new("threads::none_end_before_the_scrape", || many(64, 0)),
        Case::new("threads::leader_ends_first", leader_ends),
        Case::new("threads::exec_leaves_bytes_with_the_old_name", || {
            exec("exec", 1)
        }),
        Case::new("threads::exec_from_another_thread", || {
            exec("exec-from-thread", 3)
        }),
        Case::new("threads::rename_leaves_bytes_with_the_old_name", rename),
        Case::new(
            "threads::process_older_than_the_agent",
            older_than_the_agent,
        ),
        Case::new("threads::reused_process_id_is_a_new_process", same_pid),
        Case::new("threads::processor_time_of_the_dead", processor_time),
        Case::new("threads::processes_alive_are_counted", processes_alive),
    ]
}

/// What the agent says of the whole process doesn't depend on which threads still live.
fn many(count: u64, ending: u64) -> Result<()> {
    const BYTES: u64 = 20_000;
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("thr")?;
    let words = [
        "threads",
        &count.to_string(),
        &ending.to_string(),
        &BYTES.to_string(),
    ];
    let workload = Workload::run(&name, &words)?;
    let tally = workload.report.total();
    ensure_eq!(
        tally.of(Protocol::Udp).transmit_bytes,
        count * BYTES,
        "sent by the threads"
    );
    ensure_eq!(
        tally.of(Protocol::Udp).receive_bytes,
        count * BYTES / 2,
        "received by the threads"
    );
    let page = agent.page()?;
    let pid = workload.pid().to_string();
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    process(&page, &labels).check_moved(&tally, Calls::Exact)?;
    ensure_eq!(
        process(&page, &labels).number("_threads")?,
        count - ending + 1,
        "threads alive"
    );
    group(&page, &[("group", &name.comm)]).check_moved(&tally, Calls::Exact)?;
    workload.release()?;
    group(&agent.page()?, &[("group", &name.comm)]).check_moved(&tally, Calls::Exact)
}

/// A process lives, and counts, as long as one of its threads does.
fn leader_ends() -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("thr")?;
    let workload = Workload::run(&name, &["leader-ends", "10000"])?;
    let tally = workload.report.total();
    ensure_eq!(
        tally.of(Protocol::Udp).transmit_bytes,
        20_000,
        "sent by both threads"
    );
    let pid = workload.pid().to_string();
    let page = agent.page()?;
    process(&page, &[("pid", &pid), ("comm", &name.comm)]).check_moved(&tally, Calls::Exact)?;
    group(&page, &[("group", &name.comm)]).check_moved(&tally, Calls::Exact)?;
    ensure_eq!(
        group(&page, &[("group", &name.comm)]).number("_processes")?,
        1,
        "processes alive"
    );
    workload.release()?;
    let page = agent.page()?;
    check_gone(&page, &pid, &name.comm)?;
    group(&page, &[("group", &name.comm)]).check_moved(&tally, Calls::Exact)
}

/// So many threads send under one name, of which one becomes a program of another name.
fn exec(command: &str, senders: u64) -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let (old, new) = (Name::new("old")?, Name::new("new")?);
    let next = new.path.to_string_lossy().into_owned();
    let words = [
        command, "10000", &next, "--hold", "move", "send", "tcp4", "30000", "20000",
    ];
    let workload = Workload::run(&old, &words)?;
    let before = workload
        .report
        .moved
        .get(&old.comm)
        .cloned()
        .unwrap_or_default();
    let after = workload
        .report
        .moved
        .get(&new.comm)
        .cloned()
        .unwrap_or_default();
    ensure_eq!(
        before.of(Protocol::Udp).transmit_bytes,
        senders * 10_000,
        "sent before the exec"
    );
    ensure_eq!(
        after.of(Protocol::Tcp).transmit_bytes,
        30_000,
        "sent after the exec"
    );
    let check = || -> Result<()> {
        let page = agent.page()?;
        group(&page, &[("group", &old.comm)]).check_moved(&before, Calls::Exact)?;
        group(&page, &[("group", &new.comm)]).check_moved(&after, Calls::Exact)
    };
    check()?;
    check_gone(&agent.page()?, &workload.pid().to_string(), &old.comm)?;
    workload.release()?;
    check()
}

/// A process that calls itself otherwise is another group's from then on, with all its threads.
fn rename() -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let (old, new) = (Name::new("old")?, Name::new("new")?);
    let workload = Workload::run(&old, &["rename", &new.comm, "10000"])?;
    let before = workload
        .report
        .moved
        .get("before")
        .cloned()
        .unwrap_or_default();
    let after = workload
        .report
        .moved
        .get("after")
        .cloned()
        .unwrap_or_default();
    ensure_eq!(
        before.total().transmit_bytes,
        40_000,
        "sent before it was renamed"
    );
    ensure_eq!(
        after.total().transmit_bytes,
        40_000,
        "sent after it was renamed"
    );
    let check = || -> Result<()> {
        let page = agent.page()?;
        group(&page, &[("group", &old.comm)]).check_moved(&before, Calls::Exact)?;
        group(&page, &[("group", &new.comm)]).check_moved(&after, Calls::Exact)
    };
    check()?;
    let pid = workload.pid().to_string();
    check_gone(&agent.page()?, &pid, &old.comm)?;
    workload.release()?;
    check()
}

/// Socket bytes count from the agent's start, disk bytes from the process' start.
fn older_than_the_agent() -> Result<()> {
    esnode_tests::agent::need_bpf()?;
    let name = Name::new("elder")?;
    let mut workload = Workload::start(&name, &["stages", "10000", "6000"])?;
    workload.wait_for("at first")?;
    let agent = Agent::start(&["--select", &format!("^{}$", name.comm.replace('.', "\\."))])?;
    let pid = workload.pid().to_string();
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    let page = agent.page()?;
    process(&page, &labels).check_moved(&Tally::default(), Calls::Exact)?;
    process(&page, &labels).check_io(Io::of(&pid)?)?;
    ensure_eq!(
        group(&page, &[("group", &name.comm)]).number("_processes")?,
        1,
        "processes alive"
    );
    workload.go_on()?;
    workload.wait_for("done")?;
    let mut expected = Tally::default();
    (0..6).for_each(|_| expected.sent(Protocol::Udp, 1_000));
    (0..3).for_each(|_| expected.received(Protocol::Udp, 1_000));
    let alive = agent.page()?;
    process(&alive, &labels).check_moved(&expected, Calls::Exact)?;
    group(&alive, &[("group", &name.comm)]).check_moved(&expected, Calls::Exact)?;
    workload.release()?;
    let gone = agent.page()?;
    group(&gone, &[("group", &name.comm)]).check_moved(&expected, Calls::Exact)?;
    gone.check_monotonic(&alive, "esnode_group_")
}

/// The second process of an id begins at zero; the group has both.
fn same_pid() -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("same")?;
    let mut workload = Workload::start(&name, &["same-pid", "1000", "500"])?;
    workload.wait_for("at first")?;
    let pid = workload.report.fact("pid")?.to_string();
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    let of = |bytes: &[usize]| {
        let mut tally = Tally::default();
        for &bytes in bytes {
            tally.sent(Protocol::Udp, bytes);
        }
        tally
    };
    let page = agent.page()?;
    process(&page, &labels).check_moved(&of(&[1_000]), Calls::Exact)?;
    let first_start = start_time(&page, &labels)?;
    workload.go_on()?;
    workload.wait_for("at second")?;
    let page = agent.page()?;
    process(&page, &labels).check_moved(&of(&[500]), Calls::Exact)?;
    ensure!(
        start_time(&page, &labels)? != first_start,
        "both processes have the same start time"
    );
    group(&page, &[("group", &name.comm)]).check_moved(&of(&[1_000, 500]), Calls::Exact)?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let page = agent.page()?;
    check_gone(&page, &pid, &name.comm)?;
    group(&page, &[("group", &name.comm)]).check_moved(&of(&[1_000, 500]), Calls::Exact)
}

/// The start time that the page gives for a process, as it's written.
fn start_time(page: &esnode_tests::page::Page, labels: &[(&str, &str)]) -> Result<String> {
    let info = page.select("esnode_process_info", labels);
    ensure_eq!(info.len(), 1, "samples of esnode_process_info{labels:?}");
    let start = info
        .first()
        .and_then(|sample| sample.labels.get("start_time"));
    start
        .cloned()
        .ok_or_else(|| anyhow::anyhow!("no start_time in esnode_process_info"))
}

/// A thread and a child that have ended keep their time; the kernel's own sum is the reference.
fn processor_time() -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("cpu")?;
    let workload = Workload::run(&name, &["cpu", "400"])?;
    let microseconds = u32::try_from(workload.report.fact("cpu_microseconds")?)?;
    let told = f64::from(microseconds) / 1e6;
    workload.release()?;
    let page = agent.page()?;
    let seen = page
        .value("esnode_group_cpu_seconds_total", &[("group", &name.comm)])
        .unwrap_or(0.0);
    // Starting and ending take a little more than what it could tell.
    ensure!(
        (told - 0.02..told + 0.1).contains(&seen),
        "the kernel says {told} s, the page {seen} s"
    );
    Ok(())
}

/// The number of processes is exact at every scrape.
fn processes_alive() -> Result<()> {
    let agent = Agent::shared()?;
    let name = Name::new("alive")?;
    let mut workloads = Vec::new();
    for count in 1..=5 {
        workloads.push(Workload::run(&name, &["idle"])?);
        let page = agent.page()?;
        ensure_eq!(
            group(&page, &[("group", &name.comm)]).number("_processes")?,
            count,
            "processes alive"
        );
    }
    while let Some(workload) = workloads.pop() {
        let count = workloads.len() as u64;
        workload.release()?;
        let seen = agent
            .page()?
            .count("esnode_group_processes", &[("group", &name.comm)])?;
        ensure_eq!(seen.unwrap_or(0), count, "processes alive");
    }
    Ok(())
}
