//! The thread that owns the collectors. A scrape asks it for a page, a tool for a snapshot; all that
//! come while a pass runs are answered together by the next.

use crate::{
    api::Snapshot,
    collectors::{CollectError, Collector, CollectorName, Health, Sample},
    page::{self, AgentFacts, Encode as _, Facts, Names, ScrapeCounts},
    version,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// The sampler thread is gone, which is a defect: it outlives every request.
#[derive(Debug, Error)]
#[error("the sampler has stopped; restart the agent and report its log")]
pub struct Stopped;

/// Who waits for the next pass.
enum Waiter {
    Page(oneshot::Sender<Bytes>),
    Snapshot(oneshot::Sender<Snapshot>),
}

/// Asks the sampler thread for pages and snapshots. Dropping the last one ends the thread.
#[derive(Clone)]
pub struct Sampler {
    requests: mpsc::Sender<Waiter>,
    scrapes: Arc<ScrapeCounts>,
}

impl Sampler {
    /// Starts the thread with its collectors.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        collectors: Vec<Collector>,
        names: Names,
        started: SystemTime,
    ) -> io::Result<(Self, SamplerThread)> {
        let (requests, waiting) = mpsc::channel();
        let scrapes = Arc::new(ScrapeCounts::default());
        let run = Run {
            collectors,
            names,
            scrapes: Arc::clone(&scrapes),
            started,
            passes: 0,
            page_bytes: 64 * 1024,
            failing: HashMap::new(),
        };
        let ended = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("sampler".to_owned()).spawn({
            let ended = Arc::clone(&ended);
            move || {
                let mut run = run;
                run.serve(&waiting);
                ended.store(true, Ordering::Relaxed);
            }
        })?;
        Ok((Self { requests, scrapes }, SamplerThread { thread, ended }))
    }

    /// A page in OpenMetrics text, sampled after this call.
    ///
    /// # Errors
    /// [`Stopped`] if the thread is gone.
    pub async fn page(&self) -> Result<Bytes, Stopped> {
        let (waiter, page) = oneshot::channel();
        let waiter = Waiter::Page(waiter);
        self.requests.send(waiter).map_err(|_| Stopped)?;
        page.await.map_err(|_| Stopped)
    }

    /// The same facts for a tool, sampled after this call.
    ///
    /// # Errors
    /// [`Stopped`] if the thread is gone.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        let (waiter, snapshot) = oneshot::channel();
        let waiter = Waiter::Snapshot(waiter);
        self.requests.send(waiter).map_err(|_| Stopped)?;
        snapshot.await.map_err(|_| Stopped)
    }

    /// The counters of answered requests.
    #[must_use]
    pub fn scrapes(&self) -> &ScrapeCounts {
        &self.scrapes
    }
}

/// How long the kernel may take to take away BPF programs: for probes, it waits for all CPUs
/// several times over each.
const DETACHING: Duration = Duration::from_secs(30);

/// The running thread.
pub struct SamplerThread {
    thread: JoinHandle<()>,
    /// Whether it is done with collecting.
    ended: Arc<AtomicBool>,
}

