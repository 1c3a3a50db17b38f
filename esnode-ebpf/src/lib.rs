//! The contract between the BPF programs and the agent.
//!
//! Every type here crosses from the kernel to user space (or, for [`Layout`], the other
//! way) as plain bytes, so each is `#[repr(C)]`, free of padding, and has its size asserted.
//! Names of maps and programs live here too, so that both sides use one spelling.
//!
//! How the pieces fit: a thread's network counters live in [`maps::THREADS`], written by that
//! thread alone. The kernel itself keeps the thread's [`Account`] (CPU and disk). *Settling* a
//! thread adds what it used since it was last settled to its group in [`maps::GROUPS`]; that
//! happens when the command name changes (exec, rename), when the thread exits, and once more
//! when the kernel frees it. At every moment, therefore,
//! `group = settled + Σ over live threads of (used − settled of that thread)`.

#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a BPF program has few calls to spend: what is not inlined is another function to it"
)]

mod iteration;
mod latency;
mod layout;
mod name;

pub use iteration::{LeaderRecord, NetworkHeader, ThreadRecord, flag, record};
pub use latency::{LATENCY_BUCKETS, Latency, LatencyGroup, LatencyProcess, Operation, Request};
pub use layout::Layout;
pub use name::{NAME_LEN, Name};

/// Number of [`Protocol`]s.
pub const PROTOCOLS: usize = 4;

/// What a socket speaks, as far as the page tells protocols apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Protocol {
    /// TCP and MPTCP, over IPv4 and IPv6.
    Tcp,
    /// UDP and UDP-Lite, over IPv4 and IPv6.
    Udp,
    /// UNIX domain sockets of every type.
    Unix,
    /// Everything else: netlink, vsock, raw, SCTP, packet sockets …
    Other,
}

impl Protocol {
    /// In the order of the arrays in the maps.
    pub const ALL: [Self; PROTOCOLS] = [Self::Tcp, Self::Udp, Self::Unix, Self::Other];

    /// Classifies a socket by `skc_family` (`AF_…`) and `sk_protocol` (`IPPROTO_…`).
    #[inline(always)]
    #[must_use]
    pub const fn of(family: u16, protocol: u16) -> Self {
        const AF_UNIX: u16 = 1;
        const AF_INET: u16 = 2;
        const AF_INET6: u16 = 10;
        const IPPROTO_TCP: u16 = 6;
        const IPPROTO_UDP: u16 = 17;
        const IPPROTO_UDPLITE: u16 = 136;
        const IPPROTO_MPTCP: u16 = 262;
        match (family, protocol) {
            (AF_UNIX, _) => Self::Unix,
            (AF_INET | AF_INET6, IPPROTO_TCP | IPPROTO_MPTCP) => Self::Tcp,
            (AF_INET | AF_INET6, IPPROTO_UDP | IPPROTO_UDPLITE) => Self::Udp,
            _ => Self::Other,
        }
    }
}

/// What went through sockets of one protocol. Bytes are payload, as returned to the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Bytes received.
    pub receive_bytes: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Receive calls that succeeded.
    pub receives: u64,
    /// Send calls that succeeded.
    pub transmits: u64,
}

/// [`Traffic`] by [`Protocol`].
pub type Network = [Traffic; PROTOCOLS];

/// What the kernel itself charges to a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Account {
    /// Time on a CPU, user and system (`se.sum_exec_runtime`).
    pub cpu_nanoseconds: u64,
    /// Bytes the task caused to be read from storage (`ioac.read_bytes`).
    pub disk_read_bytes: u64,
    /// Bytes the task dirtied or wrote directly (`ioac.write_bytes`).
    pub disk_write_bytes: u64,
    /// Of those, bytes that were truncated before they reached storage.
    pub disk_cancelled_write_bytes: u64,
}

/// Value of [`maps::THREADS`], keyed by the address of the `task_struct`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ThreadUse {
    /// Since the thread's first use of the network. Written by the thread alone.
    pub network: Network,
    /// The part of `network` that its group already has.
    pub settled_network: Network,
    /// The part of the kernel's account that its group already has.
    pub settled: Account,
    /// The group of the last settlement: what is used up to the end goes there.
    pub group: Name,
    /// Bits of [`mark`].
    pub marks: u64,
}

/// Bits of [`ThreadUse::marks`].
pub mod mark {
    /// The thread's `network` is part of its process's entry in
    /// [`maps::PROCESSES`](super::maps::PROCESSES).
    pub const LEFT_PROCESS: u64 = 1;
    /// The program on the thread's exit ran. The kernel leaves a program out whose CPU is already
    /// in the middle of it, for a task that was preempted.
    pub const EXITED: u64 = 2;
}

