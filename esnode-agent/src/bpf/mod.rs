//! The BPF side of the agent: loading, attaching, and reading what the programs counted.

pub mod btf;
mod error;
mod hooks;
pub mod layout;
pub mod records;
mod status;
pub mod sys;

pub use error::BpfError;
pub use hooks::Part;
pub use status::{MapStatus, ProgramStatus, RunStatistics};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::{Iter, Program},
};
use aya_log::EbpfLogger;
use error::{map_error, no_such_map};
use esnode_ebpf::{GroupUse, Lost, Name, globals, maps, programs};
use hooks::{Attached, program};
use layout::Resolved;
use records::Pass;
use status::parse_statistics;
use std::{
    fs,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
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
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that use the network, and tasks that were settled and still exist.
    pub threads: u32,
    /// Processes that lost a thread which had used the network.
    pub processes: u32,
    /// Command names since start.
    pub groups: u32,
    /// Attach an empty program to each hook as well, to compare with.
    pub baseline: bool,
}

/// The loaded programs and their maps. Dropping it detaches them.
pub struct Bpf {
    ebpf: Ebpf,
    lost: Array<MapData, u64>,
    options: Options,
    resolved: Resolved,
    attached: Vec<Attached>,
    refused: Vec<(Part, BpfError)>,
}

impl Bpf {
    /// Loads the programs and attaches as many as this kernel takes.
    ///
    /// # Errors
    /// Why not even the process table can be read by BPF.
    pub fn load(sysfs: &Path, options: Options) -> Result<Self, BpfError> {
        let object = OBJECT.ok_or(BpfError::NotEmbedded)?;
        let path = sysfs.join("kernel/btf/vmlinux");
        let no_btf = |source| BpfError::NoBtf {
            path: path.display().to_string(),
            source,
        };
        let data = fs::read(&path).map_err(no_btf)?;
        let resolved = layout::resolve(&data)?;
        let btf = Btf::parse(&data, aya::Endianness::default())
            .map_err(|error| no_btf(io::Error::other(error)))?;
        drop(data);

        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global(globals::LAYOUT, &resolved.layout, true)
            .map_max_entries(maps::THREADS, options.threads)
            .map_max_entries(maps::PROCESSES, options.processes)
            .map_max_entries(maps::GROUPS, options.groups)
            .load(object)?;
        let lost = open(&mut ebpf, maps::LOST)?;
        let mut bpf = Self {
            ebpf,
            lost,
            options,
            resolved,
            attached: Vec::new(),
            refused: Vec::new(),
        };
        bpf.load_iterator(&btf)?;
        for part in [Part::Ended, Part::Network] {
            let possible = part == Part::Ended || (bpf.has(Part::Ended) && resolved.network);
            if possible {
                match part.attach(&mut bpf.ebpf, &btf) {
                    Ok(attached) => bpf.attached.extend(attached),
                    Err(error) => bpf.refused.push((part, error)),
                }
            }
        }
        if options.baseline {
            let attached = hooks::attach_empty(&mut bpf.ebpf, &btf)?;
            bpf.attached.extend(attached);
        }
        bpf.name_groups()?;
        Ok(bpf)
    }

    /// Which parts do not work, and why.
    #[must_use]
    pub fn refused(&self) -> &[(Part, BpfError)] {
        &self.refused
    }

    /// Whether all hooks of a part are attached.
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        part.hooks().all(|hook| {
            self.attached
                .iter()
                .any(|(program, _)| *program == hook.program)
        })
    }

    /// What the kernel's fields allow.
    #[must_use]
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
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
        let attach = |source| BpfError::Program {
            program: programs::TASKS,
            action: "attach",
            source,
        };
        let boxed = |error| attach(Box::new(error));
        let iterator = program::<Iter>(&mut self.ebpf, programs::TASKS)?;
        let link = iterator.attach().map_err(boxed)?;
        let link = iterator.take_link(link).map_err(boxed)?;
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

    /// A number of the table of what was lost.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn lost(&self, what: Lost) -> Result<u64, BpfError> {
        self.lost
            .get(&(what as u32), 0)
            .map_err(|source| map_error(maps::LOST, source))
    }

    /// The attached programs, with statistics where the kernel keeps them.
    #[must_use]
    pub fn programs(&self, procfs: &Path) -> Vec<ProgramStatus> {
        let counting = fs::read_to_string(procfs.join("sys/kernel/bpf_stats_enabled"))
            .is_ok_and(|enabled| enabled.trim() != "0");
        let status = |(program, attach): &Attached| ProgramStatus {
            program,
            attach,
            statistics: if counting {
                self.statistics(program, procfs)
            } else {
                None
            },
        };
        self.attached.iter().map(status).collect()
    }

    /// How full the maps are, as far as this pass saw; `groups` is `None` if it read none.
    ///
    /// # Errors
    /// If a map can't be read.
    pub fn maps(&self, pass: &Pass, groups: Option<u64>) -> Result<[MapStatus; 3], BpfError> {
        let Options {
            threads,
            processes,
            groups: names,
            ..
        } = self.options;
        let status = |map, entries, capacity: u32, refused| {
            Ok::<_, BpfError>(MapStatus {
                map,
                entries,
                capacity: capacity.into(),
                refused: self.lost(refused)?,
            })
        };
        Ok([
            status(
                maps::THREADS,
                Some(pass.tracked_threads),
                threads,
                Lost::ThreadsRefused,
            )?,
            status(
                maps::PROCESSES,
                Some(pass.tracked_processes),
                processes,
                Lost::ProcessesRefused,
            )?,
            status(maps::GROUPS, groups, names, Lost::GroupsRefused)?,
        ])
    }

    fn load_iterator(&mut self, btf: &Btf) -> Result<(), BpfError> {
        program::<Iter>(&mut self.ebpf, programs::TASKS)?
            .load("task", btf)
            .map_err(|source| BpfError::Program {
                program: programs::TASKS,
                action: "load",
                source: Box::new(source),
            })?;
        self.attached.push((programs::TASKS, "iter/task"));
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
            match groups.insert(process.group, GroupUse::default(), BPF_NOEXIST) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if matches!(
                        error.io_error.raw_os_error(),
                        Some(libc::EEXIST | libc::E2BIG | libc::ENOMEM)
                    ) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(())
    }

    fn statistics(&self, name: &str, procfs: &Path) -> Option<RunStatistics> {
        let fd = match self.ebpf.program(name)? {
            Program::BtfTracePoint(program) => program.fd().ok()?.as_fd().as_raw_fd(),
            Program::Iter(program) => program.fd().ok()?.as_fd().as_raw_fd(),
            _ => return None,
        };
        let text = fs::read_to_string(procfs.join(format!("self/fdinfo/{fd}"))).ok()?;
        parse_statistics(&text)
    }
}

const BPF_NOEXIST: u64 = 1;

fn open<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, BpfError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| map_error(name, no_such_map(name)))?;
    map.try_into().map_err(|source| map_error(name, source))
}
