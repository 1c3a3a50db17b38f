//! What processes did on a device in an interval, from the driver's samples.

use super::{
    device::Listed,
    energy::{Claim, Claimant, Reason},
    facts::{GpuProcess, ProcessUtilization},
    people::{People, Who},
    sys::ProcessSample,
};
use rustc_hash::FxHashMap;

/// Percent that a sample can say; the driver also has entries that say more, and mean nothing.
const MAX_PERCENT: u32 = 100;

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

/// Joins list and samples by process. Without `samples`, nothing is known of utilisation.
#[must_use]
pub(super) fn join(
    people: &mut People,
    listed: Option<&[Listed]>,
    samples: Option<&[ProcessSample]>,
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

/// Means of the samples by process. A driver that has several of a process for one interval has
/// one for each of its own, but none where the process did nothing.
fn means(samples: &[ProcessSample]) -> FxHashMap<u32, Percents> {
    let mut sums: FxHashMap<u32, (u32, Percents)> = FxHashMap::default();
    let valid = |sample: &&ProcessSample| sample.percent.iter().all(|part| *part <= MAX_PERCENT);
    for sample in samples.iter().filter(valid) {
        let (count, sum) = sums.entry(sample.pid).or_default();
        *count += 1;
        for (sum, part) in sum.iter_mut().zip(sample.percent) {
            *sum += f64::from(part);
        }
    }
    let periods = sums.values().map(|(count, _)| *count).max().unwrap_or(1);
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
    use crate::process::procfs::{Procfs, Units};
    use std::{path::Path, process};

    fn sample(pid: u32, sm: u32) -> ProcessSample {
        ProcessSample {
            pid,
            microseconds: 5,
            percent: [sm, 0, 0, 0],
        }
    }

    fn people() -> People {
        let root = Path::new("/proc");
        People::new(root, Procfs::new(root, Units::of_this_kernel()))
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
        let means = means(&samples);
        assert_eq!(whole(means[&1]), [40, 0, 0, 0]);
        // It did nothing in two of three.
        assert_eq!(whole(means[&2]), [10, 0, 0, 0]);
    }

    #[test]
    fn impossible_samples_are_dropped() {
        let means = means(&[sample(1, 101), sample(1, 50)]);
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
        let interval = join(&mut people(), Some(&listed), Some(&samples));
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
