//! Settling: what a task used goes to its group when its name changes and when it ends.

use crate::{
    kernel::{
        Memory, Probe, Typed, group, is_kernel_thread, is_leader, name_from, offset, pointer,
        task_account,
    },
    tables::{self, ENDED, PROCESSES, THREADS, add, lose},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use core::{mem, ptr};
use esnode_ebpf::{
    Account, GroupUse, Lost, Name, Network, PROTOCOLS, ThreadUse, Traffic, by, mark,
};

/// `CLONE_THREAD`: the new task joins its parent's process.
const CLONE_THREAD: u64 = 0x0001_0000;

/// How many threads a rename settles. An exec has one thread left; a process that renames
/// itself with more than this takes the rest of its past along to the new name.
const RENAME_THREADS: usize = 128;

/// `task_newtask(struct task_struct *task, u64 clone_flags)`: a task was made, still unseen.
#[btf_tracepoint(function = "task_newtask")]
pub(crate) fn task_newtask(context: BtfTracePointContext) -> i32 {
    let task: *const u8 = context.arg(0);
    let flags: u64 = context.arg(1);
    // The address was another task's before. In storms of forks on 6.18 the program for
    // `sched_process_free` was seen to miss some tasks in a thousand: an entry that is left must
    // not pass for this task's.
    let _ = THREADS.remove(task.expose_provenance() as u64);
    if flags & CLONE_THREAD == 0 {
        forget_process(task);
        if offset!(groups_by) == by::ASSIGNMENT {
            let parent = pointer::<Probe>(task, offset!(task_real_parent));
            let signal = |task| pointer::<Probe>(task, offset!(task_signal)).expose_provenance();
            tables::inherit_assignment(signal(parent) as u64, signal(task) as u64);
        }
        started(&context, &group(task));
    }
    0
}

/// `task_rename(struct task_struct *task, const char *comm)`: before the task's name changes,
/// by exec (then the task is alone in its process), `prctl` or a write to `comm`.
#[btf_tracepoint(function = "task_rename")]
pub(crate) fn task_rename(context: BtfTracePointContext) -> i32 {
    let task: *const u8 = context.arg(0);
    if !is_leader::<Typed>(task) || offset!(groups_by) == by::CGROUP {
        return 0;
    }
    let signal: *const u8 = pointer::<Probe>(task, offset!(task_signal));
    if offset!(groups_by) == by::ASSIGNMENT
        && tables::assigned(signal.expose_provenance() as u64).is_some()
    {
        return 0;
    }
    let old = take_ended_leader(signal).unwrap_or_else(|| group(task));
    let new = name_from(context.arg(1)).group(is_kernel_thread::<Probe>(task));
    if old == new {
        return 0;
    }
    let head = signal.wrapping_add(offset!(signal_thread_head) as usize);
    let mut node: *const u8 = pointer::<Probe>(head, 0);
    let group = tables::group(&old);
    for _ in 0..RENAME_THREADS {
        if node.is_null() || node == head {
            break;
        }
        settle(
            node.wrapping_sub(offset!(task_thread_node) as usize),
            &old,
            group,
        );
        node = pointer::<Probe>(node, 0);
    }
    started(&context, &new);
    0
}

/// `sched_process_exit(struct task_struct *p[, bool group_dead])`: a thread has begun to exit.
///
/// What its teardown still uses (CPU to free memory, metadata written when files close) is
/// settled by [`sched_process_free`].
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn sched_process_exit(context: BtfTracePointContext) -> i32 {
    let task: *const u8 = context.arg(0);
    let signal: *const u8 = pointer::<Probe>(task, offset!(task_signal));
    let name = group(pointer::<Probe>(task, offset!(task_group_leader)));
    let group = tables::group(&name);
    if let Some(thread) = settle(task, &name, group) {
        // SAFETY: a map value.
        unsafe { (*thread).marks |= mark::EXITED };
        if Probe::field::<u32>(signal, offset!(signal_live)) != 0 {
            leave_process(&context, thread, signal);
            if is_leader::<Typed>(task)
                && let Some(process) = tables::process(signal.expose_provenance() as u64)
            {
                // SAFETY: a map value.
                unsafe { (*process).leader = name };
            }
        }
    } else {
        // Without an entry nobody will know that it was paid; the iterator passes over it, and
        // what its teardown uses is lost.
        tables::refuse_ending();
        let account = task_account::<Probe>(task);
        pay_at_once(group, &account);
    }
    if is_last(&context, signal) {
        exited(&name);
    }
    0
}

/// Takes away what is kept of the process that a task leads, or had at its address.
#[inline(always)]
fn forget_process(task: *const u8) {
    let signal = pointer::<Probe>(task, offset!(task_signal)).expose_provenance() as u64;
    let _ = PROCESSES.remove(signal);
    if offset!(groups_by) == by::ASSIGNMENT {
        tables::forget_assignment(signal);
    }
    if offset!(exit_tells_process_dead) != 1 {
        let _ = ENDED.remove(signal);
    }
}

/// Whether a thread that exits is the last of its process. Before Linux 6.16 the tracepoint does
/// not say; then of the last threads, which may exit at the same time, the first to come here is
/// taken for it.
#[inline(always)]
fn is_last(context: &BtfTracePointContext, signal: *const u8) -> bool {
    if offset!(exit_tells_process_dead) == 1 {
        return context.arg::<u64>(1) & 0xff != 0;
    }
    Probe::field::<u32>(signal, offset!(signal_live)) == 0
        && tables::ends_first(signal.expose_provenance() as u64)
}

/// `sched_process_free(struct task_struct *p)`: a task that was waited for is about to be
/// freed, an RCU grace period after it left the process table. Its account is final.
#[btf_tracepoint(function = "sched_process_free")]
pub(crate) fn sched_process_free(context: BtfTracePointContext) -> i32 {
    let task: *const u8 = context.arg(0);
    let leader = is_leader::<Typed>(task);
    let mut name = group(task);
    let exit_seen;
    if let Some(thread) = THREADS.get_ptr_mut(task.expose_provenance() as u64) {
        // SAFETY: a map value.
        let (settled_as, marks) = unsafe { ((*thread).group, (*thread).marks) };
        exit_seen = marks & mark::EXITED != 0;
        // An entry without a name was made after the exit: its owner is still the leader's
        // name, which is this task's own if it leads.
        if !settled_as.is_empty() {
            name = settled_as;
        }
        settle(task, &name, tables::group(&name));
        let _ = THREADS.remove(task.expose_provenance() as u64);
    } else {
        // Either the exit had no room for an entry and paid at once, or nobody saw it.
        exit_seen = tables::refused_threads();
        if !exit_seen {
            name = group(pointer::<Probe>(task, offset!(task_group_leader)));
            let account = task_account::<Probe>(task);
            pay_at_once(tables::group(&name), &account);
        }
    }
    if leader {
        forget_process(task);
        if !exit_seen {
            exited(&name);
        }
        if offset!(keeps_latency) == 1 {
            tables::forget_latency(
                Typed::field(task, offset!(task_tgid)),
                Typed::field(task, offset!(task_start_boottime)),
            );
        }
    }
    0
}

/// The name of a leader that ended before its process, once.
#[inline(always)]
fn take_ended_leader(signal: *const u8) -> Option<Name> {
    let process = PROCESSES.get_ptr_mut(signal.expose_provenance() as u64)?;
    // SAFETY: a map value.
    let name = mem::replace(unsafe { &mut (*process).leader }, Name::EMPTY);
    (!name.is_empty()).then_some(name)
}

#[inline(always)]
fn started(context: &BtfTracePointContext, name: &Name) {
    let Some(group) = tables::group(name) else {
        tables::refuse_group(context);
        return;
    };
    // SAFETY: a map value.
    add(unsafe { &raw mut (*group).started }, 1);
}

#[inline(always)]
fn exited(name: &Name) {
    if let Some(group) = tables::group(name) {
        // SAFETY: a map value.
        add(unsafe { &raw mut (*group).exited }, 1);
    }
}

/// Gives a group what one thread used since it was last settled.
///
/// `None` if the thread's entry could not be made: then nothing was given.
#[inline(always)]
fn settle(task: *const u8, name: &Name, group: Option<*mut GroupUse>) -> Option<*mut ThreadUse> {
    let account = task_account::<Probe>(task);
    let thread = tables::thread(task.expose_provenance() as u64)?;
    // SAFETY: a map value; other CPUs write its network counters at most.
    let entry = unsafe { &mut *thread };
    let due = Account {
        cpu_nanoseconds: account.cpu_nanoseconds - entry.settled.cpu_nanoseconds,
        disk_read_bytes: account.disk_read_bytes - entry.settled.disk_read_bytes,
        disk_write_bytes: account.disk_write_bytes - entry.settled.disk_write_bytes,
        disk_cancelled_write_bytes: account.disk_cancelled_write_bytes
            - entry.settled.disk_cancelled_write_bytes,
    };
    entry.settled = account;
    entry.group = *name;
    let used = used_network(entry);
    if let Some(group) = group {
        pay_account(group, &due);
        if used {
            for protocol in 0..PROTOCOLS {
                let due = take_unsettled(entry, protocol);
                // SAFETY: a map value; the fields are only ever added to.
                add_traffic(unsafe { &raw mut (*group).network }, protocol, &due);
            }
        }
    } else {
        lose_account(&due);
        if used {
            for protocol in 0..PROTOCOLS {
                let due = take_unsettled(entry, protocol);
                lose(Lost::ReceiveMapFull, due.receive_bytes);
                lose(Lost::TransmitMapFull, due.transmit_bytes);
            }
        }
    }
    Some(thread)
}

#[inline(always)]
fn pay_account(group: *mut GroupUse, due: &Account) {
    // SAFETY: a map value; the fields are only ever added to.
    let (cpu, read, write, cancelled) = unsafe {
        (
            &raw mut (*group).account.cpu_nanoseconds,
            &raw mut (*group).account.disk_read_bytes,
            &raw mut (*group).account.disk_write_bytes,
            &raw mut (*group).account.disk_cancelled_write_bytes,
        )
    };
    add(cpu, due.cpu_nanoseconds);
    add(read, due.disk_read_bytes);
    add(write, due.disk_write_bytes);
    add(cancelled, due.disk_cancelled_write_bytes);
}

/// Gives a group the account of a thread that has no entry.
#[inline(always)]
fn pay_at_once(group: Option<*mut GroupUse>, account: &Account) {
    match group {
        Some(group) => pay_account(group, account),
        None => lose_account(account),
    }
}

#[inline(always)]
fn lose_account(due: &Account) {
    lose(Lost::DiskReadMapFull, due.disk_read_bytes);
    lose(Lost::DiskWriteMapFull, due.disk_write_bytes);
}

/// Whether the thread ever used the network.
#[inline(always)]
fn used_network(entry: &ThreadUse) -> bool {
    entry.network.iter().fold(0, |calls, traffic| {
        calls | traffic.receives | traffic.transmits
    }) != 0
}

/// The traffic of one protocol that the group has not got yet; from here on it has.
#[inline(always)]
fn take_unsettled(entry: &mut ThreadUse, protocol: usize) -> Traffic {
    // SAFETY: a valid reference. Read once, since on a rename the thread may be running.
    let used = unsafe { ptr::read_volatile(&raw const entry.network[protocol]) };
    let settled = mem::replace(&mut entry.settled_network[protocol], used);
    Traffic {
        receive_bytes: used.receive_bytes - settled.receive_bytes,
        transmit_bytes: used.transmit_bytes - settled.transmit_bytes,
        receives: used.receives - settled.receives,
        transmits: used.transmits - settled.transmits,
    }
}

/// Adds an ending thread's traffic to what its process keeps.
#[inline(always)]
fn leave_process(context: &BtfTracePointContext, thread: *mut ThreadUse, signal: *const u8) {
    // SAFETY: a map value.
    let entry = unsafe { &mut *thread };
    if !used_network(entry) {
        return;
    }
    let Some(process) = tables::process(signal.expose_provenance() as u64) else {
        tables::refuse_process(context);
        return;
    };
    for protocol in 0..PROTOCOLS {
        // SAFETY: a map value; the fields are only ever added to.
        add_traffic(
            unsafe { &raw mut (*process).network },
            protocol,
            &entry.network[protocol],
        );
    }
    entry.marks |= mark::LEFT_PROCESS;
}

#[inline(always)]
fn add_traffic(network: *mut Network, protocol: usize, due: &Traffic) {
    // SAFETY: the callers' loops stay below `PROTOCOLS`.
    let traffic = unsafe { ptr::addr_of_mut!((*network)[protocol]) };
    // SAFETY: as above.
    let (receive_bytes, transmit_bytes, receives, transmits) = unsafe {
        (
            &raw mut (*traffic).receive_bytes,
            &raw mut (*traffic).transmit_bytes,
            &raw mut (*traffic).receives,
            &raw mut (*traffic).transmits,
        )
    };
    add(receive_bytes, due.receive_bytes);
    add(transmit_bytes, due.transmit_bytes);
    add(receives, due.receives);
    add(transmits, due.transmits);
}
