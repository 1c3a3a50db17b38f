//! The thread that opens the library, starts the others, and begins anew when the driver was
//! lost.

use super::{
    board::{Board, Intervals, Standing},
    epoch::{Epoch, Report},
    events,
    filter::Filter,
    library::{self, OpenError},
    worker::{self, Job},
};
use crate::privileges::{self, Needs};
use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// How long the start of the agent may wait for the first samples.
const FIRST_SAMPLES: Duration = Duration::from_secs(2);

/// How often a library is looked for that was never there.
const ABSENT: Duration = Duration::from_secs(30);

/// Longest time between two tries to get back what was lost.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How long the thread for events may take to let go of the library: longer than one wait.
const EVENTS_LETTING_GO: Duration = Duration::from_millis(1_500);

/// How long the end of the agent may wait for threads that are in the driver.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often to look whether a thread hangs no more.
const HANGING: Duration = Duration::from_secs(1);

/// What the stack of a thread may grow to. What is not used takes no memory.
const STACK_BYTES: usize = 1 << 20;

/// How to sample GPUs.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// The library, if not the one that the dynamic linker finds.
    pub library: Option<PathBuf>,
    /// How often.
    pub intervals: Intervals,
    /// Which.
    pub filter: Filter,
    /// Where proc is mounted.
    pub procfs: PathBuf,
}

/// The GPUs of this host. Dropping it ends its threads.
#[derive(Debug)]
pub struct Gpus {
    board: Arc<Board>,
    reports: Sender<Report>,
    thread: Option<JoinHandle<()>>,
}

