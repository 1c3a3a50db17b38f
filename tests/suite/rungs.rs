//! Rungs that are left out: where the agent lands, and that it counts there what can be counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::http;
use esnode_tests::page::Page;
use esnode_tests::skip;
use esnode_tests::tally::{Io, Protocol, Tally};
use esnode_tests::workload::{Name, Workload};
use nix::unistd::geteuid;

use crate::Case;
use crate::check::{Calls, check_gone, ensure_eq, group, process};
use crate::ladder::{Run, source_of};

/// Every rung of BPF that the network has.
const ALL_OF_NETWORK: &str = "sock_length,fexit,kprobe";

/// Bytes of each transfer.
const TRANSMIT: u64 = 300_007;
const RECEIVE: u64 = 290_000;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("ladder::without_sock_length", without_sock_length),
        Case::new("ladder::without_bpf_for_the_network", || {
            forced(
                ALL_OF_NETWORK,
                ["iter_task", "sched_process_exit", "sock_diag"],
            )
        }),
        Case::new("ladder::without_any_network", || {
            forced(
                "sock_length,fexit,kprobe,sock_diag",
                ["iter_task", "sched_process_exit", "none"],
            )
        }),
        Case::new("ladder::without_sched_process_exit", || {
            forced(
                "sched_process_exit",
                ["iter_task", "taskstats", "sock_diag"],
            )
        }),
        Case::new("ladder::without_any_ends", || {
            forced(
                "sched_process_exit,taskstats",
                ["iter_task", "none", "sock_diag"],
            )
        }),
        Case::new("ladder::without_iter_task", || {
            forced("iter_task", ["procfs", "taskstats", "sock_diag"])
        }),
        Case::new("ladder::fallback_left_out_changes_nothing", || {
            let plain = Run::default().check()?;
            let mut network = plain.source("network")?.unwrap_or("none");
            if network == "sock_diag" {
                network = "none";
            }
            forced(
                "taskstats,sock_diag",
                ["iter_task", "sched_process_exit", network],
            )
        }),
    ];
    for transport in ["stream", "tcp4", "tcp6"] {
        cases.push(Case::new(
            format!("threads::four_hundred_blocked_receives::{transport}"),
            move || blocked(transport),
        ));
    }
    cases.push(Case::alone("threads::ids_that_wrap_around", wrapped));
    for case in [
        "zerocopy",
        "zerocopy-copy",
        "receive-and-splice",
        "splice-to-the-end",
        "splice-before-the-end",
        "splice-by-turns",
        "splice-by-ring",
    ] {
        for transport in ["tcp4", "tcp6"] {
            let name = format!("network::{}::{transport}", case.replace('-', "_"));
            cases.push(Case::new(name, move || take(case, transport)));
        }
    }
    cases
}

fn need_root() -> Result<()> {
    if !geteuid().is_root() {
        skip!("needs root to have all rungs");
    }
    Ok(())
}

/// The next rung is the one that this kernel has: what is spliced is on it as well.
fn without_sock_length() -> Result<()> {
    let plain = Run::default().check()?;
    let network = plain.next_of_network()?;
    forced("sock_length", ["iter_task", "sched_process_exit", network])
}

/// Leaves out rungs: the agent is on these, and what they know is exact.
fn forced(without: &str, rungs: [&str; 3]) -> Result<()> {
    need_root()?;
    if Run::default().check()?.source("process_table")? != Some("iter_task") {
        skip!("no BPF here");
    }
    let run = Run {
        flags: &["--without", without],
        ..Run::default()
    };
    check_landing(&run.agent()?, rungs)
}

