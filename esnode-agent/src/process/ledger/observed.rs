//! Where nobody tells of the ended: one look at the processes after the other.

use super::{groups::Groups, kept::Own};
use crate::process::{Disk, Group, Key, Process, Usage};
use esnode_ebpf::Name;
use std::collections::{HashMap, HashSet};

/// Keeps groups from one look at the processes to the next.
///
/// What a process used after the last look is lost, and those never seen do not exist. When a
/// process is waited for, the kernel adds its disk bytes to its parent's, where they are found once
/// more: the part that was booked for a child is taken off what is booked for the parent.
#[derive(Debug)]
pub struct ObservedLedger {
    groups: Groups,
    known: HashMap<Key, Seen>,
    inherited: Inherited,
    looked: bool,
}

/// What was last seen of a process.
#[derive(Clone, Copy, Debug)]
struct Seen {
    group: Name,
    parent: u32,
    total: Own,
}

impl ObservedLedger {
    /// Keeps at most `limit` names; processes of further ones share a group.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            groups: Groups::new(limit),
            known: HashMap::new(),
            inherited: Inherited::default(),
            looked: false,
        }
    }

    /// Books what `processes` used since the last call, and puts them into their groups; gives all
    /// groups, with their live members.
    pub fn book(&mut self, processes: &mut [Process]) -> Vec<Group> {
        self.forget_ended(processes);
        for process in processes.iter_mut() {
            process.group = self.groups.name(process.group);
            let seen = Seen {
                group: process.group,
                parent: process.parent,
                total: Own::of(&process.usage),
            };
            let before = self.known.insert(process.key, seen);
            let due = self.due(process.key.pid, &seen, before.as_ref());
            let group = self.groups.group(process.group, &process.usage);
            group.usage.add(&due);
            // Whoever is there at the first look may be old.
            let started = before.map_or(self.looked, |before| before.group != seen.group);
            group.started += u64::from(started);
        }
        self.looked = true;
        self.groups.with_members(processes)
    }

    /// Puts all that a group had, which has no members any more, into another one.
    pub fn fold(&mut self, from: Name, into: Name) {
        self.groups.fold(from, into);
    }

    /// What a process used since it was seen before, less what was booked for its children.
    fn due(&mut self, pid: u32, seen: &Seen, before: Option<&Seen>) -> Usage {
        let own = seen.total.usage();
        let mut due = before.map_or(own, |before| own.since(&before.total.usage()));
        if let Some(disk) = &mut due.disk {
            self.inherited.take_off(pid, disk);
        }
        due
    }

    /// Counts those that are not among `processes` as ended.
    fn forget_ended(&mut self, processes: &[Process]) {
        let alive: HashSet<Key> = processes.iter().map(|process| process.key).collect();
        for (_, seen) in self.known.extract_if(|key, _| !alive.contains(key)) {
            let total = seen.total.usage();
            self.groups.group(seen.group, &total).exited += 1;
            if let Some(disk) = &total.disk {
                self.inherited.expect(seen.parent, disk);
            }
        }
        self.inherited
            .keep(&alive.iter().map(|key| key.pid).collect());
    }
}

/// Disk bytes that were booked for ended children, and are to be found once more in the accounts
/// of these parents.
#[derive(Debug, Default)]
struct Inherited(HashMap<u32, Disk>);

impl Inherited {
    /// A child of `parent` ended, for whom so much was booked.
    fn expect(&mut self, parent: u32, disk: &Disk) {
        self.0.entry(parent).or_default().add(disk);
    }

    /// Takes off `due` what was booked before, as far as it has arrived.
    fn take_off(&mut self, parent: u32, due: &mut Disk) {
        if let Some(expected) = self.0.get_mut(&parent) {
            let arrived = *due;
            due.combine(expected, u64::saturating_sub);
            expected.combine(&arrived, u64::saturating_sub);
        }
    }

    /// Keeps what is still to come, to parents who live.
    fn keep(&mut self, alive: &HashSet<u32>) {
        self.0
            .retain(|parent, rest| alive.contains(parent) && *rest != Disk::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ledger::fixtures::{LS, SH, find, process};

    /// Books what is alive; gives the groups.
    fn look(ledger: &mut ObservedLedger, processes: &[Process]) -> Vec<Group> {
        ledger.book(&mut processes.to_vec())
    }

    #[test]
    fn an_observed_group_keeps_what_its_dead_used() {
        let mut ledger = ObservedLedger::new(8);
        look(&mut ledger, &[process(1, SH, 5, Some(50))]);
        look(
            &mut ledger,
            &[process(1, SH, 7, Some(70)), process(2, SH, 1, Some(10))],
        );
        let groups = look(&mut ledger, &[process(2, SH, 4, Some(10))]);
        let group = find(&groups, SH);
        assert_eq!(group.usage.cpu_nanoseconds, 7 + 4);
        assert_eq!(group.usage.disk.map(|disk| disk.read_bytes), Some(80));
        assert_eq!((group.started, group.exited, group.processes), (1, 1, 1));
        assert_eq!((group.threads, group.resident_bytes), (2, Some(4096)));
    }

    #[test]
    fn a_rename_moves_nothing_that_was_booked() {
        let mut ledger = ObservedLedger::new(8);
        look(&mut ledger, &[process(1, SH, 5, None)]);
        let groups = look(&mut ledger, &[process(1, LS, 8, None)]);
        assert_eq!(find(&groups, SH).usage.cpu_nanoseconds, 5);
        assert_eq!(find(&groups, LS).usage.cpu_nanoseconds, 3);
        assert_eq!(find(&groups, LS).started, 1);
        assert_eq!(find(&groups, SH).exited, 0);
        assert_eq!(find(&groups, LS).usage.disk, None);
    }

    #[test]
    fn a_child_that_was_waited_for_counts_once() {
        let mut ledger = ObservedLedger::new(8);
        let parent = |read| process(1, SH, 1, Some(read));
        let child = process(2, LS, 1, Some(70));
        look(&mut ledger, &[parent(10), child.clone()]);
        let read =
            |groups: &[Group], name| find(groups, name).usage.disk.map(|disk| disk.read_bytes);
        // It read 5 more before it ended, and its account arrived at once.
        let groups = look(&mut ledger, &[parent(10 + 75)]);
        assert_eq!(
            (read(&groups, SH), read(&groups, LS)),
            (Some(10 + 5), Some(70))
        );
        // Of another, the account has not arrived yet.
        look(&mut ledger, &[parent(10 + 75), child]);
        look(&mut ledger, &[parent(10 + 75)]);
        let groups = look(&mut ledger, &[parent(10 + 75 + 70 + 3)]);
        assert_eq!(
            (read(&groups, SH), read(&groups, LS)),
            (Some(10 + 5 + 3), Some(140))
        );
    }
}
