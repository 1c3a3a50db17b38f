//! The energy of processors, shared by CPU time.
//!
//! What the packages took between two passes is divided by how much of the time of all cores each
//! group spent; what is left of it is nobody's. Whole microjoules are shared, so groups and what is
//! unattributed add up to the packages exactly, as for GPUs.

use super::{Key, Process, named::NamedGroup};
use crate::collectors::power::{CpuEnergy, Spent};
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// For so many passes a process is known that is not seen: one that a pass misses must not come back
/// as new, with all its CPU time.
const KEPT: u64 = 3;

/// Energy since the agent started, in microjoules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnergyShares {
    /// Of the processes that are shown, in their order.
    pub processes: Vec<u64>,
    /// By the label of the group; those of groups that are gone included.
    pub groups: Vec<(String, u64)>,
    /// What no group got, by reason.
    pub unattributed: Vec<(&'static str, u64)>,
}

/// What someone got, and the CPU time that it is for.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    cpu_nanoseconds: u64,
    microjoules: u64,
    /// The pass that saw it last.
    pass: u64,
}

impl Account {
    /// Takes note of the CPU time; gives what came to it.
    fn advance(&mut self, cpu_nanoseconds: u64, pass: u64) -> u64 {
        let gain = cpu_nanoseconds.saturating_sub(self.cpu_nanoseconds);
        self.cpu_nanoseconds = self.cpu_nanoseconds.max(cpu_nanoseconds);
        self.pass = pass;
        gain
    }
}

/// What came to the counters between two passes, and what CPU time could be spent in between.
#[derive(Clone, Copy, Debug)]
struct Gain {
    microjoules: u64,
    /// All that could be, or that was, if that is more: clocks are not read at once.
    cpu_nanoseconds: u64,
}

impl Gain {
    fn part(self, cpu_nanoseconds: u64) -> u64 {
        let part = u128::from(self.microjoules) * u128::from(cpu_nanoseconds)
            / u128::from(self.cpu_nanoseconds.max(1));
        u64::try_from(part).unwrap_or(self.microjoules)
    }
}

/// Keeps the accounts between passes.
#[derive(Debug, Default)]
pub struct EnergyLedger {
    source: Option<CpuEnergy>,
    pass: u64,
    last: Option<(Instant, u64)>,
    groups: FxHashMap<String, Account>,
    processes: FxHashMap<Key, Account>,
    before: u64,
    idle: u64,
}

impl EnergyLedger {
    /// Of the energy that this source tells; without one, nobody gets any.
    #[must_use]
    pub fn new(source: Option<CpuEnergy>) -> Self {
        Self {
            source,
            ..Self::default()
        }
    }

    /// Puts all that a group got into another one, with the CPU time that it was for: neither has to
    /// be spent again.
    pub fn fold(&mut self, from: &str, into: &str) {
        if let Some(all) = self.groups.remove(from) {
            let account = self.groups.entry(into.to_owned()).or_default();
            account.cpu_nanoseconds += all.cpu_nanoseconds;
            account.microjoules += all.microjoules;
        }
    }

    /// Shares what came since the last call. `None` where the energy of processors is unknown.
    #[must_use]
    pub fn share(
        &mut self,
        groups: &[NamedGroup],
        processes: &[Process],
        shown: &[Process],
    ) -> Option<EnergyShares> {
        let spent = self.source.as_ref()?.get()?;
        self.divide(spent, Instant::now(), groups, processes);
        Some(self.shares(shown))
    }