/// Fails where the agent isn't on these rungs, or the page says else than they can know.
pub(crate) fn check_landing(agent: &Agent, rungs: [&str; 3]) -> Result<()> {
    let [_, ended, network] = rungs;
    let check = |page: &Page| -> Result<()> {
        let signals = ["process_table", "ended_processes", "network"];
        for (signal, rung) in signals.into_iter().zip(rungs) {
            ensure_eq!(source_of(page, signal)?, Some(rung), "source of {signal}");
        }
        check_known(page, rungs)
    };
    check(&agent.page()?)?;
    for (transport, protocol) in [
        ("tcp4", Protocol::Tcp),
        ("udp4", Protocol::Udp),
        ("stream", Protocol::Unix),
    ] {
        let name = Name::new("rung")?;
        let (transmit, receive) = (TRANSMIT.to_string(), RECEIVE.to_string());
        let words = ["move", "send", transport, &transmit, &receive];
        let workload = Workload::run(&name, &words)?;
        let moved = workload.report.total();
        ensure_eq!(
            moved.of(protocol).transmit_bytes,
            TRANSMIT,
            "sent by the workload"
        );
        let (expected, calls) = match (network, protocol) {
            ("none", _) | ("sock_diag", Protocol::Udp | Protocol::Unix) => {
                (Tally::default(), Calls::Any)
            }
            ("sock_diag", _) => (moved, Calls::Any),
            _ => (moved, Calls::Exact),
        };
        let page = agent.page()?;
        check(&page)?;
        let pid = workload.pid().to_string();
        let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
        process(&page, &labels)
            .check_moved(&expected, calls)
            .with_context(|| transport.to_owned())?;
        group(&page, &[("group", &name.comm)]).check_moved(&expected, calls)?;
        workload.release()?;
        let gone = agent.page()?;
        check_gone(&gone, &pid, &name.comm)?;
        group(&gone, &[("group", &name.comm)])
            .check_moved(&expected, calls)
            .with_context(|| format!("{transport}, when it has ended"))?;
    }
    check_ended(agent, ended)?;
    check_rest(agent, ended)?;
    check_crowd(agent, ended)?;
    check(&agent.page()?)
}

/// What a process did that nobody saw alive is its group's, if its end is told.
fn check_ended(agent: &Agent, ended: &str) -> Result<()> {
    let name = Name::new("rung")?;
    let file = name.file(".data").to_string_lossy().into_owned();
    let workload = Workload::run(&name, &["disk", "write", &file, "1048576"])?;
    let last = workload.release()?.io()?;
    let page = agent.page()?;
    let labels = [("group", name.comm.as_str())];
    if ended == "none" {
        let seen = group(&page, &labels).any();
        ensure!(seen.is_none(), "nobody can know this: {seen:?}");
    } else {
        group(&page, &labels).check_io(last)?;
        ensure_eq!(group(&page, &labels).number("_exited_total")?, 1, "exited");
    }
    Ok(fs::remove_file(file)?)
}

/// What a process did after someone looked is its group's, if its end is told; without, the group
/// keeps what was seen.
fn check_rest(agent: &Agent, ended: &str) -> Result<()> {
    let name = Name::new("rung")?;
    let file = name.file(".data").to_string_lossy().into_owned();
    let words = ["disk-exec", &file, "1048576", &name.path.to_string_lossy()];
    let rest = ["--hold", "disk", "overwrite", &file, "2097152"];
    let words: Vec<_> = words.into_iter().chain(rest).collect();
    let mut workload = Workload::start(&name, &words)?;
    let seen = agent.page()?;
    workload.wait_for("done")?;
    let last = workload.release()?.io()?;
    let page = agent.page()?;
    page.check_monotonic(&seen, "esnode_group_")?;
    if ended != "none" {
        let labels = [("group", name.comm.as_str())];
        let of_group = group(&page, &labels);
        of_group.check_io(last)?;
        ensure_eq!(of_group.number("_exited_total")?, 1, "exited");
        ensure_eq!(of_group.number("_started_total")?, 1, "started");
    }
    Ok(fs::remove_file(file)?)
}

