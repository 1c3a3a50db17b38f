//! The accounts of groups, which outlive their processes.

use super::{Disk, Group, Key, Process, Usage, selection::OTHER};
use esnode_ebpf::{NAME_LEN, Name};
use std::collections::{HashMap, HashSet};

/// Live members of a group: what can be counted afresh in every pass.
#[derive(Clone, Copy, Debug, Default)]
struct Alive {
    processes: u64,
    threads: u64,
    resident_bytes: Option<u64>,
}

/// Adds up the live processes by group.
fn count_alive(processes: &[Process]) -> HashMap<Name, Alive> {
    let mut alive = HashMap::<Name, Alive>::new();
    for process in processes {
        let group = alive.entry(process.group).or_insert(Alive {
            resident_bytes: Some(0),
            ..Alive::default()
        });
        group.processes += 1;
        group.threads += u64::from(process.threads);
        group.resident_bytes = group
            .resident_bytes
            .zip(process.resident_bytes)
            .map(|(sum, part)| sum + part);
    }
    alive
}

/// Completes groups that the kernel's hooks kept: with their live members, and so that no
/// number falls when a pass just missed a process between life and death.
#[derive(Debug, Default)]
pub struct KernelLedger {
    published: HashMap<Name, Usage>,
}

impl KernelLedger {
    /// `groups` hold usage, started and exited; the rest comes from `processes`.
    pub fn complete(&mut self, groups: &mut [Group], processes: &[Process]) {
        let alive = count_alive(processes);
        for group in groups {
            set_alive(group, alive.get(&group.name));
            let published = self.published.entry(group.name).or_insert(group.usage);
            group.usage.raise_to(published);
            *published = group.usage;
        }
    }
}

/// What was last seen of a process.
#[derive(Clone, Copy, Debug)]
struct Seen {
    group: Name,
    parent: u32,
    usage: Usage,
}

/// Keeps groups from one look at the processes to the next, where no hook tells of the ended:
/// what a process used after the last look is lost, and those never seen do not exist.
///
/// Disk bytes are an exception: when a process is waited for, the kernel adds its account to its
/// parent's, where it is found. The part that was already booked for the child is then taken off
/// what is booked for the parent.
#[derive(Debug)]
pub struct ObservedLedger {
    limit: usize,
    pass: u64,
    groups: HashMap<Name, Group>,
    known: HashMap<Key, Seen>,
    /// Booked for ended children, and to be found once more in the account of this parent.
    inherited: HashMap<u32, Disk>,
}

impl ObservedLedger {
    /// Keeps at most `limit` names; processes of further ones go to [`OTHER`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            pass: 0,
            groups: HashMap::new(),
            known: HashMap::new(),
            inherited: HashMap::new(),
        }
    }

    /// Books what `processes` used since the last call; gives all groups.
    pub fn book(&mut self, processes: &mut [Process]) -> Vec<Group> {
        self.pass += 1;
        let begun = self.pass > 1;
        self.forget_ended(processes);
        for process in processes.iter_mut() {
            if self.groups.len() >= self.limit && !self.groups.contains_key(&process.group) {
                process.group = other();
            }
            let before = self.known.get(&process.key);
            let mut due = before.map_or(process.usage, |seen| process.usage.since(&seen.usage));
            if let (Some(due), Some(inherited)) =
                (&mut due.disk, self.inherited.get_mut(&process.key.pid))
            {
                take_inherited(due, inherited);
            }
            let group = self.groups.entry(process.group).or_insert_with(|| Group {
                name: process.group,
                usage: nothing_of(&process.usage),
                ..Group::default()
            });
            group.usage.add(&due);
            group.started += u64::from(before.map_or(begun, |seen| seen.group != process.group));
            let seen = Seen {
                group: process.group,
                parent: process.parent,
                usage: process.usage,
            };
            self.known.insert(process.key, seen);
        }
        let alive = count_alive(processes);
        for group in self.groups.values_mut() {
            set_alive(group, alive.get(&group.name));
        }
        self.groups.values().cloned().collect()
    }

    /// Counts those that are not among `processes` as ended.
    fn forget_ended(&mut self, processes: &[Process]) {
        let alive: HashSet<Key> = processes.iter().map(|process| process.key).collect();
        let ended: Vec<_> = self
            .known
            .extract_if(|key, _| !alive.contains(key))
            .map(|(_, seen)| seen)
            .collect();
        for seen in ended {
            if let Some(group) = self.groups.get_mut(&seen.group) {
                group.exited += 1;
            }
            if let Some(disk) = seen.usage.disk {
                let sum = self.inherited.entry(seen.parent).or_default();
                sum.read_bytes += disk.read_bytes;
                sum.write_bytes += disk.write_bytes;
                sum.cancelled_write_bytes += disk.cancelled_write_bytes;
            }
        }
        let parents: HashSet<u32> = alive.iter().map(|key| key.pid).collect();
        self.inherited
            .retain(|parent, rest| parents.contains(parent) && *rest != Disk::default());
    }
}

