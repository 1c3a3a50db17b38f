//! What stands in for BPF where it gives no rung: sock_diag for network bytes, taskstats for
//! processes that end. Opened at start, while there are rights; then one thread takes in what the
//! kernel tells, so that nothing depends on how often anyone scrapes.

use super::{
    Group, Process,
    ledger::{Listening, LiveThreads, Moment, ObservedLedger},
    netlink::Netlink,
    procfs::{Procfs, Units, process_of_thread},
    sock_diag::SockDiag,
    table::Unattributed,
    taskstats::Taskstats,
};
use crate::ladder::{Refusal, Rung, Signal, Standing};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};
use std::{
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};
use tracing::info;

/// How often the thread looks whether a network namespace is still in use.
const PERIOD: Duration = Duration::from_secs(1);

/// After records came, others may follow for so long before they are taken in together.
const GATHER: Duration = Duration::from_millis(20);

/// The rungs that were opened.
#[derive(Debug, Default)]
pub struct Fallback {
    /// Network bytes.
    pub sock_diag: Option<SockDiag>,
    /// Ends of processes.
    pub taskstats: Option<(Taskstats, Listening)>,
}

impl Fallback {
    /// Opens what is below BPF for those of `standings` that have no rung, except the rungs in
    /// `without`; then they have it, or one more that refused.
    #[must_use]
    pub fn open(procfs: &Path, sysfs: &Path, without: &[Rung], standings: &mut [Standing]) -> Self {
        let mut fallback = Self::default();
        let open = standings
            .iter_mut()
            .filter(|standing| standing.rung.is_none());
        // In the order of the signals, the network comes before what is spliced.
        for standing in open {
            match standing.signal {
                Signal::ProcessTable => standing.rung = Some(Rung::Procfs),
                Signal::EndedProcesses => {
                    let opened = unless(without, Rung::Taskstats, || listener(procfs, sysfs));
                    fallback.taskstats = keep(standing, Rung::Taskstats, opened);
                }
                Signal::Network => {
                    let opened = unless(without, Rung::SockDiag, || sockets(procfs));
                    fallback.sock_diag = keep(standing, Rung::SockDiag, opened);
                }
                // What is read from there includes what was spliced.
                Signal::SpliceReceive if fallback.sock_diag.is_some() => {
                    standing.rung = Some(Rung::SockDiag);
                }
                Signal::SpliceReceive | Signal::SpliceReceiveUnix | Signal::DiskLatency => {}
            }
        }
        fallback
    }

    /// Whether network namespaces are to be entered later on.
    #[must_use]
    pub fn enters_namespaces(&self) -> bool {
        self.sock_diag.is_some()
    }
}

