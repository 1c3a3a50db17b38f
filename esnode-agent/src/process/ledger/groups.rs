//! Groups by name, at most so many, and their live members.

use crate::process::{Group, Process, Usage, named::OTHER};
use esnode_ebpf::{NAME_LEN, Name};
use std::collections::HashMap;

/// The groups of a ledger.
#[derive(Debug)]
pub(super) struct Groups {
    limit: usize,
    by_name: HashMap<Name, Group>,
}

impl Groups {
    /// Keeps at most `limit` names; processes of further ones go to [`OTHER`].
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            by_name: HashMap::new(),
        }
    }

    /// The name of the group that processes of this name are in.
    pub(super) fn name(&self, name: Name) -> Name {
        if self.by_name.len() >= self.limit && !self.by_name.contains_key(&name) {
            return other();
        }
        name
    }

    /// The group of this name; a new one has nothing, of all that is `known`.
    pub(super) fn group(&mut self, name: Name, known: &Usage) -> &mut Group {
        self.by_name.entry(name).or_insert_with(|| Group {
            name,
            usage: known.nothing(),
            ..Group::default()
        })
    }

    /// Puts all that a group had, which has no members any more, into another one.
    pub(super) fn fold(&mut self, from: Name, into: Name) {
        if let Some(all) = self.by_name.remove(&from) {
            self.group(into, &all.usage).absorb(&all);
        }
    }

    /// All groups, with their live members.
    pub(super) fn with_members(&mut self, processes: &[Process]) -> Vec<Group> {
        let members = Members::of(processes);
        for group in self.by_name.values_mut() {
            members.complete(group);
        }
        self.by_name.values().cloned().collect()
    }
}

/// The name of the group of names beyond the limit.
fn other() -> Name {
    let mut bytes = [0; NAME_LEN];
    for (to, from) in bytes.iter_mut().zip(OTHER.bytes()) {
        *to = from;
    }
    Name::from_bytes(bytes)
}

/// Live members of groups: what can be counted afresh in every pass.
pub(super) struct Members(HashMap<Name, Alive>);

/// The live members of one group.
struct Alive {
    processes: u64,
    threads: u64,
    resident_bytes: Option<u64>,
}

impl Alive {
    /// Nobody alive is a fact: no processes, no threads, no memory.
    const NOBODY: Self = Self {
        processes: 0,
        threads: 0,
        resident_bytes: Some(0),
    };
}

impl Members {
    /// Adds up the live processes by group.
    pub(super) fn of(processes: &[Process]) -> Self {
        let mut groups = HashMap::new();
        for process in processes {
            let alive = groups.entry(process.group).or_insert(Alive::NOBODY);
            alive.processes += 1;
            alive.threads += u64::from(process.threads);
            alive.resident_bytes = alive
                .resident_bytes
                .zip(process.resident_bytes)
                .map(|(sum, part)| sum + part);
        }
        Self(groups)
    }

    /// Gives a group its live members.
    pub(super) fn complete(&self, group: &mut Group) {
        let alive = self.0.get(&group.name).unwrap_or(&Alive::NOBODY);
        group.processes = alive.processes;
        group.threads = alive.threads;
        group.resident_bytes = alive.resident_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ledger::fixtures::{LS, SH, find, process};

    #[test]
    fn what_is_folded_counts_on_elsewhere() {
        let mut groups = Groups::new(8);
        for (name, cpu) in [(SH, 5), (LS, 7)] {
            let one = process(1, name, cpu, Some(2)).usage;
            let group = groups.group(Name::from_bytes(*name), &one);
            group.usage.add(&one);
            group.exited += 1;
        }
        groups.fold(Name::from_bytes(*SH), Name::from_bytes(*LS));
        let groups = groups.with_members(&[]);
        assert_eq!(groups.len(), 1);
        let all = find(&groups, LS);
        assert_eq!((all.usage.cpu_nanoseconds, all.exited), (12, 2));
        assert_eq!(all.usage.disk.map(|disk| disk.read_bytes), Some(4));
    }

    #[test]
    fn names_beyond_the_limit_share_a_group() {
        let mut groups = Groups::new(1);
        let mut processes = [process(1, SH, 5, None), process(2, LS, 7, None)];
        for process in &mut processes {
            process.group = groups.name(process.group);
            let group = groups.group(process.group, &process.usage);
            group.usage.add(&process.usage);
        }
        let groups = groups.with_members(&processes);
        assert_eq!(find(&groups, SH).usage.cpu_nanoseconds, 5);
        let other = find(&groups, b"other\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!((other.usage.cpu_nanoseconds, other.processes), (7, 1));
    }
}
