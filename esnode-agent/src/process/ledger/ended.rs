//! Where the kernel sends a record of every ended thread: what is done with the records.

use super::{kept::Own, listening::ListeningLedger};
use crate::process::{Disk, Key, Process, membership::Membership, taskstats::Record};
use esnode_ebpf::Name;
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
};

/// When a record was taken in, on the boot clock, and how long the system was suspended by then.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Nanoseconds since boot.
    pub boot_nanoseconds: u64,
    /// Nanoseconds of suspension.
    pub suspended_nanoseconds: u64,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        let nanoseconds = |clock| {
            let time = clock_gettime(clock);
            u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
                + u64::try_from(time.tv_nsec).unwrap_or_default()
        };
        let boot_nanoseconds = nanoseconds(ClockId::Boottime);
        Self {
            boot_nanoseconds,
            suspended_nanoseconds: boot_nanoseconds.saturating_sub(nanoseconds(ClockId::Monotonic)),
        }
    }

    /// When the thread of a record began, or somewhat later.
    fn began(self, record: &Record) -> u64 {
        self.boot_nanoseconds
            .saturating_sub(record.lived_nanoseconds)
    }
}

/// A process that was not seen alive yet, and of which threads have ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unseen {
    pub(super) own: Own,
    group: Name,
}

/// Processes whose end was told, which is before they tear down their memory, so that they may be
/// seen for a while yet; with a time by which they had begun.
#[derive(Debug, Default)]
pub(super) struct Ending(HashMap<u32, u64>);

impl Ending {
    /// Takes out processes that are on their way out.
    pub(super) fn leave_out(&mut self, processes: &mut Vec<Process>) {
        if self.0.is_empty() {
            return;
        }
        let mut still_seen = HashSet::new();
        processes.retain(|process| {
            let pid = process.key.pid;
            let had_begun = |by: &u64| process.key.start_nanoseconds <= *by;
            let is_ending = self.0.get(&pid).is_some_and(had_begun);
            if is_ending {
                still_seen.insert(pid);
            }
            !is_ending
        });
        self.0.retain(|pid, _| still_seen.contains(pid));
    }
}

impl ListeningLedger {
    /// Disk bytes of ended threads whose process is not known.
    #[must_use]
    pub fn homeless(&self) -> Disk {
        self.homeless
    }

    /// Whether a record without a process id is that of a process that was seen alive.
    #[must_use]
    pub fn knows(&self, pid: u32) -> bool {
        self.known.range(keys_of(pid)).next().is_some()
    }

    /// Notes whose account the disk bytes of this record may be found in once more: the kernel
    /// adds them to that of the parent that waits for the process; if that ends first, to that of
    /// another ancestor.
    pub fn announce(&mut self, record: &Record) {
        let used = record.usage.disk.unwrap_or_default() != Disk::default();
        if !used && !record.pid.is_some_and(|pid| self.parents.contains(&pid)) {
            return;
        }
        let mut ancestor = record.parent;
        while self.parents.insert(ancestor)
            && let Some((_, seen)) = self.known.range(keys_of(ancestor)).next_back()
        {
            ancestor = seen.parent;
        }
    }

    /// Books what a thread used that ended, which must have been announced.
    pub fn end(&mut self, record: &Record, moment: Moment) {
        let Some(pid) = record.pid else {
            if let Some(disk) = &record.usage.disk {
                self.homeless.add(disk);
            }
            return;
        };
        let found = self.find(pid, record, moment);
        let Some((key, seen)) = found.and_then(|key| Some((key, self.known.get_mut(&key)?))) else {
            self.end_unseen(pid, record, moment);
            return;
        };
        let leader = record.tid == pid;
        seen.kept.end_thread(&record.usage);
        // A group that the command name does not tell is not changed by another one.
        if leader && seen.group.is_command() {
            seen.last_group = Some(record.group());
        }
        if record.ends_process.unwrap_or(leader && seen.threads == 1) {
            let seen = *seen;
            self.known.remove(&key);
            self.note_ending(pid, moment.began(record));
            self.finish(&seen);
        }
    }

    /// Records were lost: what is known of processes that were never seen is booked as it is.
    pub fn records_lost(&mut self) {
        for (_, unseen) in std::mem::take(&mut self.unseen) {
            let (name, usage) = (self.groups.name(unseen.group), unseen.own.usage());
            self.groups.group(name, &usage).usage.add(&usage);
        }
    }

    /// Notes that the end of a process was told.
    fn note_ending(&mut self, pid: u32, began_nanoseconds: u64) {
        self.parents.remove(&pid);
        self.ending.0.insert(pid, began_nanoseconds);
    }

    /// The process with this id that a record speaks of, if it was seen alive.
    fn find(&self, pid: u32, record: &Record, moment: Moment) -> Option<Key> {
        /// How far a start may be off that is counted back from when the record was taken in.
        const TOLERANCE: u64 = 2_000_000_000;
        let began = moment.began(record);
        let known = self.known.range(keys_of(pid)).map(|(key, _)| *key);
        known
            .take_while(|key| key.start_nanoseconds <= began + TOLERANCE)
            .last()
            .filter(|key| {
                let early = moment.suspended_nanoseconds + TOLERANCE;
                record.tid != pid || key.start_nanoseconds + early >= began
            })
    }

