//! The tables of hooks: what each rung of the ladder hangs on.

use crate::ladder::{Rung, Signal};
use esnode_ebpf::{maps, programs};

/// One place in the kernel that a rung needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// A tracepoint and its program, of one name.
    Tracepoint(&'static str),
    /// The return of a function, by trampoline.
    Fexit(Function),
    /// Entry and return of a function, by probes.
    Probes(Function),
    /// The return of a function by trampoline, where programs may read arguments that point to
    /// numbers; else by probes.
    FexitOfNumbers(Function),
}

/// A function that came to the kernel with the version in which programs on trampolines may read
/// pointers to numbers, Linux 5.17.
pub(super) const READS_NUMBERS: &str = "get_func_arg";

/// A function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// Its name, and that of its program by trampoline.
    pub(super) name: &'static str,
    /// How many arguments it is known to have.
    pub(super) arguments: u32,
    /// Whether the rung is of no use without it. Those that it is not needed of may be missing
    /// from a kernel: with no IPv6 for example, nothing is missed.
    pub(super) needed: bool,
}

const fn needed(name: &'static str, arguments: u32) -> Function {
    Function {
        name,
        arguments,
        needed: true,
    }
}

const fn if_there(name: &'static str, arguments: u32) -> Function {
    Function {
        name,
        arguments,
        needed: false,
    }
}

/// In this order. Freed before exit: an entry that the exit of a task makes is taken away when
/// the task is freed, which must not be missed.
const ENDED: &[Hook] = &[
    Hook::Tracepoint(programs::TASK_NEWTASK),
    Hook::Tracepoint(programs::TASK_RENAME),
    Hook::Tracepoint(programs::SCHED_PROCESS_FREE),
    Hook::Tracepoint(programs::SCHED_PROCESS_EXIT),
];

const SOCK_LENGTH: &[Hook] = &[
    Hook::Tracepoint(programs::SOCK_SEND_LENGTH),
    Hook::Tracepoint(programs::SOCK_RECV_LENGTH),
];

const TCP_SOCK: &[Hook] = &[
    Hook::Tracepoint(programs::TCP_DESTROY_SOCK),
    Hook::Tracepoint(programs::INET_SOCK_SET_STATE),
    Hook::Tracepoint(programs::TCP_RCV_SPACE_ADJUST),
];

const BLOCK_RQ: &[Hook] = &[
    Hook::Tracepoint(programs::BLOCK_RQ_COMPLETE),
    Hook::Tracepoint(programs::BLOCK_RQ_REQUEUE),
    Hook::Tracepoint(programs::BLOCK_RQ_ISSUE),
    Hook::Tracepoint(programs::BLOCK_RQ_INSERT),
];

/// What the socket layer calls to send and to receive.
const MESSAGES: &[Function] = &[
    needed("inet_sendmsg", 3),
    if_there("inet6_sendmsg", 3),
    needed("unix_stream_sendmsg", 3),
    needed("unix_dgram_sendmsg", 3),
    needed("unix_seqpacket_sendmsg", 3),
    needed("netlink_sendmsg", 3),
    needed("inet_recvmsg", 4),
    if_there("inet6_recvmsg", 4),
    needed("unix_stream_recvmsg", 4),
    needed("unix_dgram_recvmsg", 4),
    needed("unix_seqpacket_recvmsg", 4),
    needed("netlink_recvmsg", 4),
];

/// What it calls for sendfile(2) and splice(2) into a socket, up to Linux 6.4; later a send.
const SENDPAGE: &[Function] = &[
    if_there("inet_sendpage", 5),
    if_there("unix_stream_sendpage", 5),
];

/// What takes bytes out of a TCP socket and is no receive.
const SPLICE_READ: Function = needed("tcp_splice_read", 5);
/// For the option `TCP_ZEROCOPY_RECEIVE`.
const GETSOCKOPT: Function = needed("tcp_getsockopt", 5);

/// The same of UNIX sockets.
const TAKING_UNIX: &[Function] = &[needed("unix_stream_splice_read", 5)];

