//! What processes did on a device in an interval, from the driver's samples.

use super::{
    device::Listed,
    energy::{Claim, Claimant, Reason},
    facts::{GpuProcess, ProcessUtilization},
    people::{People, Who},
    sys::ProcessSample,
};
use rustc_hash::FxHashMap;
use std::time::Duration;

/// Percent that a sample can say; the driver also has entries that say more, and mean nothing.
const MAX_PERCENT: u32 = 100;

/// The longest period in which a driver samples (nvml.h: 1/6 s to 1 s).
const LONGEST_PERIOD: Duration = Duration::from_secs(1);

/// Shorter ones are not believed.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);

/// After so long without a sample there was nothing to be sampled.
pub(super) const SETTLED: Duration = Duration::from_millis(1_200);

/// The period in which a driver samples a device. It is not told, but seen: a driver has no sample
/// of a process for a period in which that did nothing, so samples alone do not say how busy it
/// was.
///
/// There are drivers that have one sample of each process, whatever the time: of these it is never
/// seen, and that sample speaks for all of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Period(Option<Duration>);

impl Period {
    /// Learns from samples: those of a process without a pause are one period apart.
    pub(super) fn learn(&mut self, samples: &[ProcessSample]) {
        let mut spans: FxHashMap<u32, (u32, u64, u64)> = FxHashMap::default();
        for sample in samples.iter().filter(|sample| is_valid(sample)) {
            let time = sample.microseconds;
            let (count, first, last) = spans.entry(sample.pid).or_insert((0, time, time));
            *count += 1;
            *first = time.min(*first);
            *last = time.max(*last);
        }
        // The mean over several, as one alone may have come late.
        let spans = spans.into_values().filter(|(count, ..)| *count >= 3);
        let apart = spans.map(|(count, first, last)| (last - first) / u64::from(count - 1));
        if let Some(shortest) = apart.min() {
            // What was learnt wrongly is unlearnt.
            let seen = Duration::from_micros(shortest);
            let seen = self.0.map_or(seen, |known| seen.min(known * 11 / 10));
            self.0 = Some(seen.clamp(SHORTEST_PERIOD, LONGEST_PERIOD));
        }
    }

    /// How many of them have certainly begun and ended in a time.
    fn within(self, time: Duration) -> u32 {
        let Some(period) = self.0 else { return 0 };
        // Samples are not taken to the microsecond.
        let periods = 0.95 * time.as_secs_f64() / period.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole periods; a cast of what is too large is the largest"
        )]
        let whole = periods as u32;
        whole
    }
}

/// What an interval looked like.
#[derive(Debug, Default)]
pub(super) struct Interval {
    /// Processes in the list, and those that samples speak of.
    pub processes: Vec<GpuProcess>,
    /// Parts of the interval, by who had them.
    pub claims: Vec<Claim>,
    /// Ids in the list that nobody in `/proc` has.
    pub unknown: u64,
}

/// Percent of multiprocessors, memory, encoder, decoder.
type Percents = [f64; 4];

/// The driver's samples of an interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples<'a> {
    /// Those that it gave.
    pub given: &'a [ProcessSample],
    /// How long the interval was.
    pub interval: Duration,
    /// How often it samples.
    pub period: Period,
}

