//! Socket bytes: every family of system calls, every kind of socket.

use anyhow::{Context as _, Result};
use esnode_tests::agent::Agent;
use esnode_tests::page::Page;
use esnode_tests::skip;
use esnode_tests::tally::{Moved, Protocol, Tally};
use esnode_tests::workload::{Name, Workload};

use crate::Case;
use crate::check::{Calls, check_gone, ensure_eq, group, process, unattributed};

/// Bytes to send, in chunks of which the last is small.
const TRANSMIT: u64 = 1_000_003;
/// Bytes of these to receive: whole messages, fewer than are sent, so that the directions differ.
const RECEIVE: u64 = 995_000;

const INET: &[&str] = &["tcp4", "tcp6", "tcp4in6", "udp4", "udp6", "udp4in6"];
const UNIX: &[&str] = &["stream", "datagram", "seqpacket"];
const STREAMS: &[&str] = &["tcp4", "tcp6", "stream"];
const UNCONNECTED: &[&str] = &["udp4", "udp6", "udp4in6", "datagram"];

/// System calls, and the sockets that they're tried on.
const TRANSFERS: &[(&str, &[&[&str]], Calls)] = &[
    ("send", &[INET, UNIX], Calls::Exact),
    ("write", &[INET, UNIX], Calls::Exact),
    ("writev", &[INET, UNIX], Calls::Exact),
    ("sendmsg", &[INET, UNIX], Calls::Exact),
    ("sendmmsg", &[INET, UNIX], Calls::Exact),
    ("sendto", &[UNCONNECTED], Calls::Exact),
    ("sendfile", &[STREAMS], Calls::Any),
    ("splice", &[STREAMS], Calls::Any),
    ("io_uring", &[INET, UNIX], Calls::Exact),
    ("io_uring-async", &[INET, UNIX], Calls::Exact),
];

/// Special calls, the sockets that they're tried on, and how much is sent beside them.
const SPECIALS: &[(&str, &[&str], u64)] = &[
    (
        "peek",
        &[
            "tcp4",
            "tcp6",
            "udp4",
            "udp6",
            "stream",
            "datagram",
            "seqpacket",
        ],
        20_000,
    ),
    ("zero-length", &["udp4", "udp6", "datagram"], 20_000),
    (
        "eagain",
        &[
            "tcp4",
            "tcp6",
            "udp4",
            "udp6",
            "stream",
            "datagram",
            "seqpacket",
        ],
        20_000,
    ),
    ("epipe", &["tcp4", "tcp6", "stream"], 20_000),
    ("partial", &["tcp4", "tcp6", "stream"], 0),
    ("short-receive", &["udp4", "udp6", "datagram"], 20_000),
    ("trunc-receive", &["udp4", "udp6", "datagram"], 20_000),
    ("zerocopy", &["tcp4", "tcp6"], 1_000_003),
    ("gso", &["udp4", "udp6"], 1_000_000),
    ("gro", &["udp4", "udp6"], 1_000_000),
    ("error-queue", &["udp4", "udp6"], 1_000),
    ("netlink", &["netlink"], 32),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &(method, transports, calls) in TRANSFERS {
        for &transport in transports.iter().copied().flatten() {
            let name = format!("network::{}::{transport}", method.replace('-', "_"));
            cases.push(Case::new(name, move || transfer(method, transport, calls)));
        }
    }
    for &(case, transports, transmit) in SPECIALS {
        for &transport in transports {
            let name = format!("network::{}::{transport}", case.replace('-', "_"));
            cases.push(Case::new(name, move || special(case, transport, transmit)));
        }
    }
    cases.push(Case::new("network::send::mptcp4", || {
        transfer("send", "mptcp4", Calls::Exact)
    }));
    for transport in ["tcp4", "tcp6", "stream"] {
        let name = format!("network::splice_out::{transport}");
        cases.push(Case::alone(name, move || splice_out(transport)));
    }
    cases
}

/// The workload moves what it's asked to; the page says so, of it and of its group.
fn transfer(method: &str, transport: &str, calls: Calls) -> Result<()> {
    let (transmit, receive) = (TRANSMIT.to_string(), RECEIVE.to_string());
    let tally = run(&["move", method, transport, &transmit, &receive], calls)?;
    ensure_eq!(
        tally.total().transmit_bytes,
        TRANSMIT,
        "sent by the workload"
    );
    ensure_eq!(
        tally.total().receive_bytes,
        RECEIVE,
        "received by the workload"
    );
    Ok(())
}

/// The workload says what its special calls returned.
fn special(case: &str, transport: &str, transmit: u64) -> Result<()> {
    let tally = run(
        &["special", case, transport, &transmit.to_string()],
        Calls::Exact,
    )?;
    if case != "partial" {
        ensure_eq!(
            tally.total().transmit_bytes,
            transmit,
            "sent by the workload"
        );
    }
    Ok(())
}

/// Runs a workload, and compares what it says with what the page says, while it lives and after.
fn run(command: &[&str], calls: Calls) -> Result<Tally> {
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("net")?;
    let workload = Workload::run(&name, command)?;
    let tally = workload.report.total();
    let pid = workload.pid().to_string();
    let check = |page: &Page| group(page, &[("group", &name.comm)]).check_moved(&tally, calls);
    let alive = agent.page()?;
    process(&alive, &[("pid", &pid), ("comm", &name.comm)]).check_moved(&tally, calls)?;
    check(&alive).context("while it lives")?;
    workload.release()?;
    let gone = agent.page()?;
    check_gone(&gone, &pid, &name.comm)?;
    check(&gone).context("when it has ended")?;
    Ok(tally)
}

/// What leaves a socket by splice is the process' or nobody's, but it's counted; unless the agent
/// says that it has no source for it.
fn splice_out(transport: &str) -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let before = agent.page()?;
    let spliced = if transport == "stream" {
        "splice_receive_unix"
    } else {
        "splice_receive"
    };
    let labels = [("signal", spliced)];
    if before
        .label_values("esnode_attribution_source", &labels, "source")
        .contains("none")
    {
        skip!("the agent says that it doesn't see what leaves a socket by splice");
    }
    let name = Name::new("net")?;
    let (transmit, receive) = (TRANSMIT.to_string(), RECEIVE.to_string());
    let words = ["move", "splice-out", transport, &transmit, &receive];
    let tally = Workload::run(&name, &words)?.release()?.report.total();
    let after = agent.page()?;
    let mut moved = Moved::default();
    for protocol in Protocol::ALL {
        moved += group(&after, &[("group", &name.comm)]).moved(protocol)?;
    }
    ensure_eq!(
        tally.total().receive_bytes,
        RECEIVE,
        "received by the workload"
    );
    ensure_eq!(moved.transmit_bytes, TRANSMIT, "sent by the group");
    let signal = "network_receive";
    let nobody = unattributed(&after, signal)? - unattributed(&before, signal)?;
    ensure_eq!(
        moved.receive_bytes + nobody,
        RECEIVE,
        "received by the group or by nobody"
    );
    Ok(())
}
