//! Where the kernel sends a record of every ended thread: looks at the processes. What is done with
//! the records is in [`super::ended`].

use super::{
    ended::{Ending, Unseen},
    groups::Groups,
    kept::{Kept, Own},
};
use crate::process::{Disk, Group, Key, Process, Usage};
use esnode_ebpf::Name;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Since when ends of threads are listened to.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// On the boot clock.
    pub since_nanoseconds: u64,
}

/// What the live threads of a process used, each by its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// Their sum.
    Used(Usage),
    /// It can't be read.
    Unreadable,
    /// There is no such process any more: the rest of what it used is in records.
    Gone,
}

/// Tells it by the process id.
pub type LiveThreads<'a> = &'a dyn Fn(u32) -> Live;

/// Keeps groups by what is seen of the living, and told of the ended.
///
/// When a process is waited for, the kernel adds its disk bytes to its parent's, where they are
/// found once more: so the own part of a parent is read from its threads. What a process used after
/// the last look, or without one, is in the records of its threads.
#[derive(Debug)]
pub struct ListeningLedger {
    pub(super) listening: Listening,
    pub(super) groups: Groups,
    pub(super) known: BTreeMap<Key, Seen>,
    pub(super) unseen: HashMap<u32, Unseen>,
    pub(super) ending: Ending,
    /// Process ids whose children, or theirs, ended with disk bytes.
    pub(super) parents: HashSet<u32>,
    /// Of ended threads whose process is not known.
    pub(super) homeless: Disk,
}

/// What was last seen of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) group: Name,
    pub(super) parent: u32,
    pub(super) threads: u32,
    total: Own,
    pub(super) kept: Kept,
    /// The group by the last name of its first thread.
    pub(super) last_group: Option<Name>,
}

impl ListeningLedger {
    /// Keeps at most `limit` names; processes of further ones share a group.
    #[must_use]
    pub fn new(limit: usize, listening: Listening) -> Self {
        Self {
            listening,
            groups: Groups::new(limit),
            known: BTreeMap::new(),
            unseen: HashMap::new(),
            ending: Ending::default(),
            parents: HashSet::new(),
            homeless: Disk::default(),
        }
    }

    /// Books what `processes` used since the last call, and puts them into their groups. Those
    /// whose end was told already are taken out. All records of children that they may have waited
    /// for must have been [announced](Self::announce).
    pub fn book(&mut self, processes: &mut Vec<Process>, live: LiveThreads<'_>) {
        self.ending.leave_out(processes);
        for process in processes {
            process.group = self.groups.name(process.group);
            let before = self.known.get(&process.key).copied();
            let (due, kept) = match &before {
                Some(before) => self.go_on(process, before, live),
                None => self.meet(process, live),
            };
            let group = self.groups.group(process.group, &process.usage);
            group.usage.add(&due);
            let started = before.map_or(self.listening.hears(process), |before| {
                before.group != process.group
            });
            group.started += u64::from(started);
            let seen = Seen {
                group: process.group,
                parent: process.parent,
                threads: process.threads,
                total: Own::of(&process.usage),
                kept,
                last_group: before.and_then(|before| before.last_group),
            };
            self.known.insert(process.key, seen);
        }
    }

    /// Gives all groups, with their live members. Leaves of `processes` those that have not ended
    /// since they were booked.
    pub fn groups(&mut self, processes: &mut Vec<Process>) -> Vec<Group> {
        self.forget_ended(processes);
        processes.retain(|process| self.known.contains_key(&process.key));
        self.groups.with_members(processes)
    }

    /// Puts all that a group had, which has no members any more, into another one.
    pub fn fold(&mut self, from: Name, into: Name) {
        self.groups.fold(from, into);
    }

    /// What a process used itself that was not seen before.
    fn meet(&mut self, process: &Process, live: LiveThreads<'_>) -> (Usage, Kept) {
        let pid = process.key.pid;
        let (unseen, live) = (self.unseen.remove(&pid), live(pid));
        let kept = if self.listening.hears(process) {
            let ended = unseen.map(|unseen| unseen.own);
            Kept::young(&process.usage, ended, &live)
        } else {
            Kept::old(&process.usage, &live)
        };
        (kept.booked(), kept)
    }

    /// What a process used itself since it was booked last.
    fn go_on(&self, process: &Process, before: &Seen, live: LiveThreads<'_>) -> (Usage, Kept) {
        let pid = process.key.pid;
        let mut kept = before.kept;
        let mut own = Own::of(&process.usage).usage();
        if own.disk == before.total.usage().disk && !kept.is_told() {
            own.disk = kept.booked().disk;
        } else if process.threads == 1 || pid == 1 || self.parents.contains(&pid) {
            match live(pid) {
                Live::Used(live) if live.disk.is_some() => {
                    own.disk = kept.with(&live).disk_within(&process.usage);
                }
                Live::Used(_) | Live::Unreadable => {}
                Live::Gone => own.disk = kept.booked().disk,
            }
        }
        (kept.book(&own), kept)
    }

    /// Counts those that are not among `processes` as ended.
    fn forget_ended(&mut self, processes: &[Process]) {
        let alive: HashSet<Key> = processes.iter().map(|process| process.key).collect();
        let ended = self.known.extract_if(.., |key, _| !alive.contains(key));
        for (key, seen) in ended.collect::<Vec<_>>() {
            self.parents.remove(&key.pid);
            self.finish(&seen);
        }
    }