/// Joins list and samples by process. Without `samples`, nothing is known of utilisation.
#[must_use]
pub(super) fn join(
    people: &mut People,
    listed: Option<&[Listed]>,
    samples: Option<Samples<'_>>,
) -> Interval {
    let listed = listed.unwrap_or_default();
    let percents = samples.map(means);
    let mut pids: Vec<u32> = listed.iter().map(|process| process.pid).collect();
    pids.extend(percents.iter().flat_map(|percents| percents.keys()));
    pids.sort_unstable();
    pids.dedup();
    let mut interval = Interval::default();
    for pid in pids {
        let percent = percents.as_ref().and_then(|percents| percents.get(&pid));
        let who = people.who(pid);
        let claimant = match who {
            Who::Alive(key, name) => Claimant::Process(key, name),
            Who::Ended(name) => Claimant::Ended(name),
            Who::Replaced(..) => Claimant::Nobody(Reason::ReusedPid),
            Who::Unknown => Claimant::Nobody(Reason::UnknownProcess),
        };
        interval
            .claims
            .extend(percent.map(|[sm_percent, ..]| Claim {
                claimant,
                sm_percent: *sm_percent,
            }));
        let in_list = || listed.iter().filter(|process| process.pid == pid);
        match who {
            Who::Alive(key, _) => interval.processes.push(GpuProcess {
                key,
                memory: memory(in_list()),
                listed: in_list().next().is_some(),
                // No sample says that it did nothing.
                utilization: percents.as_ref().map(|_| utilization(percent)),
                energy_microjoules: None,
            }),
            // What was measured may be of the one before.
            Who::Replaced(key, _) => interval.processes.push(GpuProcess {
                key,
                memory: memory(in_list()),
                listed: in_list().next().is_some(),
                utilization: None,
                energy_microjoules: None,
            }),
            Who::Ended(_) => {}
            Who::Unknown => interval.unknown += u64::from(in_list().next().is_some()),
        }
    }
    interval
}

/// Memory by MIG instance; without one that is not known.
fn memory<'a>(listed: impl Iterator<Item = &'a Listed>) -> Vec<(Option<u32>, u64)> {
    let mut memory: Vec<(Option<u32>, Option<u64>)> = Vec::new();
    for process in listed {
        let instance = process.gpu_instance;
        match memory.iter_mut().find(|(other, _)| *other == instance) {
            Some((_, sum)) => *sum = sum.zip(process.memory).map(|(a, b)| a + b),
            None => memory.push((instance, process.memory)),
        }
    }
    let known = |(instance, bytes): (_, Option<u64>)| Some((instance, bytes?));
    memory.into_iter().filter_map(known).collect()
}

fn utilization(percents: Option<&Percents>) -> ProcessUtilization {
    let [sm_percent, memory_percent, encoder_percent, decoder_percent] =
        percents.copied().unwrap_or_default();
    ProcessUtilization {
        sm_percent,
        memory_percent,
        encoder_percent,
        decoder_percent,
    }
}

fn is_valid(sample: &ProcessSample) -> bool {
    sample.percent.iter().all(|part| *part <= MAX_PERCENT)
}

/// Means by process over the periods of the driver in the interval: those of which there are
/// samples of any process, and those that must have passed.
fn means(samples: Samples<'_>) -> FxHashMap<u32, Percents> {
    let mut sums: FxHashMap<u32, (u32, Percents)> = FxHashMap::default();
    for sample in samples.given.iter().filter(|sample| is_valid(sample)) {
        let (count, sum) = sums.entry(sample.pid).or_default();
        *count += 1;
        for (sum, part) in sum.iter_mut().zip(sample.percent) {
            *sum += f64::from(part);
        }
    }
    let most = sums.values().map(|(count, _)| *count).max().unwrap_or(1);
    let periods = most.max(samples.period.within(samples.interval));
    sums.into_iter()
        .map(|(pid, (_, sum))| (pid, sum.map(|sum| sum / f64::from(periods))))
        .collect()
}