/// Takes off `due` what was booked before, as far as it has arrived.
fn take_inherited(due: &mut Disk, inherited: &mut Disk) {
    let take = |due: &mut u64, inherited: &mut u64| {
        let arrived = (*due).min(*inherited);
        *due -= arrived;
        *inherited -= arrived;
    };
    take(&mut due.read_bytes, &mut inherited.read_bytes);
    take(&mut due.write_bytes, &mut inherited.write_bytes);
    take(
        &mut due.cancelled_write_bytes,
        &mut inherited.cancelled_write_bytes,
    );
}

/// The name of the group of names beyond the limit.
fn other() -> Name {
    let mut bytes = [0; NAME_LEN];
    for (to, from) in bytes.iter_mut().zip(OTHER.bytes()) {
        *to = from;
    }
    Name::from_bytes(bytes)
}

fn set_alive(group: &mut Group, alive: Option<&Alive>) {
    // Nobody alive is a fact: no processes, no threads, no memory.
    let alive = alive.copied().unwrap_or(Alive {
        resident_bytes: Some(0),
        ..Alive::default()
    });
    group.processes = alive.processes;
    group.threads = alive.threads;
    group.resident_bytes = alive.resident_bytes;
}

/// Zero of everything that `usage` knows.
fn nothing_of(usage: &Usage) -> Usage {
    Usage {
        cpu_nanoseconds: 0,
        disk: usage.disk.map(|_| Disk::default()),
        network: usage.network.map(|_| esnode_ebpf::Network::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, name: &[u8; 16], cpu: u64, read: Option<u64>) -> Process {
        let name = Name::from_bytes(*name);
        Process {
            key: Key {
                pid,
                start_nanoseconds: 1,
            },
            parent: 1,
            name,
            group: name,
            kernel: false,
            threads: 2,
            resident_bytes: Some(4096),
            usage: Usage {
                cpu_nanoseconds: cpu,
                disk: read.map(|read_bytes| Disk {
                    read_bytes,
                    ..Disk::default()
                }),
                network: None,
            },
        }
    }

    const SH: &[u8; 16] = b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    const LS: &[u8; 16] = b"ls\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    fn find(groups: &[Group], name: &[u8; 16]) -> Group {
        let name = Name::from_bytes(*name);
        groups
            .iter()
            .find(|group| group.name == name)
            .expect("present")
            .clone()
    }

    #[test]
    fn an_observed_group_keeps_what_its_dead_used() {
        let mut ledger = ObservedLedger::new(8);
        ledger.book(&mut [process(1, SH, 5, Some(50))]);
        ledger.book(&mut [process(1, SH, 7, Some(70)), process(2, SH, 1, Some(10))]);
        let groups = ledger.book(&mut [process(2, SH, 4, Some(10))]);
        let group = find(&groups, SH);
        assert_eq!(group.usage.cpu_nanoseconds, 7 + 4);
        assert_eq!(group.usage.disk.map(|disk| disk.read_bytes), Some(80));
        assert_eq!((group.started, group.exited, group.processes), (1, 1, 1));
        assert_eq!((group.threads, group.resident_bytes), (2, Some(4096)));
    }

    #[test]
    fn a_rename_moves_nothing_that_was_booked() {
        let mut ledger = ObservedLedger::new(8);
        ledger.book(&mut [process(1, SH, 5, None)]);
        let groups = ledger.book(&mut [process(1, LS, 8, None)]);
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
        ledger.book(&mut [parent(10), child.clone()]);
        let read =
            |groups: &[Group], name| find(groups, name).usage.disk.map(|disk| disk.read_bytes);
        // It read 5 more before it ended, and its account arrived at once.
        let groups = ledger.book(&mut [parent(10 + 75)]);
        assert_eq!(
            (read(&groups, SH), read(&groups, LS)),
            (Some(10 + 5), Some(70))
        );
        // Of another, the account has not arrived yet.
        ledger.book(&mut [parent(10 + 75), child]);
        ledger.book(&mut [parent(10 + 75)]);
        let groups = ledger.book(&mut [parent(10 + 75 + 70 + 3)]);
        assert_eq!(
            (read(&groups, SH), read(&groups, LS)),
            (Some(10 + 5 + 3), Some(140))
        );
    }

    #[test]
    fn names_beyond_the_limit_share_a_group() {
        let mut ledger = ObservedLedger::new(1);
        let groups = ledger.book(&mut [process(1, SH, 5, None), process(2, LS, 7, None)]);
        assert_eq!(find(&groups, SH).usage.cpu_nanoseconds, 5);
        let other = find(&groups, b"other\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!((other.usage.cpu_nanoseconds, other.processes), (7, 1));
    }

    #[test]
    fn a_kernel_group_never_falls() {
        let name = Name::from_bytes(*SH);
        let group = |cpu| Group {
            name,
            usage: Usage {
                cpu_nanoseconds: cpu,
                ..Usage::default()
            },
            ..Group::default()
        };
        let mut ledger = KernelLedger::default();
        let mut groups = [group(10)];
        ledger.complete(&mut groups, &[process(1, SH, 0, None)]);
        assert_eq!(
            (groups[0].usage.cpu_nanoseconds, groups[0].processes),
            (10, 1)
        );
        let mut groups = [group(7)];
        ledger.complete(&mut groups, &[]);
        assert_eq!(
            (groups[0].usage.cpu_nanoseconds, groups[0].processes),
            (10, 0)
        );
        assert_eq!(groups[0].resident_bytes, Some(0));
    }
}