/// Values of [`Layout::groups_by`].
pub mod by {
    /// The command name.
    pub const COMMAND: u32 = 0;
    /// The control group.
    pub const CGROUP: u32 = 1;
    /// What the agent says in [`maps::ASSIGNED`](super::maps::ASSIGNED), for a process and those
    /// that it makes from then on; else the command name.
    pub const ASSIGNMENT: u32 = 2;
}

/// Value of [`maps::PROCESSES`], keyed by the address of the `signal_struct`: what the threads
/// that ended sent and received while their process lives on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProcessUse {
    /// Sum over the threads that ended.
    pub network: Network,
    /// Command name of the leader, if that ended before the others: an exec by another thread
    /// makes that the leader, under its own name.
    pub leader: Name,
}

/// Value of [`maps::GROUPS`], keyed by the [`Name`] of a group: what was settled. Only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GroupUse {
    /// Settled traffic.
    pub network: Network,
    /// Settled CPU time and disk bytes.
    pub account: Account,
    /// Processes that were born under this name or took it (exec, rename).
    pub started: u64,
    /// Processes that ended under this name.
    pub exited: u64,
}

/// Value of [`maps::CALLS`]: a call into the kernel whose return is awaited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Call {
    /// Address of the `struct socket` or `struct sock` that is called for.
    pub socket: u64,
    /// Flags, or an address in user space.
    pub argument: u64,
    /// Another address in user space.
    pub length: u64,
}

/// Names of the global variables that the agent sets before loading.
pub mod globals {
    /// The [`Layout`](super::Layout).
    pub const LAYOUT: &str = "LAYOUT";
}

/// Names of the maps.
pub mod maps {
    /// `u64` (address of a `task_struct`) to [`ThreadUse`](super::ThreadUse).
    pub const THREADS: &str = "THREADS";
    /// `u64` (address of a `signal_struct`) to [`ProcessUse`](super::ProcessUse).
    pub const PROCESSES: &str = "PROCESSES";
    /// `u64` (address of a `signal_struct`) to [`Name`](super::Name): the group that the agent put
    /// a process into.
    pub const ASSIGNED: &str = "ASSIGNED";
    /// [`Name`](super::Name) to [`GroupUse`](super::GroupUse).
    pub const GROUPS: &str = "GROUPS";
    /// `u64` bytes by [`Lost`](super::Lost).
    pub const LOST: &str = "LOST";
    /// `u64` (address of a `signal_struct`) to nothing: processes that have ended and are not
    /// freed, where the kernel does not say which thread is the last.
    pub const ENDED: &str = "ENDED";
    /// `u64` (address of a `task_struct`, plus the number of a function) to
    /// [`Call`](super::Call).
    pub const CALLS: &str = "CALLS";
    /// `u64` (address of a `struct sock`) to `u32`, the place in a TCP stream up to which
    /// every byte is accounted for.
    pub const SOCKETS: &str = "SOCKETS";
    /// `u64` (address of a `struct request`) to [`Request`](super::Request).
    pub const REQUESTS: &str = "REQUESTS";
    /// [`LatencyProcess`](super::LatencyProcess) to [`Latency`](super::Latency).
    pub const PROCESS_LATENCY: &str = "PROCESS_LATENCY";
    /// [`LatencyGroup`](super::LatencyGroup) to [`Latency`](super::Latency).
    pub const GROUP_LATENCY: &str = "GROUP_LATENCY";
}

/// Names of the programs on tracepoints, which are also those of the tracepoints, and of the
/// iterator. Programs on functions of the kernel are named after these: the one on its return by
/// trampoline as it is, the two of probes with `enter_` and `leave_` before it.
pub mod programs {
    /// `iter/task`: writes the records of every task. Linux 5.8.
    pub const TASKS: &str = "tasks";
    /// `tp_btf/sock_send_length`. Linux 6.3.
    pub const SOCK_SEND_LENGTH: &str = "sock_send_length";
    /// `tp_btf/sock_recv_length`. Linux 6.3.
    pub const SOCK_RECV_LENGTH: &str = "sock_recv_length";
    /// `tp_btf/task_newtask`.
    pub const TASK_NEWTASK: &str = "task_newtask";
    /// `tp_btf/task_rename`.
    pub const TASK_RENAME: &str = "task_rename";
    /// `tp_btf/sched_process_exit`.
    pub const SCHED_PROCESS_EXIT: &str = "sched_process_exit";
    /// `tp_btf/sched_process_free`.
    pub const SCHED_PROCESS_FREE: &str = "sched_process_free";
    /// `tp_btf/tcp_rcv_space_adjust`; the program needs Linux 5.15.
    pub const TCP_RCV_SPACE_ADJUST: &str = "tcp_rcv_space_adjust";
    /// `tp_btf/inet_sock_set_state`.
    pub const INET_SOCK_SET_STATE: &str = "inet_sock_set_state";
    /// `tp_btf/tcp_destroy_sock`.
    pub const TCP_DESTROY_SOCK: &str = "tcp_destroy_sock";
    /// `tp_btf/block_rq_insert`.
    pub const BLOCK_RQ_INSERT: &str = "block_rq_insert";
    /// `tp_btf/block_rq_issue`.
    pub const BLOCK_RQ_ISSUE: &str = "block_rq_issue";
    /// `tp_btf/block_rq_requeue`.
    pub const BLOCK_RQ_REQUEUE: &str = "block_rq_requeue";
    /// `tp_btf/block_rq_complete`.
    pub const BLOCK_RQ_COMPLETE: &str = "block_rq_complete";
}

