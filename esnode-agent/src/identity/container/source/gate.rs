//! Leaves a daemon alone for a while after it failed.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Gate {
    back_off: [Duration; 3],
    failures: usize,
    closed_until: Option<Instant>,
}

impl Gate {
    pub(super) fn new(back_off: [Duration; 3]) -> Self {
        Self {
            back_off,
            failures: 0,
            closed_until: None,
        }
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.closed_until.is_none_or(|until| now >= until)
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let [.., longest] = self.back_off;
        let pause = self.back_off.get(self.failures).unwrap_or(&longest);
        self.closed_until = Some(now + *pause);
        self.failures += 1;
    }

    pub(super) fn worked(&mut self) {
        self.failures = 0;
        self.closed_until = None;
    }
}
