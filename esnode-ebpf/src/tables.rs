//! The maps, and how a full one is accounted for.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap},
    programs::BtfTracePointContext,
};
use aya_log_ebpf::warn;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use esnode_ebpf::{Account, GroupUse, Lost, Name, Network, ProcessUse, ThreadUse, Traffic};

/// Entries are made on first use, so memory follows the threads that use the network and the
/// tasks that are ending. The capacities are the agent's to set.
#[map]
pub(crate) static THREADS: HashMap<u64, ThreadUse> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static PROCESSES: HashMap<u64, ProcessUse> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static GROUPS: HashMap<Name, GroupUse> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static LOST: Array<u64> = Array::with_max_entries(Lost::COUNT, 0);

const NOTHING: Traffic = Traffic {
    receive_bytes: 0,
    transmit_bytes: 0,
    receives: 0,
    transmits: 0,
};
const NO_NETWORK: Network = [NOTHING; 4];
const NO_ACCOUNT: Account = Account {
    cpu_nanoseconds: 0,
    disk_read_bytes: 0,
    disk_write_bytes: 0,
    disk_cancelled_write_bytes: 0,
};
/// New entries are copied from constants: the BPF stack is too small to build them on.
static NEW_THREAD: ThreadUse = ThreadUse {
    network: NO_NETWORK,
    settled_network: NO_NETWORK,
    settled: NO_ACCOUNT,
    group: Name::EMPTY,
    left_process: 0,
};
static NEW_PROCESS: ProcessUse = ProcessUse {
    network: NO_NETWORK,
    leader: Name::EMPTY,
};
static NEW_GROUP: GroupUse = GroupUse {
    network: NO_NETWORK,
    account: NO_ACCOUNT,
    started: 0,
    exited: 0,
};

/// Adds to a number that several CPUs may write.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, value: u64) {
    // SAFETY: the counter lies in a map value, aligned, for as long as the program runs.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value) };
}

/// Counts bytes that no group gets, or an entry that could not be made.
#[inline(always)]
pub(crate) fn lose(what: Lost, value: u64) {
    if let Some(counter) = LOST.get_ptr_mut(what as u32) {
        add(counter, value);
    }
}

/// Counts an entry of [`THREADS`] that was refused to a task that ends: nothing was lost.
#[inline(always)]
pub(crate) fn refuse_ending() {
    lose(Lost::ThreadsRefused, 1);
}

/// Counts a refused entry. True for the first one and then at each power of two, when it is
/// worth a line in the log.
#[inline(always)]
fn refuse(what: Lost) -> bool {
    let Some(counter) = LOST.get_ptr_mut(what as u32) else {
        return false;
    };
    // SAFETY: the counter lies in a map value.
    let refused = unsafe { counter.read_volatile() } + 1;
    add(counter, 1);
    refused.is_power_of_two()
}

/// The entry of a thread, made if there is none; `None` if the map is full.
#[inline(always)]
pub(crate) fn thread(task: u64) -> Option<*mut ThreadUse> {
    entry(&THREADS, &task, &NEW_THREAD)
}

/// The entry of a process, made if there is none; `None` if the map is full.
#[inline(always)]
pub(crate) fn process(signal: u64) -> Option<*mut ProcessUse> {
    entry(&PROCESSES, &signal, &NEW_PROCESS)
}

/// The entry of a group, made if there is none; `None` if the map is full.
#[inline(always)]
pub(crate) fn group(name: &Name) -> Option<*mut GroupUse> {
    entry(&GROUPS, name, &NEW_GROUP)
}

#[inline(always)]
fn entry<K, V>(map: &HashMap<K, V>, key: &K, new: &V) -> Option<*mut V> {
    if let Some(entry) = map.get_ptr_mut(key) {
        return Some(entry);
    }
    // Twice: in a burst the kernel's stock of free entries can run out, and is filled up by an
    // interrupt that the first try causes.
    for _ in 0..2 {
        let _ = map.insert(key, new, u64::from(BPF_NOEXIST));
        if let Some(entry) = map.get_ptr_mut(key) {
            return Some(entry);
        }
    }
    None
}

/// Counts and logs that a thread's traffic has nowhere to go.
#[inline(always)]
pub(crate) fn refuse_thread(context: &BtfTracePointContext) {
    if refuse(Lost::ThreadsRefused) {
        warn!(
            context,
            "the BPF map THREADS is full: traffic of new threads is unattributed"
        );
    }
}

/// Counts and logs that an ended thread's traffic is missing from its process.
#[inline(always)]
pub(crate) fn refuse_process(context: &BtfTracePointContext) {
    if refuse(Lost::ProcessesRefused) {
        warn!(
            context,
            "the BPF map PROCESSES is full: processes lose traffic of ended threads"
        );
    }
}

/// Counts and logs that a command name has no group.
#[inline(always)]
pub(crate) fn refuse_group(context: &BtfTracePointContext) {
    if refuse(Lost::GroupsRefused) {
        warn!(
            context,
            "the BPF map GROUPS is full: what new command names use is unattributed"
        );
    }
}
