//! The process collector: one pass, the groups' accounts, and the choice of what is shown.

mod grouping;

use super::{
    Key, Process,
    ends::Ends,
    energy::{EnergyLedger, EnergyShares},
    gpu::{GpuShares, holders},
    ledger::{self, KernelLedger},
    listener::{Shared, listen, lock},
    named::{GroupSelection, NamedGroup},
    selection::{Claim, Moment, ProcessSelection},
    sock_diag::{Namespaces, SockDiag},
    table::{Source, Table, TableError, TableReader, Unattributed},
};
use crate::{
    bpf::{DiskLatency, GroupsBy, MapStatus, ProgramStatus},
    gpu::{book::GroupBook, collector::Shared as Gpus, facts::GpuFacts},
    identity::{Identity, census::Census},
    ladder::Rung,
};
use rustc_hash::FxHashSet;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tracing::warn;

/// What the page says of processes.
#[derive(Debug)]
pub struct ProcessFacts {
    /// Those with series of their own.
    pub shown: Vec<Process>,
    /// Who they are, in the same order.
    pub identities: Vec<Identity>,
    /// The labels of their groups, in the same order.
    pub labels: Vec<Arc<str>>,
    /// Who is in a group, by its label, where that is not the command name.
    pub members: BTreeMap<Arc<str>, Identity>,
    /// Live processes without.
    pub hidden: usize,
    /// All groups, within the limit.
    pub groups: Vec<NamedGroup>,
    /// What nobody got.
    pub unattributed: Vec<Unattributed>,
    /// Processes left out because their numbers make no sense.
    pub malformed: Option<usize>,
    /// The rungs in use.
    pub sources: Vec<Source>,
    /// Network namespaces, where sock_diag reads them.
    pub namespaces: Option<Namespaces>,
    /// How often a listening rung lost records.
    pub overruns: Vec<(Rung, u64)>,
    /// Attached programs.
    pub programs: Vec<ProgramStatus>,
    /// BPF maps.
    pub maps: Vec<MapStatus>,
    /// Returns of functions that no probe saw, where there are probes.
    pub missed_returns: Option<u64>,
    /// How long block devices take, where that is measured.
    pub latency: Option<DiskLatency>,
    /// What they use of GPUs.
    pub gpus: GpuShares,
    /// What they took of the energy of processors, where that is measured.
    pub energy: Option<EnergyShares>,
    /// When the kernel booted, in seconds since 1970, to turn start times into dates.
    pub boot_time_seconds: Option<f64>,
}

/// Where processes are read, and what stands in for BPF.
pub struct Below {
    /// The process table.
    pub reader: TableReader,
    /// Ended processes, where no BPF program adds them up.
    pub ends: Ends,
    /// Network bytes, where no BPF program counts them.
    pub sock_diag: Option<SockDiag>,
    /// The rungs in use.
    pub rungs: Vec<Source>,
}

/// What other collectors know of processes.
#[derive(Default)]
pub struct Devices {
    /// Who uses GPUs.
    pub gpus: Option<Gpus>,
    /// Where to say which groups these are in.
    pub book: GroupBook,
    /// The energy of processors.
    pub energy: EnergyLedger,
}

/// Who is shown, and how they are put together.
pub struct Choice {
    /// Who they are.
    pub census: Census,
    /// Processes.
    pub processes: ProcessSelection,
    /// Groups.
    pub groups: GroupSelection,
}

/// Reads processes and keeps what must outlive them.
pub struct ProcessCollector {
    reader: TableReader,
    rungs: Vec<Source>,
    kernel_ledger: KernelLedger,
    ends: Shared<Ends>,
    sock_diag: Option<Shared<SockDiag>>,
    census: Census,
    processes: ProcessSelection,
    groups: GroupSelection,
    devices: Devices,
    /// What the last page said: a process that is just between groups must not make it fall.
    unattributed: HashMap<(&'static str, &'static str), u64>,
    last: Option<Instant>,
    boot_time_seconds: Option<f64>,
}

impl ProcessCollector {
    /// Shows `choice` of what is found `below`.
    ///
    /// # Errors
    /// If the system refuses a thread to listen on.
    pub fn new(
        below: Below,
        choice: Choice,
        devices: Devices,
        boot_time_seconds: Option<f64>,
    ) -> io::Result<Self> {
        let Below {
            reader,
            ends,
            sock_diag,
            rungs,
        } = below;
        let sock_diag = sock_diag.map(|diag| Arc::new(Mutex::new(diag)));
        let mut new = Self {
            reader,
            rungs,
            kernel_ledger: KernelLedger::new(sock_diag.is_some()),
            ends: Arc::new(Mutex::new(ends)),
            sock_diag,
            census: choice.census,
            processes: choice.processes,
            groups: choice.groups,
            devices,
            unattributed: HashMap::new(),
            last: None,
            boot_time_seconds,
        };
        new.book_past();
        listen(&new.ends, new.sock_diag.as_ref())?;
        Ok(new)
    }

