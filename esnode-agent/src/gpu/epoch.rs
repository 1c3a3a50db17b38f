//! The time between opening the library and letting go of it.

use super::roster::Roster;
use nvml_wrapper::{Nvml, error::NvmlError};
use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// What the threads of an epoch have to tell.
#[derive(Debug)]
pub(super) enum Report {
    /// A device told who it is.
    Found {
        /// Its index.
        index: u32,
        /// Its UUID.
        uuid: String,
        /// Index and UUID of its MIG devices.
        mig: Vec<(u32, String)>,
        /// Whether it is to be sampled.
        wanted: bool,
    },
    /// A device was sampled for the first time.
    Sampled {
        /// Its index.
        index: u32,
    },
    /// There are more devices by now, or fewer.
    Recounted,
    /// A device does not answer any more.
    DeviceLost {
        /// Its index.
        index: u32,
        /// What it said.
        error: NvmlError,
    },
    /// No device answers any more.
    DriverLost {
        /// What the driver said.
        error: NvmlError,
    },
    /// The agent ends.
    Stop,
}

/// A report, and the number of the epoch that it is of: one that hung may report much later.
pub(super) type News = (u64, Report);

/// An open library, shared by the threads that use it. The last one closes it.
#[derive(Debug)]
pub(super) struct Epoch {
    /// Its number.
    pub number: u64,
    /// The library.
    pub nvml: Nvml,
    /// Who samples what.
    pub roster: Roster,
    events_ended: AtomicBool,
    ended: Mutex<bool>,
    ending: Condvar,
}

impl Epoch {
    /// Begins.
    #[must_use]
    pub(super) fn new(number: u64, nvml: Nvml) -> Self {
        Self {
            number,
            nvml,
            roster: Roster::default(),
            events_ended: AtomicBool::new(false),
            ended: Mutex::new(false),
            ending: Condvar::new(),
        }
    }

    /// Tells the thread that waits for events to let go of the library: it takes its time, so
    /// devices are sampled meanwhile.
    pub(super) fn end_events(&self) {
        self.events_ended.store(true, Ordering::Relaxed);
    }

    /// Whether events are still waited for.
    #[must_use]
    pub(super) fn has_events(&self) -> bool {
        !self.events_ended.load(Ordering::Relaxed)
    }

    /// Tells everyone else to let go of the library.
    pub(super) fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ending.notify_all();
    }

    /// Whether it has ended.
    #[must_use]
    pub(super) fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until then, or until the epoch ends; says whether it has.
    #[must_use]
    pub(super) fn wait_until(&self, then: Instant) -> bool {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let rest = then.saturating_duration_since(Instant::now());
            if *ended || rest.is_zero() {
                return *ended;
            }
            let waited = self.ending.wait_timeout(ended, rest);
            ended = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
