//! Empty programs for the hooks: what the kernel takes to call any program at all. The agent
//! attaches them beside the real ones for `--bpf-baseline`, and never else.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

#[btf_tracepoint(function = "sock_send_length")]
pub(crate) fn empty_send_length(_context: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
pub(crate) fn empty_recv_length(_context: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "task_newtask")]
pub(crate) fn empty_newtask(_context: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "task_rename")]
pub(crate) fn empty_rename(_context: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn empty_exit(_context: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_process_free")]
pub(crate) fn empty_free(_context: BtfTracePointContext) -> i32 {
    0
}
