//! Which processes have series of their own: a bounded set that does not flap.

use super::{Key, Process, Usage};
use rustc_hash::FxHashMap;
use std::{f64::consts::LN_2, time::Duration};

/// Recent use halves in this time.
const HALF_LIFE: Duration = Duration::from_mins(1);

/// So many bytes weigh as much as a second of CPU.
const BYTES_PER_CPU_SECOND: f64 = 100e6;

/// A process that is shown stays until another one is this much busier,
const HYSTERESIS: f64 = 1.5;

/// and by so many seconds of CPU at least: of those that do next to nothing, none is busier.
const MARGIN: f64 = 0.05;

/// A process that is younger comes after all others of its kind: most do not live as long, and
/// would have series for nothing.
const YOUNG_NANOSECONDS: u64 = 10_000_000_000;

/// What is remembered of every process between passes.
#[derive(Clone, Copy, Debug)]
struct Track {
    cpu_nanoseconds: u64,
    bytes: u64,
    /// Decayed sum of CPU seconds and bytes.
    score: f64,
    /// The pass that saw it last.
    pass: u64,
}

/// Picks the processes that get series of their own.
#[derive(Debug)]
pub struct ProcessSelection {
    limit: usize,
    pass: u64,
    tracks: FxHashMap<Key, Track>,
    /// What the last page said of those that it showed.
    shown: FxHashMap<Key, Usage>,
}

/// What brings a process onto the page, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// That it is busy.
    Busy,
    /// That a rule of `--select` names it.
    Wanted,
    /// That it descends from one that works for an inference engine.
    Child,
    /// That it works for an inference engine.
    Worker,
    /// That it is on a GPU.
    Gpu,
}

/// When a choice is made.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the last choice.
    pub elapsed: Duration,
    /// On the boot clock.
    pub boot_nanoseconds: u64,
}

/// A place in the order of who is shown.
struct Rank {
    claim: Claim,
    grown: bool,
    score: f64,
    key: Key,
    /// Index among the processes.
    place: usize,
}

impl ProcessSelection {
    /// At most `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            pass: 0,
            tracks: FxHashMap::default(),
            shown: FxHashMap::default(),
        }
    }

    /// Gives the processes to be shown, by their claims, and of those with the same claim the
    /// busiest. Their numbers never fall from one call to the next. Kernel threads are only shown
    /// if they are wanted.
    #[must_use]
    pub fn choose(
        &mut self,
        processes: &[Process],
        moment: Moment,
        claim: impl Fn(&Process) -> Claim,
    ) -> Vec<Process> {
        let mut ranks = self.rank(processes, moment, claim);
        ranks.sort_unstable_by(|a, b| {
            let by_claim = (b.claim, b.grown).cmp(&(a.claim, a.grown));
            let by_score = b.score.total_cmp(&a.score);
            by_claim.then(by_score).then(a.key.cmp(&b.key))
        });
        ranks.truncate(self.limit);
        let chosen = ranks.iter().filter_map(|rank| processes.get(rank.place));
        let mut chosen: Vec<_> = chosen.cloned().collect();
        for process in &mut chosen {
            if let Some(before) = self.shown.get(&process.key) {
                process.usage.raise_to(before);
            }
        }
        self.shown = chosen
            .iter()
            .map(|process| (process.key, process.usage))
            .collect();
        chosen
    }

    /// Updates what is remembered, and ranks everyone who may be shown.
    fn rank(
        &mut self,
        processes: &[Process],
        moment: Moment,
        claim: impl Fn(&Process) -> Claim,
    ) -> Vec<Rank> {
        self.pass += 1;
        let decay = 0.5_f64.powf(moment.elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let mut ranks = Vec::with_capacity(processes.len());
        for (place, process) in processes.iter().enumerate() {
            let key = process.key;
            let age = moment
                .boot_nanoseconds
                .saturating_sub(key.start_nanoseconds);
            let score = self.score(process, decay, age);
            let grown = age >= YOUNG_NANOSECONDS;
            let claim = match claim(process) {
                // A compiler that an engine starts, and the like.
                Claim::Child if !grown => Claim::Busy,
                claim => claim,
            };
            if claim > Claim::Busy || !process.kernel {
                let stays = self.shown.contains_key(&key);
                ranks.push(Rank {
                    claim,
                    grown: grown || stays,
                    score: if stays {
                        score * HYSTERESIS + MARGIN
                    } else {
                        score
                    },
                    key,
                    place,
                });
            }
        }
        self.tracks.retain(|_, track| track.pass == self.pass);
        ranks
    }

    /// How busy a process has been recently. Of one that is new here, the past is taken to have been
    /// even: a steady one has in its score what it uses in a half-life and a half.
    fn score(&mut self, process: &Process, decay: f64, age_nanoseconds: u64) -> f64 {
        let steady = HALF_LIFE.div_f64(LN_2);
        let age = Duration::from_nanos(age_nanoseconds);
        let share = steady.div_duration_f64(age.max(steady));
        let track = self.tracks.entry(process.key).or_insert_with(|| Track {
            cpu_nanoseconds: process.usage.cpu_nanoseconds,
            bytes: process.usage.bytes(),
            score: process.usage.weight() * share,
            pass: 0,
        });
        let recent = process.usage.weight() - weight(track.cpu_nanoseconds, track.bytes);
        let decay = if track.pass == 0 { 1.0 } else { decay };
        *track = Track {
            cpu_nanoseconds: process.usage.cpu_nanoseconds,
            bytes: process.usage.bytes(),
            score: track.score * decay + recent.max(0.0),
            pass: self.pass,
        };
        track.score
    }
}

