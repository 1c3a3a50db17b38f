//! The BPF side of the agent: loading, attaching, and reading what the programs counted.

pub mod btf;
pub mod layout;
pub mod records;
pub mod sys;

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::{Iter, Program, ProgramError},
};
use aya_log::EbpfLogger;
use esnode_ebpf::{GroupUse, Lost, Name, globals, maps, programs};
use layout::{LayoutError, Resolved};
use records::Pass;
use std::{
    fs,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
    path::Path,
};
use thiserror::Error;

#[cfg(bpf_object)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("ESNODE_BPF_OBJECT")));
#[cfg(not(bpf_object))]
static OBJECT: Option<&[u8]> = None;

/// Whether this binary was built with BPF objects inside.
#[must_use]
pub fn is_embedded() -> bool {
    OBJECT.is_some()
}

/// Why BPF is not used.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The binary was built by plain `cargo build`.
    #[error("this binary was built without BPF objects: build it with `cargo xtask build`")]
    NotEmbedded,
    /// The kernel does not describe its types, or not readably.
    #[error("cannot read the kernel's BTF at {path} (CONFIG_DEBUG_INFO_BTF): {source}")]
    NoBtf {
        /// Where it should be.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A field could not be found.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A map or the object could not be created; without CAP_BPF, CAP_PERFMON or CAP_SYS_ADMIN
    /// the kernel refuses the first map.
    #[error("cannot load the BPF object: {}", error_chain(.0))]
    Load(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("cannot {action} the BPF program {program}: {}", first_lines(.source))]
    Program {
        /// Its name.
        program: &'static str,
        /// `load` or `attach`.
        action: &'static str,
        /// The kernel's answer.
        source: Box<ProgramError>,
    },
    /// A map could not be opened or written.
    #[error("cannot use the BPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: Box<MapError>,
    },
    /// A map could not be read, or the iterator failed.
    #[error("cannot read {what}: {source}")]
    Read {
        /// Map or iterator.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Records do not fit the contract.
    #[error("the task iterator wrote something else than agreed, at byte {at} of {len}")]
    Record {
        /// Where decoding stopped.
        at: usize,
        /// Bytes read in this pass.
        len: usize,
    },
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A verifier log runs over pages; its last lines tell what was refused.
fn first_lines(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = lines
                .get(lines.len().saturating_sub(3)..)
                .unwrap_or_default();
            format!(
                "{io_error}; the verifier's last words: {}",
                tail.join(" | ")
            )
        }
        other => error_chain(other),
    }
}

/// How many entries the maps may hold. Entries are made as they are needed.
#[derive(Clone, Copy, Debug)]
pub struct Capacities {
    /// Threads that use the network, and tasks that were settled and still exist.
    pub threads: u32,
    /// Processes that lost a thread which had used the network.
    pub processes: u32,
    /// Command names since start.
    pub groups: u32,
}

/// One program, as it is attached.
#[derive(Clone, Debug)]
pub struct ProgramStatus {
    /// Name of the program.
    pub program: &'static str,
    /// What it hangs on, such as `tp_btf/sched_process_exit`.
    pub attach: &'static str,
    /// Runs and the time they took; only while `kernel.bpf_stats_enabled` is 1.
    pub statistics: Option<RunStatistics>,
}

/// From the kernel's BPF statistics.
#[derive(Clone, Copy, Debug)]
pub struct RunStatistics {
    /// How often it ran.
    pub runs: u64,
    /// How long, in nanoseconds, over all runs.
    pub nanoseconds: u64,
}

/// How full a map is.
#[derive(Clone, Copy, Debug)]
pub struct MapStatus {
    /// Name of the map.
    pub map: &'static str,
    /// Entries it holds, as far as the last pass met them.
    pub entries: Option<u64>,
    /// Entries it can hold.
    pub capacity: u64,
    /// How often an entry was refused because it was full.
    pub refused: u64,
}

/// A hook and the program for it.
struct Hook {
    program: &'static str,
    attach: &'static str,
    needed_for: Part,
}

/// What stops working without a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What ended processes used, and what others used before an exec.
    Ended,
    /// Network bytes, which also need [`Part::Ended`].
    Network,
}

const HOOKS: [Hook; 6] = [
    Hook {
        program: programs::TASK_NEWTASK,
        attach: "tp_btf/task_newtask",
        needed_for: Part::Ended,
    },
    Hook {
        program: programs::TASK_RENAME,
        attach: "tp_btf/task_rename",
        needed_for: Part::Ended,
    },
    Hook {
        program: programs::SCHED_PROCESS_FREE,
        attach: "tp_btf/sched_process_free",
        needed_for: Part::Ended,
    },
    Hook {
        program: programs::SCHED_PROCESS_EXIT,
        attach: "tp_btf/sched_process_exit",
        needed_for: Part::Ended,
    },
    Hook {
        program: programs::SOCK_SEND_LENGTH,
        attach: "tp_btf/sock_send_length",
        needed_for: Part::Network,
    },
    Hook {
        program: programs::SOCK_RECV_LENGTH,
        attach: "tp_btf/sock_recv_length",
        needed_for: Part::Network,
    },
];

