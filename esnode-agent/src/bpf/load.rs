//! Loading the object: its constants, its maps as far as there is memory, its iterator.

use super::{
    GroupsBy, Options,
    attach::{Attached, failed, note, program},
    error::BpfError,
    layout::Resolved,
};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, maps::MapError, programs::Iter};
use esnode_ebpf::{globals, maps, programs};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io;

/// A map that there was no memory for.
pub(super) struct Missing {
    pub(super) map: &'static str,
    capacity: u32,
    errno: i32,
}

impl Missing {
    pub(super) fn error(&self) -> BpfError {
        BpfError::NoMap {
            map: self.map,
            capacity: self.capacity,
            source: io::Error::from_raw_os_error(self.errno),
        }
    }
}

impl Options {
    /// The maps whose size is chosen.
    pub(super) fn capacities(&self) -> [(&'static str, u32); 10] {
        // Without --disk-latency its maps stay empty; kernels refuse those without room.
        let latency = |entries| if self.disk_latency { entries } else { 1 };
        [
            (maps::THREADS, self.threads),
            (maps::PROCESSES, self.processes),
            (maps::GROUPS, self.groups),
            (maps::ENDED, self.processes),
            (
                maps::ASSIGNED,
                if self.groups_by == GroupsBy::Assignment {
                    self.processes
                } else {
                    1
                },
            ),
            (maps::CALLS, self.threads),
            (maps::SOCKETS, self.sockets),
            (maps::REQUESTS, latency(16_384)),
            (
                maps::PROCESS_LATENCY,
                latency(self.processes.saturating_mul(2)),
            ),
            (maps::GROUP_LATENCY, latency(self.groups.saturating_mul(2))),
        ]
    }
}

/// Creates the maps and prepares the programs. A map that there is no memory for is made with
/// room for one entry and given back as missing: what does not need it can still be used.
pub(super) fn load_object(
    object: &[u8],
    btf: &Btf,
    resolved: &Resolved,
    options: &Options,
) -> Result<(Ebpf, Vec<Missing>), BpfError> {
    lift_memory_lock();
    let mut layout = resolved.layout;
    layout.keeps_latency = u32::from(options.disk_latency);
    layout.groups_by = options.groups_by as u32;
    let mut capacities = options.capacities();
    let mut missing = Vec::new();
    loop {
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(btf))
            .override_global(globals::LAYOUT, &layout, true);
        for (map, entries) in capacities {
            loader.map_max_entries(map, entries);
        }
        let error = match loader.load(object) {
            Ok(ebpf) => return Ok((ebpf, missing)),
            Err(error) => error,
        };
        let place = lacks_memory(&error)
            .and_then(|(name, errno)| Some((capacity_of(&mut capacities, name)?, errno)));
        let Some(((map, capacity), errno)) = place else {
            return Err(error.into());
        };
        missing.push(Missing {
            map,
            capacity: *capacity,
            errno,
        });
        *capacity = 1;
    }
}

/// The capacity of a map that could be smaller.
fn capacity_of<'a>(
    capacities: &'a mut [(&'static str, u32)],
    name: &str,
) -> Option<(&'static str, &'a mut u32)> {
    let mut capacities = capacities.iter_mut();
    let (map, capacity) = capacities.find(|(map, entries)| *map == name && *entries > 1)?;
    Some((*map, capacity))
}

/// The map that could not be made because it is too large, and the system's answer.
fn lacks_memory(error: &EbpfError) -> Option<(&str, i32)> {
    let EbpfError::MapError(MapError::CreateError { name, io_error }) = error else {
        return None;
    };
    let errno = io_error.raw_os_error()?;
    matches!(errno, libc::ENOMEM | libc::E2BIG).then_some((name, errno))
}

/// Before Linux 5.11, maps count as locked memory, whose limit is often 64 KiB. A limit that can't
/// be lifted is one that the maps then say they met.
fn lift_memory_lock() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let _ = setrlimit(Resource::Memlock, unlimited);
}

/// Loads the task iterator.
pub(super) fn load_iterator(ebpf: &mut Ebpf, btf: &Btf) -> Result<Attached, BpfError> {
    program::<Iter>(ebpf, programs::TASKS)?
        .load("task", btf)
        .map_err(failed(programs::TASKS, "load"))?;
    Ok(note(ebpf, programs::TASKS, "iter/task".to_owned()))
}
