//! The kernel's own account of TCP sockets, and who has them.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::page::Page;
use esnode_tests::tally::{Protocol, Tally};
use esnode_tests::workload::{Name, Workload};

use super::{NO_BPF, Run, Setting};
use crate::Case;
use crate::check::{
    Calls, Series, check_gone, ensure_eq, group, process, unattributed, within_grace,
};

/// Bytes to send, and how many of them to receive.
const TRANSMIT: u64 = 1_000_003;
const RECEIVE: u64 = 995_000;

const METHODS: &[&str] = &[
    "send",
    "write",
    "writev",
    "sendmsg",
    "sendmmsg",
    "sendfile",
    "splice",
    "splice-out",
    "io_uring",
    "io_uring-async",
];

/// Those that run in every setting.
pub(super) const TESTS: &[(&str, Run)] = &[
    ("live_bytes::tcp4", |setting| {
        exact(setting, &["move", "send", "tcp4", "1000003", "995000"])
    }),
    ("live_bytes::tcp6", |setting| {
        exact(setting, &["move", "send", "tcp6", "1000003", "995000"])
    }),
    ("mptcp4", multipath),
    ("end_of_stream_is_no_byte", |setting| {
        exact(setting, &["half-closed", "50000"])
    }),
    ("slow_peer", |setting| exact(setting, &["slow-peer"])),
    ("other_network_namespace", |setting| {
        let words = ["in-namespace", "move", "send", "tcp4", "1000003", "995000"];
        exact(setting, &words)
    }),
    ("connections_come_and_go", come_and_go),
    ("connections_nobody_saw_are_nobodys", unseen),
    ("reconnected_socket_counts_each_time", reconnected),
    ("namespace_left_and_entered_again", from_outside),
    ("inherited_socket_counts_once", inherited),
    ("older_sockets_count_from_the_start", older),
    ("udp_and_unix_are_absent", absent_protocols),
];

/// Those in which only the sockets differ.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in METHODS {
        for transport in ["tcp4", "tcp6", "tcp4in6"] {
            let name = format!("without_bpf::{}::{transport}", method.replace('-', "_"));
            cases.push(Case::new(name, move || {
                let (transmit, receive) = (TRANSMIT.to_string(), RECEIVE.to_string());
                exact(NO_BPF, &["move", method, transport, &transmit, &receive])
            }));
        }
    }
    for (case, transmit) in [
        ("peek", "20000"),
        ("eagain", "20000"),
        ("partial", "0"),
        ("zerocopy", "1000003"),
    ] {
        for transport in ["tcp4", "tcp6"] {
            let name = format!("without_bpf::{case}::{transport}");
            cases.push(Case::new(name, move || {
                exact(NO_BPF, &["special", case, transport, transmit])
            }));
        }
    }
    cases
}

/// Live sockets: the page says what the system calls returned.
fn exact(setting: Setting, command: &[&str]) -> Result<()> {
    let agent = setting.start(&[])?;
    agent.page()?;
    let name = Name::new("tcp")?;
    let workload = Workload::run(&name, command)?;
    let tally = workload.report.total();
    ensure!(
        tally.of(Protocol::Tcp).transmit_bytes > 0,
        "nothing was sent"
    );
    let pid = workload.pid().to_string();
    let alive = agent.page()?;
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    process(&alive, &labels).check_moved(&tally, Calls::Any)?;
    let check = |page: &Page| group(page, &[("group", &name.comm)]).check_moved(&tally, Calls::Any);
    check(&alive).context("while it lives")?;
    workload.release()?;
    let gone = agent.page()?;
    check_gone(&gone, &pid, &name.comm)?;
    check(&gone).context("when it has ended")?;
    // The kernel tells of the freed sockets; nobody gets these bytes again.
    thread::sleep(Duration::from_millis(100));
    check(&agent.page()?).context("some time later")
}

