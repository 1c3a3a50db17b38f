//! The process collector: one pass, the groups' accounts, and the choice of what is shown.

use super::{
    Process,
    ledger::{KernelLedger, ObservedLedger},
    selection::{GroupSelection, NamedGroup, ProcessSelection},
    table::{Source, TableError, TableReader, Unattributed},
};
use crate::bpf::{MapStatus, ProgramStatus};
use std::{
    collections::HashMap,
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
    /// The rungs in use.
    pub sources: Vec<Source>,
    /// Attached programs.
    pub programs: Vec<ProgramStatus>,
    /// BPF maps.
    pub maps: Vec<MapStatus>,
    /// When the kernel booted, in seconds since 1970, to turn start times into dates.
    pub boot_time_seconds: Option<f64>,
}

/// Reads processes and keeps what must outlive them.
pub struct ProcessCollector {
    reader: TableReader,
    kernel_ledger: KernelLedger,
    observed_ledger: ObservedLedger,
    processes: ProcessSelection,
    groups: GroupSelection,
    /// What the last page said: a process that is just between groups must not make it fall.
    unattributed: HashMap<(&'static str, &'static str), u64>,
    last: Option<Instant>,
    boot_time_seconds: Option<f64>,
}

impl ProcessCollector {
    /// Shows what the two selections leave of what `reader` finds. Without hooks, at most
    /// `names` groups are kept.
    #[must_use]
    pub fn new(
        reader: TableReader,
        processes: ProcessSelection,
        groups: GroupSelection,
        names: usize,
        boot_time_seconds: Option<f64>,
    ) -> Self {
        Self {
            reader,
            kernel_ledger: KernelLedger::default(),
            observed_ledger: ObservedLedger::new(names),
            processes,
            groups,
            unattributed: HashMap::new(),
            last: None,
            boot_time_seconds,
        }
    }

    /// The rung in use for each signal.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.reader.sources()
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// If the process table can't be read.
    pub fn sample(&mut self) -> Result<ProcessFacts, TableError> {
        let mut table = self.reader.read()?;
        let groups = match table.groups {
            Some(mut groups) => {
                self.kernel_ledger.complete(&mut groups, &table.processes);
                groups
            }
            None => self.observed_ledger.book(&mut table.processes),
        };
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
        let mut shown = self.processes.choose(&table.processes, elapsed);
        self.reader.refine(&mut shown);
        Ok(ProcessFacts {
            hidden: alive - shown.len(),
            shown,
            groups: self.groups.choose(groups),
            unattributed: table.unattributed,
            sources: self.sources(),
            programs: table.programs,
            maps: table.maps,
            boot_time_seconds: self.boot_time_seconds,
        })
    }
}
