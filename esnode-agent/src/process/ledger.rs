//! The accounts of groups, which outlive their processes.

use super::{Group, Key, Process, Usage};
use esnode_ebpf::Name;
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

/// Keeps groups from one look at the processes to the next, where no hook tells of the ended:
/// what a process used after the last look is lost, and those never seen do not exist.
#[derive(Debug, Default)]
pub struct ObservedLedger {
    groups: HashMap<Name, Group>,
    known: HashMap<Key, (Name, Usage)>,
    begun: bool,
}

impl ObservedLedger {
    /// Books what `processes` used since the last call; gives all groups.
    pub fn book(&mut self, processes: &[Process]) -> Vec<Group> {
        let mut seen = HashSet::with_capacity(processes.len());
        for process in processes {
            seen.insert(process.key);
            let group = self.groups.entry(process.group).or_insert_with(|| Group {
                name: process.group,
                usage: nothing_of(&process.usage),
                ..Group::default()
            });
            if let Some((name, before)) = self.known.get(&process.key) {
                group.usage.add(&process.usage.since(before));
                group.started += u64::from(*name != process.group);
            } else {
                group.usage.add(&process.usage);
                group.started += u64::from(self.begun);
            }
            self.known
                .insert(process.key, (process.group, process.usage));
        }
        let groups = &mut self.groups;
        self.known.retain(|key, (name, _)| {
            let alive = seen.contains(key);
            if !alive && let Some(group) = groups.get_mut(name) {
                group.exited += 1;
            }
            alive
        });
        self.begun = true;
        let alive = count_alive(processes);
        for group in self.groups.values_mut() {
            set_alive(group, alive.get(&group.name));
        }
        self.groups.values().cloned().collect()
    }
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
        disk: usage.disk.map(|_| super::Disk::default()),
        network: usage.network.map(|_| esnode_ebpf::Network::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Disk, *};

    fn process(pid: u32, name: &[u8; 16], cpu: u64, read: Option<u64>) -> Process {
        let name = Name::from_bytes(*name);
        Process {
            key: Key {
                pid,
                start_ticks: 1,
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
        let mut ledger = ObservedLedger::default();
        ledger.book(&[process(1, SH, 5, Some(50))]);
        ledger.book(&[process(1, SH, 7, Some(70)), process(2, SH, 1, Some(10))]);
        let groups = ledger.book(&[process(2, SH, 4, Some(10))]);
        let group = find(&groups, SH);
        assert_eq!(group.usage.cpu_nanoseconds, 7 + 4);
        assert_eq!(group.usage.disk.map(|disk| disk.read_bytes), Some(80));
        assert_eq!((group.started, group.exited, group.processes), (1, 1, 1));
        assert_eq!((group.threads, group.resident_bytes), (2, Some(4096)));
    }

    #[test]
    fn a_rename_moves_nothing_that_was_booked() {
        let mut ledger = ObservedLedger::default();
        ledger.book(&[process(1, SH, 5, None)]);
        let groups = ledger.book(&[process(1, LS, 8, None)]);
        assert_eq!(find(&groups, SH).usage.cpu_nanoseconds, 5);
        assert_eq!(find(&groups, LS).usage.cpu_nanoseconds, 3);
        assert_eq!(find(&groups, LS).started, 1);
        assert_eq!(find(&groups, SH).exited, 0);
        assert_eq!(find(&groups, LS).usage.disk, None);
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
