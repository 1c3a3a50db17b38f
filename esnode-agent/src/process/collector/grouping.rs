//! Which groups the processes of a pass are in, and what becomes of groups.

use super::ProcessCollector;
use crate::{
    bpf::GroupsBy,
    gpu::facts::GpuFacts,
    identity::Identity,
    process::{
        Key, Process,
        gpu::rounded,
        listener::lock,
        membership::{GONE, GroupBy, HOST, Membership},
        named::OTHER,
        table::{Table, TableError},
    },
};
use esnode_ebpf::Name;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Instant,
};

impl ProcessCollector {
    /// Puts processes into groups that their command name does not tell. True if hooks have to be
    /// read once more.
    pub(super) fn assign(&mut self, table: &mut Table) -> Result<bool, TableError> {
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

    /// Learns which containers the control groups are that hooks have put processes into.
    pub(super) fn learn(&mut self, processes: &[Process]) {
        if self.reader.groups_by() != Some(GroupsBy::Cgroup) {
            return;
        }
        for process in processes {
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
    }

    /// Tells the GPUs' accounts which groups processes are in.
    pub(super) fn tell_gpus(
        &mut self,
        gpus: &GpuFacts,
        processes: &[Process],
        on_gpu: &FxHashSet<Key>,
    ) {
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

    /// Who is in the groups that have live members: what these have in common.
    pub(super) fn members(&mut self, processes: &[Process]) -> BTreeMap<Arc<str>, Identity> {
        let mut members = BTreeMap::new();
        let by = self.groups.membership.by();
        if !matches!(by, GroupBy::Container | GroupBy::Engine) {
            return members;
        }
        for process in processes {
            let Some(identity) = self.census.get(process.key) else {
                continue;
            };
            let tells = match by {
                GroupBy::Container => identity.container().is_some(),
                _ => identity.worker.is_some(),
            };
            if !tells {
                continue;
            }
            let label = self.groups.label(process.group);
            if &*label == OTHER || &*label == HOST {
                continue;
            }
            if let Entry::Vacant(vacant) = members.entry(label) {
                vacant.insert(match by {
                    GroupBy::Container => self.census.described(process.key),
                    // They may be in several containers.
                    _ => Identity {
                        worker: identity.worker.clone(),
                        ..Identity::default()
                    },
                });
            }
        }
        members
    }

    /// Puts away what containers used that are no more. The page has had their last numbers.
    pub(super) fn retire(
        &mut self,
        processes: &[Process],
        known: &[Name],
    ) -> Result<(), TableError> {
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
