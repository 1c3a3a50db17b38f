//! The accounts of groups, which outlive their processes.

use super::{Disk, Group, Key, Process, Usage, selection::OTHER, taskstats::Record};
use esnode_ebpf::{NAME_LEN, Name};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
};

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

/// What a process used itself, without the network, which is booked elsewhere.
#[derive(Clone, Copy, Debug)]
struct Own {
    cpu_nanoseconds: u64,
    disk: Option<Disk>,
}

impl Own {
    fn of(usage: &Usage) -> Self {
        Self {
            cpu_nanoseconds: usage.cpu_nanoseconds,
            disk: usage.disk,
        }
    }

    fn usage(self) -> Usage {
        Usage {
            cpu_nanoseconds: self.cpu_nanoseconds,
            disk: self.disk,
            network: None,
        }
    }

    fn add(&mut self, part: &Usage) {
        let mut sum = self.usage();
        sum.add(part);
        *self = Self::of(&sum);
    }
}

/// What was last seen of a process.
#[derive(Clone, Copy, Debug)]
struct Seen {
    group: Name,
    parent: u32,
    threads: u32,
    total: Own,
    /// Its account, where ends of threads are listened to.
    kept: Option<Kept>,
}

/// The account of a process whose threads tell what they used when they end.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Of threads that ended before anyone listened.
    base: Own,
    /// Of threads that ended since.
    ended: Own,
    /// What of all was booked.
    booked: Own,
    /// The group by the last name of its first thread.
    last_group: Option<Name>,
}

/// A process that was not seen alive yet, and of which threads have ended.
#[derive(Clone, Copy, Debug)]
struct Unseen {
    own: Own,
    group: Name,
}

/// Since when ends of threads are listened to.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// On the boot clock.
    pub since_nanoseconds: u64,
}

/// When a record was taken in, on the boot clock, and how long the system was suspended by then.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Nanoseconds since boot.
    pub boot_nanoseconds: u64,
    /// Nanoseconds of suspension.
    pub suspended_nanoseconds: u64,
}

impl Moment {
    /// When the thread of a record began, or somewhat later.
    fn began(self, record: &Record) -> u64 {
        self.boot_nanoseconds
            .saturating_sub(record.lived_nanoseconds)
    }
}

/// Gives the sum of what the live threads of a process used, each by its own account.
pub type LiveThreads<'a> = &'a dyn Fn(u32) -> Option<Usage>;

/// Keeps groups from one look at the processes to the next, where no BPF program tells of the
/// ended.
///
/// When a process is waited for, the kernel adds its disk bytes to its parent's, where they are
/// found once more. Where ends of threads are listened to, the own part of a parent is read from
/// its threads, and what a process used after the last look is in the records of its threads.
/// Otherwise that is lost, those never seen do not exist, and the part that was booked for a child
/// is taken off what is booked for the parent.
#[derive(Debug)]
pub struct ObservedLedger {
    limit: usize,
    pass: u64,
    groups: HashMap<Name, Group>,
    known: BTreeMap<Key, Seen>,
    listening: Option<Listening>,
    unseen: HashMap<u32, Unseen>,
    /// Processes whose end was told, which is before they tear down their memory, so that they may
    /// be seen for a while yet; with a time by which they had begun.
    ending: HashMap<u32, u64>,
    /// Process ids whose children ended with disk bytes.
    parents: HashSet<u32>,
    /// Of ended threads whose process is not known.
    homeless: Disk,
    /// Booked for ended children, and to be found once more in the account of this parent.
    inherited: HashMap<u32, Disk>,
}

impl ObservedLedger {
    /// Keeps at most `limit` names; processes of further ones go to [`OTHER`].
    #[must_use]
    pub fn new(limit: usize, listening: Option<Listening>) -> Self {
        Self {
            limit,
            pass: 0,
            groups: HashMap::new(),
            known: BTreeMap::new(),
            listening,
            unseen: HashMap::new(),
            ending: HashMap::new(),
            parents: HashSet::new(),
            homeless: Disk::default(),
            inherited: HashMap::new(),
        }
    }

