//! What the page shows: a bounded set of processes and of groups.

use super::{Group, Key, Process, Usage, label};
use esnode_ebpf::Name;
use regex::RegexSet;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::HashSet, time::Duration};

/// Recent use halves in this time.
const HALF_LIFE: Duration = Duration::from_mins(1);

/// So many bytes weigh as much as a second of CPU.
const BYTES_PER_CPU_SECOND: f64 = 100e6;

/// A process that is shown stays until another one is this much busier.
const HYSTERESIS: f64 = 1.5;

/// The group of everything beyond the limit.
pub const OTHER: &str = "other";

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
    patterns: RegexSet,
    pass: u64,
    tracks: FxHashMap<Key, Track>,
    /// What the last page said of those that it showed.
    shown: FxHashMap<Key, Usage>,
}

/// What brings a process onto the page, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// That it is busy.
    Busy,
    /// That a pattern matches its name.
    Wanted,
    /// That it is on a GPU.
    Gpu,
}

/// A place in the order of who is shown.
struct Rank {
    claim: Claim,
    score: f64,
    key: Key,
    /// Index among the processes.
    place: usize,
}

impl ProcessSelection {
    /// At most `limit`; those whose command name matches a pattern come first.
    #[must_use]
    pub fn new(limit: usize, patterns: RegexSet) -> Self {
        Self {
            limit,
            patterns,
            pass: 0,
            tracks: FxHashMap::default(),
            shown: FxHashMap::default(),
        }
    }

    /// Gives the processes to be shown, `elapsed` after the last call: those on GPUs, all of them,
    /// then the busiest. Their numbers never fall from one call to the next. Kernel threads are
    /// only shown if a pattern matches.
    #[must_use]
    pub fn choose(
        &mut self,
        processes: &[Process],
        elapsed: Duration,
        on_gpu: &FxHashSet<Key>,
    ) -> Vec<Process> {
        let mut ranks = self.rank(processes, elapsed, on_gpu);
        ranks.sort_unstable_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            b.claim.cmp(&a.claim).then(by_score).then(a.key.cmp(&b.key))
        });
        ranks.truncate(self.limit.max(on_gpu.len()));
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
        elapsed: Duration,
        on_gpu: &FxHashSet<Key>,
    ) -> Vec<Rank> {
        self.pass += 1;
        let decay = 0.5_f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let mut ranks = Vec::with_capacity(processes.len());
        for (place, process) in processes.iter().enumerate() {
            let key = process.key;
            let track = self.tracks.entry(key).or_insert(Track {
                cpu_nanoseconds: 0,
                bytes: 0,
                score: 0.0,
                pass: 0,
            });
            let (cpu_nanoseconds, bytes) = (process.usage.cpu_nanoseconds, process.usage.bytes());
            let recent = weight(
                cpu_nanoseconds.saturating_sub(track.cpu_nanoseconds),
                bytes.saturating_sub(track.bytes),
            );
            let score = track.score * decay + recent;
            *track = Track {
                cpu_nanoseconds,
                bytes,
                score,
                pass: self.pass,
            };

            let wanted = !self.patterns.is_empty() && self.patterns.is_match(&label(process.name));
            let claim = match (on_gpu.contains(&key), wanted) {
                (true, _) => Claim::Gpu,
                (false, true) => Claim::Wanted,
                (false, false) => Claim::Busy,
            };
            if claim > Claim::Busy || !process.kernel {
                let stays = self.shown.contains_key(&key);
                let score = if stays { score * HYSTERESIS } else { score };
                ranks.push(Rank {
                    claim,
                    score,
                    key,
                    place,
                });
            }
        }
        self.tracks.retain(|_, track| track.pass == self.pass);
        ranks
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rank, not a reading")]
fn weight(cpu_nanoseconds: u64, bytes: u64) -> f64 {
    cpu_nanoseconds as f64 / 1e9 + bytes as f64 / BYTES_PER_CPU_SECOND
}

/// A group with the text of its label.
#[derive(Clone, Debug)]
pub struct NamedGroup {
    /// Value of the label `group`.
    pub label: String,
    /// The numbers.
    pub group: Group,
}

/// Picks the groups that get series of their own. Who has one keeps it: a group that moved to
/// `other` would make that fall when it left again.
#[derive(Debug)]
pub struct GroupSelection {
    limit: usize,
    named: HashSet<Name>,
}

impl GroupSelection {
    /// At most `limit` series, `other` among them.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            named: HashSet::new(),
        }
    }

    /// The label of a group, for good.
    #[must_use]
    pub fn label(&mut self, name: Name) -> String {
        let text = label(name);
        if text == OTHER {
            return text;
        }
        if !self.named.contains(&name) {
            if self.named.len() + 1 >= self.limit {
                return OTHER.to_owned();
            }
            self.named.insert(name);
        }
        text
    }

    /// Splits off the groups beyond the limit into `other`.
    #[must_use]
    pub fn choose(&mut self, mut groups: Vec<Group>) -> Vec<NamedGroup> {
        let weight = |group: &Group| weight(group.usage.cpu_nanoseconds, group.usage.bytes());
        groups.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.name.cmp(&b.name)));
        let mut chosen = Vec::new();
        let mut other: Option<Group> = None;
        for group in groups {
            let label = self.label(group.name);
            if label == OTHER {
                match &mut other {
                    Some(other) => merge(other, &group),
                    None => other = Some(group),
                }
            } else {
                chosen.push(NamedGroup { label, group });
            }
        }
        chosen.extend(other.map(|group| NamedGroup {
            label: OTHER.to_owned(),
            group,
        }));
        chosen
    }
}