/// Multipath TCP: what has arrived at the process counts as received, read or not.
fn multipath(setting: Setting) -> Result<()> {
    let agent = setting.start(&[])?;
    let name = Name::new("tcp")?;
    let words = [
        "move",
        "send",
        "mptcp4",
        &TRANSMIT.to_string(),
        &RECEIVE.to_string(),
    ];
    let workload = Workload::run(&name, &words)?;
    let page = agent.page()?;
    let seen = group(&page, &[("group", &name.comm)]).moved(Protocol::Tcp)?;
    ensure_eq!(seen.transmit_bytes, TRANSMIT, "sent");
    ensure!(
        (RECEIVE..=TRANSMIT).contains(&seen.receive_bytes),
        "received: {seen:?}"
    );
    workload.release()?;
    Ok(())
}

/// What was seen once is counted to its end, and never less than before.
fn come_and_go(setting: Setting) -> Result<()> {
    const COUNT: u64 = 8;
    const BYTES: u64 = 30_000;
    let agent = setting.start(&[])?;
    let name = Name::new("conn")?;
    let words = ["connections", &COUNT.to_string(), &BYTES.to_string()];
    let mut workload = Workload::start(&name, &words)?;
    let pid = workload.pid().to_string();
    let mut last = agent.page()?;
    for round in 0..COUNT {
        for (stage, bytes) in [("open", BYTES), ("closed", 2 * BYTES)] {
            workload.wait_for(&format!("at {stage}"))?;
            let expected = round * 2 * BYTES + bytes;
            within_grace(|| {
                let page = agent.page()?;
                for series in [
                    process(&page, &[("pid", &pid), ("comm", &name.comm)]),
                    group(&page, &[("group", &name.comm)]),
                ] {
                    check_both(series, expected, format_args!("{stage} {round}"))?;
                }
                Ok(())
            })?;
            let page = agent.page()?;
            page.check_monotonic(&last, "esnode_group_")?;
            page.check_monotonic(&last, "esnode_unattributed_")?;
            last = page;
            workload.go_on()?;
        }
    }
    workload.release()?;
    Ok(())
}

/// Connections that come and go between two scrapes are counted, as nobody's.
fn unseen(setting: Setting) -> Result<()> {
    const COUNT: u64 = 300;
    const BYTES: u64 = 5_000;
    let agent = setting.start(&[])?;
    let name = Name::new("conn")?;
    let words = ["unseen-connections", &COUNT.to_string(), &BYTES.to_string()];
    let mut workload = Workload::start(&name, &words)?;
    workload.wait_for("at start")?;
    let before = agent.page()?;
    workload.go_on()?;
    workload.wait_for("done")?;
    within_grace(|| {
        let after = agent.page()?;
        let moved = group(&after, &[("group", &name.comm)]).moved(Protocol::Tcp)?;
        for (signal, moved) in [
            ("network_receive", moved.receive_bytes),
            ("network_transmit", moved.transmit_bytes),
        ] {
            let nobody = unattributed(&after, signal)? - unattributed(&before, signal)?;
            // Others may have connections as well.
            ensure!(
                moved + nobody >= COUNT * BYTES,
                "{signal}: {moved} and nobody's {nobody}"
            );
        }
        Ok(())
    })?;
    workload.release()?;
    Ok(())
}

/// What a socket moved stays when it is connected again, and what it moves then adds to it: also
/// when that is just as much.
fn reconnected(setting: Setting) -> Result<()> {
    const SIZES: [u64; 3] = [50_000, 30_000, 30_000];
    let agent = setting.start(&[])?;
    let name = Name::new("again")?;
    let sizes = SIZES.map(|size| size.to_string());
    let mut words = vec!["reconnected"];
    words.extend(sizes.iter().map(String::as_str));
    let mut workload = Workload::start(&name, &words)?;
    let mut expected = 0;
    for size in SIZES {
        workload.wait_for("at connected")?;
        expected += size;
        within_grace(|| {
            let page = agent.page()?;
            check_both(
                group(&page, &[("group", &name.comm)]),
                expected,
                format_args!("after {size} more"),
            )
        })?;
        workload.go_on()?;
    }
    workload.release()?;
    thread::sleep(Duration::from_millis(100));
    let page = agent.page()?;
    let seen = group(&page, &[("group", &name.comm)]).moved(Protocol::Tcp)?;
    ensure_eq!(seen.transmit_bytes, expected, "when it has ended");
    Ok(())
}