    /// Books what `processes` used since the last call, and puts them into their groups. Those
    /// whose end was told already are taken out.
    pub fn book(&mut self, processes: &mut Vec<Process>, live: LiveThreads<'_>) {
        self.pass += 1;
        if self.listening.is_none() {
            self.forget_ended(processes);
        }
        self.leave_out_ending(processes);
        for process in processes.iter_mut() {
            process.group = self.group_name(process.group);
            let before = self.known.get(&process.key).copied();
            let (due, kept) = match self.listening {
                Some(listening) => {
                    let (due, kept) = self.own_use(process, before.as_ref(), listening, live);
                    (due, Some(kept))
                }
                None => (self.use_less_inherited(process, before.as_ref()), None),
            };
            let begun = match self.listening {
                Some(listening) => process.key.start_nanoseconds >= listening.since_nanoseconds,
                None => self.pass > 1,
            };
            let group = self.group(process.group, &process.usage);
            group.usage.add(&due);
            group.started += u64::from(before.map_or(begun, |seen| seen.group != process.group));
            let seen = Seen {
                group: process.group,
                parent: process.parent,
                threads: process.threads,
                total: Own::of(&process.usage),
                kept,
            };
            self.known.insert(process.key, seen);
        }
    }

    /// Gives all groups, with their live members. Leaves of `processes` those that have not ended
    /// since they were booked.
    pub fn groups(&mut self, processes: &mut Vec<Process>) -> Vec<Group> {
        if self.listening.is_some() {
            self.forget_ended(processes);
            processes.retain(|process| self.known.contains_key(&process.key));
        }
        let alive = count_alive(processes);
        for group in self.groups.values_mut() {
            set_alive(group, alive.get(&group.name));
        }
        self.groups.values().cloned().collect()
    }

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

    /// Books what a thread used that ended.
    pub fn end(&mut self, record: &Record, moment: Moment) {
        if record
            .usage
            .disk
            .is_some_and(|disk| disk != Disk::default())
        {
            self.parents.insert(record.parent);
        }
        let Some(pid) = record.pid else {
            if let Some(disk) = record.usage.disk {
                add_disk(&mut self.homeless, &disk);
            }
            return;
        };
        let Some(key) = self.find(pid, record, moment) else {
            self.end_unseen(pid, record, moment);
            return;
        };
        let Some(seen) = self.known.get_mut(&key) else {
            return;
        };
        let leader = record.tid == pid;
        if let Some(kept) = &mut seen.kept {
            kept.ended.add(&record.usage);
            if leader {
                kept.last_group = Some(record.group());
            }
        }
        if record.ends_process.unwrap_or(leader && seen.threads == 1)
            && let Some(seen) = self.known.remove(&key)
        {
            self.note_ending(pid, moment.began(record));
            self.finish(&seen);
        }
    }

    /// Records were lost: what is known of processes that were never seen is booked as it is.
    pub fn records_lost(&mut self) {
        for (_, unseen) in std::mem::take(&mut self.unseen) {
            let (name, usage) = (self.group_name(unseen.group), unseen.own.usage());
            self.group(name, &usage).usage.add(&usage);
        }
    }

    /// Takes out processes that are on their way out.
    fn leave_out_ending(&mut self, processes: &mut Vec<Process>) {
        if self.ending.is_empty() {
            return;
        }
        let mut still_seen = HashSet::new();
        processes.retain(|process| {
            let pid = process.key.pid;
            let is_ending = self
                .ending
                .get(&pid)
                .is_some_and(|began| process.key.start_nanoseconds <= *began);
            if is_ending {
                still_seen.insert(pid);
            }
            !is_ending
        });
        self.ending.retain(|pid, _| still_seen.contains(pid));
    }

    /// Notes that the end of a process was told.
    fn note_ending(&mut self, pid: u32, began_nanoseconds: u64) {
        self.parents.remove(&pid);
        self.ending.insert(pid, began_nanoseconds);
    }

