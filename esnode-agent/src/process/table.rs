//! One pass over all processes, from the best source there is.

use super::{
    Disk, Group, Key, Process, Usage,
    ledger::Live,
    procfs::{Procfs, Units},
};
use crate::{
    bpf::{
        Bpf, BpfError, DiskLatency, GroupsBy, MapStatus, ProgramStatus,
        records::{self, Pass, TaskProcess, add_account, add_network},
    },
    error::ReadError,
    ladder::{Rung, Signal, Standing},
};
use esnode_ebpf::{Account, GroupUse, Lost, Name, Network};
use rustc_hash::FxHashMap;
use std::{collections::HashMap, path::PathBuf};
use thiserror::Error;
use tracing::warn;

/// Why a pass gave nothing.
#[derive(Debug, Error)]
pub enum TableError {
    /// The BPF side failed.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The `/proc` side failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Bytes that a hook saw and no group got.
#[derive(Clone, Copy, Debug)]
pub struct Unattributed {
    /// What they are: `network_receive`, `disk_write` …
    pub signal: &'static str,
    /// Why nobody got them.
    pub reason: &'static str,
    /// How many since start.
    pub bytes: u64,
}

/// Which rung of the attribution ladder a signal is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The signal.
    pub signal: Signal,
    /// The rung, if there is one.
    pub rung: Option<Rung>,
}

impl Source {
    /// Those that the page tells of.
    #[must_use]
    pub fn of_page(standings: &[Standing]) -> Vec<Self> {
        let standings = standings.iter();
        standings
            .filter(|standing| standing.signal != Signal::DiskLatency)
            .map(|standing| Self {
                signal: standing.signal,
                rung: standing.rung,
            })
            .collect()
    }
}

/// Everything that one pass found.
#[derive(Debug, Default)]
pub struct Table {
    /// Live processes.
    pub processes: Vec<Process>,
    /// How many were left out because their numbers make no sense; `None` where that can't be.
    pub malformed: Option<usize>,
    /// Groups as the hooks know them, without their live members; `None` without hooks.
    pub groups: Option<Vec<Group>>,
    /// What nobody got; empty without hooks.
    pub unattributed: Vec<Unattributed>,
    /// Attached programs.
    pub programs: Vec<ProgramStatus>,
    /// How full the BPF maps are.
    pub maps: Vec<MapStatus>,
    /// Returns of functions that no probe saw, where there are probes.
    pub missed_returns: Option<u64>,
    /// How long block devices take, where that is measured.
    pub latency: Option<DiskLatency>,
}

/// Reads the process table.
pub struct TableReader {
    bpf: Option<Bpf>,
    procfs: Procfs,
    procfs_root: PathBuf,
    units: Units,
    /// Kept between passes, so that its memory is.
    buffer: Vec<u8>,
    /// CPU time and running count at the last exact reading of resident memory, and the reading.
    exact: FxHashMap<Key, ((u64, Option<u64>), u64)>,
    told_malformed: bool,
    /// Whether processes can change their group in the eyes of the agent alone.
    keeps_unsettled: bool,
}

impl TableReader {
    /// Reads by `bpf` if there is one, else from the files below `procfs`.
    #[must_use]
    pub fn new(bpf: Option<Bpf>, procfs_root: PathBuf, units: Units) -> Self {
        let procfs = Procfs::new(&procfs_root, units);
        let groups_by = bpf.as_ref().map(Bpf::groups_by);
        Self {
            bpf,
            procfs,
            procfs_root,
            units,
            buffer: Vec::new(),
            exact: FxHashMap::default(),
            told_malformed: false,
            keeps_unsettled: groups_by.is_some_and(|by| by != GroupsBy::Command),
        }
    }

    /// By what the BPF programs put processes together; `None` without them.
    #[must_use]
    pub fn groups_by(&self) -> Option<GroupsBy> {
        self.bpf.as_ref().map(Bpf::groups_by)
    }

    /// Tells the BPF programs which groups these processes are in, by [`Process::signal`].
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn assign(&mut self, groups: &[(u64, Name)]) -> Result<(), BpfError> {
        self.bpf.as_mut().map_or(Ok(()), |bpf| bpf.assign(groups))
    }

