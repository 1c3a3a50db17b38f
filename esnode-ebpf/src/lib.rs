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

/// Length of a command name in the kernel (`TASK_COMM_LEN`), NUL included.
pub const NAME_LEN: usize = 16;

/// A command name; the bytes are whatever the process chose.
///
/// Kept as two words, in memory order: a BPF program handles 16 single bytes badly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Name([u64; 2]);

impl Name {
    /// No name at all.
    pub const EMPTY: Self = Self([0; 2]);

    /// From the bytes as the kernel holds them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; NAME_LEN]) -> Self {
        let mut name = Self::EMPTY;
        let (words, _) = bytes.as_chunks();
        for (to, from) in name.0.iter_mut().zip(words) {
            *to = u64::from_ne_bytes(*from);
        }
        name
    }

    /// The bytes as the kernel holds them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; NAME_LEN] {
        let mut bytes = [0; NAME_LEN];
        let (words, _) = bytes.as_chunks_mut();
        for (to, from) in words.iter_mut().zip(self.0) {
            *to = from.to_ne_bytes();
        }
        bytes
    }

    /// The group of a process with this command name: the name up to its end, padded with
    /// zeros (older kernels leave remains of longer names behind the end).
    ///
    /// Kernel threads are one of many per CPU or device (`kworker/3:1`, `ksoftirqd/3`): their
    /// group is the part of the name before the slash.
    #[inline(always)]
    #[must_use]
    pub fn group(self, kernel_thread: bool) -> Self {
        let [first, second] = self.0;
        let keep = keep_mask(first, kernel_thread);
        let second = if keep == u64::MAX {
            second & keep_mask(second, kernel_thread)
        } else {
            0
        };
        Self([first & keep, second])
    }

    /// Whether there is no name.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0[0] == 0
    }
}

/// Mask of the bytes of a word before the first zero (or slash). Without a branch per byte,
/// each of which the BPF verifier would follow both ways.
#[inline(always)]
fn keep_mask(word: u64, slash_too: bool) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The classic test for a zero byte: the lowest bit it sets is always right.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let word = u64::from_le(word);
    let mut ends = zeros(word);
    if slash_too {
        ends |= zeros(word ^ (ONES * u64::from(b'/')));
    }
    let first_end = ends & ends.wrapping_neg();
    u64::from_le((first_end >> 7).wrapping_sub(1))
}

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
    /// 1 once `network` is part of the process's entry in [`maps::PROCESSES`].
    pub left_process: u64,
}

/// Value of [`maps::PROCESSES`], keyed by the address of the `signal_struct`: what the threads
/// that ended sent and received while their process lives on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProcessUse {
    /// Sum over the threads that ended.
    pub network: Network,
}

/// Value of [`maps::GROUPS`], keyed by [`Name`]: what was settled. Only ever grows.
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

/// First word of every record that the task iterator writes.
pub mod record {
    /// A [`ThreadRecord`](super::ThreadRecord) of a thread that does not lead its process.
    pub const THREAD: u32 = 1;
    /// A [`LeaderRecord`](super::LeaderRecord).
    pub const LEADER: u32 = 2;
    /// A [`NetworkHeader`](super::NetworkHeader), then the thread's `network` and
    /// `settled_network`.
    pub const THREAD_NETWORK: u32 = 3;
    /// A [`NetworkHeader`](super::NetworkHeader), then a [`ProcessUse`](super::ProcessUse).
    pub const PROCESS_NETWORK: u32 = 4;
}

/// Bits of [`ThreadRecord::flags`].
pub mod flag {
    /// The task runs kernel code only (`PF_KTHREAD`).
    pub const KERNEL: u32 = 1;
    /// Every thread of the process has begun to exit: it is a zombie, or about to be.
    pub const DEAD: u32 = 2;
    /// The thread has an entry in [`maps::THREADS`](super::maps::THREADS).
    pub const TRACKED: u32 = 4;
    /// The thread has begun to exit (`PF_EXITING`).
    pub const EXITING: u32 = 8;
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
    /// For a thread: 1 once its traffic is part of its process's own entry.
    pub left_process: u64,
}