/// Why a rung was refused, and what to do about it.
type Why = (String, &'static str);

fn listener(procfs: &Path, sysfs: &Path) -> Result<(Taskstats, Listening), Why> {
    // What begins while this is being opened is heard of.
    let since_nanoseconds = now().boot_nanoseconds;
    Taskstats::open(procfs, sysfs)
        .map(|opened| (opened, Listening { since_nanoseconds }))
        .map_err(|error| (error.to_string(), error.remedy()))
}

fn sockets(procfs: &Path) -> Result<SockDiag, Why> {
    let processes = Procfs::new(procfs, Units::of_this_kernel()).processes();
    let processes = processes.map(|found| found.processes).unwrap_or_default();
    SockDiag::open(procfs, &processes).map_err(|error| (error.to_string(), error.remedy()))
}

/// Notes what was opened, or why it was not.
fn keep<T>(standing: &mut Standing, rung: Rung, opened: Result<T, Refusal>) -> Option<T> {
    match opened {
        Ok(opened) => {
            standing.rung = Some(rung);
            Some(opened)
        }
        Err(refusal) => {
            standing.refused.push(refusal);
            None
        }
    }
}

/// Opens a rung, unless it is to be done without.
fn unless<T>(
    without: &[Rung],
    rung: Rung,
    open: impl FnOnce() -> Result<T, Why>,
) -> Result<T, Refusal> {
    let refuse = |(reason, remedy): Why| Refusal {
        rung,
        reason,
        remedy: remedy.to_owned(),
    };
    if without.contains(&rung) {
        return Err(refuse((
            format!("left out by --without {rung}"),
            "leave out that flag",
        )));
    }
    open().map_err(refuse)
}

/// What the thread and the collector share.
#[derive(Debug)]
pub struct Ends {
    ledger: ObservedLedger,
    taskstats: Option<Arc<Taskstats>>,
    procfs: PathBuf,
    overruns: u64,
}

impl Ends {
    /// The ledger of what is seen of at most `names` groups, and listened to.
    #[must_use]
    pub fn new(names: usize, taskstats: Option<(Taskstats, Listening)>, procfs: PathBuf) -> Self {
        let (taskstats, listening) = taskstats.unzip();
        Self {
            ledger: ObservedLedger::new(names, listening),
            taskstats: taskstats.map(Arc::new),
            procfs,
            overruns: 0,
        }
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

    /// Whether ends of processes are listened to.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.taskstats.is_some()
    }

    /// How often the kernel told of more ends than were taken in.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Books what was just read of all processes, and gives the groups. Nobody may have taken in
    /// records since the reading began: they would be older than what was read.
    pub fn book(&mut self, processes: &mut Vec<Process>, live: LiveThreads<'_>) -> Vec<Group> {
        self.ledger.book(processes, live);
        self.drain();
        self.ledger.groups(processes)
    }

    /// Takes in the records that wait.
    pub fn drain(&mut self) {
        let Some(taskstats) = &self.taskstats else {
            return;
        };
        let (ledger, procfs, moment) = (&mut self.ledger, &self.procfs, now());
        let lost = taskstats.drain(|mut record| {
            if record.pid.is_none() {
                // Old kernels don't say; often the thread is still to be seen.
                let known = ledger.knows(record.tid);
                let found = (!known).then(|| process_of_thread(procfs, record.tid));
                match found {
                    None => record.pid = Some(record.tid),
                    Some(found) => {
                        record.pid = found.map(|(pid, _)| pid);
                        record.ends_process =
                            found.map(|(pid, threads)| pid == record.tid && threads == 1);
                    }
                }
            }
            ledger.end(&record, moment);
        });
        if lost.unwrap_or(true) {
            self.overruns += 1;
            self.ledger.records_lost();
        }
    }
}

/// The time, on the clocks of processes.
fn now() -> Moment {
    let nanoseconds = |clock| {
        let time = clock_gettime(clock);
        u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
            + u64::try_from(time.tv_nsec).unwrap_or_default()
    };
    let boot_nanoseconds = nanoseconds(ClockId::Boottime);
    Moment {
        boot_nanoseconds,
        suspended_nanoseconds: boot_nanoseconds.saturating_sub(nanoseconds(ClockId::Monotonic)),
    }
}

/// Something that the thread and the collector share.
pub type Shared<T> = Arc<Mutex<T>>;

/// Takes the lock, also of a thread that panicked: all counters are whole at any time.
pub fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that takes in what the kernel tells; it ends after the two were dropped.
///
/// # Errors
/// If the system refuses a thread.
pub fn listen(ends: &Shared<Ends>, sock_diag: Option<&Shared<SockDiag>>) -> io::Result<()> {
    let listener = Listener {
        ends: Arc::downgrade(ends),
        sock_diag: sock_diag.map(Arc::downgrade),
        taskstats: lock(ends).taskstats.clone(),
    };
    if listener.taskstats.is_none() && listener.sock_diag.is_none() {
        return Ok(());
    }
    info!("listening to the kernel for what ends between two scrapes");
    let thread = thread::Builder::new().name("listener".to_owned());
    thread.spawn(move || while listener.round().is_some() {})?;
    Ok(())
}

struct Listener {
    ends: Weak<Mutex<Ends>>,
    sock_diag: Option<Weak<Mutex<SockDiag>>>,
    taskstats: Option<Arc<Taskstats>>,
}

impl Listener {
    /// Waits for something to take in, and takes it in; `None` when nobody wants it any more.
    fn round(&self) -> Option<()> {
        let start = Instant::now();
        let destroyed: Vec<Arc<Netlink>> = match &self.sock_diag {
            Some(shared) => lock(&shared.upgrade()?).sources(),
            None => Vec::new(),
        };
        while start.elapsed() < PERIOD {
            let (ended, freed) = wait(self.taskstats.as_deref(), &destroyed);
            if ended {
                lock(&self.ends.upgrade()?).drain();
            }
            if freed && let Some(shared) = &self.sock_diag {
                lock(&shared.upgrade()?).drain();
            }
            thread::sleep(GATHER);
        }
        self.ends.upgrade()?;
        if let Some(shared) = &self.sock_diag {
            lock(&shared.upgrade()?).leave_unused();
        }
        Some(())
    }
}

/// Waits for records of ended threads, and of freed sockets; says which there are.
fn wait(taskstats: Option<&Taskstats>, destroyed: &[Arc<Netlink>]) -> (bool, bool) {
    let sockets = taskstats.map(Taskstats::socket).into_iter();
    let sockets = sockets.chain(destroyed.iter().map(AsRef::as_ref));
    let mut waiting: Vec<_> = sockets
        .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
        .collect();
    let patience = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    if poll(&mut waiting, Some(&patience)).is_err() {
        thread::sleep(PERIOD);
    }
    let mut ready = waiting.iter().map(|socket| !socket.revents().is_empty());
    let ended = taskstats.is_some() && ready.next() == Some(true);
    (ended, ready.any(|ready| ready))
}