    fn divide(&mut self, spent: Spent, now: Instant, groups: &[NamedGroup], processes: &[Process]) {
        self.pass += 1;
        let pass = self.pass;
        let used: Vec<_> = groups
            .iter()
            .map(|NamedGroup { label, group, .. }| {
                if !self.groups.contains_key(label) {
                    self.groups.insert(label.clone(), Account::default());
                }
                let account = self.groups.get_mut(label);
                account.map_or(0, |account| {
                    account.advance(group.usage.cpu_nanoseconds, pass)
                })
            })
            .collect();
        let last = self.last.replace((now, spent.microjoules));
        let gain = last.map(|(then, microjoules)| Gain {
            microjoules: spent.microjoules.saturating_sub(microjoules),
            cpu_nanoseconds: capacity(spent.cores, now.saturating_duration_since(then))
                .max(used.iter().sum()),
        });
        for process in processes {
            let account = self.processes.entry(process.key).or_default();
            let used = account.advance(process.usage.cpu_nanoseconds, pass);
            account.microjoules += gain.map_or(0, |gain| gain.part(used));
        }
        self.processes
            .retain(|_, account| pass - account.pass <= KEPT);
        let Some(gain) = gain else {
            // The CPU time up to here is for energy that nobody counted.
            self.before = spent.microjoules;
            return;
        };
        let mut rest = gain.microjoules;
        for (NamedGroup { label, .. }, used) in groups.iter().zip(used) {
            let part = gain.part(used).min(rest);
            rest -= part;
            if let Some(account) = self.groups.get_mut(label) {
                account.microjoules += part;
            }
        }
        self.idle += rest;
    }

    fn shares(&self, shown: &[Process]) -> EnergyShares {
        let of = |process: &Process| {
            let account = self.processes.get(&process.key);
            account.map_or(0, |account| account.microjoules)
        };
        let groups = self.groups.iter();
        let mut groups: Vec<_> = groups
            .map(|(label, account)| (label.clone(), account.microjoules))
            .collect();
        groups.sort_unstable();
        EnergyShares {
            processes: shown.iter().map(of).collect(),
            groups,
            unattributed: vec![("before_first_scrape", self.before), ("idle", self.idle)],
        }
    }
}

