//! Energy counters that wrap around.

use std::time::{Duration, Instant};

/// More than any package takes, in watts. A counter that seems to have gained more was not wrapped
/// around but cleared, as by a suspend.
const PLAUSIBLE_WATTS: u64 = 5_000;

/// What a counter of the hardware gained since it was first read, in microjoules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EnergyCounter {
    last: Option<(u64, Instant)>,
    total: u64,
}

impl EnergyCounter {
    /// Takes in a reading of a counter that begins anew after `range` (unknown for one that is not
    /// known to wrap). It has to be read more often than it wraps.
    pub(super) fn advance(&mut self, microjoules: u64, range: Option<u64>, at: Instant) {
        if let Some((last, then)) = self.last {
            let gain = microjoules.checked_sub(last).or_else(|| {
                wrapped(
                    last,
                    microjoules,
                    range?,
                    at.saturating_duration_since(then),
                )
            });
            // After it was cleared, it counts from nothing.
            self.total += gain.unwrap_or(microjoules);
        }
        self.last = Some((microjoules, at));
    }

    /// Microjoules since the first reading; `None` before it.
    pub(super) fn total(&self) -> Option<u64> {
        self.last.map(|_| self.total)
    }
}

/// From `last` over the end of the range to `now`, if that is possible in this time.
fn wrapped(last: u64, now: u64, range: u64, passed: Duration) -> Option<u64> {
    let gain = range.checked_sub(last)?.checked_add(now)?;
    let passed = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
    // Readings are never closer than this: the hardware counts by milliseconds.
    let passed = passed.max(1_000);
    (gain <= passed.saturating_mul(PLAUSIBLE_WATTS)).then_some(gain)
}

/// Power over an interval that a thread of its own begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct MeanPower {
    begin: Option<(u64, Instant)>,
    watts: Option<f64>,
}

impl MeanPower {
    /// Ends an interval, in which a counter went to `microjoules`, and begins the next.
    pub(super) fn tick(&mut self, microjoules: Option<u64>, now: Instant) {
        let now = microjoules.map(|microjoules| (microjoules, now));
        self.watts = between(self.begin, now);
        self.begin = now;
    }

    /// Of the last whole interval; before there is one, from its beginning to now.
    pub(super) fn watts(&self, microjoules: Option<u64>, now: Instant) -> Option<f64> {
        let now = microjoules.map(|microjoules| (microjoules, now));
        self.watts.or_else(|| between(self.begin, now))
    }
}

/// The shortest time over which energy says something of power: counters go on by steps.
const SHORTEST: Duration = Duration::from_millis(50);

#[expect(clippy::cast_precision_loss, reason = "a mean of some seconds")]
fn between(begin: Option<(u64, Instant)>, end: Option<(u64, Instant)>) -> Option<f64> {
    let ((before, then), (after, now)) = begin.zip(end)?;
    let passed = now.saturating_duration_since(then);
    let gain = after.checked_sub(before)?;
    (passed >= SHORTEST).then(|| gain as f64 / 1e6 / passed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: u64 = 262_143_328_850;

    fn seconds(begin: Instant) -> impl Fn(u64) -> Instant {
        move |seconds| begin + Duration::from_secs(seconds)
    }

    #[test]
    fn counts_from_the_first_reading_on() {
        let after = seconds(Instant::now());
        let mut counter = EnergyCounter::default();
        assert_eq!(counter.total(), None);
        counter.advance(5_000_000, Some(RANGE), after(0));
        assert_eq!(counter.total(), Some(0));
        counter.advance(7_000_000, Some(RANGE), after(1));
        counter.advance(7_000_000, Some(RANGE), after(2));
        assert_eq!(counter.total(), Some(2_000_000));
    }

    #[test]
    fn goes_on_where_the_hardware_begins_anew() {
        let after = seconds(Instant::now());
        let mut counter = EnergyCounter::default();
        counter.advance(RANGE - 30_000_000, Some(RANGE), after(0));
        counter.advance(70_000_000, Some(RANGE), after(1));
        assert_eq!(counter.total(), Some(100_000_000));
        counter.advance(71_000_000, Some(RANGE), after(2));
        assert_eq!(counter.total(), Some(101_000_000));
    }

    #[test]
    fn a_cleared_counter_is_no_wrap() {
        let after = seconds(Instant::now());
        for range in [Some(RANGE), Some(1_000), None] {
            let mut counter = EnergyCounter::default();
            counter.advance(9_000_000_000, range, after(0));
            counter.advance(4_000_000, range, after(1));
            assert_eq!(counter.total(), Some(4_000_000), "{range:?}");
        }
        let mut counter = EnergyCounter::default();
        counter.advance(u64::MAX, Some(u64::MAX), after(0));
        counter.advance(1, Some(u64::MAX), after(1));
        assert_eq!(counter.total(), Some(1));
    }

    #[test]
    fn power_is_that_of_the_last_whole_interval() {
        let begin = Instant::now();
        let after = seconds(begin);
        let mut power = MeanPower::default();
        power.tick(Some(0), after(0));
        assert_eq!(power.watts(Some(0), begin), None, "no time has passed");
        assert_eq!(power.watts(Some(50_000_000), after(1)), Some(50.0));
        power.tick(Some(200_000_000), after(2));
        assert_eq!(power.watts(Some(900_000_000), after(3)), Some(100.0));
        power.tick(None, after(4));
        assert_eq!(power.watts(Some(900_000_000), after(5)), None);
    }
}
