//! The attribution ladder: for every signal what it can be read from, best first. Which rung is in
//! use is found by trying, never by the version of the kernel.

use clap::ValueEnum;
use serde::Serialize;
use std::fmt;

/// Something that processes are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Which processes there are, their CPU time, memory and disk bytes.
    ProcessTable,
    /// What processes used that ended between two scrapes.
    EndedProcesses,
    /// Bytes that processes send and receive.
    Network,
    /// Bytes that leave TCP sockets by splice(2) or TCP_ZEROCOPY_RECEIVE and not by a receive.
    SpliceReceive,
    /// Bytes that leave UNIX sockets by splice(2).
    SpliceReceiveUnix,
    /// How long block devices take for the requests of a process (`--disk-latency`).
    DiskLatency,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 6] = [
        Self::ProcessTable,
        Self::EndedProcesses,
        Self::Network,
        Self::SpliceReceive,
        Self::SpliceReceiveUnix,
        Self::DiskLatency,
    ];

    /// Its rungs, best first.
    #[must_use]
    pub fn rungs(self) -> &'static [Rung] {
        match self {
            Self::ProcessTable => &[Rung::IterTask, Rung::Procfs],
            Self::EndedProcesses => &[Rung::SchedProcessExit, Rung::Taskstats],
            Self::Network => &[Rung::SockLength, Rung::Fexit, Rung::Kprobe, Rung::SockDiag],
            Self::SpliceReceive => &[Rung::Fexit, Rung::Kprobe, Rung::TcpSock, Rung::SockDiag],
            Self::SpliceReceiveUnix => &[Rung::Fexit, Rung::Kprobe],
            Self::DiskLatency => &[Rung::BlockRq],
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::ProcessTable => "process_table",
            Self::EndedProcesses => "ended_processes",
            Self::Network => "network",
            Self::SpliceReceive => "splice_receive",
            Self::SpliceReceiveUnix => "splice_receive_unix",
            Self::DiskLatency => "disk_latency",
        })
    }
}

/// A source of a signal, by the name that the page and the command line have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Rung {
    /// The BPF iterator over tasks.
    IterTask,
    /// Files below `/proc`.
    Procfs,
    /// BPF programs on fork, exec, exit and free of tasks.
    SchedProcessExit,
    /// The exit listener of taskstats.
    Taskstats,
    /// BPF programs on the tracepoints of the socket layer.
    SockLength,
    /// BPF programs on the return of kernel functions, by trampoline.
    Fexit,
    /// The same by kprobes and kretprobes.
    Kprobe,
    /// The kernel's own account of each TCP socket, read by netlink.
    SockDiag,
    /// The position in a TCP stream, followed by a BPF program on `tcp_rcv_space_adjust`.
    TcpSock,
    /// BPF programs on block_rq_issue and block_rq_complete.
    BlockRq,
}

impl fmt::Display for Rung {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::IterTask => "iter_task",
            Self::Procfs => "procfs",
            Self::SchedProcessExit => "sched_process_exit",
            Self::Taskstats => "taskstats",
            Self::SockLength => "sock_length",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::SockDiag => "sock_diag",
            Self::TcpSock => "tcp_sock",
            Self::BlockRq => "block_rq",
        })
    }
}

/// A rung that a signal is not on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rung.
    pub rung: Rung,
    /// Why not, in one line.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// Where a signal stands on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The signal.
    pub signal: Signal,
    /// The rung in use, if there is one.
    pub rung: Option<Rung>,
    /// The better rungs, and what refused them.
    pub refused: Vec<Refusal>,
}

impl Standing {
    /// How good that is.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.signal, self.rung) {
            (_, None) => State::Missing,
            // Where the network is read from there, it includes what was spliced.
            (Signal::SpliceReceive, Some(Rung::SockDiag)) => State::Ok,
            (_, Some(Rung::Procfs | Rung::Taskstats | Rung::SockDiag)) => State::Degraded,
            (_, Some(_)) => State::Ok,
        }
    }
}

/// How well something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As well as it can be.
    Ok,
    /// Less well than by another source.
    Degraded,
    /// Not at all.
    Missing,
    /// Nobody asked for it.
    Off,
}

impl State {
    /// Whether something could be better.
    #[must_use]
    pub fn is_degraded(self) -> bool {
        matches!(self, Self::Degraded | Self::Missing)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
            Self::Off => "off",
        })
    }
}