    /// Books the rest of a process that ended.
    pub(super) fn finish(&mut self, seen: &Seen) {
        let due = seen.kept.rest();
        let name = self.groups.name(seen.last_group.unwrap_or(seen.group));
        let group = self.groups.group(name, &due);
        group.usage.add(&due);
        group.exited += 1;
        group.started += u64::from(name != seen.group);
    }
}

impl Listening {
    /// Whether all that a process does is heard of.
    fn hears(self, process: &Process) -> bool {
        process.key.start_nanoseconds >= self.since_nanoseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{
        ledger::fixtures::{
            LS, SECOND, SH, born, find, last, listening, look, look_at, process, sums, tell, usage,
        },
        taskstats::Record,
    };

    #[test]
    fn the_end_gives_the_rest() {
        let mut ledger = listening();
        let alive = [born(7, LS, 5, 50)];
        let live = |_| Live::Used(usage(5, 50));
        assert_eq!(
            sums(&look_at(&mut ledger, &alive, &live), LS),
            (5, Some(50), 1, 0)
        );
        tell(&mut ledger, &last(7, LS, 8, 90));
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (8, Some(90), 1, 1));
        // Whoever ends while all are being read, was read once more.
        let mut processes = vec![born(8, LS, 1, 10)];
        ledger.book(&mut processes, &|_| Live::Used(usage(1, 10)));
        tell(&mut ledger, &last(8, LS, 2, 20));
        let groups = ledger.groups(&mut processes);
        assert_eq!(sums(&groups, LS), (10, Some(110), 2, 2));
        assert!(processes.is_empty());
    }

    #[test]
    fn one_that_is_on_its_way_out_is_not_another() {
        let mut ledger = listening();
        tell(&mut ledger, &last(7, LS, 5, 50));
        for _ in 0..2 {
            let groups = look(&mut ledger, &[born(7, LS, 5, 50)]);
            assert_eq!(sums(&groups, LS), (5, Some(50), 1, 1));
            assert_eq!(find(&groups, LS).processes, 0);
        }
        // Its process id is used again.
        let mut again = born(7, LS, 6, 60);
        again.key.start_nanoseconds = 99 * SECOND;
        let groups = look(&mut ledger, &[again]);
        assert_eq!(sums(&groups, LS), (11, Some(110), 2, 1));
    }

    #[test]
    fn one_that_is_older_than_the_agent_has_a_past() {
        let mut ledger = listening();
        let old = |cpu, read| Process {
            threads: 1,
            ..process(7, LS, cpu, Some(read))
        };
        // Of 500 bytes, 300 are those of ended threads and children.
        look_at(&mut ledger, &[old(10, 500)], &|_| Live::Used(usage(4, 200)));
        let end = Record {
            lived_nanoseconds: 100 * SECOND,
            ..last(7, LS, 5, 230)
        };
        tell(&mut ledger, &end);
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (11, Some(530), 0, 1));
    }

    #[test]
    fn a_parent_has_what_it_did_itself() {
        let mut ledger = listening();
        let live = |_| Live::Used(usage(1, 10));
        look_at(&mut ledger, &[born(7, SH, 1, 10)], &live);
        let child = Record {
            parent: 7,
            ..last(8, LS, 2, 70)
        };
        tell(&mut ledger, &child);
        let live = |_| Live::Used(usage(1, 15));
        let groups = look_at(&mut ledger, &[born(7, SH, 1, 10 + 70 + 5)], &live);
        assert_eq!(sums(&groups, SH), (1, Some(15), 1, 0));
        assert_eq!(sums(&groups, LS), (2, Some(70), 1, 1));
        // One that ignores SIGCHLD gets nothing from its children.
        tell(&mut ledger, &child);
        let live = |_| Live::Used(usage(1, 16));
        let groups = look_at(&mut ledger, &[born(7, SH, 1, 10 + 70 + 6)], &live);
        assert_eq!(sums(&groups, SH), (1, Some(16), 1, 0));
    }

    #[test]
    fn whoever_is_gone_by_now_gets_nothing_from_children() {
        // Of 80 bytes, 70 are those of a child.
        let mut ledger = listening();
        look_at(&mut ledger, &[born(7, SH, 1, 80)], &|_| Live::Gone);
        tell(&mut ledger, &last(7, SH, 2, 10));
        assert_eq!(sums(&look(&mut ledger, &[]), SH), (2, Some(10), 1, 1));
        look_at(&mut ledger, &[born(8, LS, 1, 0)], &|_| {
            Live::Used(usage(1, 0))
        });
        look_at(&mut ledger, &[born(8, LS, 1, 80)], &|_| Live::Gone);
        tell(&mut ledger, &last(8, LS, 2, 10));
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (2, Some(10), 1, 1));
    }

    #[test]
    fn an_ancestor_may_inherit() {
        let mut ledger = listening();
        let many = |read| Process {
            threads: 2,
            ..born(7, SH, 1, read)
        };
        let between = Process {
            parent: 7,
            ..born(8, SH, 1, 0)
        };
        let live = |_| Live::Used(usage(1, 0));
        look_at(&mut ledger, &[many(0), between], &live);
        let child = Record {
            parent: 8,
            ..last(9, LS, 2, 70)
        };
        tell(&mut ledger, &child);
        let groups = look_at(&mut ledger, &[many(70)], &live);
        assert_eq!(sums(&groups, SH), (2, Some(0), 2, 1));
    }
}
