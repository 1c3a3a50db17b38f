//! The process table: one record per thread, more for those that used the network.

use crate::{
    kernel::{
        Memory, Probe, Typed, cgroup, group_of, is_exiting, is_kernel_thread, is_leader, name,
        offset, pointer, task_account,
    },
    tables::{PROCESSES, THREADS, refused_threads},
};
use aya_ebpf::{bindings::seq_file, helpers::bpf_seq_write};
use core::ffi::c_void;
use esnode_ebpf::{
    Account, LeaderRecord, Network, NetworkHeader, ThreadRecord, ThreadUse, flag, record,
};

/// `struct bpf_iter_meta`, up to the field that is used.
#[repr(C)]
pub(crate) struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task`: the context of `iter/task`, Linux 5.8.
#[repr(C)]
pub(crate) struct TaskContext {
    meta: *const Meta,
    task: *const u8,
}

/// Called for every task in order of thread id, and once more with a null task.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn tasks(context: *const TaskContext) -> i32 {
    // SAFETY: the kernel passes a context of this type.
    let (seq, task) = unsafe { ((*(*context).meta).seq, (*context).task) };
    if task.is_null() {
        return 0;
    }
    let leader = is_leader::<Typed>(task);
    let signal = pointer::<Typed>(task, offset!(task_signal));
    let tgid = Typed::field(task, offset!(task_tgid));

    let mut flags = 0;
    if is_kernel_thread::<Typed>(task) {
        flags |= flag::KERNEL;
    }
    if is_exiting::<Typed>(task) {
        flags |= flag::EXITING;
    }
    if Typed::field::<i32>(signal, offset!(signal_live)) == 0 {
        flags |= flag::DEAD;
    }
    let mut thread = ThreadRecord {
        kind: if leader {
            record::LEADER
        } else {
            record::THREAD
        },
        tgid,
        threads: Typed::field(signal, offset!(signal_threads)),
        flags,
        account: task_account::<Typed>(task),
        settled: Account::default(),
    };
    let used = THREADS.get_ptr_mut(task.expose_provenance() as u64);
    if let Some(used) = used {
        // SAFETY: a map value.
        thread.settled = unsafe { (*used).settled };
        thread.flags |= flag::TRACKED;
    } else if flags & flag::EXITING != 0 && refused_threads() {
        thread.flags |= flag::PAID;
    }
    // What threads that ended have left is written before the traffic of any thread that may end
    // while the others are visited, or it would count twice. Where thread ids have wrapped around,
    // the leader is not the first.
    if (leader || Typed::field::<u32>(task, offset!(task_pid)) < tgid)
        && let Some(process) = PROCESSES.get_ptr(signal.expose_provenance() as u64)
    {
        let header = NetworkHeader {
            kind: record::PROCESS_NETWORK,
            tgid,
            marks: 0,
        };
        write(seq, &header);
        // `network` stands first in `ProcessUse`.
        write_value(seq, process.cast(), size_of::<Network>());
    }
    if leader {
        write_leader(seq, task, signal, thread);
    } else {
        write(seq, &thread);
    }
    if let Some(used) = used {
        write_network(seq, tgid, used);
    }
    0
}

#[inline(always)]
fn write_leader(seq: *mut seq_file, task: *const u8, signal: *const u8, thread: ThreadRecord) {
    let mm = pointer::<Typed>(task, offset!(task_mm));
    // A counter that CPUs add to in batches can be below zero for a moment. By helper: the
    // verifier of Linux 5.10 does not find its way through an array of typedefs.
    let pages = |offset| Probe::field::<i64>(mm, offset).max(0).unsigned_abs();
    let parent = pointer::<Typed>(task, offset!(task_real_parent));
    let leader = LeaderRecord {
        thread,
        released: Account {
            cpu_nanoseconds: Typed::field(signal, offset!(signal_runtime)),
            disk_read_bytes: Typed::field(signal, offset!(signal_read_bytes)),
            disk_write_bytes: Typed::field(signal, offset!(signal_write_bytes)),
            disk_cancelled_write_bytes: Typed::field(signal, offset!(signal_cancelled_write_bytes)),
        },
        start_boottime_nanoseconds: Typed::field(task, offset!(task_start_boottime)),
        resident_pages: if mm.is_null() {
            0
        } else {
            pages(offset!(mm_file_pages))
                + pages(offset!(mm_anonymous_pages))
                + pages(offset!(mm_shared_pages))
        },
        name: name(task),
        group: group_of(task, signal),
        cgroup: cgroup(task),
        signal: signal.expose_provenance() as u64,
        memory: mm.expose_provenance() as u64,
        parent_tgid: Typed::field(parent, offset!(task_tgid)),
        reserved: 0,
    };
    write(seq, &leader);
}

/// Writes a thread's traffic, if it has any: tasks that were only settled have none.
#[inline(always)]
fn write_network(seq: *mut seq_file, tgid: u32, used: *mut ThreadUse) {
    // SAFETY: a map value.
    let entry = unsafe { &*used };
    let calls = entry.network.iter().fold(0, |calls, traffic| {
        calls | traffic.receives | traffic.transmits
    });
    if calls != 0 {
        let header = NetworkHeader {
            kind: record::THREAD_NETWORK,
            tgid,
            marks: entry.marks,
        };
        write(seq, &header);
        // `network` and `settled_network` stand first in `ThreadUse`, side by side.
        write_value(seq, used.cast(), 2 * size_of::<Network>());
    }
}

#[inline(always)]
fn write<T>(seq: *mut seq_file, value: &T) {
    write_value(seq, core::ptr::from_ref(value).cast(), size_of::<T>());
}

#[inline(always)]
fn write_value(seq: *mut seq_file, value: *const c_void, size: usize) {
    // SAFETY: `value` is valid for `size` bytes. A full buffer is not an error here: the kernel
    // then throws away what this task wrote and calls the program again with an empty one.
    unsafe { bpf_seq_write(seq, value.cast_mut(), size as u32) };
}