    /// The group of a process that was not seen alive: where the command name does not tell, that of
    /// its parent. What begins on the host may have gone into a container.
    fn unseen_group(&self, record: &Record) -> Name {
        let parent = self.known.range(keys_of(record.parent)).next_back();
        let parent = parent.map(|(_, seen)| seen.group);
        let unseen = || self.unseen.get(&record.parent).map(|parent| parent.group);
        let told = |group: &Name| !group.is_command() && *group != Membership::host();
        let group = parent.or_else(unseen).filter(told);
        group.unwrap_or_else(|| record.group())
    }

    /// Books what a thread used that ended, of a process that was not seen alive.
    fn end_unseen(&mut self, pid: u32, record: &Record, moment: Moment) {
        let leader = record.tid == pid;
        let group = self.unseen_group(record);
        let unseen = self.unseen.entry(pid).or_insert(Unseen {
            own: Own::nothing(&record.usage),
            group,
        });
        unseen.own.add(&record.usage);
        if leader {
            unseen.group = group;
        }
        if !record.ends_process.unwrap_or(leader) {
            return;
        }
        let unseen = *unseen;
        self.unseen.remove(&pid);
        let began = moment.began(record);
        self.note_ending(pid, began);
        let (name, usage) = (self.groups.name(unseen.group), unseen.own.usage());
        let group = self.groups.group(name, &usage);
        group.usage.add(&usage);
        group.started += u64::from(began >= self.listening.since_nanoseconds);
        group.exited += 1;
    }
}

fn keys_of(pid: u32) -> RangeInclusive<Key> {
    let key = |start_nanoseconds| Key {
        pid,
        start_nanoseconds,
    };
    key(0)..=key(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{
        Group,
        ledger::{
            Live,
            fixtures::{
                LS, SECOND, SH, born, last, listening, look, look_at, sums, tell, thread, usage,
            },
        },
    };

    #[test]
    fn what_was_never_seen_alive_is_in_its_group() {
        let mut ledger = listening();
        look(&mut ledger, &[]);
        tell(&mut ledger, &last(7, LS, 5, 50));
        tell(&mut ledger, &last(8, LS, 6, 60));
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (11, Some(110), 2, 2));
    }

    #[test]
    fn a_group_that_the_name_does_not_tell_stays_and_is_the_childrens() {
        let group = Name::of_number(9);
        let find = |groups: &[Group], name: Name| {
            let found = groups.iter().find(|it| it.name == name);
            found.map(|it| (it.usage.cpu_nanoseconds, it.exited))
        };
        let mut ledger = listening();
        let mut parent = born(7, SH, 1, 10);
        parent.group = group;
        look_at(&mut ledger, &[parent], &|_| Live::Used(usage(1, 10)));
        let child = Record {
            parent: 7,
            ..last(8, LS, 2, 20)
        };
        tell(&mut ledger, &child);
        tell(&mut ledger, &last(7, LS, 5, 50));
        let groups = look(&mut ledger, &[]);
        assert_eq!(find(&groups, group), Some((7, 2)));
        assert_eq!(groups.len(), 1, "{groups:?}");
        // What the host begins may be anything.
        let mut host = born(9, SH, 1, 10);
        host.group = Membership::host();
        look_at(&mut ledger, &[host], &|_| Live::Used(usage(1, 10)));
        let child = Record {
            parent: 9,
            ..last(10, LS, 2, 20)
        };
        tell(&mut ledger, &child);
        let groups = look(&mut ledger, &[]);
        assert_eq!(find(&groups, Name::from_bytes(*LS)), Some((2, 1)));
    }

    #[test]
    fn threads_belong_to_the_group_of_their_process() {
        let mut ledger = listening();
        tell(&mut ledger, &thread(9, 7, LS, 5, 50));
        let groups = look(&mut ledger, &[]);
        assert!(groups.is_empty(), "{groups:?}");
        tell(&mut ledger, &last(7, SH, 6, 60));
        let groups = look(&mut ledger, &[]);
        assert_eq!(sums(&groups, SH), (11, Some(110), 1, 1));
        assert_eq!(groups.len(), 1);
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_process() {
        let mut ledger = listening();
        look_at(&mut ledger, &[born(7, SH, 1, 10)], &|_| {
            Live::Used(usage(1, 10))
        });
        let again = Record {
            lived_nanoseconds: SECOND,
            ..last(7, LS, 3, 30)
        };
        tell(&mut ledger, &again);
        let groups = look(&mut ledger, &[]);
        assert_eq!(sums(&groups, LS), (3, Some(30), 1, 1));
        assert_eq!(sums(&groups, SH), (1, Some(10), 1, 1));
    }

    #[test]
    fn bytes_of_a_thread_of_nobody_are_nobodys() {
        let mut ledger = listening();
        let thread = Record {
            pid: None,
            ends_process: None,
            ..last(7, LS, 3, 30)
        };
        tell(&mut ledger, &thread);
        assert!(look(&mut ledger, &[]).is_empty());
        assert_eq!(ledger.homeless().read_bytes, 30);
    }

    #[test]
    fn what_is_known_of_the_unseen_survives_a_loss() {
        let mut ledger = listening();
        tell(&mut ledger, &thread(9, 7, LS, 5, 50));
        ledger.records_lost();
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (5, Some(50), 0, 0));
    }
}
