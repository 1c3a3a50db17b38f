//! Asking a device, and remembering what it does not answer.

use super::{
    facts::Identity,
    library::{Meaning, meaning},
};
use nvml_wrapper::error::NvmlError;
use rustc_hash::FxHashSet;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// After this time, what was not supported is tried once more: MIG may have been switched.
const AGAIN: Duration = Duration::from_mins(10);

/// Why a device can't be sampled any more.
#[derive(Debug)]
pub(super) struct Lost {
    /// The driver as a whole is gone, not only the device.
    pub driver: bool,
    /// What it answered.
    pub error: NvmlError,
}

impl From<NvmlError> for Lost {
    fn from(error: NvmlError) -> Self {
        Self {
            driver: meaning(&error) == Meaning::DriverLost,
            error,
        }
    }
}

/// What the log was told of devices (by UUID) not to support: also a library that is opened again
/// tells it once.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(Arc<Mutex<FxHashSet<(String, &'static str)>>>);

impl Told {
    /// Takes note; says whether it is news.
    pub(super) fn insert(&self, uuid: &str, family: &'static str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert((uuid.to_owned(), family))
    }
}

/// What was found out about a device by asking it. A family that is not supported is not asked
/// for again, and told once.
#[derive(Debug)]
pub(super) struct Asker {
    identity: Arc<Identity>,
    /// How the log calls it.
    name: String,
    off: FxHashSet<&'static str>,
    failing: FxHashSet<&'static str>,
    /// What was answered at the last time.
    answered: FxHashSet<&'static str>,
    /// Whether some of that was not answered in this pass.
    lost_some: bool,
    told: Told,
    /// Not told yet: what is not supported, and what could not be read this time.
    news: [Vec<(&'static str, String)>; 2],
    since: Instant,
    /// Answers in this pass.
    answers: u32,
}

impl Asker {
    /// Nothing is known yet.
    #[must_use]
    pub(super) fn new(identity: Arc<Identity>, told: Told) -> Self {
        Self {
            name: format!("GPU {}", identity.index),
            identity,
            off: FxHashSet::default(),
            failing: FxHashSet::default(),
            answered: FxHashSet::default(),
            lost_some: false,
            told,
            news: Default::default(),
            since: Instant::now(),
            answers: 0,
        }
    }

    /// For a part of the device, with a UUID of its own.
    #[must_use]
    pub(super) fn of_part(&self, uuid: &str) -> Self {
        let identity = Identity {
            uuid: uuid.to_owned(),
            ..Identity::clone(&self.identity)
        };
        Self {
            name: format!("{}, {uuid}", self.name),
            ..Self::new(Arc::new(identity), self.told.clone())
        }
    }

    /// Whether something that was answered before was not in this pass.
    #[must_use]
    pub(super) fn has_lost_some(&self) -> bool {
        self.lost_some
    }

    /// Asks for a family by one call; `None` if there is no answer.
    ///
    /// # Errors
    /// If the device or its driver is gone.
    pub(super) fn ask<T>(
        &mut self,
        family: &'static str,
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Lost> {
        if self.off.contains(family) {
            return Ok(None);
        }
        let answer = call();
        self.take(family, answer)
    }

    /// Judges an answer that was already had.
    ///
    /// # Errors
    /// If the device or its driver is gone.
    pub(super) fn take<T>(
        &mut self,
        family: &'static str,
        answer: Result<T, NvmlError>,
    ) -> Result<Option<T>, Lost> {
        let error = match answer {
            Ok(answer) => {
                self.answers += 1;
                self.answered.insert(family);
                if self.failing.remove(family) {
                    info!("{}: {family} is read again", self.name);
                }
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        let [unsupported, unreadable] = &mut self.news;
        let was_answered = self.answered.remove(family);
        self.lost_some |= was_answered;
        match meaning(&error) {
            // What was answered just now deserves another question.
            Meaning::Unsupported if !was_answered => {
                self.off.insert(family);
                if self.told.insert(&self.identity.uuid, family) {
                    unsupported.push((family, error.to_string()));
                }
            }
            Meaning::Unsupported | Meaning::Missing => {
                if self.failing.insert(family) {
                    unreadable.push((family, error.to_string()));
                }
            }
            Meaning::DeviceLost | Meaning::DriverLost => return Err(error.into()),
        }
        Ok(None)
    }

    /// Whether a family is asked for at all.
    #[must_use]
    pub(super) fn asks_for(&self, family: &'static str) -> bool {
        !self.off.contains(family)
    }

    /// Ends a pass: tells what was found not to be supported and what could not be read, and how
    /// many questions were answered.
    pub(super) fn end_pass(&mut self) -> u32 {
        let name = &self.name;
        let [unsupported, unreadable] = &mut self.news;
        for (families, reason) in by_reason(unsupported) {
            info!("{name}: without {families}: {reason}");
        }
        for (families, reason) in by_reason(unreadable) {
            // If nothing is answered, that is told of the device as a whole.
            if self.answers > 0 {
                warn!("{name}: {families} can't be read: {reason}");
            }
        }
        self.lost_some = false;
        if self.since.elapsed() > AGAIN {
            self.since = Instant::now();
            self.off.clear();
        }
        std::mem::take(&mut self.answers)
    }
}

/// Takes out what is to be told, in one line for each reason: most families have the same.
fn by_reason(news: &mut Vec<(&'static str, String)>) -> Vec<(String, String)> {
    news.sort_by(|a, b| a.1.cmp(&b.1));
    let lines = news.chunk_by(|a, b| a.1 == b.1).filter_map(|alike| {
        let families: Vec<_> = alike.iter().map(|(family, _)| *family).collect();
        let (_, reason) = alike.first()?;
        Some((families.join(", "), reason.clone()))
    });
    let lines = lines.collect();
    news.clear();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(told: Told) -> Asker {
        Asker::new(Arc::default(), told)
    }

    #[test]
    fn one_line_for_each_reason() {
        let mut news = [("b", "x"), ("a", "y"), ("c", "x")]
            .map(|(family, reason)| (family, reason.to_owned()))
            .to_vec();
        let lines = [("b, c", "x"), ("a", "y")];
        assert_eq!(
            by_reason(&mut news),
            lines.map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert!(news.is_empty());
    }

    #[test]
    fn what_is_not_supported_is_asked_once() {
        let mut asker = asker(Told::default());
        let mut calls = 0;
        for _ in 0..3 {
            let answer = asker.ask("fan_speed", || {
                calls += 1;
                Err::<u32, _>(NvmlError::NotSupported)
            });
            assert!(matches!(answer, Ok(None)));
        }
        assert_eq!(calls, 1);
        assert!(!asker.asks_for("fan_speed"));
        assert_eq!(asker.news[0].len(), 1);
        assert_eq!(asker.end_pass(), 0);
    }

    #[test]
    fn a_library_that_is_opened_again_tells_nothing_new() {
        let told = Told::default();
        for news in [1, 0] {
            let mut asker = asker(told.clone());
            let answer = asker.ask("fan_speed", || Err::<u32, _>(NvmlError::NotSupported));
            assert!(matches!(answer, Ok(None)));
            assert_eq!(asker.news[0].len(), news);
        }
    }

    #[test]
    fn what_was_answered_once_is_asked_twice() {
        let mut asker = asker(Told::default());
        let refused = || Err::<u32, _>(NvmlError::InvalidArg);
        assert!(matches!(asker.ask("power", || Ok(5)), Ok(Some(5))));
        assert!(matches!(asker.ask("power", refused), Ok(None)));
        assert!(asker.asks_for("power") && asker.has_lost_some());
        assert_eq!(asker.end_pass(), 1);
        assert!(matches!(asker.ask("power", refused), Ok(None)));
        assert!(!asker.asks_for("power") && !asker.has_lost_some());
    }

    #[test]
    fn a_failure_is_asked_again() {
        let mut asker = asker(Told::default());
        let failed = asker.ask("power", || Err::<u32, _>(NvmlError::Unknown));
        assert!(matches!(failed, Ok(None)));
        assert!(matches!(asker.ask("power", || Ok(5)), Ok(Some(5))));
        assert_eq!(asker.end_pass(), 1);
    }

    #[test]
    fn a_lost_device_is_no_lost_driver() {
        let mut asker = asker(Told::default());
        let lost = |error| Err::<u32, _>(error);
        let device = asker.ask("power", || lost(NvmlError::GpuLost));
        assert!(matches!(device, Err(Lost { driver: false, .. })));
        let driver = asker.ask("power", || lost(NvmlError::DriverNotLoaded));
        assert!(matches!(driver, Err(Lost { driver: true, .. })));
    }
}
