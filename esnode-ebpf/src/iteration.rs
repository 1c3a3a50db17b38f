//! What the task iterator writes.

use crate::{Account, Name};

/// First word of every record that the task iterator writes.
pub mod record {
    /// A [`ThreadRecord`](super::ThreadRecord) of a thread that does not lead its process.
    pub const THREAD: u32 = 1;
    /// A [`LeaderRecord`](super::LeaderRecord).
    pub const LEADER: u32 = 2;
    /// A [`NetworkHeader`](super::NetworkHeader), then the thread's `network` and
    /// `settled_network`.
    pub const THREAD_NETWORK: u32 = 3;
    /// A [`NetworkHeader`](super::NetworkHeader), then a [`ProcessUse`](crate::ProcessUse).
    pub const PROCESS_NETWORK: u32 = 4;
}

/// Bits of [`ThreadRecord::flags`].
pub mod flag {
    /// The task runs kernel code only (`PF_KTHREAD`).
    pub const KERNEL: u32 = 1;
    /// Every thread of the process has begun to exit: it is a zombie, or about to be.
    pub const DEAD: u32 = 2;
    /// The thread has an entry in [`maps::THREADS`](crate::maps::THREADS).
    pub const TRACKED: u32 = 4;
    /// The thread has begun to exit (`PF_EXITING`).
    pub const EXITING: u32 = 8;
    /// The thread has begun to exit, has no entry, and may have been paid for at once: some thread
    /// was refused an entry.
    pub const PAID: u32 = 16;
}

/// One thread, as the iterator met it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ThreadRecord {
    /// [`record::THREAD`], or [`record::LEADER`] inside a [`LeaderRecord`].
    pub kind: u32,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Threads of the process at that moment (`signal->nr_threads`).
    pub threads: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// The thread's own account.
    pub account: Account,
    /// The part of it that its group already has.
    pub settled: Account,
}

/// The thread that leads a process, and what belongs to the process as a whole.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LeaderRecord {
    /// The leader as a thread.
    pub thread: ThreadRecord,
    /// Accounts of the threads that ended and were released (`signal->ioac` and kin).
    pub released: Account,
    /// Start time, nanoseconds on the boot clock: with `tgid`, the process's identity.
    pub start_boottime_nanoseconds: u64,
    /// Resident memory in pages: file, anonymous and shared.
    pub resident_pages: u64,
    /// Command name of the leader.
    pub name: Name,
    /// The group that the process is in.
    pub group: Name,
    /// Number of its control group; zero if it is not known.
    pub cgroup: u64,
    /// Address of its `signal_struct`, by which the agent can put it into a group.
    pub signal: u64,
    /// Address of its memory, another one after each exec.
    pub memory: u64,
    /// Process id of the parent.
    pub parent_tgid: u32,
    /// Always zero; keeps the size a multiple of eight.
    pub reserved: u32,
}

/// Heads the records that carry traffic.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct NetworkHeader {
    /// [`record::THREAD_NETWORK`] or [`record::PROCESS_NETWORK`].
    pub kind: u32,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// For a thread: bits of [`mark`](crate::mark).
    pub marks: u64,
}

const _: () = {
    assert!(size_of::<ThreadRecord>() == 80);
    assert!(size_of::<LeaderRecord>() == 192);
    assert!(size_of::<NetworkHeader>() == 16);
};