    /// The process with this id that a record speaks of, if it was seen alive.
    fn find(&self, pid: u32, record: &Record, moment: Moment) -> Option<Key> {
        /// How far a start may be off that is counted back from when the record was taken in.
        const TOLERANCE: u64 = 2_000_000_000;
        let began = moment.began(record);
        let mut known = self.known.range(keys_of(pid)).map(|(key, _)| *key);
        known
            .by_ref()
            .take_while(|key| key.start_nanoseconds <= began + TOLERANCE)
            .last()
            .filter(|key| {
                let early = moment.suspended_nanoseconds + TOLERANCE;
                record.tid != pid || key.start_nanoseconds + early >= began
            })
    }

    fn end_unseen(&mut self, pid: u32, record: &Record, moment: Moment) {
        let leader = record.tid == pid;
        let unseen = self.unseen.entry(pid).or_insert(Unseen {
            own: Own::of(&record.usage.nothing()),
            group: record.group(),
        });
        unseen.own.add(&record.usage);
        if leader {
            unseen.group = record.group();
        }
        if !record.ends_process.unwrap_or(leader) {
            return;
        }
        let unseen = *unseen;
        self.unseen.remove(&pid);
        let began = moment.began(record);
        self.note_ending(pid, began);
        let started = self
            .listening
            .is_some_and(|listening| began >= listening.since_nanoseconds);
        let (name, usage) = (self.group_name(unseen.group), unseen.own.usage());
        let group = self.group(name, &usage);
        group.usage.add(&usage);
        group.started += u64::from(started);
        group.exited += 1;
    }

    /// What a process used itself since it was booked last, where ends of threads are listened to.
    fn own_use(
        &mut self,
        process: &Process,
        before: Option<&Seen>,
        listening: Listening,
        live: LiveThreads<'_>,
    ) -> (Usage, Kept) {
        let pid = process.key.pid;
        let kept = before.and_then(|seen| Some((seen, seen.kept?)));
        let Some((seen, mut kept)) = kept else {
            let unseen = self.unseen.remove(&pid);
            let born = process.key.start_nanoseconds >= listening.since_nanoseconds;
            let threads = live(pid);
            let mut kept = Kept {
                base: Own::of(&process.usage.nothing()),
                ended: Own::of(&process.usage.nothing()),
                booked: Own::of(&process.usage),
                last_group: None,
            };
            match (threads, born) {
                // All that ended was heard of.
                (threads, true) => {
                    if let Some(unseen) = unseen {
                        kept.ended.add(&unseen.own.usage());
                    }
                    if let Some(threads) = threads.filter(|threads| threads.disk.is_some()) {
                        kept.booked.disk = kept.with(&threads).disk;
                    }
                }
                (Some(threads), false) => kept.base = Own::of(&process.usage.beyond(&threads)),
                (None, false) => {}
            }
            return (kept.booked.usage(), kept);
        };
        let mut own = Own::of(&process.usage).usage();
        if own.disk == seen.total.disk {
            own.disk = kept.booked.disk;
        } else if (process.threads == 1 || pid == 1 || self.parents.contains(&pid))
            && let Some(threads) = live(pid)
            && threads.disk.is_some()
        {
            own.disk = kept.with(&threads).disk;
        }
        let mut booked = kept.booked.usage();
        let due = own.beyond(&booked);
        booked.raise_to(&own);
        kept.booked = Own::of(&booked);
        (due, kept)
    }

    /// What a process used since it was seen last, less what was booked for its children.
    fn use_less_inherited(&mut self, process: &Process, before: Option<&Seen>) -> Usage {
        let own = Own::of(&process.usage).usage();
        let mut due = before.map_or(own, |seen| own.since(&seen.total.usage()));
        if let (Some(due), Some(inherited)) =
            (&mut due.disk, self.inherited.get_mut(&process.key.pid))
        {
            take_inherited(due, inherited);
        }
        due
    }

    /// The group that processes of this name are in.
    fn group_name(&self, name: Name) -> Name {
        if self.groups.len() >= self.limit && !self.groups.contains_key(&name) {
            return other();
        }
        name
    }

    fn group(&mut self, name: Name, known: &Usage) -> &mut Group {
        self.groups.entry(name).or_insert_with(|| Group {
            name,
            usage: known.nothing(),
            ..Group::default()
        })
    }

