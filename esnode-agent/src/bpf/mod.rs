//! The BPF side of the agent: loading, attaching, and reading what the programs counted.

mod attach;
pub mod btf;
mod error;
mod hooks;
mod ladder;
mod latency;
pub mod layout;
mod load;
mod probes;
pub mod records;
mod status;
pub mod sys;

pub use error::BpfError;
pub use ladder::all_refused;
pub use latency::DiskLatency;
pub use probes::ProbeError;
pub use status::{MapStatus, ProgramStatus};

use crate::ladder::{Rung, Standing};
use attach::{Attached, failed, program};
use aya::{
    Btf, Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::Iter,
};
use aya_log::EbpfLogger;
use error::{map_error, no_such_map};
use esnode_ebpf::{GroupUse, LatencyProcess, Lost, Name, by, maps, programs};
use layout::{For, Hierarchy, Resolved};
use probes::Probes;
use records::Pass;
use rustc_hash::FxHashSet;
use std::{
    fs,
    io::{self, Read},
    os::fd::AsFd,
    path::Path,
};

#[cfg(bpf_object)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("ESNODE_BPF_OBJECT")));
#[cfg(not(bpf_object))]
static OBJECT: Option<&[u8]> = None;

/// Whether this binary was built with BPF objects inside.
#[must_use]
pub fn is_embedded() -> bool {
    OBJECT.is_some()
}

/// How to load. Entries of maps are made as they are needed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that use the network, and tasks that were settled and still exist.
    pub threads: u32,
    /// Processes that lost a thread which had used the network.
    pub processes: u32,
    /// Command names since start.
    pub groups: u32,
    /// TCP sockets that are followed on the rung `tcp_sock`.
    pub sockets: u32,
    /// Attach an empty program to each hook as well, to compare with.
    pub baseline: bool,
    /// Measure block devices.
    pub disk_latency: bool,
    /// By what processes are put together.
    pub groups_by: GroupsBy,
    /// The tree of control groups that tells containers apart.
    pub hierarchy: Hierarchy,
    /// Rungs to do without.
    pub without: Vec<Rung>,
    /// Hooks to do without.
    pub refuse_hooks: Vec<String>,
}

/// By what the programs put processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum GroupsBy {
    /// The command name.
    #[default]
    Command = by::COMMAND,
    /// The control group.
    Cgroup = by::CGROUP,
    /// What [`Bpf::assign`] says, or else the command name.
    Assignment = by::ASSIGNMENT,
}

/// The loaded programs and their maps. Dropping it detaches them.
pub struct Bpf {
    /// Before the programs: what hangs on an event goes first.
    probes: Probes,
    ebpf: Ebpf,
    lost: Array<MapData, u64>,
    options: Options,
    resolved: Resolved,
    attached: Vec<Attached>,
    standings: Vec<Standing>,
    /// Processes with histograms that the last pass did not meet.
    unmet: FxHashSet<LatencyProcess>,
}

impl Bpf {
    /// Loads the programs and attaches as many as this kernel takes.
    ///
    /// # Errors
    /// Why not even the process table can be read by BPF.
    pub fn load(sysfs: &Path, mut options: Options) -> Result<Self, BpfError> {
        let object = OBJECT.ok_or(BpfError::NotEmbedded)?;
        if options.without.contains(&Rung::IterTask) {
            return Err(BpfError::Unwanted {
                hook: Rung::IterTask.to_string(),
            });
        }
        if !in_host_pid_namespace() {
            return Err(BpfError::OtherPidNamespace);
        }
        let path = sysfs.join("kernel/btf/vmlinux");
        let no_btf = |source| BpfError::NoBtf {
            path: path.display().to_string(),
            source,
        };
        let data = fs::read(&path).map_err(no_btf)?;
        let resolved = layout::resolve(&data, &options.hierarchy)?;
        if options.groups_by == GroupsBy::Cgroup && !resolved.has(For::Cgroups) {
            options.groups_by = GroupsBy::Assignment;
        }
        let btf = Btf::parse(&data, aya::Endianness::default())
            .map_err(|error| no_btf(io::Error::other(error)))?;
        drop(data);

        let (mut ebpf, missing) = load::load_object(object, &btf, &resolved, &options)?;
        let lost = open(&mut ebpf, maps::LOST)?;
        let iterator = load::load_iterator(&mut ebpf, &btf)?;
        let mut bpf = Self {
            probes: Probes::default(),
            ebpf,
            lost,
            options,
            resolved,
            attached: vec![iterator],
            standings: Vec::new(),
            unmet: FxHashSet::default(),
        };
        bpf.climb_all(&btf, &missing);
        if bpf.options.baseline {
            bpf.attach_empty(&btf)?;
        }
        bpf.name_groups()?;
        Ok(bpf)
    }

