//! What is known of processes that ended, where no BPF program adds them up.

use super::{
    Group, Process,
    ledger::{Listening, ListeningLedger, LiveThreads, Moment, ObservedLedger},
    procfs::process_of_thread,
    table::Unattributed,
    taskstats::{Record, Taskstats, Threads},
};
use esnode_ebpf::Name;
use std::{path::PathBuf, sync::Arc};

/// How long a record waits for the end of its thread to be told, in nanoseconds, and how many do.
const PATIENCE: (u64, usize) = (500_000_000, 1 << 15);

/// The ledger of the groups, by whether the kernel tells of ends.
#[derive(Debug)]
pub enum Ends {
    /// It does not.
    Observed(ObservedLedger),
    /// It does.
    Told(Box<Told>),
}

impl Ends {
    /// The ledger of what is seen of at most `names` groups, and told by `taskstats`.
    #[must_use]
    pub fn new(names: usize, taskstats: Option<(Taskstats, Listening)>, procfs: PathBuf) -> Self {
        match taskstats {
            None => Self::Observed(ObservedLedger::new(names)),
            Some((taskstats, listening)) => Self::Told(Box::new(Told {
                ledger: ListeningLedger::new(names, listening),
                threads: taskstats.tells_births().then(|| Threads::there(&procfs)),
                held: Vec::new(),
                taskstats: Arc::new(taskstats),
                procfs,
                overruns: 0,
            })),
        }
    }

    /// What is told, if anything is.
    #[must_use]
    pub fn told(&self) -> Option<&Told> {
        match self {
            Self::Observed(_) => None,
            Self::Told(told) => Some(told),
        }
    }

    /// Books what was just read of all processes, and gives the groups. Nobody may have taken in
    /// records since the reading began: they may be older than what was read.
    pub fn book(&mut self, processes: &mut Vec<Process>, live: LiveThreads<'_>) -> Vec<Group> {
        match self {
            Self::Observed(ledger) => ledger.book(processes),
            Self::Told(told) => {
                // Who was waited for before a parent was read has sent a record by now.
                let waiting = told.announce();
                told.ledger.book(processes, live);
                told.end(waiting);
                told.ledger.groups(processes)
            }
        }
    }

    /// Puts all that a group had, which has no members any more, into another one.
    pub fn fold(&mut self, from: Name, into: Name) {
        match self {
            Self::Observed(ledger) => ledger.fold(from, into),
            Self::Told(told) => told.ledger.fold(from, into),
        }
    }

    /// Takes in the records that wait.
    pub fn drain(&mut self) {
        if let Self::Told(told) = self {
            told.drain();
        }
    }
}

/// What the kernel tells of ended threads, and the ledger that it goes into.
#[derive(Debug)]
pub struct Told {
    ledger: ListeningLedger,
    taskstats: Arc<Taskstats>,
    /// Whose threads there are, where records don't say it but births and ends are told.
    threads: Option<Threads>,
    /// Records of threads whose process is not known yet.
    held: Vec<(Record, Moment)>,
    procfs: PathBuf,
    overruns: u64,
}

impl Told {
    /// Where the kernel tells it.
    #[must_use]
    pub fn taskstats(&self) -> &Arc<Taskstats> {
        &self.taskstats
    }

    /// Disk bytes of threads whose process is not known.
    #[must_use]
    pub fn unattributed(&self) -> [Unattributed; 2] {
        let homeless = self.ledger.homeless();
        let nobody = |signal, bytes| Unattributed {
            signal,
            reason: "no_process",
            bytes,
        };
        [
            nobody("disk_read", homeless.read_bytes),
            nobody("disk_write", homeless.write_bytes),
        ]
    }

    /// How often the kernel told of more ends than were taken in.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Takes in the records that wait.
    fn drain(&mut self) {
        let waiting = self.announce();
        self.end(waiting);
    }

    /// Fetches the records that wait, and notes whose children they are of.
    fn announce(&mut self) -> Waiting {
        let mut fetched = Vec::new();
        let lost = self.taskstats.drain(|record| fetched.push(record));
        let mut missed = Ok(false);
        if let Some(threads) = &mut self.threads {
            // After the records, since births come before them.
            missed = self.taskstats.drain_events(|event| threads.learn(event));
        }
        let moment = Moment::now();
        let mut records = std::mem::take(&mut self.held);
        records.extend(fetched.into_iter().map(|record| (record, moment)));
        for (record, _) in &mut records {
            if let Some(threads) = &self.threads {
                threads.complete(record);
            }
            self.ledger.announce(record);
        }
        if let Some(threads) = &mut self.threads {
            threads.forget_ended();
        }
        let lost = lost.unwrap_or(true);
        self.overruns += u64::from(lost || missed.unwrap_or(true));
        Waiting {
            records,
            lost,
            moment,
        }
    }

    /// Books what the records tell.
    fn end(&mut self, waiting: Waiting) {
        for (mut record, fetched) in waiting.records {
            if record.pid.is_none() && self.ledger.knows(record.tid) {
                record.pid = Some(record.tid);
            }
            if record.pid.is_none() {
                if self.may_wait(fetched, waiting.moment) {
                    self.held.push((record, fetched));
                    continue;
                }
                self.find_process(&mut record);
            }
            self.ledger.end(&record, fetched);
        }
        if waiting.lost {
            self.ledger.records_lost();
        }
    }

    /// Whether a record that was fetched then may wait for the end of its thread to be told.
    fn may_wait(&self, fetched: Moment, now: Moment) -> bool {
        let (time, number) = PATIENCE;
        self.threads.is_some()
            && self.held.len() < number
            && now
                .boot_nanoseconds
                .saturating_sub(fetched.boot_nanoseconds)
                < time
    }

    /// Says whose thread a record is of, if the thread is still to be seen.
    fn find_process(&self, record: &mut Record) {
        let found = process_of_thread(&self.procfs, record.tid);
        record.pid = found.map(|(pid, _)| pid);
        record.ends_process = found.map(|(pid, threads)| pid == record.tid && threads == 1);
    }
}

/// Records that were fetched, each when it was.
struct Waiting {
    records: Vec<(Record, Moment)>,
    /// Whether the kernel dropped others.
    lost: bool,
    moment: Moment,
}