fn merge(sum: &mut Group, part: &Group) {
    sum.processes += part.processes;
    sum.threads += part.threads;
    sum.resident_bytes = sum
        .resident_bytes
        .zip(part.resident_bytes)
        .map(|(a, b)| a + b);
    sum.usage.add(&part.usage);
    sum.started += part.started;
    sum.exited += part.exited;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Name::from_bytes(bytes)
    }

    fn process(pid: u32, command: &str, cpu_seconds: u64) -> Process {
        Process {
            key: Key {
                pid,
                start_nanoseconds: 0,
            },
            parent: 1,
            name: name(command),
            group: name(command),
            kernel: false,
            threads: 1,
            resident_bytes: None,
            usage: Usage {
                cpu_nanoseconds: cpu_seconds * 1_000_000_000,
                ..Usage::default()
            },
        }
    }

    fn group(command: &str, cpu: u64) -> Group {
        Group {
            name: name(command),
            processes: 1,
            started: 2,
            exited: 1,
            usage: Usage {
                cpu_nanoseconds: cpu,
                ..Usage::default()
            },
            ..Group::default()
        }
    }

    fn pids(processes: &[Process]) -> Vec<u32> {
        processes.iter().map(|process| process.key.pid).collect()
    }

    fn nobody() -> FxHashSet<Key> {
        FxHashSet::default()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn patterns_come_first_then_the_busiest() {
        let patterns = RegexSet::new(["^vllm"]).expect("valid");
        let mut selection = ProcessSelection::new(2, patterns);
        let all = vec![
            process(1, "idle", 0),
            process(2, "busy", 9),
            process(3, "vllm", 0),
        ];
        assert_eq!(pids(&selection.choose(&all, SECOND, &nobody())), [3, 2]);
    }

    #[test]
    fn everyone_on_a_gpu_is_shown() {
        let mut selection = ProcessSelection::new(1, RegexSet::new(["^wanted"]).expect("valid"));
        let all = vec![
            process(1, "busy", 9),
            process(2, "wanted", 0),
            process(3, "vllm", 0),
            process(4, "vllm", 1),
        ];
        let on_gpu = FxHashSet::from_iter([all[2].key, all[3].key]);
        assert_eq!(pids(&selection.choose(&all, SECOND, &on_gpu)), [4, 3]);
        let mut roomy = ProcessSelection::new(3, RegexSet::new(["^wanted"]).expect("valid"));
        assert_eq!(pids(&roomy.choose(&all, SECOND, &on_gpu)), [4, 3, 2]);
    }

    #[test]
    fn recent_use_wins_over_old_but_not_for_a_trifle() {
        let mut selection = ProcessSelection::new(1, RegexSet::empty());
        let at = |a, b| vec![process(1, "a", a), process(2, "b", b)];
        assert_eq!(pids(&selection.choose(&at(10, 0), SECOND, &nobody())), [1]);
        // Ten half-lives later, both have used a little, b somewhat more.
        let later = HALF_LIFE * 10;
        assert_eq!(pids(&selection.choose(&at(20, 11), later, &nobody())), [1]);
        assert_eq!(pids(&selection.choose(&at(20, 60), later, &nobody())), [2]);
    }

    #[test]
    fn kernel_threads_need_a_pattern() {
        let mut kernel = process(1, "kworker/0:1", 100);
        kernel.kernel = true;
        let mut plain = ProcessSelection::new(9, RegexSet::empty());
        assert!(
            plain
                .choose(&[kernel.clone()], SECOND, &nobody())
                .is_empty()
        );
        let mut asked = ProcessSelection::new(9, RegexSet::new(["kworker"]).expect("valid"));
        assert_eq!(pids(&asked.choose(&[kernel], SECOND, &nobody())), [1]);
    }

    #[test]
    fn numbers_of_a_process_never_fall() {
        let mut selection = ProcessSelection::new(1, RegexSet::empty());
        let _ = selection.choose(&[process(1, "a", 10)], SECOND, &nobody());
        let chosen = selection.choose(&[process(1, "a", 9)], SECOND, &nobody());
        assert_eq!(chosen[0].usage.cpu_nanoseconds, 10_000_000_000);
    }

    #[test]
    fn groups_beyond_the_limit_are_other_and_stay_there() {
        let mut selection = GroupSelection::new(3);
        let groups = vec![
            group("a", 5),
            group("b", 50),
            group("c", 500),
            group("d", 1),
        ];
        let chosen = selection.choose(groups);
        let labels: Vec<_> = chosen.iter().map(|named| named.label.as_str()).collect();
        assert_eq!(labels, ["c", "b", "other"]);
        let other = &chosen[2].group;
        assert_eq!(
            (other.usage.cpu_nanoseconds, other.processes, other.started),
            (6, 2, 4)
        );
        // However busy `a` gets, its past is part of `other`.
        let chosen = selection.choose(vec![group("a", 5_000), group("c", 500)]);
        let labels: Vec<_> = chosen.iter().map(|named| named.label.as_str()).collect();
        assert_eq!(labels, ["c", "other"]);
    }

    #[test]
    fn a_command_called_other_shares_its_name() {
        let chosen = GroupSelection::new(2).choose(vec![group("other", 5), group("a", 7)]);
        let labels: Vec<_> = chosen.iter().map(|named| named.label.as_str()).collect();
        assert_eq!(labels, ["a", "other"]);
    }
}