    /// Books the rest of a process that ended.
    fn finish(&mut self, seen: &Seen) {
        let Some(kept) = &seen.kept else { return };
        let mut total = kept.base.usage();
        total.add(&kept.ended.usage());
        let due = total.beyond(&kept.booked.usage());
        let name = self.group_name(kept.last_group.unwrap_or(seen.group));
        let group = self.group(name, &due);
        group.usage.add(&due);
        group.exited += 1;
        group.started += u64::from(name != seen.group);
    }

    /// Counts those that are not among `processes` as ended.
    fn forget_ended(&mut self, processes: &[Process]) {
        let alive: HashSet<Key> = processes.iter().map(|process| process.key).collect();
        let ended: Vec<_> = self
            .known
            .extract_if(.., |key, _| !alive.contains(key))
            .collect();
        for (key, seen) in ended {
            if seen.kept.is_some() {
                self.parents.remove(&key.pid);
                self.finish(&seen);
                continue;
            }
            if let Some(group) = self.groups.get_mut(&seen.group) {
                group.exited += 1;
            }
            if let Some(disk) = &seen.total.disk {
                add_disk(self.inherited.entry(seen.parent).or_default(), disk);
            }
        }
        let parents: HashSet<u32> = alive.iter().map(|key| key.pid).collect();
        self.inherited
            .retain(|parent, rest| parents.contains(parent) && *rest != Disk::default());
    }
}

impl Kept {
    /// All that the process used itself, with what its live threads did.
    fn with(&self, live: &Usage) -> Usage {
        let mut own = self.base.usage();
        own.add(&self.ended.usage());
        own.add(live);
        own
    }
}

fn keys_of(pid: u32) -> RangeInclusive<Key> {
    let key = |start_nanoseconds| Key {
        pid,
        start_nanoseconds,
    };
    key(0)..=key(u64::MAX)
}

