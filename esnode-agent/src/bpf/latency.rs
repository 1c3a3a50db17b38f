//! Reading the histograms of block devices.

use super::{
    Bpf, BpfError,
    error::{map_error, no_such_map},
    records::Pass,
    sys,
};
use crate::ladder::Signal;
use aya::{
    Pod,
    maps::{HashMap, Map},
};
use esnode_ebpf::{Latency, LatencyGroup, LatencyProcess, Lost, Name, maps};
use rustc_hash::FxHashSet;

/// Histograms of how long block devices took for the requests of processes and groups.
#[derive(Clone, Debug, Default)]
pub struct DiskLatency {
    /// By process and operation; ended processes may be among them.
    pub processes: Vec<(LatencyProcess, Latency)>,
    /// Requests that were completed and not known: they are in no histogram.
    pub unknown: u64,
    /// By group and number of an [`Operation`](esnode_ebpf::Operation), ended processes included.
    pub groups: Vec<(Name, u64, Latency)>,
}

impl Bpf {
    /// The histograms; `None` if they are not kept. Those of processes that this pass and the one
    /// before did not meet are given up: the kernel's hooks missed their end.
    ///
    /// # Errors
    /// If a map can't be read or written.
    pub fn read_latency(&mut self, pass: &Pass) -> Result<Option<DiskLatency>, BpfError> {
        if self.rung(Signal::DiskLatency).is_none() {
            return Ok(None);
        }
        let processes = self.entries::<LatencyProcess, Latency>(maps::PROCESS_LATENCY)?;
        let groups = self.entries::<LatencyGroup, Latency>(maps::GROUP_LATENCY)?;
        let alive: FxHashSet<_> = pass
            .processes
            .iter()
            .map(|process| (process.tgid, process.start_boottime_nanoseconds))
            .collect();
        let is_met =
            |of: &LatencyProcess| alive.contains(&(of.tgid, of.start_boottime_nanoseconds));
        let (processes, unmet): (Vec<_>, Vec<_>) =
            processes.into_iter().partition(|(of, _)| is_met(of));
        let unmet: FxHashSet<_> = unmet.into_iter().map(|(of, _)| of).collect();
        let ended: Vec<_> = unmet.intersection(&self.unmet).copied().collect();
        self.unmet = unmet;
        self.forget(ended.into_iter())?;
        let groups = groups
            .into_iter()
            .map(|(of, latency)| (of.group, of.operation, latency));
        Ok(Some(DiskLatency {
            unknown: self.lost(Lost::RequestsUnknown)?,
            processes,
            groups: groups.collect(),
        }))
    }

    fn entries<K: Pod, V: Pod>(&self, name: &'static str) -> Result<Vec<(K, V)>, BpfError> {
        let Some(Map::HashMap(map) | Map::LruHashMap(map)) = self.ebpf.map(name) else {
            return Err(map_error(name, no_such_map(name)));
        };
        sys::read_map(map).map_err(|source| BpfError::Read { what: name, source })
    }

    fn forget(&mut self, ended: impl Iterator<Item = LatencyProcess>) -> Result<(), BpfError> {
        let name = maps::PROCESS_LATENCY;
        let failed = |source| map_error(name, source);
        let map = self.ebpf.map_mut(name);
        let map = map.ok_or_else(|| failed(no_such_map(name)))?;
        let mut map = HashMap::<_, LatencyProcess, Latency>::try_from(map).map_err(failed)?;
        for process in ended {
            // It may have made room for another already.
            let _ = map.remove(&process);
        }
        Ok(())
    }
}
