//! The maps, and how a full one is accounted for.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use aya_log_ebpf::warn;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use esnode_ebpf::{
    Account, Call, GroupUse, LATENCY_BUCKETS, Latency, LatencyGroup, LatencyProcess, Lost, Name,
    Network, Operation, ProcessUse, Request, ThreadUse, Traffic,
};

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

/// Groups that the agent put processes into, and that their children begin in.
#[map]
static ASSIGNED: HashMap<u64, Name> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static LOST: Array<u64> = Array::with_max_entries(Lost::COUNT, 0);

/// Processes whose end was counted and that are not freed.
#[map]
pub(crate) static ENDED: HashMap<u64, u8> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Calls that have not returned. An entry is left over only where a return was missed, and then
/// until the thread's next call.
#[map]
static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// How far each TCP socket was read.
#[map]
pub(crate) static SOCKETS: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Requests on their way. Those whose completion nobody saw are the first to make room.
#[map]
pub(crate) static REQUESTS: LruHashMap<u64, Request> = LruHashMap::with_max_entries(1, 0);

#[map]
static PROCESS_LATENCY: HashMap<LatencyProcess, Latency> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static GROUP_LATENCY: HashMap<LatencyGroup, Latency> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

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
    marks: 0,
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

static NEW_LATENCY: Latency = Latency {
    buckets: [0; LATENCY_BUCKETS],
    nanoseconds: 0,
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

/// Whether an entry of [`THREADS`] was ever refused.
#[inline(always)]
pub(crate) fn refused_threads() -> bool {
    let counter = LOST.get(Lost::ThreadsRefused as u32);
    counter.is_none_or(|refused| *refused != 0)
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

/// The group that the agent put a process into.
#[inline(always)]
pub(crate) fn assigned(signal: u64) -> Option<Name> {
    // SAFETY: a map value; a write by the agent replaces the whole of it.
    unsafe { ASSIGNED.get(signal) }.copied()
}

/// Puts a process that was just made into the group of its parent, if the agent chose that.
#[inline(always)]
pub(crate) fn inherit_assignment(parent: u64, child: u64) {
    if let Some(group) = assigned(parent) {
        // Without room it goes by its command name, until the agent sees it.
        let _ = ASSIGNED.insert(child, group, 0);
    }
}

/// Forgets the group of a process.
#[inline(always)]
pub(crate) fn forget_assignment(signal: u64) {
    let _ = ASSIGNED.remove(signal);
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
pub(crate) fn refuse_thread(context: &impl EbpfContext) {
    if refuse(Lost::ThreadsRefused) {
        warn!(
            context,
            "the BPF map THREADS is full: traffic of new threads is unattributed"
        );
    }
}

/// Counts and logs that an ended thread's traffic is missing from its process.
#[inline(always)]
pub(crate) fn refuse_process(context: &impl EbpfContext) {
    if refuse(Lost::ProcessesRefused) {
        warn!(
            context,
            "the BPF map PROCESSES is full: processes lose traffic of ended threads"
        );
    }
}

/// Counts and logs that a command name has no group.
#[inline(always)]
pub(crate) fn refuse_group(context: &impl EbpfContext) {
    if refuse(Lost::GroupsRefused) {
        warn!(
            context,
            "the BPF map GROUPS is full: what new command names use is unattributed"
        );
    }
}

/// Keeps a call until it returns.
#[inline(always)]
pub(crate) fn open_call(context: &impl EbpfContext, key: u64, call: &Call) {
    if CALLS.insert(key, call, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    if let Some(entry) = CALLS.get_ptr_mut(key) {
        if refuse(Lost::ReturnsMissed) {
            warn!(
                context,
                "a kretprobe missed the return of a function: its bytes are unknown"
            );
        }
        // SAFETY: a map value of this thread, which alone writes it.
        unsafe { *entry = *call };
    } else if refuse(Lost::CallsRefused) {
        warn!(
            context,
            "the BPF map CALLS is full: bytes of some calls are unknown"
        );
    }
}

/// Takes a call out that returns.
#[inline(always)]
pub(crate) fn close_call(key: u64) -> Option<Call> {
    let entry = CALLS.get_ptr(key)?;
    // SAFETY: a map value of this thread, which alone writes it.
    let call = unsafe { *entry };
    let _ = CALLS.remove(key);
    Some(call)
}

/// Notes that a process has ended. True for the first of its threads that says so.
#[inline(always)]
pub(crate) fn ends_first(signal: u64) -> bool {
    ENDED.insert(signal, 0, u64::from(BPF_NOEXIST)).is_ok()
}

/// Begins to follow a TCP socket, or goes on from another place.
#[inline(always)]
pub(crate) fn follow_socket(sock: u64, place: u32) {
    if SOCKETS.insert(sock, place, 0).is_err() {
        lose(Lost::SocketsRefused, 1);
    }
}

/// Makes sure that a process has a histogram.
#[inline(always)]
pub(crate) fn prepare_latency(owner: &LatencyProcess) {
    if entry(&PROCESS_LATENCY, owner, &NEW_LATENCY).is_none() {
        lose(Lost::ProcessLatencyRefused, 1);
    }
}

/// Gives up the histograms of a process that is freed.
#[inline(always)]
pub(crate) fn forget_latency(tgid: u32, start_boottime_nanoseconds: u64) {
    for operation in Operation::ALL {
        let _ = PROCESS_LATENCY.remove(LatencyProcess {
            start_boottime_nanoseconds,
            tgid,
            operation: operation as u32,
        });
    }
}

/// Keeps a request until it is completed.
#[inline(always)]
pub(crate) fn keep_request(key: u64, request: &Request) {
    if REQUESTS.insert(key, request, 0).is_err() {
        lose(Lost::RequestsRefused, 1);
    }
}

/// Adds a request to the histograms of its owner, if that still has one, and of its group.
#[inline(always)]
pub(crate) fn add_latency(owner: &LatencyProcess, group: &LatencyGroup, nanoseconds: u64) {
    if let Some(latency) = PROCESS_LATENCY.get_ptr_mut(owner) {
        add_time(latency, nanoseconds);
    }
    match entry(&GROUP_LATENCY, group, &NEW_LATENCY) {
        Some(latency) => add_time(latency, nanoseconds),
        None => lose(Lost::GroupLatencyRefused, 1),
    }
}

#[inline(always)]
fn add_time(latency: *mut Latency, nanoseconds: u64) {
    let bucket = Latency::bucket(nanoseconds);
    if bucket < LATENCY_BUCKETS {
        // SAFETY: a map value, and the index is below the array's length.
        add(unsafe { &raw mut (*latency).buckets[bucket] }, 1);
    }
    // SAFETY: a map value.
    add(unsafe { &raw mut (*latency).nanoseconds }, nanoseconds);
}