/// Time that all cores have together.
fn capacity(cores: u64, passed: Duration) -> u64 {
    let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
    passed.saturating_mul(cores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Group, Usage};
    use esnode_ebpf::Name;

    const SECOND: u64 = 1_000_000_000;

    fn group(label: &str, cpu_seconds: u64) -> NamedGroup {
        NamedGroup {
            label: label.to_owned(),
            group: Group {
                usage: usage(cpu_seconds),
                ..Group::default()
            },
            names: Vec::new(),
        }
    }

    fn usage(cpu_seconds: u64) -> Usage {
        Usage {
            cpu_nanoseconds: cpu_seconds * SECOND,
            ..Usage::default()
        }
    }

    fn process(pid: u32, cpu_seconds: u64) -> Process {
        let name = Name::from_bytes([b'a'; 16]);
        Process {
            key: Key {
                pid,
                start_nanoseconds: 1,
            },
            parent: 1,
            name,
            group: name,
            kernel: false,
            threads: 1,
            resident_bytes: None,
            usage: usage(cpu_seconds),
            ..Process::default()
        }
    }

    fn spent(joules: u64) -> Spent {
        Spent {
            microjoules: joules * 1_000_000,
            cores: 4,
        }
    }

    fn seconds(begin: Instant) -> impl Fn(u64) -> Instant {
        move |seconds| begin + Duration::from_secs(seconds)
    }

    fn of(shares: &EnergyShares, label: &str) -> Option<u64> {
        let mut groups = shares.groups.iter();
        Some(groups.find(|(name, _)| name == label)?.1)
    }

    fn assert_conserved(shares: &EnergyShares, joules: u64) {
        let groups: u64 = shares.groups.iter().map(|(_, part)| part).sum();
        let rest: u64 = shares.unattributed.iter().map(|(_, part)| part).sum();
        assert_eq!(groups + rest, joules * 1_000_000);
    }

    #[test]
    fn by_cpu_time_of_all_that_there_is_and_the_rest_is_idle() {
        let after = seconds(Instant::now());
        let mut ledger = EnergyLedger::default();
        let shown = [process(1, 100)];
        ledger.divide(
            spent(7),
            after(0),
            &[group("a", 300), group("b", 5)],
            &shown,
        );
        let shares = ledger.shares(&shown);
        assert_eq!(shares.processes, [0]);
        assert_eq!((of(&shares, "a"), of(&shares, "b")), (Some(0), Some(0)));
        assert_conserved(&shares, 7);

        // Four cores have 40 s in 10 s: `a` had 20 of them, `b` 10, process 1 had 8.
        let shown = [process(1, 108), process(2, 2)];
        ledger.divide(
            spent(407),
            after(10),
            &[group("a", 320), group("b", 15)],
            &shown,
        );
        let shares = ledger.shares(&shown);
        assert_eq!(shares.processes, [80_000_000, 20_000_000]);
        assert_eq!(of(&shares, "a"), Some(200_000_000));
        assert_eq!(of(&shares, "b"), Some(100_000_000));
        let unattributed = [("before_first_scrape", 7_000_000), ("idle", 100_000_000)];
        assert_eq!(shares.unattributed, unattributed);
        assert_conserved(&shares, 407);
    }

    #[test]
    fn more_time_than_there_was_is_shared_in_proportion() {
        let after = seconds(Instant::now());
        let mut ledger = EnergyLedger::default();
        ledger.divide(spent(0), after(0), &[], &[]);
        let groups = [group("a", 3), group("b", 3), group("c", 3)];
        ledger.divide(spent(1), after(1), &groups, &[]);
        let shares = ledger.shares(&[]);
        assert_eq!(of(&shares, "c"), Some(333_333));
        assert_conserved(&shares, 1);
    }

    #[test]
    fn a_group_that_is_gone_keeps_what_it_got_and_a_process_is_forgotten() {
        let after = seconds(Instant::now());
        let mut ledger = EnergyLedger::default();
        ledger.divide(spent(0), after(0), &[], &[process(1, 0)]);
        ledger.divide(spent(8), after(1), &[group("a", 2)], &[process(1, 2)]);
        for pass in 2..=5 {
            ledger.divide(spent(9), after(pass), &[], &[]);
        }
        let shares = ledger.shares(&[process(1, 2)]);
        assert_eq!(of(&shares, "a"), Some(4_000_000));
        assert_eq!(shares.processes, [0]);
        assert_conserved(&shares, 9);
    }

    #[test]
    fn what_is_folded_is_not_spent_again() {
        let begin = Instant::now();
        let at = seconds(begin);
        let mut ledger = EnergyLedger::default();
        ledger.divide(spent(0), at(0), &[group("a", 0), group("gone", 0)], &[]);
        ledger.divide(spent(10), at(1), &[group("a", 1), group("gone", 0)], &[]);
        let before = ledger.shares(&[]);
        ledger.fold("a", "gone");
        ledger.divide(spent(20), at(2), &[group("gone", 1)], &[]);
        let after = ledger.shares(&[]);
        assert_eq!(
            (of(&after, "a"), of(&after, "gone")),
            (None, of(&before, "a"))
        );
        assert_conserved(&after, 20);
    }

    #[test]
    fn a_process_that_some_passes_miss_goes_on() {
        let after = seconds(Instant::now());
        let mut ledger = EnergyLedger::default();
        ledger.divide(spent(0), after(0), &[], &[process(1, 900)]);
        for pass in 1..=3 {
            ledger.divide(spent(0), after(pass), &[], &[]);
        }
        let shown = [process(1, 902)];
        ledger.divide(spent(8), after(4), &[], &shown);
        // Two of the four seconds that the cores had.
        assert_eq!(ledger.shares(&shown).processes, [4_000_000]);
    }

    #[test]
    fn without_a_meter_nobody_gets_anything() {
        assert_eq!(EnergyLedger::new(None).share(&[], &[], &[]), None);
        let silent = EnergyLedger::new(Some(CpuEnergy::default())).share(&[], &[], &[]);
        assert_eq!(silent, None);
    }
}
