//! The driver's queue of per-process utilisation: one sample per process and period, kept for ten
//! seconds. Nothing is stored but what was scripted from when to when; samples are worked out
//! when they are asked for.

use std::ops::RangeInclusive;

/// How long a sample stays, in µs.
const KEPT: u64 = 10_000_000;

/// Percent of each engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Utilization {
    pub(crate) sm: u32,
    pub(crate) mem: u32,
    pub(crate) enc: u32,
    pub(crate) dec: u32,
}

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// µs since 1970.
    pub(crate) at: u64,
    pub(crate) pid: u32,
    pub(crate) utilization: Utilization,
}

/// A process with the same numbers for some time. Times in µs since 1970.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    pid: u32,
    utilization: Utilization,
    period: u64,
    /// Samples come after this,
    since: u64,
    /// and until this, if it is over.
    until: Option<u64>,
}

impl Stretch {
    /// Numbers of the periods whose samples are there now and newer than this.
    fn periods(&self, last_seen: u64, now: u64) -> RangeInclusive<u64> {
        let oldest = now.saturating_sub(KEPT + 1);
        let after = self.since.max(last_seen).max(oldest);
        let until = self.until.map_or(now, |until| until.min(now));
        after / self.period + 1..=until / self.period
    }
}

/// The queue of a device.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    stretches: Vec<Stretch>,
}

impl Queue {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            stretches: Vec::new(),
        }
    }

    /// From now on, these processes have these numbers; all others are idle or gone.
    pub(crate) fn follow(&mut self, now: u64, period: u64, processes: &[(u32, Utilization)]) {
        let busy = |&&(_, utilization): &&(u32, Utilization)| utilization != Utilization::default();
        let is = |stretch: &Stretch, pid, utilization| {
            (stretch.pid, stretch.utilization, stretch.period) == (pid, utilization, period)
        };
        for stretch in &mut self.stretches {
            let goes_on = processes.iter().filter(busy);
            let goes_on = goes_on.copied().any(|(pid, now)| is(stretch, pid, now));
            if stretch.until.is_none() && !goes_on {
                stretch.until = Some(now);
            }
        }
        self.stretches
            .retain(|stretch| stretch.until.is_none_or(|until| until + KEPT >= now));
        for &(pid, utilization) in processes.iter().filter(busy) {
            let open = |stretch: &Stretch| stretch.until.is_none() && is(stretch, pid, utilization);
            if !self.stretches.iter().any(open) {
                self.stretches.push(Stretch {
                    pid,
                    utilization,
                    period,
                    since: now,
                    until: None,
                });
            }
        }
    }

    /// How many samples [`Queue::samples`] has.
    pub(crate) fn count(&self, last_seen: u64, now: u64) -> usize {
        let counts = self.stretches.iter().map(|stretch| {
            let periods = stretch.periods(last_seen, now);
            (periods.end() + 1).saturating_sub(*periods.start())
        });
        usize::try_from(counts.sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// Samples that are newer than this and not more than ten seconds old; those of a process
    /// follow one another. The driver promises no order.
    pub(crate) fn samples(&self, last_seen: u64, now: u64) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.count(last_seen, now));
        for stretch in &self.stretches {
            let periods = stretch.periods(last_seen, now);
            samples.extend(periods.map(|number| Sample {
                at: number * stretch.period,
                pid: stretch.pid,
                utilization: stretch.utilization,
            }));
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment, and a period of 100 ms that it's a multiple of.
    const START: u64 = 1_700_000_000_000_000;
    const PERIOD: u64 = 100_000;

    fn sm(sm: u32) -> Utilization {
        Utilization {
            sm,
            ..Utilization::default()
        }
    }

    /// Milliseconds since [`START`], process and SM of every sample.
    fn taken(queue: &Queue, last_seen_ms: u64, now_ms: u64) -> Vec<(u64, u32, u32)> {
        let now = START + now_ms * 1000;
        let last_seen = START + last_seen_ms * 1000;
        let mut samples = queue.samples(last_seen, now);
        samples.sort_by_key(|sample| (sample.at, sample.pid));
        assert_eq!(samples.len(), queue.count(last_seen, now));
        let short = |sample: &Sample| {
            (
                (sample.at - START) / 1000,
                sample.pid,
                sample.utilization.sm,
            )
        };
        samples.iter().map(short).collect()
    }

    #[test]
    fn each_period_has_a_sample_per_busy_process() {
        let mut queue = Queue::default();
        queue.follow(START, PERIOD, &[(8, sm(5)), (7, sm(40)), (9, sm(0))]);
        assert_eq!(taken(&queue, 0, 99), []);
        assert_eq!(taken(&queue, 0, 100), [(100, 7, 40), (100, 8, 5)]);
        assert_eq!(
            taken(&queue, 0, 250),
            [(100, 7, 40), (100, 8, 5), (200, 7, 40), (200, 8, 5)]
        );
    }

    #[test]
    fn what_was_seen_does_not_come_again() {
        let mut queue = Queue::default();
        queue.follow(START, PERIOD, &[(7, sm(40))]);
        assert_eq!(taken(&queue, 100, 250), [(200, 7, 40)]);
        assert_eq!(taken(&queue, 199, 250), [(200, 7, 40)]);
        assert_eq!(taken(&queue, 200, 250), []);
        assert_eq!(taken(&queue, 900, 250), []);
    }

    #[test]
    fn ten_seconds_are_kept() {
        let mut queue = Queue::default();
        queue.follow(START, PERIOD, &[(7, sm(40))]);
        assert_eq!(taken(&queue, 0, 60_000).len(), 101);
        assert_eq!(taken(&queue, 0, 60_000).first(), Some(&(50_000, 7, 40)));
        assert_eq!(taken(&queue, 0, 60_001).len(), 100);
    }

    #[test]
    fn samples_before_a_change_keep_their_numbers() {
        let mut queue = Queue::default();
        queue.follow(START, PERIOD, &[(7, sm(40)), (8, sm(1))]);
        queue.follow(START + 150_000, PERIOD, &[(7, sm(60)), (8, sm(1))]);
        queue.follow(START + 250_000, PERIOD, &[(8, sm(1))]);
        queue.follow(START + 350_000, PERIOD, &[(7, sm(60)), (8, sm(1))]);
        assert_eq!(
            taken(&queue, 0, 450),
            [
                (100, 7, 40),
                (100, 8, 1),
                (200, 7, 60),
                (200, 8, 1),
                (300, 8, 1),
                (400, 7, 60),
                (400, 8, 1),
            ]
        );
        queue.follow(START + 10_150_001, PERIOD, &[(8, sm(1))]);
        assert_eq!(queue.stretches.len(), 3);
    }
}
