//! Collectors whose files are answered by firmware, which may not answer: they are sampled by a thread
//! of their own, for which a pass waits for a bounded time, and only once.

use super::{CollectError, Outcome, boxed};
use crate::page::Encode;
use std::{
    io,
    marker::PhantomData,
    panic::{self, AssertUnwindSafe},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

/// How long a pass waits.
const PATIENCE: Duration = Duration::from_millis(300);

/// A collector in a thread of its own.
pub struct Guarded<C> {
    begin: Sender<()>,
    outcomes: Receiver<(Outcome, Duration)>,
    patience: Duration,
    /// Whether the thread was told to begin and has not answered.
    busy: bool,
    collector: PhantomData<fn() -> C>,
}

impl<C: Send + 'static> Guarded<C> {
    /// Starts the thread, which ends with this, unless it hangs.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start<F, E>(
        name: &str,
        mut collector: C,
        sample: fn(&mut C) -> Result<F, E>,
    ) -> io::Result<Self>
    where
        F: Encode + Send + 'static,
        E: Into<CollectError> + 'static,
    {
        let (begin, orders) = mpsc::channel();
        let (outcome, outcomes) = mpsc::channel();
        let run = move || {
            while let Ok(()) = orders.recv() {
                let since = Instant::now();
                let sample = AssertUnwindSafe(|| boxed(sample(&mut collector)));
                let sampled = panic::catch_unwind(sample).unwrap_or(Err(CollectError::Panicked));
                if outcome.send((sampled, since.elapsed())).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self {
            begin,
            outcomes,
            patience: PATIENCE,
            busy: false,
            collector: PhantomData,
        })
    }
}

impl<C> Guarded<C> {
    /// Samples once. What came too late for the pass before is given to this one, which waits for
    /// nothing then.
    ///
    /// # Errors
    /// Those of the collector; [`CollectError::Hangs`] while it does not come back.
    pub fn sample(&mut self) -> Outcome {
        let patience = if self.busy {
            Duration::ZERO
        } else {
            self.patience
        };
        self.begin()?;
        match self.outcomes.recv_timeout(patience) {
            Ok((outcome, took)) => {
                self.busy = false;
                if took >= self.patience {
                    // The next pass is not to wait for it either.
                    self.begin()?;
                }
                outcome
            }
            Err(RecvTimeoutError::Timeout) => Err(CollectError::Hangs),
            Err(RecvTimeoutError::Disconnected) => Err(CollectError::Panicked),
        }
    }

    fn begin(&mut self) -> Result<(), CollectError> {
        if !self.busy {
            self.begin.send(()).map_err(|_| CollectError::Panicked)?;
            self.busy = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Page;
    use std::{
        fmt,
        sync::{Arc, Mutex},
    };

    struct Nothing;

    impl Encode for Nothing {
        fn encode(&self, _page: &mut Page<'_>) -> fmt::Result {
            Ok(())
        }
    }

    /// Samples while it has the lock.
    type Gate = Arc<Mutex<()>>;

    #[expect(clippy::unnecessary_wraps, reason = "as collectors have it")]
    fn sample(gate: &mut Gate) -> Result<Nothing, CollectError> {
        drop(gate.lock().expect("no panic"));
        Ok(Nothing)
    }

    #[test]
    fn what_hangs_is_waited_for_once_and_its_answer_is_taken() {
        let gate = Gate::default();
        let mut guarded = Guarded::start("gate", Arc::clone(&gate), sample).expect("a thread");
        guarded.patience = Duration::from_mins(1);
        assert!(guarded.sample().is_ok());
        guarded.patience = Duration::from_millis(50);
        let closed = gate.lock().expect("no panic");
        assert!(matches!(guarded.sample(), Err(CollectError::Hangs)));
        guarded.patience = Duration::from_mins(1);
        let begun = Instant::now();
        for _ in 0..10 {
            assert!(matches!(guarded.sample(), Err(CollectError::Hangs)));
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        drop(closed);
        while guarded.sample().is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1), "it never came");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_panic_is_a_failure() {
        fn defect(_: &mut ()) -> Result<Nothing, CollectError> {
            panic!("a defect");
        }
        let mut guarded = Guarded::start("defect", (), defect).expect("a thread");
        // Writing where it panicked takes time.
        guarded.patience = Duration::from_mins(1);
        for _ in 0..2 {
            assert!(matches!(guarded.sample(), Err(CollectError::Panicked)));
        }
    }
}
