//! The agent's own interval: what has to be read whether anyone scrapes or not.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

/// How long a start waits for the first reading.
const PATIENCE: Duration = Duration::from_millis(500);

/// Something that a thread of its own brings up to date.
pub(super) trait Tick: Send + 'static {
    /// Reads what may take long, while nobody waits for it.
    type Reading;

    /// How to read: called without the lock.
    fn reader(&self) -> Box<dyn FnMut() -> Self::Reading + Send>;

    /// Takes in what was read.
    fn tick(&mut self, reading: Self::Reading);
}

/// State that a thread of its own brings up to date, until nobody has it any more.
pub(super) struct Ticking<T>(Arc<Mutex<T>>);

impl<T: Tick> Ticking<T> {
    /// Starts the thread, which ticks at once and then after every `interval`. Waits for the first
    /// tick, but not for long: a thread that hangs in a read holds no lock, and holds nobody up.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn start(name: &str, state: T, interval: Duration) -> io::Result<Self> {
        let mut read = state.reader();
        let state = Arc::new(Mutex::new(state));
        let ticking: Weak<_> = Arc::downgrade(&state);
        let (ticked, first) = mpsc::channel();
        let run = move || {
            while ticking.strong_count() > 0 {
                let reading = read();
                let Some(state) = ticking.upgrade() else {
                    return;
                };
                lock(&state).tick(reading);
                drop(state);
                // Nobody listens any more after the first.
                let _ = ticked.send(());
                thread::sleep(interval);
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(run)?;
        let _ = first.recv_timeout(PATIENCE);
        Ok(Self(state))
    }
}

impl<T> Ticking<T> {
    /// The state as it is now.
    pub(super) fn get(&self) -> MutexGuard<'_, T> {
        lock(&self.0)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Instant,
    };

    struct Count {
        reads: Arc<AtomicU32>,
        sum: u32,
    }

    impl Tick for Count {
        type Reading = u32;

        fn reader(&self) -> Box<dyn FnMut() -> u32 + Send> {
            let reads = Arc::clone(&self.reads);
            Box::new(move || reads.fetch_add(1, Ordering::Relaxed) + 1)
        }

        fn tick(&mut self, reading: u32) {
            self.sum += reading;
        }
    }

    fn wait_for(what: impl Fn() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed() < Duration::from_mins(1), "it never came");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn ticks_until_nobody_has_it() {
        let reads = Arc::new(AtomicU32::new(0));
        let count = Count {
            reads: Arc::clone(&reads),
            sum: 0,
        };
        let ticking = Ticking::start("count", count, Duration::from_millis(1)).expect("a thread");
        wait_for(|| ticking.get().sum >= 1 + 2 + 3);
        drop(ticking);
        // The thread has the other one.
        wait_for(|| Arc::strong_count(&reads) == 1);
    }

    #[test]
    fn a_read_that_hangs_holds_up_nobody() {
        struct Hanging(Arc<Mutex<()>>);
        impl Tick for Hanging {
            type Reading = ();
            fn reader(&self) -> Box<dyn FnMut() + Send> {
                let hold = Arc::clone(&self.0);
                Box::new(move || drop(lock(&hold)))
            }
            fn tick(&mut self, (): ()) {}
        }
        let hold = Arc::new(Mutex::new(()));
        let guard = lock(&hold);
        let hanging = Hanging(Arc::clone(&hold));
        let ticking =
            Ticking::start("hanging", hanging, Duration::from_millis(1)).expect("a thread");
        assert!(ticking.0.try_lock().is_ok());
        drop(guard);
    }
}
