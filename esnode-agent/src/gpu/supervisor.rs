//! The thread that opens the library, starts the others, and begins anew when the driver was
//! lost.

use super::{
    ask::Told,
    board::{Board, Standing},
    epoch::{Epoch, News, Report},
    events,
    filter::{Filter, Present},
    gpus::{FIRST_SAMPLES, GpuOptions},
    library::{self, OpenError},
    pci::is_off_the_bus,
    people::{Files, is_host},
    watch::Watch,
    worker::{self, Job},
};
use crate::{
    bpf::sys::release_free_memory,
    privileges::{self, Needs},
};
use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// How often a library is looked for that was never there.
const ABSENT: Duration = Duration::from_secs(30);

/// Longest time between two tries to get back what was lost.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How long threads of devices may take to let go of it, at the least.
const LETTING_GO: Duration = Duration::from_millis(100);

/// How long the thread for events may take to let go of the library: longer than one wait.
const EVENTS_LETTING_GO: Duration = Duration::from_millis(1_500);

/// What the stack of a thread may grow to. What is not used takes no memory.
const STACK_BYTES: usize = 1 << 20;

/// Starts a thread.
///
/// # Errors
/// If the system refuses it.
pub(super) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(body)
}

/// Waits for the end of a thread; says whether it came.
pub(super) fn wait(thread: &JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// A thread that samples, of this epoch or one before.
struct Worker {
    epoch: Arc<Epoch>,
    shift: usize,
    thread: JoinHandle<()>,
}

impl Worker {
    /// The device that it is in.
    fn busy_with(&self) -> Option<u32> {
        self.epoch.roster.busy_with(self.shift)
    }
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

/// See the module.
pub(super) struct Supervisor {
    options: GpuOptions,
    board: Arc<Board>,
    reports: Receiver<News>,
    sender: Sender<News>,
    /// Those that did not end with their epoch are among them.
    workers: Vec<Worker>,
    /// The last one that waited for events.
    events: Option<JoinHandle<()>>,
    /// Files of the processes on them.
    files: Files,
    /// What devices do not support, as far as it was told.
    unsupported: Told,
    /// Whether the log knows that the driver is down.
    told_down: bool,
    /// What the log said of why there is less than there should be, since all was well.
    told: HashSet<String>,
    /// Tries in a row that did not bring everything back.
    tries: u32,
    /// How long it took to open the library.
    opening: Duration,
}

impl Supervisor {
    /// Nothing is open yet. `sender` is the other end of `reports`, for the threads.
    pub(super) fn new(
        options: GpuOptions,
        board: Arc<Board>,
        (sender, reports): (Sender<News>, Receiver<News>),
    ) -> Self {
        Self {
            options,
            board,
            reports,
            sender,
            workers: Vec::new(),
            events: None,
            files: Files::default(),
            unsupported: Told::default(),
            told_down: false,
            told: HashSet::new(),
            tries: 0,
            opening: Duration::ZERO,
        }
    }

    /// Samples until the agent ends.
    pub(super) fn run(mut self) {
        let mut privileged = true;
        loop {
            let begun = Instant::now();
            let opened = self.open();
            self.opening = begun.elapsed();
            let driver = opened.as_ref().err().is_none_or(OpenError::found_library);
            let needs = Needs {
                driver,
                ..Needs::default()
            };
            if std::mem::take(&mut privileged)
                && let Err(error) = privileges::drop(needs)
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
        // It takes a deep stack, which goes with the thread.
        let library = self.options.library.clone();
        let opening = thread::Builder::new().spawn(move || library::open(library.as_deref()))?;
        let nvml = opening.join().unwrap_or(Err(OpenError::Panicked))?;
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
        Ok((
            Arc::new(Epoch::new(self.board.times_opened(), nvml)),
            present,
        ))
    }

    /// There is nothing to sample. Gives how long to wait before the next try.
    fn refuse(&mut self, error: &OpenError) -> Duration {
        self.tries += 1;
        let reason = error.to_string();
        let was_up = self.board.times_opened() > 0;
        if was_up {
            self.tell_down(&reason);
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
                Ok((_, Report::Stop)) | Err(RecvTimeoutError::Disconnected) => return true,
                // Late news of an epoch that is over.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// Has all devices sampled until something is lost.
    fn attend(&mut self, epoch: Arc<Epoch>, present: u32) -> End {
        let (found, devices) = mpsc::channel();
        let mut watch = Watch::new(epoch, (found, devices), present);
        self.start_events(&mut watch);
        self.start((0..present).collect(), &mut watch);
        let end = self.watch(&mut watch);
        self.tries = if watch.lost.is_empty() && !watch.is_short {
            0
        } else {
            self.tries + 1
        };
        watch.epoch.end_events();
        if let (Some(events), None, true) = (&self.events, &watch.inbox, end != End::Stop) {
            wait(events, Instant::now() + EVENTS_LETTING_GO);
        }
        watch.epoch.end();
        // One that hangs keeps its device, and must not keep the others from being sampled.
        let deadline = Instant::now() + LETTING_GO.max(self.options.intervals.fast / 2);
        self.workers
            .retain(|worker| !wait(&worker.thread, deadline));
        end
    }

    /// Starts the thread that waits for events if there is none yet, unless one of an epoch before
    /// still hangs.
    fn start_events(&mut self, watch: &mut Watch) {
        if watch.inbox.is_none() {
            return;
        }
        if self.events.as_ref().is_some_and(|it| !it.is_finished()) {
            self.tell("XIDs are not known: the driver does not let go of who waits for them");
            return;
        }
        let Some(devices) = watch.inbox.take() else {
            return;
        };
        let (epoch, board) = (Arc::clone(&watch.epoch), Arc::clone(&self.board));
        let told = self.unsupported.clone();
        match spawn("gpu-events", move || {
            events::run(&epoch, &board, &devices, &told);
        }) {
            Ok(thread) => self.events = Some(thread),
            Err(error) => self.tell(&format!(
                "XIDs are not known: cannot start a thread: {error}"
            )),
        }
    }

    /// Starts a thread for devices, but not for those that one of an epoch before still hangs in.
    fn start(&mut self, devices: Vec<u32>, watch: &mut Watch) {
        self.workers.retain(|worker| !worker.thread.is_finished());
        let former = self.workers.iter();
        let former = former.filter(|worker| !Arc::ptr_eq(&worker.epoch, &watch.epoch));
        let hanging: Vec<_> = former.filter_map(Worker::busy_with).collect();
        let (hanging, devices): (Vec<_>, Vec<_>) = devices
            .into_iter()
            .partition(|index| hanging.contains(index));
        watch.hanging.extend(hanging);
        if devices.is_empty() {
            return;
        }
        let job = Job {
            present: watch.present,
            filter: self.options.filter.clone(),
            procfs: self.options.procfs.clone(),
            files: self.files.clone(),
            groups: self.options.groups.clone(),
            told: self.unsupported.clone(),
            reports: self.sender.clone(),
            events: watch.devices.clone(),
        };
        let shift = watch.epoch.roster.add(devices.clone());
        let (epoch, board) = (Arc::clone(&watch.epoch), Arc::clone(&self.board));
        let thread = spawn("gpu-sampler", move || {
            worker::run(&job, shift, &epoch, &board);
        });
        match thread {
            Ok(thread) => self.workers.push(Worker {
                epoch: Arc::clone(&watch.epoch),
                shift,
                thread,
            }),
            Err(error) => {
                self.tell(&format!(
                    "GPUs are not sampled: cannot start a thread: {error}"
                ));
                for index in devices {
                    watch.lose(index, self.pause_after_loss());
                }
            }
        }
    }

    /// How long to wait before the library is opened again for a device that is lost: not long at
    /// first, then more and more, and much longer than opening takes, which is time without samples
    /// of the others.
    fn pause_after_loss(&self) -> Duration {
        let interval = self.options.intervals.fast;
        let pause = interval.saturating_mul(1 << self.tries.min(16));
        let pause = pause.min(LONGEST_PAUSE);
        pause.max(self.opening.saturating_mul(100).min(LONGEST_PAUSE * 60))
    }

    /// Whether some device that is lost may be there again.
    fn may_be_back(&self, watch: &Watch) -> bool {
        watch.is_short
            || watch.lost.iter().any(|index| {
                let bus_id = self.board.bus_id(*index);
                bus_id.is_none_or(|bus_id| !is_off_the_bus(&self.options.sysfs, &bus_id))
            })
    }

    /// Listens to what the threads report until it is time to end the epoch.
    fn watch(&mut self, watch: &mut Watch) -> End {
        // So that other devices are sampled before their last sample is too old.
        let patience = self.options.intervals.fast / 2;
        loop {
            if watch.is_settled() {
                self.settled(watch);
            }
            let look = Instant::now() + patience;
            let until = watch.again_at.map_or(look, |again| again.min(look));
            let rest = until.saturating_duration_since(Instant::now());
            let news = self.reports.recv_timeout(rest);
            let is_late = |(number, report): &News| {
                *number != watch.epoch.number && !matches!(report, Report::Stop)
            };
            if news.as_ref().is_ok_and(is_late) {
                continue;
            }
            match news.map(|(_, report)| report) {
                Ok(Report::Stop) | Err(RecvTimeoutError::Disconnected) => return End::Stop,
                Ok(Report::Found {
                    index,
                    uuid,
                    mig,
                    wanted,
                }) => {
                    watch.found.push(Present { index, uuid, mig });
                    if !wanted && watch.settled.insert(index) {
                        watch.refused += 1;
                    }
                }
                Ok(Report::Sampled { index }) => {
                    watch.settled.insert(index);
                }
                Ok(Report::Recounted) => return End::DeviceLost,
                Ok(Report::DeviceLost { index, error }) => {
                    self.tell_lost(index, &format!("GPU {index} is lost: {error}"));
                    if watch.begun.elapsed() > LONGEST_PAUSE {
                        self.tries = 0;
                    }
                    watch.lose(index, self.pause_after_loss());
                }
                Ok(Report::DriverLost { error }) => {
                    let reason = error.to_string();
                    self.tell_down(&reason);
                    self.board.closed(Standing::Down(reason));
                    self.board.settle();
                    return End::DriverLost;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if watch.again_at.is_some_and(|at| at <= Instant::now()) {
                        if self.may_be_back(watch) {
                            return End::DeviceLost;
                        }
                        watch.again_at = Some(Instant::now() + self.options.intervals.fast);
                    }
                    // A library is closed once nobody is in it any more.
                    self.workers.retain(|worker| !worker.thread.is_finished());
                    self.start_events(watch);
                    if !watch.hanging.is_empty() {
                        let devices = std::mem::take(&mut watch.hanging);
                        self.start(devices, watch);
                    }
                    if let Some(devices) = watch.epoch.roster.relieve(patience) {
                        self.start(devices, watch);
                    }
                    if !watch.announced && watch.begun.elapsed() > FIRST_SAMPLES {
                        self.tell_silent(watch);
                    }
                }
            }
        }
    }

    /// Once until it is up again, whatever it says meanwhile.
    fn tell_down(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.told_down, true) {
            warn!("GPU driver is down: {reason}");
        }
    }

    /// Once until all are there again, whatever it says meanwhile.
    fn tell_lost(&mut self, index: u32, news: &str) {
        if self.told.insert(format!("lost {index}")) {
            warn!("{news}");
        }
    }

    fn tell(&mut self, news: &str) {
        if self.told.insert(news.to_owned()) {
            warn!("{news}");
        }
    }

    /// Some devices have not said anything for long.
    fn tell_silent(&mut self, watch: &Watch) {
        for index in 0..watch.present {
            let seconds = FIRST_SAMPLES.as_secs();
            if !watch.settled.contains(&index) && !watch.hanging.contains(&index) {
                self.tell(&format!(
                    "GPU {index} hangs: no answer for {seconds} s since NVML was opened"
                ));
            }
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
        let missing = self.board.missing(&watch.found);
        if watch.refused == watch.present {
            let error = OpenError::NotSelected {
                present: watch.present,
                wanted: self.options.filter.to_string(),
            };
            info!("GPU collector disabled: {error}");
            self.board.closed(Standing::Off(error.to_string()));
        } else if missing > watch.lost.len() + watch.hanging.len() {
            // The driver does not count some that it had before.
            watch.is_short = true;
            self.tell(&format!(
                "{missing} of the GPUs that were there are not found any more"
            ));
            let again = Instant::now() + self.pause_after_loss();
            watch.again_at.get_or_insert(again);
        } else if watch.lost.is_empty() && watch.hanging.is_empty() {
            let sampled = watch.present - watch.refused;
            info!("GPU collector is on: {sampled} of {} GPUs", watch.present);
            if !is_host(&self.options.procfs) && self.unsupported.insert("", "processes") {
                warn!(
                    "processes on GPUs are not known: this is not the host's PID namespace (to \
                     do: docker run --pid=host, or --procfs for the host's proc)"
                );
            }
            self.told.clear();
            self.told_down = false;
        }
        self.board.settle();
        // What opening took is not needed again.
        release_free_memory();
    }
}
