//! The process collector: one pass, the groups' accounts, and the choice of what is shown.

use super::{
    Key, Process,
    ends::Ends,
    energy::{EnergyLedger, EnergyShares},
    gpu::{GpuShares, holders, rounded},
    ledger::KernelLedger,
    listener::{Shared, listen, lock},
    membership::{GONE, GroupBy, HOST, Membership},
    named::{GroupSelection, NamedGroup, OTHER},
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
use esnode_ebpf::Name;
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::time::{ClockId, clock_gettime};
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
        for process in &table.processes {
            let identity = self.census.get(process.key);
            let learnt = identity.map(|it| self.groups.membership.learn(process, it));
            if learnt == Some(true) {
                self.kernel_ledger
                    .leave_past(process.group, Membership::gone());
                if let Some(diag) = &self.sock_diag {
                    lock(diag).fold(process.group, Membership::gone());
                }
            }
        }
        self.tell_gpus(gpus, &table.processes, &on_gpu);
        Ok((table, on_gpu))
    }

    /// Puts processes into groups that their command name does not tell. True if hooks have to be
    /// read once more.
    fn assign(&mut self, table: &mut Table) -> Result<bool, TableError> {
        let membership = &mut self.groups.membership;
        let by_hooks = table.groups.is_some();
        if membership.by() == GroupBy::Command
            || (by_hooks && self.reader.groups_by() == Some(GroupsBy::Cgroup))
        {
            return Ok(false);
        }
        let nobody = Identity::default();
        let mut assigned = Vec::new();
        for process in &mut table.processes {
            let identity = self.census.get(process.key).unwrap_or(&nobody);
            let group = membership.of(process, identity);
            if process.group != group {
                if by_hooks {
                    self.kernel_ledger.adopt(process, group);
                }
                assigned.push((process.signal, group));
                process.group = group;
            }
        }
        if !by_hooks || assigned.is_empty() {
            return Ok(false);
        }
        self.reader.assign(&assigned)?;
        Ok(true)
    }

    /// Tells the GPUs' accounts which groups processes are in.
    fn tell_gpus(&mut self, gpus: &GpuFacts, processes: &[Process], on_gpu: &FxHashSet<Key>) {
        if self.groups.membership.by() == GroupBy::Command || on_gpu.is_empty() {
            return;
        }
        let units = self.reader.units();
        let holders = processes.iter().filter(|it| on_gpu.contains(&it.key));
        let written: FxHashMap<_, _> = holders
            .map(|process| (rounded(process.key, units), process.group))
            .collect();
        let accounts = gpus.devices.iter().flat_map(|device| &device.energy);
        let alone: FxHashSet<_> = accounts
            .flat_map(|energy| energy.groups.iter().map(|(name, _)| *name))
            .collect();
        for (key, group) in &written {
            let name = Name::of_process(key.pid, key.start_nanoseconds);
            if alone.contains(&name) {
                self.groups.membership.call(name, *group);
            }
        }
        self.devices.book.write(written);
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
            boot_nanoseconds: boot_nanoseconds(),
        };
        let census = &self.census;
        self.processes.choose(processes, moment, |process| {
            if on_gpu.contains(&process.key) {
                return Claim::Gpu;
            }
            census.claim(process.key)
        })
    }

    /// Who is in the groups that have live members: what these have in common.
    fn members(&mut self, processes: &[Process]) -> BTreeMap<Arc<str>, Identity> {
        let mut members = BTreeMap::new();
        let by = self.groups.membership.by();
        for process in processes {
            let identity = match by {
                GroupBy::Container => self.census.described(process.key),
                // They may be in several containers.
                GroupBy::Engine => Identity {
                    worker: self
                        .census
                        .get(process.key)
                        .and_then(|it| it.worker.clone()),
                    ..Identity::default()
                },
                GroupBy::Command | GroupBy::Rules => break,
            };
            if identity.container().is_none() && identity.worker.is_none() {
                continue;
            }
            let label = self.groups.label(process.group);
            if &*label != OTHER && &*label != HOST {
                members.entry(label).or_insert(identity);
            }
        }
        members
    }

    /// Puts away what containers used that are no more. The page has had their last numbers.
    fn retire(&mut self, processes: &[Process], known: &[Name]) -> Result<(), TableError> {
        let retired = self.groups.retire(processes, known, Instant::now());
        if retired.folded.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = retired.folded.iter().map(|(name, _)| *name).collect();
        self.reader.forget_groups(&names)?;
        for (from, into) in retired.folded {
            self.kernel_ledger.fold(from, into);
            lock(&self.ends).fold(from, into);
            if let Some(diag) = &self.sock_diag {
                lock(diag).fold(from, into);
            }
        }
        for text in &retired.texts {
            self.devices.energy.fold(text, GONE);
        }
        Ok(())
    }
}

/// Now, on the boot clock.
fn boot_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}