/// Indices of [`maps::LOST`]: bytes that a hook saw and no group got, and, last, how often an
/// entry could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lost {
    /// Received while [`maps::THREADS`] or [`maps::GROUPS`] was full.
    ReceiveMapFull,
    /// Sent while a map was full.
    TransmitMapFull,
    /// Received in a context without a process.
    ReceiveNoProcess,
    /// Sent in a context without a process.
    TransmitNoProcess,
    /// Read by threads that ended while [`maps::GROUPS`] was full.
    DiskReadMapFull,
    /// Written by threads that ended while [`maps::GROUPS`] was full.
    DiskWriteMapFull,
    /// Refused entries of [`maps::THREADS`], a count.
    ThreadsRefused,
    /// Refused entries of [`maps::PROCESSES`], a count.
    ProcessesRefused,
    /// Refused entries of [`maps::GROUPS`], a count.
    GroupsRefused,
    /// Refused entries of [`maps::CALLS`], a count: calls whose bytes nobody knows.
    CallsRefused,
    /// Returns that a kretprobe did not see, a count: calls whose bytes nobody knows.
    ReturnsMissed,
    /// Refused entries of [`maps::SOCKETS`], a count: sockets whose splices nobody knows.
    SocketsRefused,
    /// Refused entries of [`maps::GROUP_LATENCY`], a count: requests that are in no histogram.
    GroupLatencyRefused,
    /// Refused entries of [`maps::PROCESS_LATENCY`], a count: requests that only their group's
    /// histogram has.
    ProcessLatencyRefused,
    /// Refused entries of [`maps::REQUESTS`], a count.
    RequestsRefused,
    /// Requests that were completed and not known, a count: they are in no histogram.
    RequestsUnknown,
}

impl Lost {
    /// Number of indices.
    pub const COUNT: u32 = Self::RequestsUnknown as u32 + 1;
}

const _: () = {
    assert!(size_of::<Name>() == NAME_LEN);
    assert!(size_of::<Traffic>() == 32);
    assert!(size_of::<Account>() == 32);
    assert!(size_of::<ThreadUse>() == 312);
    assert!(size_of::<ProcessUse>() == 144);
    assert!(size_of::<GroupUse>() == 176);
    assert!(size_of::<Call>() == 24);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(
        unsafe_code,
        reason = "`Pod` says that any bytes are a value, which only we know"
    )]
    use aya::Pod;

    // SAFETY: `repr(C)`, integers only, no padding (the sizes asserted above are the sums).
    unsafe impl Pod for super::Name {}
    // SAFETY: as above.
    unsafe impl Pod for super::ThreadUse {}
    // SAFETY: as above.
    unsafe impl Pod for super::ProcessUse {}
    // SAFETY: as above.
    unsafe impl Pod for super::GroupUse {}
    // SAFETY: as above.
    unsafe impl Pod for super::Layout {}
    // SAFETY: as above.
    unsafe impl Pod for super::Latency {}
    // SAFETY: as above.
    unsafe impl Pod for super::LatencyProcess {}
    // SAFETY: as above.
    unsafe impl Pod for super::LatencyGroup {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_by_family_and_number() {
        assert_eq!(Protocol::of(2, 6), Protocol::Tcp);
        assert_eq!(Protocol::of(10, 262), Protocol::Tcp);
        assert_eq!(Protocol::of(10, 17), Protocol::Udp);
        assert_eq!(Protocol::of(1, 0), Protocol::Unix);
        assert_eq!(Protocol::of(16, 6), Protocol::Other);
        assert_eq!(Protocol::of(2, 132), Protocol::Other);
    }
}