/// A socket counts once, however often processes come to its network namespace and go.
fn from_outside(setting: Setting) -> Result<()> {
    const BYTES: u64 = 60_000;
    let agent = setting.start(&[])?;
    agent.page()?;
    let name = Name::new("outside")?;
    let mut workload = Workload::start(&name, &["from-outside", &BYTES.to_string()])?;
    let pid = workload.pid().to_string();
    for visit in 0..2 {
        for stage in ["visited", "alone"] {
            workload.wait_for(&format!("at {stage}"))?;
            if stage == "alone" {
                // Long enough for the namespace to be found empty.
                thread::sleep(Duration::from_millis(3_500));
            }
            let page = agent.page()?;
            for series in [
                process(&page, &[("pid", &pid), ("comm", &name.comm)]),
                group(&page, &[("group", &name.comm)]),
            ] {
                check_both(series, BYTES, format_args!("{stage} {visit}"))?;
            }
            workload.go_on()?;
        }
    }
    workload.release()?;
    Ok(())
}

/// Fails where a process or group did not send and receive just so many bytes over TCP.
fn check_both(series: Series<'_>, expected: u64, what: fmt::Arguments<'_>) -> Result<()> {
    let seen = series.moved(Protocol::Tcp)?;
    let seen = (seen.transmit_bytes, seen.receive_bytes);
    ensure_eq!(seen, (expected, expected), "{what}");
    Ok(())
}

/// Of two processes the older one has a socket, and when that has closed it, the other.
fn inherited(setting: Setting) -> Result<()> {
    const BYTES: u64 = 40_000;
    const MORE: u64 = 70_000;
    let agent = setting.start(&["--select", "^heir$"])?;
    let name = Name::new("heir")?;
    let words = ["inherited", &BYTES.to_string(), &MORE.to_string()];
    let mut workload = Workload::start(&name, &words)?;
    let parent = workload.pid().to_string();
    let mut child = String::new();
    for (stage, own, other) in [
        ("shared", BYTES, 0),
        ("used", 2 * BYTES, 0),
        ("handed", 2 * BYTES, MORE),
    ] {
        workload.wait_for(&format!("at {stage}"))?;
        if child.is_empty() {
            child = workload.report.fact("child")?.to_string();
        }
        let page = agent.page()?;
        for (pid, expected) in [(&parent, own), (&child, other)] {
            check_both(
                process(&page, &[("pid", pid)]),
                expected,
                format_args!("{stage}: process {pid}"),
            )?;
        }
        workload.go_on()?;
    }
    workload.release()?;
    Ok(())
}

/// What was moved before the agent began doesn't count; what the same sockets move later does.
fn older(setting: Setting) -> Result<()> {
    const BYTES: u64 = 30_000;
    let name = Name::new("conn")?;
    let mut workload = Workload::start(&name, &["connections", "1", &BYTES.to_string()])?;
    workload.wait_for("at open")?;
    let agent = setting.start(&[])?;
    let labels = [("group", name.comm.as_str())];
    let moved = |page: &Page| -> Result<u64> {
        Ok(group(page, &labels).moved(Protocol::Tcp)?.transmit_bytes)
    };
    ensure_eq!(moved(&agent.page()?)?, 0, "before the agent began");
    workload.go_on()?;
    workload.wait_for("at closed")?;
    within_grace(|| {
        ensure_eq!(moved(&agent.page()?)?, BYTES, "since then");
        Ok(())
    })?;
    workload.go_on()?;
    workload.release()?;
    Ok(())
}

/// Protocols that this rung doesn't know have no series.
fn absent_protocols(setting: Setting) -> Result<()> {
    let agent = setting.start(&[])?;
    for transport in ["udp4", "stream"] {
        let name = Name::new("udp")?;
        let words = ["move", "send", transport, "100000", "100000"];
        let workload = Workload::run(&name, &words)?;
        let page = agent.page()?;
        let labels = [("group", name.comm.as_str())];
        let seen = group(&page, &labels);
        seen.check_moved(&Tally::default(), Calls::Any)?;
        ensure!(seen.number("_processes")? == 1, "the group isn't there");
        workload.release()?;
    }
    Ok(())
}