/// The loaded programs and their maps. Dropping it detaches them.
pub struct Bpf {
    ebpf: Ebpf,
    lost: Array<MapData, u64>,
    capacities: Capacities,
    resolved: Resolved,
    attached: Vec<(&'static str, &'static str)>,
    refused: Vec<(Part, BpfError)>,
}

impl Bpf {
    /// Loads the programs and attaches as many as this kernel takes.
    ///
    /// # Errors
    /// Why not even the process table can be read by BPF.
    pub fn load(sysfs: &Path, capacities: Capacities) -> Result<Self, BpfError> {
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
            .map_max_entries(maps::THREADS, capacities.threads)
            .map_max_entries(maps::PROCESSES, capacities.processes)
            .map_max_entries(maps::GROUPS, capacities.groups)
            .load(object)?;
        let lost = open(&mut ebpf, maps::LOST)?;
        let mut bpf = Self {
            ebpf,
            lost,
            capacities,
            resolved,
            attached: Vec::new(),
            refused: Vec::new(),
        };
        bpf.load_iterator(&btf)?;
        bpf.attach_part(Part::Ended, &btf);
        if bpf.has(Part::Ended) && resolved.network {
            bpf.attach_part(Part::Network, &btf);
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
        HOOKS
            .iter()
            .filter(|hook| hook.needed_for == part)
            .all(|hook| {
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
        let status = |(program, attach): &(&'static str, &'static str)| ProgramStatus {
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
        let Capacities {
            threads,
            processes,
            groups: names,
        } = self.capacities;
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

    /// Attaches the hooks of one part. If one is refused, the part's other hooks are taken away
    /// again: half of it would publish numbers that only look right.
    fn attach_part(&mut self, part: Part, btf: &Btf) {
        let hooks = || HOOKS.iter().filter(|hook| hook.needed_for == part);
        for hook in hooks() {
            match attach(&mut self.ebpf, hook.program, btf) {
                Ok(()) => self.attached.push((hook.program, hook.attach)),
                Err(error) => {
                    self.refused.push((part, error));
                    break;
                }
            }
        }
        if !self.has(part) {
            self.attached
                .retain(|(program, _)| hooks().all(|hook| hook.program != *program));
            for hook in hooks() {
                if let Some(Program::BtfTracePoint(program)) = self.ebpf.program_mut(hook.program) {
                    // Unloading detaches; it fails only for a program that isn't loaded.
                    let _ = program.unload();
                }
            }
        }
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

/// Parses `/proc/self/fdinfo/FD` of a BPF program.
fn parse_statistics(text: &str) -> Option<RunStatistics> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')?
                .trim()
                .parse()
                .ok()
        })
    };
    Some(RunStatistics {
        runs: field("run_cnt")?,
        nanoseconds: field("run_time_ns")?,
    })
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, BpfError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let failed = |source| BpfError::Program {
        program: name,
        action: "find",
        source,
    };
    ebpf.program_mut(name)
        .ok_or_else(|| failed(Box::new(ProgramError::NotLoaded)))?
        .try_into()
        .map_err(|error| failed(Box::new(error)))
}

fn attach(ebpf: &mut Ebpf, name: &'static str, btf: &Btf) -> Result<(), BpfError> {
    let failed = |action| {
        move |source| BpfError::Program {
            program: name,
            action,
            source: Box::new(source),
        }
    };
    let program = program::<aya::programs::BtfTracePoint>(ebpf, name)?;
    program.load(name, btf).map_err(failed("load"))?;
    program.attach().map_err(failed("attach"))?;
    Ok(())
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

fn no_such_map(name: &str) -> MapError {
    MapError::InvalidName {
        name: name.to_owned(),
    }
}

fn map_error(map: &'static str, source: MapError) -> BpfError {
    BpfError::Map {
        map,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_from_fdinfo() {
        let text =
            "pos:\t0\nprog_type:\t26\nrun_time_ns:\t1500\nrun_cnt:\t10\nrecursion_misses:\t0\n";
        let statistics = parse_statistics(text).expect("both fields");
        assert_eq!((statistics.runs, statistics.nanoseconds), (10, 1500));
        assert!(parse_statistics("run_cnt:\t10\n").is_none());
    }
}