/// The newest sample that makes sense; `after` if there is none.
#[must_use]
pub(super) fn newest(samples: &[ProcessSample], after: u64) -> u64 {
    let times = samples.iter().map(|sample| sample.microseconds);
    times.fold(after, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::people::people;
    use std::process;

    fn sample(pid: u32, sm: u32) -> ProcessSample {
        ProcessSample {
            pid,
            microseconds: 5,
            percent: [sm, 0, 0, 0],
        }
    }

    /// Of an interval that is too short to say more.
    fn given(samples: &[ProcessSample]) -> Samples<'_> {
        Samples {
            given: samples,
            interval: Duration::from_millis(100),
            period: Period::default(),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole percents")]
    fn whole(percents: Percents) -> [i32; 4] {
        percents.map(|percent| percent as i32)
    }

    /// Larger than the kernel's largest.
    const NOBODY: u32 = 4_200_000;

    #[test]
    fn means_over_the_periods_of_the_driver() {
        let samples = [sample(1, 60), sample(1, 30), sample(1, 30), sample(2, 30)];
        let means = means(given(&samples));
        assert_eq!(whole(means[&1]), [40, 0, 0, 0]);
        // It did nothing in two of three.
        assert_eq!(whole(means[&2]), [10, 0, 0, 0]);
    }

    #[test]
    fn periods_without_a_sample_count() {
        let at = |pid, microseconds| ProcessSample {
            pid,
            microseconds,
            percent: [60, 0, 0, 0],
        };
        let mut period = Period::default();
        // A pause makes samples of a process seem further apart than they are.
        period.learn(&[at(2, 0), at(2, 500_000), at(2, 1_000_000)]);
        assert_eq!(period.0, Some(Duration::from_millis(500)));
        let busy: Vec<_> = (0..6).map(|period| at(1, period * 166_000)).collect();
        period.learn(&busy);
        assert_eq!(period.0, Some(Duration::from_millis(166)));
        // Nonsense does not last.
        let mut poisoned = period;
        poisoned.learn(&[at(3, 0), at(3, 1), at(3, 2)]);
        assert_eq!(poisoned.0, Some(SHORTEST_PERIOD));
        (0..20).for_each(|_| poisoned.learn(&busy));
        assert_eq!(poisoned.0, Some(Duration::from_millis(166)));
        // Busy in one of six periods of a second.
        let samples = Samples {
            given: &[at(1, 996_000)],
            interval: Duration::from_millis(1_050),
            period,
        };
        assert_eq!(whole(means(samples)[&1]), [10, 0, 0, 0]);
        // Busy all the time: a period more or less is no matter.
        let interval = Duration::from_secs(1);
        let samples = Samples {
            given: &busy,
            interval,
            period,
        };
        assert_eq!(whole(means(samples)[&1]), [60, 0, 0, 0]);
    }

    #[test]
    fn one_sample_speaks_for_an_interval_of_any_length() {
        let samples = Samples {
            given: &[sample(1, 80)],
            interval: Duration::from_secs(5),
            period: Period::default(),
        };
        assert_eq!(whole(means(samples)[&1]), [80, 0, 0, 0]);
    }

    #[test]
    fn impossible_samples_are_dropped() {
        let means = means(given(&[sample(1, 101), sample(1, 50)]));
        assert_eq!(whole(means[&1]), [50, 0, 0, 0]);
    }

    #[test]
    fn only_processes_of_proc_are_shown() {
        let listed = [process::id(), NOBODY].map(|pid| Listed {
            pid,
            memory: Some(7),
            gpu_instance: None,
        });
        let samples = [sample(NOBODY, 20), sample(process::id(), 30)];
        let interval = join(&mut people(), Some(&listed), Some(given(&samples)));
        assert_eq!(interval.unknown, 1);
        let [me] = &*interval.processes else {
            panic!("one");
        };
        assert_eq!((me.key.pid, &*me.memory), (process::id(), &[(None, 7)][..]));
        assert_eq!(me.utilization.map(|used| used.sm_percent), Some(30.0));
        let nobody = Claim {
            claimant: Claimant::Nobody(Reason::UnknownProcess),
            sm_percent: 20.0,
        };
        assert!(interval.claims.contains(&nobody));
    }

    #[test]
    fn memory_that_is_not_known_is_absent() {
        let listed = [Listed {
            pid: process::id(),
            memory: None,
            gpu_instance: None,
        }];
        let interval = join(&mut people(), Some(&listed), None);
        let [me] = &*interval.processes else {
            panic!("one");
        };
        assert!(me.memory.is_empty() && me.listed && me.utilization.is_none());
    }
}
