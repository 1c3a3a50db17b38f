//! What the tests of the ledgers have in common.

use super::{Listening, ListeningLedger, Live, LiveThreads, Moment};
use crate::process::{Disk, Group, Key, Process, Usage, taskstats::Record};
use esnode_ebpf::{NAME_LEN, Name};

pub(super) const SH: &[u8; NAME_LEN] = b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
pub(super) const LS: &[u8; NAME_LEN] = b"ls\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

pub(super) const SECOND: u64 = 1_000_000_000;

/// When records are taken in.
const NOW: Moment = Moment {
    boot_nanoseconds: 100 * SECOND,
    suspended_nanoseconds: 0,
};

/// A process that is older than the agent.
pub(super) fn process(pid: u32, name: &[u8; NAME_LEN], cpu: u64, read: Option<u64>) -> Process {
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
        ..Process::default()
    }
}

/// A process of one thread that began when listening had begun.
pub(super) fn born(pid: u32, name: &[u8; NAME_LEN], cpu: u64, read: u64) -> Process {
    Process {
        key: Key {
            pid,
            start_nanoseconds: 90 * SECOND,
        },
        threads: 1,
        ..process(pid, name, cpu, Some(read))
    }
}

pub(super) fn usage(cpu: u64, read: u64) -> Usage {
    process(1, SH, cpu, Some(read)).usage
}

/// The last thread of a process that began when listening had begun.
pub(super) fn last(pid: u32, name: &[u8; NAME_LEN], cpu: u64, read: u64) -> Record {
    Record {
        tid: pid,
        pid: Some(pid),
        ends_process: Some(true),
        parent: 1,
        name: Name::from_bytes(*name),
        lived_nanoseconds: 10 * SECOND,
        usage: usage(cpu, read),
    }
}

/// A thread after which others of the process live.
pub(super) fn thread(tid: u32, pid: u32, name: &[u8; NAME_LEN], cpu: u64, read: u64) -> Record {
    Record {
        tid,
        ends_process: Some(false),
        ..last(pid, name, cpu, read)
    }
}

/// A ledger that has listened for 50 seconds.
pub(super) fn listening() -> ListeningLedger {
    let listening = Listening {
        since_nanoseconds: 50 * SECOND,
    };
    ListeningLedger::new(8, listening)
}

/// A record comes.
pub(super) fn tell(ledger: &mut ListeningLedger, record: &Record) {
    ledger.announce(record);
    ledger.end(record, NOW);
}

/// Books what is alive, whose threads can't be read; gives the groups.
pub(super) fn look(ledger: &mut ListeningLedger, processes: &[Process]) -> Vec<Group> {
    look_at(ledger, processes, &|_| Live::Unreadable)
}

/// Books what is alive; gives the groups.
pub(super) fn look_at(
    ledger: &mut ListeningLedger,
    processes: &[Process],
    live: LiveThreads<'_>,
) -> Vec<Group> {
    let mut processes = processes.to_vec();
    ledger.book(&mut processes, live);
    ledger.groups(&mut processes)
}

pub(super) fn find(groups: &[Group], name: &[u8; NAME_LEN]) -> Group {
    let name = Name::from_bytes(*name);
    groups
        .iter()
        .find(|group| group.name == name)
        .expect("present")
        .clone()
}

/// CPU time, bytes read, started and exited.
pub(super) fn sums(groups: &[Group], name: &[u8; NAME_LEN]) -> (u64, Option<u64>, u64, u64) {
    let group = find(groups, name);
    let read = group.usage.disk.map(|disk| disk.read_bytes);
    (
        group.usage.cpu_nanoseconds,
        read,
        group.started,
        group.exited,
    )
}