impl SamplerThread {
    /// Waits until it has ended and its BPF programs are detached. A pass that is running has
    /// `patience` at most: a read that hangs in the kernel can't be interrupted, and must not
    /// hold up the end.
    pub fn join(self, patience: Duration) {
        let begun = Instant::now();
        while !self.thread.is_finished() {
            let (limit, what) = if self.ended.load(Ordering::Relaxed) {
                (DETACHING, "the kernel does not let go of the BPF programs")
            } else {
                (patience, "a collector still hangs")
            };
            if begun.elapsed() >= limit {
                warn!("{what}; leaving without it");
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        if self.thread.join().is_err() {
            error!("the sampler thread panicked");
        }
    }
}

struct Run {
    collectors: Vec<Collector>,
    names: Names,
    scrapes: Arc<ScrapeCounts>,
    started: SystemTime,
    passes: u64,
    /// How long the next page may become.
    page_bytes: usize,
    /// What each failing collector said last.
    failing: HashMap<CollectorName, String>,
}

impl Run {
    fn serve(&mut self, waiting: &mpsc::Receiver<Waiter>) {
        while let Ok(first) = waiting.recv() {
            let (mut pages, mut snapshots) = (Vec::new(), Vec::new());
            for waiter in std::iter::once(first).chain(waiting.try_iter()) {
                match waiter {
                    Waiter::Page(waiter) => pages.push(waiter),
                    Waiter::Snapshot(waiter) => snapshots.push(waiter),
                }
            }
            let (time, facts) = self.pass();
            if !snapshots.is_empty() {
                answer(snapshots, &snapshot(time, &facts));
            }
            if !pages.is_empty()
                && let Some(page) = self.render(facts)
            {
                answer(pages, &page);
            }
        }
    }

    /// Samples everything; gives when it began, too.
    fn pass(&mut self) -> (SystemTime, Vec<Facts>) {
        self.passes += 1;
        let time = SystemTime::now();
        let samples: Vec<_> = self.collectors.iter_mut().map(Collector::sample).collect();
        for sample in &samples {
            self.log_change(sample);
        }
        let health = Health::of(&samples);
        let agent = AgentFacts::sample(&self.scrapes, self.passes, self.started);
        let mut facts: Vec<Facts> = samples
            .into_iter()
            .filter_map(|sample| sample.facts.ok())
            .collect();
        facts.push(Box::new(health));
        facts.push(Box::new(agent));
        (time, facts)
    }

    fn render(&mut self, facts: Vec<Facts>) -> Option<Bytes> {
        match page::render(facts, self.names, self.page_bytes) {
            Ok(page) => {
                // Growing while it is written would take twice as much memory.
                self.page_bytes = page.len() + 4096;
                Some(page.into())
            }
            Err(error) => {
                error!(%error, "cannot write the page");
                None
            }
        }
    }

    /// Logs when a collector begins or ceases to fail, not at every scrape.
    fn log_change(&mut self, sample: &Sample) {
        let collector = sample.collector;
        let complaint = sample.complaint.clone();
        match (&sample.facts, complaint) {
            // The thread of GPUs told it when it found out.
            (Ok(_), Some(_)) | (Err(CollectError::Off(_)), _)
                if collector == CollectorName::Gpu => {}
            (Ok(_), Some(complaint)) => self.log_failure(collector, complaint),
            (Ok(_), None) => {
                if self.failing.remove(&collector).is_some() {
                    info!(%collector, "collector works again");
                }
            }
            (Err(CollectError::Off(reason)), _) => {
                if self.failing.get(&collector) != Some(reason) {
                    info!(%collector, reason, "collector has nothing to read");
                    self.failing.insert(collector, reason.clone());
                }
            }
            (Err(error), _) => self.log_failure(collector, error.to_string()),
        }
    }

    fn log_failure(&mut self, collector: CollectorName, error: String) {
        if self.failing.get(&collector) != Some(&error) {
            warn!(%collector, error, "collector failed");
            self.failing.insert(collector, error);
        }
    }
}

/// What the facts say, for tools.
fn snapshot(time: SystemTime, facts: &[Facts]) -> Snapshot {
    let time = time.duration_since(UNIX_EPOCH);
    let mut snapshot = Snapshot {
        version: version::VERSION.to_owned(),
        time_seconds: time.map_or(0.0, |since| since.as_secs_f64()),
        ..Snapshot::default()
    };
    for facts in facts {
        facts.describe(&mut snapshot);
    }
    snapshot
}

fn answer<T: Clone>(waiters: Vec<oneshot::Sender<T>>, value: &T) {
    for waiter in waiters {
        // A client that hung up has no use for it.
        let _ = waiter.send(value.clone());
    }
}