    /// Lets the BPF programs forget what groups used that are gone.
    ///
    /// # Errors
    /// If the map can't be written.
    pub fn forget_groups(&mut self, names: &[Name]) -> Result<(), BpfError> {
        let bpf = self.bpf.as_mut();
        bpf.map_or(Ok(()), |bpf| bpf.forget_groups(names))
    }

    /// Units of the numbers that the kernel gives.
    #[must_use]
    pub fn units(&self) -> Units {
        self.units
    }

    /// What the live threads of a process used, each by its own account.
    #[must_use]
    pub fn live_threads(&self, pid: u32) -> Live {
        self.procfs.live_threads(pid)
    }

    /// Processes from `/proc`, without those that make no sense.
    fn read_procfs(&mut self) -> Result<Table, ReadError> {
        let found = self.procfs.processes()?;
        if let (Some(error), false) = (found.malformed.first(), self.told_malformed) {
            self.told_malformed = true;
            warn!("processes whose numbers make no sense are left out: {error}");
        }
        Ok(Table {
            processes: found.processes,
            malformed: Some(found.malformed.len()),
            ..Table::default()
        })
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// If the source as a whole can't be read; single processes that can't are left out.
    pub fn read(&mut self) -> Result<Table, TableError> {
        let Some(bpf) = &mut self.bpf else {
            return Ok(self.read_procfs()?);
        };
        // Groups first: what ends between the two reads is then missing from this pass, and in
        // the next. The other way round it would be counted twice. If something did end, another
        // try may meet a quieter moment.
        let mut settled = bpf
            .rung(Signal::EndedProcesses)
            .map(|_| bpf.read_groups())
            .transpose()?;
        for last in [false, false, true] {
            self.buffer.clear();
            bpf.read_tasks(&mut self.buffer)?;
            let Some(before) = &mut settled else { break };
            if last {
                break;
            }
            let after = bpf.read_groups()?;
            if after == *before {
                break;
            }
            *before = after;
        }
        let pass = records::decode(&self.buffer)?;
        let known = Known {
            disk: bpf.knows_disk(),
            network: bpf.rung(Signal::Network).is_some(),
        };
        let mut table = Table {
            programs: bpf.programs(&self.procfs_root),
            maps: bpf.maps(&pass, settled.as_ref().map(|settled| settled.len() as u64))?,
            missed_returns: bpf.missed_returns()?,
            latency: bpf.read_latency(&pass)?,
            ..Table::default()
        };
        if let Some(settled) = settled {
            let full = settled.len() >= bpf.group_capacity();
            let (groups, homeless) = known.groups(settled, full, &pass);
            table.groups = Some(groups);
            table.unattributed = known.unattributed(bpf, &homeless)?;
        }
        let memory = bpf.knows_memory();
        table.processes.reserve(pass.processes.len());
        for task in pass.processes.iter().filter(|task| !task.dead) {
            table.processes.push(self.process(task, known, memory));
        }
        Ok(table)
    }

    /// Reads resident memory of the few that are shown once more. The iterator has the kernel's
    /// running count, which since Linux 6.2 leaves out what CPUs have yet to add to it. A process
    /// that has not run since, and whose count has not changed, keeps the last reading.
    pub fn refine(&mut self, processes: &mut [Process]) {
        if self.bpf.is_none() {
            return;
        }
        let mut exact = FxHashMap::default();
        for process in processes.iter_mut().filter(|process| !process.kernel) {
            let seen = (process.usage.cpu_nanoseconds, process.resident_bytes);
            let reading = match self.exact.get(&process.key) {
                Some((before, reading)) if *before == seen => Some(*reading),
                _ => self.procfs.resident_bytes(process.key.pid),
            };
            if let Some(reading) = reading {
                exact.insert(process.key, (seen, reading));
                process.resident_bytes = Some(reading);
            }
        }
        self.exact = exact;
    }

    fn process(&self, task: &TaskProcess, known: Known, memory: bool) -> Process {
        let mut usage = known.usage(
            &task.account,
            &task
                .traffic
                .as_ref()
                .map_or_else(Network::default, |traffic| traffic.network),
        );
        if task.torn
            && let Ok(Some(second)) = self.procfs.process(task.tgid)
        {
            usage.cpu_nanoseconds = second.usage.cpu_nanoseconds;
            usage.disk = second.usage.disk.or(usage.disk);
        }
        Process {
            key: Key {
                pid: task.tgid,
                start_nanoseconds: task.start_boottime_nanoseconds,
            },
            parent: task.parent_tgid,
            name: task.name,
            group: task.group,
            cgroup: task.cgroup,
            signal: task.signal,
            memory: task.memory,
            kernel: task.kernel,
            threads: task.threads,
            resident_bytes: memory.then_some(task.resident_pages * self.units.page_bytes),
            usage,
            unsettled: self.keeps_unsettled.then(|| {
                let traffic = task.traffic.as_ref();
                let network = traffic.map(|traffic| traffic.unsettled);
                Box::new(known.usage(&task.unsettled, &network.unwrap_or_default()))
            }),
        }
    }
}

/// Which of the numbers in the maps and records mean something here.
#[derive(Clone, Copy)]
struct Known {
    disk: bool,
    network: bool,
}

impl Known {
    fn usage(self, account: &Account, network: &Network) -> Usage {
        Usage {
            cpu_nanoseconds: account.cpu_nanoseconds,
            disk: self.disk.then_some(Disk {
                read_bytes: account.disk_read_bytes,
                write_bytes: account.disk_write_bytes,
                cancelled_write_bytes: account.disk_cancelled_write_bytes,
            }),
            network: self.network.then_some(*network),
        }
    }