/// Names of all functions that any rung may hang on, and of those that tell what a kernel can.
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    [MESSAGES, SENDPAGE, &[SPLICE_READ, GETSOCKOPT], TAKING_UNIX]
        .into_iter()
        .flatten()
        .map(|function| function.name)
        .chain([READS_NUMBERS])
}

/// All tracepoints that any rung may hang on, with the type that describes each.
pub(super) fn tracepoints() -> impl Iterator<Item = (&'static str, String)> {
    let hooks = [ENDED, SOCK_LENGTH, TCP_SOCK, BLOCK_RQ]
        .into_iter()
        .flatten();
    hooks.filter_map(|hook| match hook {
        Hook::Tracepoint(name) => Some((*name, format!("btf_trace_{name}"))),
        _ => None,
    })
}

/// The first Linux that has a tracepoint, where that matters.
pub(super) fn since(tracepoint: &str) -> Option<&'static str> {
    matches!(
        tracepoint,
        programs::SOCK_SEND_LENGTH | programs::SOCK_RECV_LENGTH
    )
    .then_some("6.3")
}

/// What a signal hangs on, on a rung of BPF.
pub(super) fn of(signal: Signal, rung: Rung) -> Vec<Hook> {
    let all = |functions: &[&[Function]], hook: fn(Function) -> Hook| {
        let functions = functions.iter().copied().flatten().copied();
        functions.map(hook).collect::<Vec<_>>()
    };
    match (signal, rung) {
        (Signal::EndedProcesses, Rung::SchedProcessExit) => ENDED.to_vec(),
        (Signal::Network, Rung::SockLength) => {
            // Linux 6.3 and 6.4 have these tracepoints and sendpage, which passes them by.
            let mut hooks = SOCK_LENGTH.to_vec();
            hooks.extend(all(&[SENDPAGE], Hook::Fexit));
            hooks
        }
        (Signal::Network, Rung::Fexit) => all(&[MESSAGES, SENDPAGE], Hook::Fexit),
        (Signal::Network, Rung::Kprobe) => all(&[MESSAGES, SENDPAGE], Hook::Probes),
        (Signal::SpliceReceive, Rung::Fexit) => {
            vec![Hook::Fexit(SPLICE_READ), Hook::FexitOfNumbers(GETSOCKOPT)]
        }
        (Signal::SpliceReceive, Rung::Kprobe) => all(&[&[SPLICE_READ, GETSOCKOPT]], Hook::Probes),
        (Signal::SpliceReceiveUnix, Rung::Fexit) => all(&[TAKING_UNIX], Hook::Fexit),
        (Signal::SpliceReceiveUnix, Rung::Kprobe) => all(&[TAKING_UNIX], Hook::Probes),
        (Signal::SpliceReceive, Rung::TcpSock) => TCP_SOCK.to_vec(),
        (Signal::DiskLatency, Rung::BlockRq) => BLOCK_RQ.to_vec(),
        _ => Vec::new(),
    }
}

/// The maps that a rung is of no use without.
pub(super) fn maps_of(rung: Rung) -> &'static [&'static str] {
    match rung {
        Rung::SchedProcessExit | Rung::SockLength | Rung::Fexit => {
            &[maps::THREADS, maps::PROCESSES, maps::GROUPS, maps::ENDED]
        }
        Rung::Kprobe => &[maps::CALLS],
        Rung::TcpSock => &[maps::SOCKETS],
        Rung::BlockRq => &[maps::REQUESTS, maps::PROCESS_LATENCY, maps::GROUP_LATENCY],
        Rung::IterTask | Rung::Procfs | Rung::Taskstats | Rung::SockDiag => &[],
    }
}

/// The program that does nothing, for a tracepoint that has one.
pub(super) fn empty_program(tracepoint: &str) -> Option<&'static str> {
    Some(match tracepoint {
        programs::SOCK_SEND_LENGTH => "empty_send_length",
        programs::SOCK_RECV_LENGTH => "empty_recv_length",
        programs::TASK_NEWTASK => "empty_newtask",
        programs::TASK_RENAME => "empty_rename",
        programs::SCHED_PROCESS_EXIT => "empty_exit",
        programs::SCHED_PROCESS_FREE => "empty_free",
        _ => return None,
    })
}
