//! How long block devices take for a request, for the process that made it.
//!
//! The process is the one that hands the request to the I/O scheduler or, without one, to the
//! driver. That is who reads and who writes past the page cache; what the page cache writes later
//! belongs to the kernel's flusher threads.

use crate::{
    kernel::{Memory, Probe, Typed, group, offset, pointer},
    tables::{self, REQUESTS, lose},
};
use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::ptr;
use esnode_ebpf::{LatencyGroup, LatencyProcess, Lost, Operation, Request};

/// `REQ_OP_MASK`.
const OPERATION: u32 = 0xff;

/// `block_rq_insert([struct request_queue *q, ]struct request *rq)`: the request waits in the
/// scheduler.
#[btf_tracepoint(function = "block_rq_insert")]
pub(crate) fn block_rq_insert(context: BtfTracePointContext) -> i32 {
    let request = argument(&context, offset!(insert_request));
    if let Some(new) = new_request(request) {
        tables::keep_request(request.expose_provenance() as u64, &new);
    }
    0
}

/// `block_rq_issue([struct request_queue *q, ]struct request *rq)`: the device gets the request.
#[btf_tracepoint(function = "block_rq_issue")]
pub(crate) fn block_rq_issue(context: BtfTracePointContext) -> i32 {
    let request = argument(&context, offset!(issue_request));
    let key = request.expose_provenance() as u64;
    if let Some(entry) = REQUESTS.get_ptr_mut(key) {
        // SAFETY: a map value; a request is in one place at a time.
        let entry = unsafe { &mut *entry };
        // One that waits is this one. One that was issued was never seen to complete, and the
        // kernel uses its memory again.
        if entry.issued_nanoseconds == 0 {
            entry.issued_nanoseconds = now();
            return 0;
        }
    }
    if let Some(mut new) = new_request(request) {
        new.issued_nanoseconds = now();
        tables::keep_request(key, &new);
    } else {
        let _ = REQUESTS.remove(key);
    }
    0
}

/// `block_rq_requeue([struct request_queue *q, ]struct request *rq)`: the device could not take
/// the request, which will be issued again.
#[btf_tracepoint(function = "block_rq_requeue")]
pub(crate) fn block_rq_requeue(context: BtfTracePointContext) -> i32 {
    let request = argument(&context, offset!(requeue_request));
    if let Some(entry) = REQUESTS.get_ptr_mut(request.expose_provenance() as u64) {
        // SAFETY: a map value; a request is in one place at a time.
        unsafe { (*entry).issued_nanoseconds = 0 };
    }
    0
}

/// `block_rq_complete(struct request *rq, blk_status_t error, unsigned int nr_bytes)`: the device
/// is done with the request, or with a part of it.
#[btf_tracepoint(function = "block_rq_complete")]
pub(crate) fn block_rq_complete(context: BtfTracePointContext) -> i32 {
    let request: *const u8 = context.arg(0);
    let completed: u32 = context.arg(2);
    if completed < Typed::field(request, offset!(request_length)) {
        return 0;
    }
    let key = request.expose_provenance() as u64;
    let Some(entry) = REQUESTS.get_ptr(key) else {
        let flags: u32 = Typed::field(request, offset!(request_flags));
        if Operation::of(flags & OPERATION).is_some() {
            lose(Lost::RequestsUnknown, 1);
        }
        return 0;
    };
    // SAFETY: a map value; a request is in one place at a time.
    let done = unsafe { *entry };
    let _ = REQUESTS.remove(key);
    if done.issued_nanoseconds != 0 {
        let group = LatencyGroup {
            group: done.group,
            operation: done.owner.operation.into(),
        };
        tables::add_latency(&done.owner, &group, now() - done.issued_nanoseconds);
    } else {
        lose(Lost::RequestsUnknown, 1);
    }
    0
}

/// The request among the arguments: the first, or the second after a queue.
#[inline(always)]
fn argument(context: &BtfTracePointContext, place: u32) -> *const u8 {
    if place == 0 {
        context.arg(0)
    } else {
        context.arg(1)
    }
}

/// A request of the running process, not issued yet; `None` if no histogram is kept of its kind.
#[inline(always)]
fn new_request(request: *const u8) -> Option<Request> {
    let flags: u32 = Typed::field(request, offset!(request_flags));
    let operation = Operation::of(flags & OPERATION)? as u32;
    // SAFETY: no requirements.
    let task = unsafe { bpf_get_current_task() };
    let task = ptr::with_exposed_provenance(task as usize);
    let leader = pointer::<Probe>(task, offset!(task_group_leader));
    let owner = LatencyProcess {
        start_boottime_nanoseconds: Probe::field(leader, offset!(task_start_boottime)),
        tgid: Probe::field(leader, offset!(task_tgid)),
        operation,
    };
    tables::prepare_latency(&owner);
    Some(Request {
        issued_nanoseconds: 0,
        owner,
        group: group(leader),
    })
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no requirements.
    unsafe { bpf_ktime_get_ns() }
}