    /// Adds what live threads have not settled to what was. Also gives the sum of those whose
    /// name has no group, because the map of groups was full when they took it.
    fn groups(
        self,
        settled: Vec<(Name, GroupUse)>,
        full: bool,
        pass: &Pass,
    ) -> (Vec<Group>, GroupUse) {
        let mut index = HashMap::with_capacity(settled.len());
        let mut groups = settled;
        for (place, (name, _)) in groups.iter().enumerate() {
            index.insert(*name, place);
        }
        let mut homeless = GroupUse::default();
        for task in &pass.processes {
            let place = match index.get(&task.group) {
                Some(place) => *place,
                // The name was taken after the groups were read.
                None if !full => {
                    groups.push((task.group, GroupUse::default()));
                    index.insert(task.group, groups.len() - 1);
                    groups.len() - 1
                }
                None => usize::MAX,
            };
            let group = groups
                .get_mut(place)
                .map_or(&mut homeless, |(_, group)| group);
            add_account(&mut group.account, &task.unsettled);
            if let Some(traffic) = &task.traffic {
                add_network(&mut group.network, &traffic.unsettled);
            }
        }
        let group = |(name, group): (Name, GroupUse)| Group {
            name,
            usage: self.usage(&group.account, &group.network),
            started: group.started,
            exited: group.exited,
            ..Group::default()
        };
        (groups.into_iter().map(group).collect(), homeless)
    }

    fn unattributed(self, bpf: &Bpf, homeless: &GroupUse) -> Result<Vec<Unattributed>, BpfError> {
        const MAP_FULL: &str = "map_full";
        const NO_PROCESS: &str = "no_process";
        let bytes = |signal, reason, lost, homeless| {
            Ok::<_, BpfError>(Unattributed {
                signal,
                reason,
                bytes: bpf.lost(lost)? + homeless,
            })
        };
        let (mut received, mut sent) = (0, 0);
        for traffic in &homeless.network {
            received += traffic.receive_bytes;
            sent += traffic.transmit_bytes;
        }
        let account = &homeless.account;
        let mut all = Vec::new();
        if self.network {
            all.push(bytes(
                "network_receive",
                MAP_FULL,
                Lost::ReceiveMapFull,
                received,
            )?);
            all.push(bytes(
                "network_receive",
                NO_PROCESS,
                Lost::ReceiveNoProcess,
                0,
            )?);
            all.push(bytes(
                "network_transmit",
                MAP_FULL,
                Lost::TransmitMapFull,
                sent,
            )?);
            all.push(bytes(
                "network_transmit",
                NO_PROCESS,
                Lost::TransmitNoProcess,
                0,
            )?);
        }
        if self.disk {
            let (read, written) = (account.disk_read_bytes, account.disk_write_bytes);
            all.push(bytes("disk_read", MAP_FULL, Lost::DiskReadMapFull, read)?);
            all.push(bytes(
                "disk_write",
                MAP_FULL,
                Lost::DiskWriteMapFull,
                written,
            )?);
        }
        Ok(all)
    }
}