/// Processes that come and go between two scrapes: their number, disk bytes and CPU time.
fn check_crowd(agent: &Agent, ended: &str) -> Result<()> {
    const COUNT: u64 = 200;
    const WRITTEN: u64 = 16 * 1024;
    if ended == "none" {
        return Ok(());
    }
    let name = Name::new("rung")?;
    let folder = name.file(".d");
    fs::create_dir(&folder)?;
    let words = [
        "short-lived",
        &COUNT.to_string(),
        "100",
        &WRITTEN.to_string(),
        &folder.to_string_lossy(),
    ];
    let mut workload = Workload::start(&name, &words)?;
    workload.wait_for("at start")?;
    let before = agent.page()?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let after = agent.page()?;
    let labels = [("group", name.comm.as_str())];
    let (earlier, later) = (group(&before, &labels), group(&after, &labels));
    for counter in ["_started_total", "_exited_total"] {
        let moved = later.number(counter)? - earlier.number(counter)?;
        ensure_eq!(moved, COUNT, "{counter} moved by");
    }
    let children = workload.report.io_at("children")?;
    ensure!(
        children.write_bytes >= COUNT * WRITTEN,
        "the children wrote {children:?}"
    );
    // The kernel adds a child's account to the one that reaps it: what the parent has is the sum.
    later.check_io(Io::of(workload.pid())?)?;
    workload.release()?;
    let name = Name::new("rung")?;
    let workload = Workload::run(&name, &["cpu", "200"])?;
    let used = workload.report.fact("cpu_microseconds")?;
    workload.release()?;
    let page = agent.page()?;
    let seen = page.value(
        "esnode_group_cpu_seconds_total",
        &[("group", name.comm.as_str())],
    );
    let seen = seen.context("no CPU time")?;
    #[expect(clippy::cast_precision_loss, reason = "less than a second")]
    let used = used as f64 / 1e6;
    // With hooks, what the process used before its exec is with its old name; taskstats leaves out
    // what each of the three ended threads used since its last tick, a hundredth of a second at most.
    let late = 0.03;
    ensure!(
        (used - late..used + 0.1).contains(&seen),
        "used {used} s, on the page {seen} s"
    );
    Ok(fs::remove_dir_all(folder)?)
}

/// Fails where something is on the page that these rungs can't know, or that isn't in use.
fn check_known(page: &Page, [table, ended, network]: [&str; 3]) -> Result<()> {
    for family in &page.families {
        let name = family.name.as_str();
        let of_processes = name.starts_with("esnode_process_") || name.starts_with("esnode_group_");
        let network_of_processes = of_processes && name.contains("_network_");
        let calls = name.contains("_receives") || name.contains("_transmits");
        let of_tcp = family
            .samples
            .iter()
            .all(|sample| sample.has(&[("protocol", "tcp")]));
        let made_up = network_of_processes
            && match network {
                "none" => true,
                "sock_diag" => calls || !of_tcp,
                _ => false,
            };
        ensure!(!made_up, "nobody can know this here: {family:?}");
        ensure!(
            table == "iter_task" || !name.starts_with("esnode_bpf_"),
            "without BPF: {family:?}"
        );
    }
    if ended != "sched_process_exit" {
        for map in ["THREADS", "PROCESSES", "GROUPS"] {
            let left = page.select("esnode_bpf_map_capacity", &[("map", map)]);
            ensure!(left.is_empty(), "nothing is counted in it: {left:?}");
        }
    }
    let attached = page.label_values("esnode_bpf_program_info", &[], "program");
    let programs: [(&str, &[&str]); 3] = [
        (
            "sched_process_exit",
            &[
                "task_newtask",
                "task_rename",
                "sched_process_free",
                "sched_process_exit",
            ],
        ),
        ("sock_length", &["sock_send_length", "sock_recv_length"]),
        ("iter_task", &["tasks"]),
    ];
    for (rung, programs) in programs {
        for program in programs {
            ensure_eq!(
                attached.contains(program),
                [table, ended, network].contains(&rung),
                "whether {program} is attached, of {attached:?}"
            );
        }
    }
    let missed = page.value("esnode_bpf_missed_returns_total", &[]);
    ensure!(
        missed.is_none_or(|missed| missed == 0.0),
        "missed {missed:?}"
    );
    Ok(())
}