    /// What processes have by now is their past. What comes to it from children that end is not.
    /// Hooks are told which groups processes are in, as their children may be gone when they are
    /// looked at next.
    fn book_past(&mut self) {
        let ends = Arc::clone(&self.ends);
        let mut ends = lock(&ends);
        let assigns = self.reader.groups_by() == Some(GroupsBy::Assignment);
        if (assigns || ends.told().is_some())
            && let Ok((mut table, _)) = self.look(&GpuFacts::default())
        {
            let reader = &self.reader;
            match &mut table.groups {
                Some(groups) => self.kernel_ledger.complete(groups, &table.processes),
                None => drop(ends.book(&mut table.processes, &|pid| reader.live_threads(pid))),
            }
        }
    }

    /// The rung in use for each signal.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.rungs.clone()
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// If the process table can't be read.
    pub fn sample(&mut self) -> Result<ProcessFacts, TableError> {
        let gpus = self.devices.gpus.as_ref();
        let gpus = gpus.map(Gpus::get).unwrap_or_default();
        // Held while processes are read: see `Ends::book`.
        let ends = Arc::clone(&self.ends);
        let mut ends = lock(&ends);
        let (mut table, on_gpu) = self.look(&gpus)?;
        let hooked = table.groups.take();
        let by_hooks = hooked.is_some();
        let mut groups = hooked.unwrap_or_else(|| {
            let live = |pid| self.reader.live_threads(pid);
            ends.book(&mut table.processes, &live)
        });
        let mut overruns = Vec::new();
        if let Some(told) = ends.told() {
            table.unattributed.extend(told.unattributed());
            overruns.push((Rung::Taskstats, told.overruns()));
        }
        drop(ends);
        let mut namespaces = None;
        if let Some(diag) = &self.sock_diag {
            let mut diag = lock(diag);
            diag.sample(&mut table.processes, &mut groups);
            table.unattributed.extend(diag.unattributed());
            overruns.push((Rung::SockDiag, diag.overruns()));
            namespaces = Some(diag.namespaces());
        }
        if by_hooks {
            self.kernel_ledger.complete(&mut groups, &table.processes);
        }
        self.never_less(&mut table.unattributed);
        let mut shown = self.choose(&table.processes, &on_gpu);
        self.reader.refine(&mut shown);
        let identities = self.census.identify(&shown);
        let known: Vec<_> = groups.iter().map(|group| group.name).collect();
        let groups = self.groups.choose(groups);
        let units = self.reader.units();
        let energy = &mut self.devices.energy;
        let facts = ProcessFacts {
            hidden: table.processes.len() - shown.len(),
            gpus: GpuShares::new(&gpus, (&table.processes, &shown), &mut self.groups, units),
            energy: energy.share(&groups, &table.processes, &shown),
            labels: self.groups.labels(&shown),
            members: self.members(&table.processes),
            identities,
            groups,
            shown,
            unattributed: table.unattributed,
            malformed: table.malformed,
            namespaces,
            overruns,
            sources: self.sources(),
            programs: table.programs,
            maps: table.maps,
            missed_returns: table.missed_returns,
            latency: table.latency,
            boot_time_seconds: self.boot_time_seconds,
        };
        if let Err(error) = self.retire(&table.processes, &known) {
            warn!(%error, "cannot put away what containers used that are no more");
        }
        Ok(facts)
    }

    /// Reads the processes, finds out who they are, and puts them into their groups. Also tells
    /// which of them are on GPUs.
    fn look(&mut self, gpus: &GpuFacts) -> Result<(Table, FxHashSet<Key>), TableError> {
        let units = self.reader.units();
        let mut table = self.reader.read()?;
        let mut on_gpu = holders(gpus, &table.processes, units);
        self.census.look(&table.processes, &on_gpu);
        if self.assign(&mut table)? {
            // What was assigned counts from here on, so that no page has it elsewhere.
            table = self.reader.read()?;
            on_gpu = holders(gpus, &table.processes, units);
            self.census.look(&table.processes, &on_gpu);
        }
        self.learn(&table.processes);
        self.tell_gpus(gpus, &table.processes, &on_gpu);
        Ok((table, on_gpu))
    }

    /// Lets no number fall because a process is just between two groups.
    fn never_less(&mut self, unattributed: &mut [Unattributed]) {
        for lost in unattributed {
            let key = (lost.signal, lost.reason);
            let published = self.unattributed.entry(key).or_default();
            lost.bytes = lost.bytes.max(*published);
            *published = lost.bytes;
        }
    }

    fn choose(&mut self, processes: &[Process], on_gpu: &FxHashSet<Key>) -> Vec<Process> {
        let now = Instant::now();
        let last = self.last.replace(now);
        let moment = Moment {
            elapsed: last.map_or(Duration::ZERO, |last| now - last),
            boot_nanoseconds: ledger::Moment::now().boot_nanoseconds,
        };
        let census = &self.census;
        self.processes.choose(processes, moment, |process| {
            if on_gpu.contains(&process.key) {
                return Claim::Gpu;
            }
            census.claim(process.key)
        })
    }
}