fn add_disk(sum: &mut Disk, part: &Disk) {
    sum.read_bytes += part.read_bytes;
    sum.write_bytes += part.write_bytes;
    sum.cancelled_write_bytes += part.cancelled_write_bytes;
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

    /// Books what is alive; gives the groups.
    fn look(ledger: &mut ObservedLedger, processes: &[Process]) -> Vec<Group> {
        look_at(ledger, processes, &|_| None)
    }

    fn look_at(
        ledger: &mut ObservedLedger,
        processes: &[Process],
        live: LiveThreads<'_>,
    ) -> Vec<Group> {
        let mut processes = processes.to_vec();
        ledger.book(&mut processes, live);
        ledger.groups(&mut processes)
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
        let mut ledger = ObservedLedger::new(8, None);
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
        let mut ledger = ObservedLedger::new(8, None);
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
        let mut ledger = ObservedLedger::new(8, None);
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

    #[test]
    fn names_beyond_the_limit_share_a_group() {
        let mut ledger = ObservedLedger::new(1, None);
        let groups = look(
            &mut ledger,
            &[process(1, SH, 5, None), process(2, LS, 7, None)],
        );
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

    const SECOND: u64 = 1_000_000_000;
    const NOW: Moment = Moment {
        boot_nanoseconds: 100 * SECOND,
        suspended_nanoseconds: 0,
    };

    fn listening() -> ObservedLedger {
        let listening = Listening {
            since_nanoseconds: 50 * SECOND,
        };
        ObservedLedger::new(8, Some(listening))
    }

    fn usage(cpu: u64, read: u64) -> Usage {
        process(1, SH, cpu, Some(read)).usage
    }

    /// The last thread of a process that began when listening had begun.
    fn last(pid: u32, name: &[u8; 16], cpu: u64, read: u64) -> Record {
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

    fn born(pid: u32, name: &[u8; 16], cpu: u64, read: u64) -> Process {
        Process {
            key: Key {
                pid,
                start_nanoseconds: 90 * SECOND,
            },
            threads: 1,
            ..process(pid, name, cpu, Some(read))
        }
    }

    fn sums(groups: &[Group], name: &[u8; 16]) -> (u64, Option<u64>, u64, u64) {
        let group = find(groups, name);
        let read = group.usage.disk.map(|disk| disk.read_bytes);
        (
            group.usage.cpu_nanoseconds,
            read,
            group.started,
            group.exited,
        )
    }

    #[test]
    fn what_was_never_seen_alive_is_in_its_group() {
        let mut ledger = listening();
        look(&mut ledger, &[]);
        ledger.end(&last(7, LS, 5, 50), NOW);
        ledger.end(&last(8, LS, 6, 60), NOW);
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (11, Some(110), 2, 2));
    }

    #[test]
    fn threads_belong_to_the_group_of_their_process() {
        let mut ledger = listening();
        let thread = Record {
            tid: 9,
            ends_process: Some(false),
            ..last(7, LS, 5, 50)
        };
        ledger.end(&thread, NOW);
        let groups = look(&mut ledger, &[]);
        assert!(groups.is_empty(), "{groups:?}");
        ledger.end(&last(7, SH, 6, 60), NOW);
        let groups = look(&mut ledger, &[]);
        assert_eq!(sums(&groups, SH), (11, Some(110), 1, 1));
        assert_eq!(groups.len(), 1);
    }

    #[test]
    fn the_end_gives_the_rest() {
        let mut ledger = listening();
        let alive = [born(7, LS, 5, 50)];
        let live = |_| Some(usage(5, 50));
        assert_eq!(
            sums(&look_at(&mut ledger, &alive, &live), LS),
            (5, Some(50), 1, 0)
        );
        ledger.end(&last(7, LS, 8, 90), NOW);
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (8, Some(90), 1, 1));
        // Whoever ends while all are being read, was read once more.
        let mut processes = vec![born(8, LS, 1, 10)];
        ledger.book(&mut processes, &|_| Some(usage(1, 10)));
        ledger.end(&last(8, LS, 2, 20), NOW);
        let groups = ledger.groups(&mut processes);
        assert_eq!(sums(&groups, LS), (10, Some(110), 2, 2));
        assert!(processes.is_empty());
    }

    #[test]
    fn one_that_is_on_its_way_out_is_not_another() {
        let mut ledger = listening();
        ledger.end(&last(7, LS, 5, 50), NOW);
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
        look_at(&mut ledger, &[old(10, 500)], &|_| Some(usage(4, 200)));
        let end = Record {
            lived_nanoseconds: 100 * SECOND,
            ..last(7, LS, 5, 230)
        };
        ledger.end(&end, NOW);
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (11, Some(530), 0, 1));
    }

    #[test]
    fn a_parent_has_what_it_did_itself() {
        let mut ledger = listening();
        let live = |_| Some(usage(1, 10));
        look_at(&mut ledger, &[born(7, SH, 1, 10)], &live);
        let child = Record {
            parent: 7,
            ..last(8, LS, 2, 70)
        };
        ledger.end(&child, NOW);
        let live = |_| Some(usage(1, 15));
        let groups = look_at(&mut ledger, &[born(7, SH, 1, 10 + 70 + 5)], &live);
        assert_eq!(sums(&groups, SH), (1, Some(15), 1, 0));
        assert_eq!(sums(&groups, LS), (2, Some(70), 1, 1));
        // One that ignores SIGCHLD gets nothing from its children.
        ledger.end(&child, NOW);
        let live = |_| Some(usage(1, 16));
        let groups = look_at(&mut ledger, &[born(7, SH, 1, 10 + 70 + 6)], &live);
        assert_eq!(sums(&groups, SH), (1, Some(16), 1, 0));
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_process() {
        let mut ledger = listening();
        look_at(&mut ledger, &[born(7, SH, 1, 10)], &|_| Some(usage(1, 10)));
        let again = Record {
            lived_nanoseconds: SECOND,
            ..last(7, LS, 3, 30)
        };
        ledger.end(&again, NOW);
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
        ledger.end(&thread, NOW);
        assert!(look(&mut ledger, &[]).is_empty());
        assert_eq!(ledger.homeless().read_bytes, 30);
    }

    #[test]
    fn what_is_known_of_the_unseen_survives_a_loss() {
        let mut ledger = listening();
        let thread = Record {
            tid: 9,
            ends_process: Some(false),
            ..last(7, LS, 5, 50)
        };
        ledger.end(&thread, NOW);
        ledger.records_lost();
        assert_eq!(sums(&look(&mut ledger, &[]), LS), (5, Some(50), 0, 0));
    }
}
