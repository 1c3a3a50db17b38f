//! The system calls that no library offers safely.
#![expect(
    unsafe_code,
    reason = "raw bpf(2), perf_event_open(2), malloc_trim(3), and a promise to epoll(7)"
)]

use aya::{Pod, maps::MapData};
use aya_log::EbpfLogger;
use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};
use tokio::io::unix::AsyncFd;

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// How many entries one call asks for.
const BATCH: usize = 512;

/// The part of `union bpf_attr` that batch commands use.
#[repr(C)]
struct BatchAttribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads all entries of a hash map, a few hundred per system call (Linux 5.6).
///
/// Entries that are added or removed meanwhile may or may not be among them.
///
/// # Errors
/// What `bpf(BPF_MAP_LOOKUP_BATCH)` answers.
pub fn read_map<K: Pod, V: Pod>(map: &MapData) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    let mut keys = Vec::<MaybeUninit<K>>::new();
    let mut values = Vec::<MaybeUninit<V>>::new();
    let mut room = BATCH;
    // Position in the kernel's table: a bucket number.
    let (mut before, mut after) = (0_u64, 0_u64);
    let mut first = true;
    loop {
        keys.resize_with(room, MaybeUninit::uninit);
        values.resize_with(room, MaybeUninit::uninit);
        let mut attribute = BatchAttribute {
            in_batch: if first { 0 } else { (&raw mut before) as u64 },
            out_batch: (&raw mut after) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            map_fd: map.fd().as_fd().as_raw_fd().unsigned_abs(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attribute lives through the call; its arrays have room for `count` keys
        // and values of the sizes that the map was created with.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attribute,
                size_of::<BatchAttribute>(),
            )
        };
        let error = (answer != 0).then(io::Error::last_os_error);
        let end = match error.as_ref().map(io::Error::raw_os_error) {
            None => false,
            Some(Some(libc::ENOENT)) => true,
            // One bucket holds more than there is room for.
            Some(Some(libc::ENOSPC)) => {
                room *= 2;
                continue;
            }
            _ => return Err(error.unwrap_or_else(io::Error::last_os_error)),
        };
        for (key, value) in keys.iter().zip(&values).take(attribute.count as usize) {
            // SAFETY: the kernel wrote the first `count` keys, and any bytes are a `Pod`.
            let key = unsafe { key.assume_init() };
            // SAFETY: as for the keys.
            let value = unsafe { value.assume_init() };
            entries.push((key, value));
        }
        if end {
            return Ok(entries);
        }
        (before, first) = (after, false);
    }
}

/// What the kernel counts of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramCounters {
    /// Time in it in nanoseconds, while `kernel.bpf_stats_enabled` is 1.
    pub nanoseconds: u64,
    /// How often it ran, while `kernel.bpf_stats_enabled` is 1.
    pub runs: u64,
    /// How often it was left out, as its CPU was in the middle of it already (Linux 5.12).
    pub misses: Option<u64>,
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` uses.
#[repr(C)]
struct InfoAttribute {
    fd: u32,
    length: u32,
    info: u64,
}

/// Reads what the kernel counts of a loaded program.
///
/// # Errors
/// What `bpf(BPF_OBJ_GET_INFO_BY_FD)` answers.
pub fn program_counters(program: BorrowedFd<'_>) -> io::Result<ProgramCounters> {
    // Places in `struct bpf_prog_info`, in words of eight bytes.
    const RUN_TIME: usize = 24;
    const RUNS: usize = 25;
    const MISSES: usize = 26;
    let mut info = [0_u64; MISSES + 1];
    let room = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    let mut attribute = InfoAttribute {
        fd: program.as_raw_fd().unsigned_abs(),
        length: room,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attribute lives through the call, and its buffer is as long as it says.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attribute,
            size_of::<InfoAttribute>(),
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let word = |place: usize| info.get(place).copied().unwrap_or_default();
    Ok(ProgramCounters {
        nanoseconds: word(RUN_TIME),
        runs: word(RUNS),
        // The kernel says how much of its answer it has.
        misses: (attribute.length >= room).then(|| word(MISSES)),
    })
}

/// Messages from the BPF programs, on their way to the agent's log.
pub type BpfLog = EbpfLogger<&'static dyn log::Log>;

/// Registers the log of the BPF programs with the event loop.
///
/// # Errors
/// If the kernel refuses to watch it.
pub fn watch(log: BpfLog) -> io::Result<AsyncFd<BpfLog>> {
    // SAFETY: the log owns its descriptor, the map's, and answers with the same one until it is
    // dropped together with the registration.
    unsafe { AsyncFd::register(log) }.map_err(|error| error.into_parts().1)
}

/// Has all threads take memory from one heap, in place of one for each: a thread for every GPU
/// would take some 50 KiB more, and none of them allocates often. To be called before there are
/// threads.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no requirements.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives freed memory back to the kernel: starting up needs tens of MiB, running does not.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no requirements.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The first version of `struct perf_event_attr`, which every kernel takes.
#[derive(Default)]
#[repr(C)]
struct PerfEventAttribute {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

/// A perf event with a BPF program; closing it detaches the program.
pub struct PerfEvent(#[expect(dead_code, reason = "held to be closed")] OwnedFd);

/// Runs a loaded program at every hit of a tracepoint or probe of tracefs, on all CPUs.
///
/// # Errors
/// What `perf_event_open(2)` or `ioctl(2)` answers.
pub fn attach_to_tracepoint(id: u64, program: BorrowedFd<'_>) -> io::Result<PerfEvent> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    let attribute = PerfEventAttribute {
        kind: PERF_TYPE_TRACEPOINT,
        size: u32::try_from(size_of::<PerfEventAttribute>()).unwrap_or(u32::MAX),
        config: id,
        sample_period: 1,
        wakeup_events: 1,
        ..PerfEventAttribute::default()
    };
    // Any process, on one CPU: a program runs wherever its event happens.
    let (pid, cpu, group) = (-1, 0, -1);
    // SAFETY: the attribute lives through the call and is as long as it says.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attribute,
            pid,
            cpu,
            group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let event = libc::c_int::try_from(event).unwrap_or(-1);
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave it, and nobody else has it.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    let control = |request: libc::c_ulong, argument: libc::c_int| {
        // SAFETY: both requests take a number.
        let answer = unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    control(PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
    control(PERF_EVENT_IOC_ENABLE, 0)?;
    Ok(PerfEvent(event))
}
