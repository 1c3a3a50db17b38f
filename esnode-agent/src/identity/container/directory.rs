//! What containers are called, asked in the background.

mod cache;

use super::{
    Complaint, ContainerRef, Details, Options, Runtime,
    complaint::Complaints,
    source::{Patience, Question, Sources, sources},
};
use cache::{Cache, Timing};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::{self, Runtime as Tokio};

/// How many questions wait at most. More are asked when they are looked up again.
const QUEUE: usize = 1024;

/// How often what nobody looks up any more is thrown away.
const CLEANING: Duration = Duration::from_mins(1);

/// What containers are called, as far as anyone tells.
///
/// A thread of its own asks, one source after the other, and ends with this value, though only
/// after the answer that it waits for. Whoever looks up waits for nothing but a lock that is held
/// for no longer than it takes to store an answer.
#[derive(Debug)]
pub struct Directory {
    shared: Arc<Shared>,
    questions: SyncSender<Question>,
}

#[derive(Debug)]
struct Shared {
    cache: Mutex<Cache>,
    complaints: Mutex<Complaints>,
}

impl Directory {
    /// Starts the thread. No source has to exist, now or ever.
    ///
    /// # Errors
    /// If the system refuses a thread, or what a thread needs to wait for sockets.
    pub fn start(options: Options) -> io::Result<Self> {
        Self::start_with(options, Timing::default(), Patience::default())
    }

    fn start_with(options: Options, timing: Timing, patience: Patience) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            cache: Mutex::new(Cache::new(timing)),
            complaints: Mutex::default(),
        });
        let (sender, questions) = sync_channel(QUEUE);
        let mut tokio = runtime::Builder::new_current_thread();
        let worker = Worker {
            shared: Arc::clone(&shared),
            questions,
            sources: Sources::new(options, patience),
            tokio: tokio.enable_all().build()?,
        };
        let thread = thread::Builder::new().name("containers".to_owned());
        thread.spawn(move || worker.run())?;
        Ok(Self {
            shared,
            questions: sender,
        })
    }

    /// What is known of a container now; what is not is asked for meanwhile, if there is anyone to
    /// ask. Give the pod's uid if the control group has one. Never waits for an answer.
    #[must_use]
    pub fn lookup(&self, container: &ContainerRef, pod_uid: Option<&str>) -> Option<Arc<Details>> {
        let askable = sources(container.runtime, pod_uid.is_some())
            .next()
            .is_some();
        let ask = || {
            let question = Question {
                container: container.clone(),
                pod_uid: pod_uid.map(str::to_owned),
            };
            askable && self.questions.try_send(question).is_ok()
        };
        lock(&self.shared.cache).look_up(container, Instant::now(), ask)
    }

    /// A complaint about a source that was not handed out yet: each kind comes once, until the
    /// daemon has worked again. That a source does not exist is none.
    #[must_use]
    pub fn complaint(&self) -> Option<Complaint> {
        lock(&self.shared.complaints).take()
    }

    /// What last went wrong, if anything ever did.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        lock(&self.shared.complaints).last()
    }
}

/// Held by the thread that asks.
struct Worker {
    shared: Arc<Shared>,
    questions: Receiver<Question>,
    sources: Sources,
    tokio: Tokio,
}

impl Worker {
    fn run(mut self) {
        let mut cleaned = Instant::now();
        loop {
            let question = match self.questions.recv_timeout(CLEANING) {
                Ok(question) => Some(question),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Questions that wait in the queue keep it open, but nobody wants the answers.
            if Arc::strong_count(&self.shared) == 1 {
                return;
            }
            if let Some(question) = question {
                let details = self.ask(&question);
                let complete = details.is_complete(question.pod_uid.is_some());
                let now = Instant::now();
                lock(&self.shared.cache).store(&question.container, details, complete, now);
            }
            if cleaned.elapsed() >= CLEANING {
                cleaned = Instant::now();
                lock(&self.shared.cache).clean(cleaned);
            }
        }
    }

    /// Asks one source after the other, until nothing is left to ask for.
    fn ask(&mut self, question: &Question) -> Details {
        // Others give names of their own, and what runs within a pod's container has its own.
        let named_by_pod = matches!(
            question.container.runtime,
            Runtime::Containerd | Runtime::CriO | Runtime::Unknown
        );
        let mut details = Details::default();
        for source in question.sources() {
            let answer = self.tokio.block_on(self.sources.ask(source, question));
            let mut complaints = lock(&self.shared.complaints);
            match answer {
                Ok(None) => {}
                Ok(Some(told)) => {
                    if source.is_daemon() {
                        complaints.worked(source);
                    }
                    details.fill(told);
                    if named_by_pod && details.name.is_none() {
                        details.name.clone_from(&details.kubernetes_container);
                    }
                }
                Err(error) => complaints.note(source, &error),
            }
            if details.is_complete(question.pod_uid.is_some()) {
                break;
            }
        }
        details
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