impl Gpus {
    /// Starts to look for them, with the rights of the caller: the driver may make its device
    /// files on this occasion. The thread gives the rights up itself.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(options: GpuOptions) -> io::Result<Self> {
        let board = Arc::new(Board::new(options.intervals));
        let (sender, reports) = mpsc::channel();
        let supervisor = Supervisor {
            options,
            board: Arc::clone(&board),
            reports,
            sender: sender.clone(),
            workers: Vec::new(),
            told: HashSet::new(),
            tries: 0,
        };
        let thread = spawn("gpu", move || supervisor.run())?;
        Ok(Self {
            board,
            reports: sender,
            thread: Some(thread),
        })
    }

    /// Waits until every GPU was sampled once, for two seconds at most.
    pub fn wait_for_first_samples(&self) {
        self.board.wait_settled(FIRST_SAMPLES);
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        // If nobody listens, it has ended.
        let _ = self.reports.send(Report::Stop);
        let deadline = Instant::now() + PATIENCE;
        if let Some(thread) = self.thread.take() {
            // One that hangs in the driver is left behind.
            wait(&thread, deadline);
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(body)
}

/// Waits for the end of a thread; says whether it came.
fn wait(thread: &JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// A thread of a device, of this epoch or one before.
struct Worker {
    index: u32,
    thread: JoinHandle<()>,
}

/// Why an epoch ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The agent ends.
    Stop,
    /// The driver is gone.
    DriverLost,
    /// A device is gone: the library has to be opened again to get it back.
    DeviceLost,
}

struct Supervisor {
    options: GpuOptions,
    board: Arc<Board>,
    reports: Receiver<Report>,
    sender: Sender<Report>,
    /// Those that did not end with their epoch are among them.
    workers: Vec<Worker>,
    /// What the log said of why there is less than there should be, since all was well.
    told: HashSet<String>,
    /// Tries in a row that did not bring everything back.
    tries: u32,
}

impl Supervisor {
    fn run(mut self) {
        let mut privileged = true;
        loop {
            let opened = self.open();
            if std::mem::take(&mut privileged)
                && let Err(error) = privileges::drop(Needs::default())
            {
                warn!(%error, "the GPU collector keeps all privileges");
            }
            let pause = match opened {
                Ok((epoch, present)) => match self.attend(epoch, present) {
                    End::Stop => return,
                    End::DriverLost => self.options.intervals.fast,
                    End::DeviceLost => Duration::ZERO,
                },
                Err(error) => self.refuse(&error),
            };
            if self.pause(pause) {
                return;
            }
        }
    }

    fn open(&self) -> Result<(Arc<Epoch>, u32), OpenError> {
        let nvml = library::open(self.options.library.as_deref())?;
        if self.options.filter == Filter::None {
            let present = nvml.device_count().unwrap_or(0);
            let wanted = self.options.filter.to_string();
            return Err(OpenError::NotSelected { present, wanted });
        }
        let count = nvml.device_count();
        let present = count.map_err(|source| OpenError::Driver { source })?;
        if present == 0 {
            return Err(OpenError::NoDevice);
        }
        self.board.opened(library::driver(&nvml));
        Ok((Arc::new(Epoch::new(nvml)), present))
    }

    /// There is nothing to sample. Gives how long to wait before the next try.
    fn refuse(&mut self, error: &OpenError) -> Duration {
        self.tries += 1;
        let reason = error.to_string();
        let was_up = self.board.has_opened();
        if was_up {
            self.tell(format!("GPU driver is down: {reason}"));
        } else if self.told.insert(reason.clone()) {
            info!("GPU collector disabled: {reason}");
        }
        let should_be_there = was_up || (error.found_library() && !error.found_driver());
        self.board.closed(if should_be_there {
            Standing::Down(reason)
        } else {
            Standing::Off(reason)
        });
        self.board.settle();
        if !should_be_there {
            return ABSENT;
        }
        // At first at every interval, as the driver is being loaded; later now and then.
        if self.tries < 60 {
            self.options.intervals.fast
        } else {
            self.options.intervals.fast.max(ABSENT / 3)
        }
    }

    /// Waits; says whether the agent ends meanwhile.
    fn pause(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(rest) {
                Ok(Report::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                // Late news of an epoch that is over.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// Has all devices sampled until something is lost.
    fn attend(&mut self, epoch: Arc<Epoch>, present: u32) -> End {
        let (found, devices) = mpsc::channel();
        let mut watch = Watch::new(epoch, found, present);
        let events = {
            let (epoch, board) = (Arc::clone(&watch.epoch), Arc::clone(&self.board));
            spawn("gpu-events", move || events::run(&epoch, &board, &devices))
        };
        if let Err(error) = &events {
            warn!("XIDs are not known: cannot start a thread: {error}");
        }
        for index in 0..present {
            self.start(index, &mut watch);
        }
        let end = self.watch(&mut watch);
        self.tries = if watch.lost.is_empty() {
            0
        } else {
            self.tries + 1
        };
        watch.epoch.end_events();
        if let (Ok(events), true) = (events, end != End::Stop) {
            wait(&events, Instant::now() + EVENTS_LETTING_GO);
        }
        watch.epoch.end();
        // One that hangs keeps its device, and must not keep the others from being sampled.
        let deadline = Instant::now() + self.options.intervals.fast.max(PATIENCE) / 2;
        self.workers
            .retain(|worker| !wait(&worker.thread, deadline));
        end
    }

    /// Starts the thread of a device, but where one of an epoch before still hangs in it.
    fn start(&mut self, index: u32, watch: &mut Watch) {
        self.workers.retain(|worker| !worker.thread.is_finished());
        if self.workers.iter().any(|worker| worker.index == index) {
            watch.hanging.push(index);
            return;
        }
        let job = Job {
            index,
            present: watch.present,
            filter: self.options.filter.clone(),
            procfs: self.options.procfs.clone(),
        };
        let (epoch, board) = (Arc::clone(&watch.epoch), Arc::clone(&self.board));
        let (reports, found) = (self.sender.clone(), watch.devices.clone());
        let thread = spawn(&format!("gpu-{index}"), move || {
            worker::run(&job, &epoch, &board, &reports, &found);
        });
        match thread {
            Ok(thread) => self.workers.push(Worker { index, thread }),
            Err(error) => {
                self.tell(format!(
                    "GPU {index} is not sampled: cannot start a thread: {error}"
                ));
                watch.lose(index, self.tries, self.options.intervals.fast);
            }
        }
    }

    /// Listens to what the threads report until it is time to end the epoch.
    fn watch(&mut self, watch: &mut Watch) -> End {
        loop {
            if watch.is_settled() {
                self.settled(watch);
            }
            let report = match watch.next_at() {
                None => self.reports.recv().map_err(RecvTimeoutError::from),
                Some(at) => {
                    let rest = at.saturating_duration_since(Instant::now());
                    self.reports.recv_timeout(rest)
                }
            };
            match report {
                Ok(Report::Stop) | Err(RecvTimeoutError::Disconnected) => return End::Stop,
                Ok(Report::Found {
                    index,
                    uuid,
                    wanted,
                }) => {
                    watch.found.push((index, uuid));
                    watch.settled += u32::from(!wanted);
                    watch.refused += u32::from(!wanted);
                }
                Ok(Report::Sampled) => watch.settled += 1,
                Ok(Report::DeviceLost { index, error }) => {
                    self.tell(format!("GPU {index} is lost: {error}"));
                    if watch.begun.elapsed() > LONGEST_PAUSE {
                        self.tries = 0;
                    }
                    watch.lose(index, self.tries, self.options.intervals.fast);
                }
                Ok(Report::DriverLost { error }) => {
                    let reason = error.to_string();
                    self.tell(format!("GPU driver is down: {reason}"));
                    self.board.closed(Standing::Down(reason));
                    self.board.settle();
                    return End::DriverLost;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if watch.again_at.is_some_and(|at| at <= Instant::now()) {
                        return End::DeviceLost;
                    }
                    for index in std::mem::take(&mut watch.hanging) {
                        self.start(index, watch);
                    }
                }
            }
        }
    }

    fn tell(&mut self, news: String) {
        if !self.told.contains(&news) {
            warn!("{news}");
            self.told.insert(news);
        }
    }

    /// Every device has said something.
    fn settled(&mut self, watch: &mut Watch) {
        if std::mem::replace(&mut watch.announced, true) {
            return;
        }
        for missing in self.options.filter.missing(&watch.found) {
            warn!("--gpu-devices {missing}: there is no such GPU");
        }
        if watch.refused == watch.present {
            let error = OpenError::NotSelected {
                present: watch.present,
                wanted: self.options.filter.to_string(),
            };
            info!("GPU collector disabled: {error}");
            self.board.closed(Standing::Off(error.to_string()));
        } else if watch.lost.is_empty() && watch.hanging.is_empty() {
            let sampled = watch.present - watch.refused;
            info!("GPU collector is on: {sampled} of {} GPUs", watch.present);
            self.told.clear();
        }
        self.board.settle();
    }
}

/// What is known of the devices of an epoch.
struct Watch {
    epoch: Arc<Epoch>,
    begun: Instant,
    /// Where the thread for events hears of devices.
    devices: Sender<u32>,
    present: u32,
    found: Vec<(u32, String)>,
    refused: u32,
    /// Devices that said something.
    settled: u32,
    announced: bool,
    lost: Vec<u32>,
    /// Those that a thread of an epoch before still hangs in.
    hanging: Vec<u32>,
    /// When to open the library again.
    again_at: Option<Instant>,
}

impl Watch {
    fn new(epoch: Arc<Epoch>, devices: Sender<u32>, present: u32) -> Self {
        Self {
            epoch,
            begun: Instant::now(),
            devices,
            present,
            found: Vec::new(),
            refused: 0,
            settled: 0,
            announced: false,
            lost: Vec::new(),
            hanging: Vec::new(),
            again_at: None,
        }
    }

    fn is_settled(&self) -> bool {
        self.settled as usize + self.hanging.len() >= self.present as usize
    }

    /// When to do something, though nobody reports.
    fn next_at(&self) -> Option<Instant> {
        let hanging = (!self.hanging.is_empty()).then(|| Instant::now() + HANGING);
        self.again_at.into_iter().chain(hanging).min()
    }

    /// A device is lost. Plans to begin anew: soon at first, then more and more seldom, as it
    /// takes time from the other devices.
    fn lose(&mut self, index: u32, tries: u32, interval: Duration) {
        if !self.lost.contains(&index) {
            self.lost.push(index);
            self.settled += 1;
        }
        let pause = interval
            .saturating_mul(1 << tries.min(16))
            .min(LONGEST_PAUSE);
        self.again_at.get_or_insert(Instant::now() + pause);
    }
}