/// No return is lost where many calls are on their way at a time.
fn blocked(transport: &str) -> Result<()> {
    const COUNT: u64 = 400;
    const BYTES: u64 = 1_000;
    /// How often the workload has them all wait.
    const TIMES: u64 = 3;
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("block")?;
    let words = ["blocked", transport, &COUNT.to_string(), &BYTES.to_string()];
    let workload = Workload::run(&name, &words)?;
    let tally = workload.report.total();
    for bytes in [tally.total().transmit_bytes, tally.total().receive_bytes] {
        ensure_eq!(bytes, TIMES * COUNT * BYTES, "moved by the workload");
    }
    let check = |page: &Page| -> Result<()> {
        let missed = page.value("esnode_bpf_missed_returns_total", &[]);
        ensure!(
            missed.is_none_or(|missed| missed == 0.0),
            "missed {missed:?}"
        );
        group(page, &[("group", &name.comm)]).check_moved(&tally, Calls::Exact)
    };
    let pid = workload.pid().to_string();
    let page = agent.page()?;
    check(&page)?;
    process(&page, &[("pid", &pid), ("comm", &name.comm)]).check_moved(&tally, Calls::Exact)?;
    workload.release()?;
    check(&agent.page()?)
}

/// Threads whose ids are below that of their process end while pages are read.
fn wrapped() -> Result<()> {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    const TIMES: usize = 20;
    let agent = Agent::shared_with_bpf()?;
    let highest: u32 = fs::read_to_string("/proc/sys/kernel/pid_max")?
        .trim()
        .parse()?;
    for _ in 0..TIMES {
        let name = Name::new("wrap")?;
        if let Err(error) = fs::write(LAST, (highest - 60).to_string()) {
            skip!("{LAST}: {error}");
        }
        let mut workload = Workload::start(&name, &["blocked", "stream", "400", "1000"])?;
        let ended = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            let read = || -> Result<()> {
                while !ended.load(Ordering::Relaxed) {
                    http::get(agent.address()?, "/metrics")?;
                }
                Ok(())
            };
            let readers = [scope.spawn(read), scope.spawn(read)];
            let done = workload.wait_for("done");
            ended.store(true, Ordering::Relaxed);
            for reader in readers {
                reader.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            done
        })?;
        let tally = workload.report.total();
        let page = agent.page()?;
        let pid = workload.pid().to_string();
        group(&page, &[("group", &name.comm)]).check_moved(&tally, Calls::Exact)?;
        process(&page, &[("pid", &pid), ("comm", &name.comm)]).check_moved(&tally, Calls::Exact)?;
        workload.release()?;
    }
    Ok(())
}

/// What leaves a TCP socket and is no receive is counted to the byte.
fn take(case: &str, transport: &str) -> Result<()> {
    let agent = Agent::shared()?;
    let before = agent.page()?;
    match source_of(&before, "splice_receive")? {
        None | Some("none") => skip!("the agent says that it doesn't see what is spliced"),
        Some("tcp_sock") if case == "splice-by-ring" => {
            skip!("tcp_sock doesn't see what a ring splices: no system call tells it");
        }
        Some(_) => {}
    }
    let name = Name::new("take")?;
    let workload = Workload::run(&name, &["take", case, transport])?;
    let report = &workload.report;
    let tally = report.total();
    if case.starts_with("zerocopy") {
        let (mapped, copied) = (report.fact("mapped")?, report.fact("copied")?);
        ensure_eq!(
            mapped + copied + report.fact("received")?,
            tally.total().receive_bytes,
            "mapped, copied and received by the workload"
        );
        if mapped == 0 {
            skip!("the kernel maps none of the bytes that come in");
        }
        ensure!(
            (copied > 0) == (case == "zerocopy-copy"),
            "the kernel copied {copied}"
        );
    }
    ensure_eq!(
        tally.total().receive_bytes,
        tally.total().transmit_bytes,
        "received by the workload"
    );
    let page = agent.page()?;
    let pid = workload.pid().to_string();
    process(&page, &[("pid", &pid), ("comm", &name.comm)]).check_moved(&tally, Calls::Any)?;
    group(&page, &[("group", &name.comm)]).check_moved(&tally, Calls::Any)?;
    workload.release()?;
    Ok(())
}
