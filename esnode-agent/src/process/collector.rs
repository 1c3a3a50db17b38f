//! The process collector: one pass, the groups' accounts, and the choice of what is shown.

use super::{
    Process,
    ends::Ends,
    energy::{EnergyLedger, EnergyShares},
    gpu::{GpuShares, holders},
    ledger::KernelLedger,
    listener::{Shared, listen, lock},
    selection::{GroupSelection, NamedGroup, ProcessSelection},
    sock_diag::{Namespaces, SockDiag},
    table::{Source, TableError, TableReader, Unattributed},
};
use crate::{
    bpf::{DiskLatency, MapStatus, ProgramStatus},
    gpu::collector::Shared as Gpus,
    ladder::Rung,
};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// What the page says of processes.
#[derive(Debug)]
pub struct ProcessFacts {
    /// Those with series of their own.
    pub shown: Vec<Process>,
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

/// Reads processes and keeps what must outlive them.
pub struct ProcessCollector {
    reader: TableReader,
    rungs: Vec<Source>,
    kernel_ledger: KernelLedger,
    ends: Shared<Ends>,
    sock_diag: Option<Shared<SockDiag>>,
    processes: ProcessSelection,
    groups: GroupSelection,
    gpus: Option<Gpus>,
    energy: EnergyLedger,
    /// What the last page said: a process that is just between groups must not make it fall.
    unattributed: HashMap<(&'static str, &'static str), u64>,
    last: Option<Instant>,
    boot_time_seconds: Option<f64>,
}

impl ProcessCollector {
    /// Shows what the two selections leave of what `reader` finds, with what `below` adds where
    /// BPF has no rung.
    ///
    /// # Errors
    /// If the system refuses a thread to listen on.
    pub fn new(
        mut reader: TableReader,
        below: (Ends, Option<SockDiag>),
        rungs: Vec<Source>,
        processes: ProcessSelection,
        groups: GroupSelection,
        (gpus, energy): (Option<Gpus>, EnergyLedger),
        boot_time_seconds: Option<f64>,
    ) -> io::Result<Self> {
        let (mut ends, sock_diag) = below;
        // What processes have by now is their past. What comes to it from children that end is not.
        if ends.told().is_some()
            && let Ok(mut table) = reader.read()
        {
            ends.book(&mut table.processes, &|pid| reader.live_threads(pid));
        }
        let ends = Arc::new(Mutex::new(ends));
        let sock_diag = sock_diag.map(|diag| Arc::new(Mutex::new(diag)));
        listen(&ends, sock_diag.as_ref())?;
        Ok(Self {
            reader,
            rungs,
            kernel_ledger: KernelLedger::default(),
            ends,
            sock_diag,
            processes,
            groups,
            gpus,
            energy,
            unattributed: HashMap::new(),
            last: None,
            boot_time_seconds,
        })
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
        // Held while processes are read: see `Ends::book`.
        let mut ends = lock(&self.ends);
        let mut table = self.reader.read()?;
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
        for lost in &mut table.unattributed {
            let published = self
                .unattributed
                .entry((lost.signal, lost.reason))
                .or_default();
            lost.bytes = lost.bytes.max(*published);
            *published = lost.bytes;
        }
        let now = Instant::now();
        let elapsed = self
            .last
            .replace(now)
            .map_or(Duration::ZERO, |last| now - last);
        let alive = table.processes.len();
        let gpus = self.gpus.as_ref().map(Gpus::get).unwrap_or_default();
        let units = self.reader.units();
        let on_gpu = holders(&gpus, &table.processes, units);
        let mut shown = self.processes.choose(&table.processes, elapsed, &on_gpu);
        self.reader.refine(&mut shown);
        let groups = self.groups.choose(groups);
        Ok(ProcessFacts {
            hidden: alive - shown.len(),
            gpus: GpuShares::new(&gpus, &shown, &mut self.groups, units),
            energy: self.energy.share(&groups, &table.processes, &shown),
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
        })
    }
}