impl Usage {
    /// How much was used of everything, in seconds of CPU.
    #[must_use]
    pub(super) fn weight(&self) -> f64 {
        weight(self.cpu_nanoseconds, self.bytes())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rank, not a reading")]
fn weight(cpu_nanoseconds: u64, bytes: u64) -> f64 {
    cpu_nanoseconds as f64 / 1e9 + bytes as f64 / BYTES_PER_CPU_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;
    use esnode_ebpf::Name;

    const SECOND: u64 = 1_000_000_000;

    /// A process that is old when the first choice is made.
    fn process(pid: u32, cpu_seconds: u64) -> Process {
        Process {
            key: Key {
                pid,
                start_nanoseconds: 0,
            },
            name: Name::EMPTY,
            usage: Usage {
                cpu_nanoseconds: cpu_seconds * SECOND,
                ..Usage::default()
            },
            ..Process::default()
        }
    }

    fn born(pid: u32, cpu_seconds: u64, at_second: u64) -> Process {
        Process {
            key: Key {
                pid,
                start_nanoseconds: at_second * SECOND,
            },
            ..process(pid, cpu_seconds)
        }
    }

    fn after(seconds: u64) -> Moment {
        Moment {
            elapsed: Duration::from_secs(seconds),
            boot_nanoseconds: 100 * SECOND,
        }
    }

    fn pids(processes: &[Process]) -> Vec<u32> {
        processes.iter().map(|process| process.key.pid).collect()
    }

    fn busiest(selection: &mut ProcessSelection, moment: Moment, all: &[Process]) -> Vec<u32> {
        pids(&selection.choose(all, moment, |_| Claim::Busy))
    }

    #[test]
    fn claims_come_first_then_the_busiest_and_the_limit_is_hard() {
        let all: Vec<_> = (1..=6).map(|pid| process(pid, pid.into())).collect();
        let claim = |process: &Process| match process.key.pid {
            1 => Claim::Gpu,
            2 => Claim::Worker,
            3 => Claim::Child,
            4 => Claim::Wanted,
            _ => Claim::Busy,
        };
        let chosen = |limit| ProcessSelection::new(limit).choose(&all, after(1), claim);
        assert_eq!(pids(&chosen(9)), [1, 2, 3, 4, 6, 5]);
        assert_eq!(pids(&chosen(5)), [1, 2, 3, 4, 6]);
        assert_eq!(pids(&chosen(1)), [1]);
        let on_gpus = ProcessSelection::new(2).choose(&all, after(1), |_| Claim::Gpu);
        assert_eq!(pids(&on_gpus), [6, 5]);
    }

    #[test]
    fn recent_use_wins_over_old_but_not_for_a_trifle() {
        let mut selection = ProcessSelection::new(1);
        let at = |a, b| [process(1, a), process(2, b)];
        assert_eq!(busiest(&mut selection, after(1), &at(10, 0)), [1]);
        // Ten half-lives later, both have used a little, the second somewhat more.
        assert_eq!(busiest(&mut selection, after(600), &at(20, 11)), [1]);
        assert_eq!(busiest(&mut selection, after(600), &at(20, 60)), [2]);
    }

    #[test]
    fn those_that_do_next_to_nothing_do_not_take_turns() {
        let mut selection = ProcessSelection::new(1);
        let at = |a, b| {
            let mut both = [process(1, 0), process(2, 0)];
            both[0].usage.cpu_nanoseconds = a;
            both[1].usage.cpu_nanoseconds = b;
            both
        };
        assert_eq!(busiest(&mut selection, after(15), &at(1_000_000, 0)), [1]);
        for turn in 1..100 {
            let all = at(1_000_000, turn * 20_000_000);
            assert_eq!(busiest(&mut selection, after(60), &all), [1]);
        }
    }

    #[test]
    fn who_was_busy_long_ago_is_not_busy() {
        let mut selection = ProcessSelection::new(1);
        let moment = Moment {
            elapsed: Duration::from_secs(1),
            boot_nanoseconds: 100_000 * SECOND,
        };
        // 100 s of a day, and 3 of half a minute.
        let both = [process(1, 100), born(2, 3, 99_970)];
        assert_eq!(busiest(&mut selection, moment, &both), [2]);
    }

    #[test]
    fn the_young_wait_until_others_leave_room() {
        let mut selection = ProcessSelection::new(2);
        let old = [process(1, 0), process(2, 0)];
        for second in 0..50 {
            let young = born(100 + u32::try_from(second).expect("small"), 5, 95);
            let all = [old[0].clone(), old[1].clone(), young];
            assert_eq!(busiest(&mut selection, after(1), &all), [1, 2]);
        }
        // There is room.
        let all = [process(1, 0), born(3, 5, 95)];
        assert_eq!(busiest(&mut selection, after(1), &all), [1, 3]);
        // Who is shown is not sent away for being young.
        assert_eq!(
            busiest(
                &mut selection,
                after(1),
                &[process(1, 0), born(3, 5, 95), process(2, 0)]
            ),
            [3, 1]
        );
        // Nor does a child that may be gone soon take the place of one that stays.
        let mut selection = ProcessSelection::new(1);
        let chosen = selection.choose(&[process(1, 0), born(3, 5, 95)], after(1), |process| {
            if process.key.pid == 3 {
                Claim::Child
            } else {
                Claim::Busy
            }
        });
        assert_eq!(pids(&chosen), [1]);
    }

    #[test]
    fn kernel_threads_have_to_be_wanted() {
        let kernel = Process {
            kernel: true,
            ..process(1, 100)
        };
        let choose = |claim| {
            let mut selection = ProcessSelection::new(9);
            pids(&selection.choose(std::slice::from_ref(&kernel), after(1), |_| claim))
        };
        assert!(choose(Claim::Busy).is_empty());
        assert_eq!(choose(Claim::Wanted), [1]);
    }

    #[test]
    fn numbers_of_a_process_never_fall() {
        let mut selection = ProcessSelection::new(1);
        let _ = selection.choose(&[process(1, 10)], after(1), |_| Claim::Busy);
        let chosen = selection.choose(&[process(1, 9)], after(1), |_| Claim::Busy);
        assert_eq!(chosen[0].usage.cpu_nanoseconds, 10 * SECOND);
    }
}
