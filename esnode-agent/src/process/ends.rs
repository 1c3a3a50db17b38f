//! What is known of processes that ended, where no BPF program adds them up.

use super::{
    Group, Process,
    ledger::{Listening, ListeningLedger, LiveThreads, Moment, ObservedLedger},
    procfs::process_of_thread,
    table::Unattributed,
    taskstats::{Record, Taskstats},
};
use std::{path::PathBuf, sync::Arc};

/// The ledger of the groups, by whether the kernel tells of ends.
#[derive(Debug)]
pub enum Ends {
    /// It does not.
    Observed(ObservedLedger),
    /// It does.
    Told(Told),
}

impl Ends {
    /// The ledger of what is seen of at most `names` groups, and told by `taskstats`.
    #[must_use]
    pub fn new(names: usize, taskstats: Option<(Taskstats, Listening)>, procfs: PathBuf) -> Self {
        match taskstats {
            None => Self::Observed(ObservedLedger::new(names)),
            Some((taskstats, listening)) => Self::Told(Told {
                ledger: ListeningLedger::new(names, listening),
                taskstats: Arc::new(taskstats),
                procfs,
                overruns: 0,
            }),
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
        let mut records = Vec::new();
        let lost = self.taskstats.drain(|record| {
            self.ledger.announce(&record);
            records.push(record);
        });
        Waiting {
            records,
            lost: lost.unwrap_or(true),
            moment: Moment::now(),
        }
    }

    /// Books what the records tell.
    fn end(&mut self, waiting: Waiting) {
        for mut record in waiting.records {
            if record.pid.is_none() {
                self.find_process(&mut record);
            }
            self.ledger.end(&record, waiting.moment);
        }
        if waiting.lost {
            self.overruns += 1;
            self.ledger.records_lost();
        }
    }

    /// Says whose thread a record is of. Old kernels don't; often the thread is still to be seen.
    fn find_process(&self, record: &mut Record) {
        if self.ledger.knows(record.tid) {
            record.pid = Some(record.tid);
            return;
        }
        let found = process_of_thread(&self.procfs, record.tid);
        record.pid = found.map(|(pid, _)| pid);
        record.ends_process = found.map(|(pid, threads)| pid == record.tid && threads == 1);
    }
}

/// Records that were fetched.
struct Waiting {
    records: Vec<Record>,
    /// Whether the kernel dropped others.
    lost: bool,
    moment: Moment,
}
