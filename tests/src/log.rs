//! What agents wrote to stderr: to wait for, and to show when a test fails.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a line may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

thread_local! {
    /// The logs of the agents that the test on this thread used, for its failure message.
    static LOGS: RefCell<Vec<Arc<Log>>> = const { RefCell::new(Vec::new()) };
}

/// What an agent wrote to stderr so far.
#[derive(Default)]
pub struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().0.clone()
    }

    /// Waits until `find` finds something in the lines; `None` once the log has ended or the
    /// patience with it.
    pub(crate) fn wait<T>(&self, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&state.0) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            if state.1 {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Makes a log that is filled from a child's stderr, on a thread that ends with it; the test
    /// that runs on this thread shows it when it fails.
    pub(crate) fn follow(stderr: impl Read + Send + 'static) -> Arc<Self> {
        let shared = Arc::new(Self::default());
        shared.show_on_failure();
        let log = Arc::clone(&shared);
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                log.lock()
                    .0
                    .push(String::from_utf8_lossy(&line).into_owned());
                log.changed.notify_all();
            }
            log.lock().1 = true;
            log.changed.notify_all();
        });
        shared
    }

    /// Has this log shown when the test that runs on this thread fails.
    pub(crate) fn show_on_failure(self: &Arc<Self>) {
        LOGS.with_borrow_mut(|logs| logs.push(Arc::clone(self)));
    }
}

/// Forgets the logs of the test before, on this thread.
pub fn forget() {
    LOGS.with_borrow_mut(Vec::clear);
}

/// The ends of the logs of the agents that the test on this thread used.
#[must_use]
pub fn shown() -> String {
    let mut text = String::new();
    LOGS.with_borrow(|logs| {
        for log in logs {
            let lines = log.lines();
            text.push_str("\n--- the agent's log ---\n");
            text.push_str(
                &lines
                    .get(lines.len().saturating_sub(40)..)
                    .unwrap_or_default()
                    .join("\n"),
            );
        }
    });
    text
}
