//! The GPUs of this host, as the rest of the agent knows them.

use super::{
    board::{Board, Intervals, Standing},
    book::GroupBook,
    epoch::{News, Report},
    filter::Filter,
    supervisor::{Supervisor, spawn, wait},
};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tracing::warn;

/// How long the start of the agent may wait for the first samples.
pub(super) const FIRST_SAMPLES: Duration = Duration::from_secs(2);

/// How long the end of the agent may wait for threads that are in the driver.
const PATIENCE: Duration = Duration::from_millis(200);

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
    /// Where sysfs is mounted.
    pub sysfs: PathBuf,
    /// Which groups processes are in.
    pub groups: GroupBook,
}

/// The GPUs of this host. Dropping it ends its threads.
#[derive(Debug)]
pub struct Gpus {
    board: Arc<Board>,
    sees_all: bool,
    reports: Sender<News>,
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
        let sees_all = options.filter == Filter::All;
        let (sender, reports) = mpsc::channel();
        let supervisor = Supervisor::new(options, Arc::clone(&board), (sender.clone(), reports));
        let thread = spawn("gpu", move || supervisor.run())?;
        Ok(Self {
            board,
            sees_all,
            reports: sender,
            thread: Some(thread),
        })
    }

    /// Waits until every GPU was sampled once, for two seconds at most.
    pub fn wait_for_first_samples(&self) {
        self.board.wait_settled(FIRST_SAMPLES);
        if self.board.standing() == Standing::Opening {
            let seconds = FIRST_SAMPLES.as_secs();
            warn!("NVML hangs: no answer for {seconds} s; GPUs follow when it answers");
            self.board.hang();
        }
    }

    /// Whether none are left out: then what they take together is what all of the machine's take.
    #[must_use]
    pub fn sees_all(&self) -> bool {
        self.sees_all
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        // If nobody listens, it has ended.
        let _ = self.reports.send((0, Report::Stop));
        let deadline = Instant::now() + PATIENCE;
        if let Some(thread) = self.thread.take() {
            // One that hangs in the driver is left behind.
            wait(&thread, deadline);
        }
    }
}