/// Where the running kernel keeps the fields that the programs read: byte offsets, resolved by
/// the agent from the kernel's BTF and handed over as a constant before loading.
///
/// A field that this kernel does not have is [`Layout::MISSING`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Layout {
    /// `task_struct.pid`, an `i32`: the thread id.
    pub task_pid: u32,
    /// `task_struct.tgid`, an `i32`.
    pub task_tgid: u32,
    /// `task_struct.flags`, a `u32` of `PF_…`.
    pub task_flags: u32,
    /// `task_struct.comm`, [`NAME_LEN`] bytes.
    pub task_comm: u32,
    /// `task_struct.start_boottime`, a `u64` in nanoseconds.
    pub task_start_boottime: u32,
    /// `task_struct.group_leader`, a pointer.
    pub task_group_leader: u32,
    /// `task_struct.real_parent`, a pointer.
    pub task_real_parent: u32,
    /// `task_struct.signal`, a pointer.
    pub task_signal: u32,
    /// `task_struct.mm`, a pointer, null for kernel threads.
    pub task_mm: u32,
    /// `task_struct.se.sum_exec_runtime`, a `u64` in nanoseconds.
    pub task_runtime: u32,
    /// `task_struct.thread_node`, a link in `signal_struct.thread_head`.
    pub task_thread_node: u32,
    /// `task_struct.ioac.read_bytes`, a `u64`; missing without `CONFIG_TASK_IO_ACCOUNTING`.
    pub task_read_bytes: u32,
    /// `task_struct.ioac.write_bytes`.
    pub task_write_bytes: u32,
    /// `task_struct.ioac.cancelled_write_bytes`.
    pub task_cancelled_write_bytes: u32,
    /// `signal_struct.live`, an `i32`: threads that have not begun to exit.
    pub signal_live: u32,
    /// `signal_struct.nr_threads`, an `i32`.
    pub signal_threads: u32,
    /// `signal_struct.thread_head`, a list head.
    pub signal_thread_head: u32,
    /// `signal_struct.sum_sched_runtime`, a `u64` in nanoseconds.
    pub signal_runtime: u32,
    /// `signal_struct.ioac.read_bytes`.
    pub signal_read_bytes: u32,
    /// `signal_struct.ioac.write_bytes`.
    pub signal_write_bytes: u32,
    /// `signal_struct.ioac.cancelled_write_bytes`.
    pub signal_cancelled_write_bytes: u32,
    /// `mm_struct.rss_stat[MM_FILEPAGES]`, an `i64` in pages.
    pub mm_file_pages: u32,
    /// `mm_struct.rss_stat[MM_ANONPAGES]`.
    pub mm_anonymous_pages: u32,
    /// `mm_struct.rss_stat[MM_SHMEMPAGES]`.
    pub mm_shared_pages: u32,
    /// `sock.__sk_common.skc_family`, a `u16`.
    pub sock_family: u32,
    /// `sock.sk_protocol`, a `u16`.
    pub sock_protocol: u32,
    /// 1 if `sched_process_exit` tells as its second argument whether the process is dead.
    pub exit_tells_process_dead: u32,
}

impl Layout {
    /// Offset of a field that the running kernel does not have.
    pub const MISSING: u32 = u32::MAX;

    /// Every field missing.
    pub const UNKNOWN: Self = Self {
        task_pid: Self::MISSING,
        task_tgid: Self::MISSING,
        task_flags: Self::MISSING,
        task_comm: Self::MISSING,
        task_start_boottime: Self::MISSING,
        task_group_leader: Self::MISSING,
        task_real_parent: Self::MISSING,
        task_signal: Self::MISSING,
        task_mm: Self::MISSING,
        task_runtime: Self::MISSING,
        task_thread_node: Self::MISSING,
        task_read_bytes: Self::MISSING,
        task_write_bytes: Self::MISSING,
        task_cancelled_write_bytes: Self::MISSING,
        signal_live: Self::MISSING,
        signal_threads: Self::MISSING,
        signal_thread_head: Self::MISSING,
        signal_runtime: Self::MISSING,
        signal_read_bytes: Self::MISSING,
        signal_write_bytes: Self::MISSING,
        signal_cancelled_write_bytes: Self::MISSING,
        mm_file_pages: Self::MISSING,
        mm_anonymous_pages: Self::MISSING,
        mm_shared_pages: Self::MISSING,
        sock_family: Self::MISSING,
        sock_protocol: Self::MISSING,
        exit_tells_process_dead: 0,
    };
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
    /// [`Name`](super::Name) to [`GroupUse`](super::GroupUse).
    pub const GROUPS: &str = "GROUPS";
    /// `u64` bytes by [`Lost`](super::Lost).
    pub const LOST: &str = "LOST";
}

/// Names of the programs, which are also the names of the kernel's hooks but for the iterator.
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
}

impl Lost {
    /// Number of indices.
    pub const COUNT: u32 = Self::GroupsRefused as u32 + 1;
}

const _: () = {
    assert!(size_of::<Name>() == NAME_LEN);
    assert!(size_of::<Traffic>() == 32);
    assert!(size_of::<Account>() == 32);
    assert!(size_of::<ThreadUse>() == 312);
    assert!(size_of::<ProcessUse>() == 128);
    assert!(size_of::<GroupUse>() == 176);
    assert!(size_of::<ThreadRecord>() == 80);
    assert!(size_of::<LeaderRecord>() == 152);
    assert!(size_of::<NetworkHeader>() == 16);
    assert!(size_of::<Layout>() == 108);
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

    fn group(name: &[u8; NAME_LEN], kernel_thread: bool) -> [u8; NAME_LEN] {
        Name::from_bytes(*name).group(kernel_thread).to_bytes()
    }

    #[test]
    fn kernel_threads_are_grouped_before_the_slash() {
        assert_eq!(
            &group(b"kworker/3:1H\0\0\0\0", true),
            b"kworker\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &group(b"kworker/3:1H\0\0\0\0", false),
            b"kworker/3:1H\0\0\0\0"
        );
        assert_eq!(
            &group(b"migration/0\0\0\0\0\0", true),
            b"migration\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &group(b"irq/24-nvme0q0\0\0", true),
            b"irq\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn nothing_follows_the_end_of_a_name() {
        assert_eq!(
            &group(b"sh\0garbage......", false),
            b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &group(b"12345678\0garbage", false),
            b"12345678\0\0\0\0\0\0\0\0"
        );
        assert_eq!(&group(b"123456789abcdef\0", false), b"123456789abcdef\0");
        assert_eq!(
            &group(b"\xff\x01\x80 \n\"\\\0\0\0\0\0\0\0\0\0", false),
            b"\xff\x01\x80 \n\"\\\0\0\0\0\0\0\0\0\0"
        );
    }
}