    /// Whether the kernel counts disk bytes (`CONFIG_TASK_IO_ACCOUNTING`).
    #[must_use]
    pub fn knows_disk(&self) -> bool {
        self.resolved.has(For::Disk)
    }

    /// Whether resident memory can be read.
    #[must_use]
    pub fn knows_memory(&self) -> bool {
        self.resolved.has(For::Memory)
    }

    /// How many groups there is room for.
    #[must_use]
    pub fn group_capacity(&self) -> usize {
        self.options.groups as usize
    }

    /// Messages from the programs, to be flushed to the log when its descriptor is readable.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_logger(&mut self) -> Result<sys::BpfLog, aya_log::Error> {
        EbpfLogger::init(&mut self.ebpf)
    }

    /// Runs the iterator over all tasks and appends its records to `buffer`.
    ///
    /// # Errors
    /// If the iterator can't be started or read.
    pub fn read_tasks(&mut self, buffer: &mut Vec<u8>) -> Result<(), BpfError> {
        let failed = || failed(programs::TASKS, "attach");
        let iterator = program::<Iter>(&mut self.ebpf, programs::TASKS)?;
        let link = iterator.attach().map_err(failed())?;
        let link = iterator.take_link(link).map_err(failed())?;
        let read = |source| BpfError::Read {
            what: "the task iterator",
            source,
        };
        let mut file = link
            .into_file()
            .map_err(|error| read(io::Error::other(error)))?;
        file.read_to_end(buffer).map_err(read)?;
        Ok(())
    }

    /// Everything that was settled, by group.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn read_groups(&self) -> Result<Vec<(Name, GroupUse)>, BpfError> {
        let Some(Map::HashMap(groups)) = self.ebpf.map(maps::GROUPS) else {
            return Err(map_error(maps::GROUPS, no_such_map(maps::GROUPS)));
        };
        sys::read_map(groups).map_err(|source| BpfError::Read {
            what: maps::GROUPS,
            source,
        })
    }

    /// By what the programs put processes together. Where they can't tell control groups apart,
    /// by what [`assign`](Self::assign) says.
    #[must_use]
    pub fn groups_by(&self) -> GroupsBy {
        self.options.groups_by
    }

    /// Puts processes, by what the kernel knows them by, and those that they make from now on, into
    /// groups. What there is no room for stays where it is. For a command name, they go by whatever
    /// their name is again.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn assign(&mut self, groups: &[(u64, Name)]) -> Result<(), BpfError> {
        let failed = |source| map_error(maps::ASSIGNED, source);
        let map = self.ebpf.map_mut(maps::ASSIGNED);
        let map = map.ok_or_else(|| failed(no_such_map(maps::ASSIGNED)))?;
        let mut assigned = HashMap::<_, u64, Name>::try_from(map).map_err(failed)?;
        for (signal, group) in groups {
            if group.is_command() {
                ignore_absent(assigned.remove(signal)).map_err(failed)?;
                continue;
            }
            ignore_full(assigned.insert(signal, group, 0)).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes groups out of the account of what was settled. What comes to one later begins at zero.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn forget_groups(&mut self, names: &[Name]) -> Result<(), BpfError> {
        let failed = |source| map_error(maps::GROUPS, source);
        let groups = self.ebpf.map_mut(maps::GROUPS);
        let groups = groups.ok_or_else(|| failed(no_such_map(maps::GROUPS)))?;
        let mut groups = HashMap::<_, Name, GroupUse>::try_from(groups).map_err(failed)?;
        for name in names {
            ignore_absent(groups.remove(name)).map_err(failed)?;
        }
        Ok(())
    }

    /// A number of the table of what was lost.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn lost(&self, what: Lost) -> Result<u64, BpfError> {
        self.lost
            .get(&(what as u32), 0)
            .map_err(|source| map_error(maps::LOST, source))
    }

    /// The attached programs, with what the kernel counts of each.
    #[must_use]
    pub fn programs(&self, procfs: &Path) -> Vec<ProgramStatus> {
        let timed = fs::read_to_string(procfs.join("sys/kernel/bpf_stats_enabled"))
            .is_ok_and(|enabled| enabled.trim() != "0");
        let status = |Attached { program, attach }: &Attached| {
            let fd = self.ebpf.program(program)?.fd().ok()?.as_fd();
            Some(ProgramStatus {
                counters: sys::program_counters(fd).ok()?,
                program: program.clone(),
                attach: attach.clone(),
                timed,
            })
        };
        self.attached.iter().filter_map(status).collect()
    }

    /// How full the maps in use are, as far as this pass saw; `groups` is `None` if it read none.
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn maps(&self, pass: &Pass, groups: Option<u64>) -> Result<Vec<MapStatus>, BpfError> {
        let used = |rung| {
            self.standings
                .iter()
                .any(|standing| standing.rung == Some(rung))
        };
        let settles = used(Rung::SchedProcessExit);
        let (probes, places) = (used(Rung::Kprobe), used(Rung::TcpSock));
        let devices = used(Rung::BlockRq);
        let (threads, processes) = (Some(pass.tracked_threads), Some(pass.tracked_processes));
        let counters = [
            (maps::THREADS, threads, Lost::ThreadsRefused, settles),
            (maps::PROCESSES, processes, Lost::ProcessesRefused, settles),
            (maps::GROUPS, groups, Lost::GroupsRefused, settles),
            (maps::CALLS, None, Lost::CallsRefused, probes),
            (maps::SOCKETS, None, Lost::SocketsRefused, places),
            (maps::REQUESTS, None, Lost::RequestsRefused, devices),
            (
                maps::PROCESS_LATENCY,
                None,
                Lost::ProcessLatencyRefused,
                devices,
            ),
            (
                maps::GROUP_LATENCY,
                None,
                Lost::GroupLatencyRefused,
                devices,
            ),
        ];
        let capacities = self.options.capacities();
        let mut all = Vec::new();
        for (map, entries, refused, used) in counters {
            let capacity = capacities.iter().find(|(name, _)| *name == map);
            if let Some((_, capacity)) = capacity.filter(|_| used) {
                all.push(MapStatus {
                    map,
                    entries,
                    capacity: u64::from(*capacity),
                    refused: self.lost(refused)?,
                });
            }
        }
        Ok(all)
    }

    /// How many returns of functions no probe saw; `None` where there are no probes.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn missed_returns(&self) -> Result<Option<u64>, BpfError> {
        let by_probes = |standing: &Standing| standing.rung == Some(Rung::Kprobe);
        let used = self.standings.iter().any(by_probes);
        used.then(|| self.lost(Lost::ReturnsMissed)).transpose()
    }

    /// Hangs an empty program beside each that has one.
    fn attach_empty(&mut self, btf: &Btf) -> Result<(), BpfError> {
        let programs: Vec<_> = self.attached.iter().map(|it| it.program.clone()).collect();
        for program in programs {
            let empty = self.attacher(btf).attach_empty(&program)?;
            self.attached.extend(empty);
        }
        Ok(())
    }

    /// Makes an entry for every command name that is alive, as the hooks do for those to come:
    /// from here on a name without an entry is one that the map refused.
    fn name_groups(&mut self) -> Result<(), BpfError> {
        let mut buffer = Vec::new();
        self.read_tasks(&mut buffer)?;
        let failed = |source| map_error(maps::GROUPS, source);
        let groups = self.ebpf.map_mut(maps::GROUPS);
        let groups = groups.ok_or_else(|| failed(no_such_map(maps::GROUPS)))?;
        let mut groups = HashMap::<_, Name, GroupUse>::try_from(groups).map_err(failed)?;
        for process in records::decode(&buffer)?.processes {
            ignore_full(groups.insert(process.group, GroupUse::default(), BPF_NOEXIST))
                .map_err(failed)?;
        }
        Ok(())
    }
}

const BPF_NOEXIST: u64 = 1;

/// Whether an entry was taken away, or was not there.
fn ignore_absent(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Whether an entry was made, is there, or had no room.
fn ignore_full(inserted: Result<(), MapError>) -> Result<(), MapError> {
    match inserted {
        Err(MapError::SyscallError(error))
            if matches!(
                error.io_error.raw_os_error(),
                Some(libc::EEXIST | libc::E2BIG | libc::ENOMEM)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Whether this is the initial PID namespace, whose inode number is fixed
/// (`PROC_PID_INIT_INO` of `include/linux/proc_ns.h`). Where that can't be read, it is assumed.
#[must_use]
pub fn in_host_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").map_or(true, |name| name.as_os_str() == "pid:[4026531836]")
}

fn open<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, BpfError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| map_error(name, no_such_map(name)))?;
    map.try_into().map_err(|source| map_error(name, source))
}
