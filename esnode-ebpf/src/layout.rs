//! Where the kernel keeps what the programs read.

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
    /// `task_struct.comm`, [`NAME_LEN`](crate::NAME_LEN) bytes.
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
    /// `sock.__sk_common.skc_flags`, a `u64` of bits `SOCK_…`.
    pub sock_flags: u32,
    /// `sock.__sk_common.skc_prot`, a pointer to the protocol's functions.
    pub sock_functions: u32,
    /// `proto.sendpage`, a pointer to a function; missing from Linux 6.5 on.
    pub functions_sendpage: u32,
    /// `socket.sk`, a pointer.
    pub socket_sock: u32,
    /// `socket.type`, an `i16` of `SOCK_…`.
    pub socket_type: u32,
    /// `tcp_sock.copied_seq`, a `u32`: the place in the stream up to which it was read.
    pub tcp_copied: u32,
    /// `tcp_sock.rcv_nxt`, a `u32`: the place up to which it has arrived.
    pub tcp_arrived: u32,
    /// `pt_regs.orig_ax` on x86, `pt_regs.syscallno` on arm64, of which 32 bits count.
    pub registers_system_call: u32,
    /// `request.cmd_flags`, a `u32` whose low byte is `REQ_OP_…`.
    pub request_flags: u32,
    /// `request.__data_len`, a `u32`: bytes that are not completed.
    pub request_length: u32,
    /// Which argument of `block_rq_insert` is the request: 1 before Linux 5.11, 0 since.
    pub insert_request: u32,
    /// The same of `block_rq_issue`.
    pub issue_request: u32,
    /// The same of `block_rq_requeue`.
    pub requeue_request: u32,
    /// `task_struct.cgroups`, a pointer to a `css_set`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`, a pointer to a `cgroup`; or, where containers are told apart by a
    /// controller of version 1, `css_set.subsys[…]`, a pointer to a `cgroup_subsys_state`.
    pub css_set_cgroup: u32,
    /// `cgroup_subsys_state.cgroup`, a pointer; missing where the above is a `cgroup`.
    pub css_cgroup: u32,
    /// `cgroup.kn`, a pointer.
    pub cgroup_node: u32,
    /// `kernfs_node.id`, a `u64`.
    pub node_id: u32,
    /// By what processes are put together: one of [`by`](crate::by).
    pub groups_by: u32,
    /// 1 if the latency of block devices is measured.
    pub keeps_latency: u32,
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
        sock_flags: Self::MISSING,
        sock_functions: Self::MISSING,
        functions_sendpage: Self::MISSING,
        socket_sock: Self::MISSING,
        socket_type: Self::MISSING,
        tcp_copied: Self::MISSING,
        tcp_arrived: Self::MISSING,
        registers_system_call: Self::MISSING,
        request_flags: Self::MISSING,
        request_length: Self::MISSING,
        insert_request: 0,
        issue_request: 0,
        requeue_request: 0,
        task_cgroups: Self::MISSING,
        css_set_cgroup: Self::MISSING,
        css_cgroup: Self::MISSING,
        cgroup_node: Self::MISSING,
        node_id: Self::MISSING,
        groups_by: 0,
        keeps_latency: 0,
        exit_tells_process_dead: 0,
    };
}

const _: () = assert!(size_of::<Layout>() == 188);
