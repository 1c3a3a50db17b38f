//! Who used the energy of a device.
//!
//! The driver counts the energy of the whole device, and says how much of an interval each
//! process kept its multiprocessors busy. What came to the counter in an interval is shared by
//! that; what is left is nobody's. Whole microjoules are shared, so nothing is lost in rounding,
//! and the parts add up to the counter exactly.

use super::{
    counter::{Counter, Reading},
    facts::Energy,
};
use crate::process::Key;
use esnode_ebpf::Name;
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// For how long the driver keeps samples of processes. After a longer pause, those that it has
/// say nothing of the whole of it.
pub(super) const SAMPLES_KEPT: Duration = Duration::from_secs(10);

/// Names with an account of their own. What processes of other names use goes to [`OVERFLOW`].
const GROUPS: usize = 4096;

/// The group of names beyond [`GROUPS`]; the page knows it as the group of what has no own.
const OVERFLOW: &[u8; 16] = b"other\0\0\0\0\0\0\0\0\0\0\0";

/// Why no process got energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Counted by the device before the agent started.
    BeforeAgent,
    /// Nobody kept the multiprocessors busy.
    Idle,
    /// The driver names a process that `/proc` does not have.
    UnknownProcess,
    /// Two processes had this id in the interval.
    ReusedPid,
    /// The driver does not sample processes, as under MIG.
    NoSamples,
    /// Nobody looked for longer than the driver keeps samples, or the driver was lost.
    Gap,
}

impl Reason {
    const ALL: [Self; 6] = [
        Self::BeforeAgent,
        Self::Idle,
        Self::UnknownProcess,
        Self::ReusedPid,
        Self::NoSamples,
        Self::Gap,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::BeforeAgent => "before_agent",
            Self::Idle => "idle",
            Self::UnknownProcess => "unknown_process",
            Self::ReusedPid => "reused_pid",
            Self::NoSamples => "no_samples",
            Self::Gap => "gap",
        }
    }
}

/// Who a sample of the driver speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimant {
    /// A process that lives, and its group.
    Process(Key, Name),
    /// A process of this group that was seen alive and has ended.
    Ended(Name),
    /// Nobody that can be named.
    Nobody(Reason),
}

/// A part of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Claim {
    /// Who.
    pub claimant: Claimant,
    /// For how much of the interval multiprocessors were busy with it, 0 to 100.
    pub sm_percent: f64,
}

/// What is known of the use of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Use<'a> {
    /// The driver's samples.
    Sampled(&'a [Claim]),
    /// The driver has none to give, ever.
    NotSampled,
    /// The driver gave none this time: the interval is shared together with the next one.
    Later,
}

/// The account of a device. Outlives the driver.
#[derive(Debug, Default)]
pub(super) struct EnergyAccount {
    counter: Counter,
    shared_at: Option<Instant>,
    processes: FxHashMap<Key, u64>,
    groups: FxHashMap<Name, u64>,
    unattributed: [u64; Reason::ALL.len()],
}

impl EnergyAccount {
    /// Shares what came to the device's counter, which stands at `millijoules` at the time `at`.
    /// `restarted` says that the library was opened again since the last call.
    pub(super) fn share(&mut self, millijoules: u64, at: Instant, restarted: bool, by: Use<'_>) {
        let since = self
            .shared_at
            .map(|last| at.saturating_duration_since(last));
        let gap = restarted || since.is_some_and(|since| since > SAMPLES_KEPT);
        if since.is_some() && !gap && by == Use::Later {
            return;
        }
        self.shared_at = Some(at);
        let microjoules = Reading::wide(millijoules.saturating_mul(1_000));
        let gain = self.counter.advance(microjoules, restarted);
        match by {
            _ if since.is_none() => self.leave(Reason::BeforeAgent, gain),
            _ if gap => self.leave(Reason::Gap, gain),
            Use::Sampled(claims) => self.divide(gain, claims),
            Use::NotSampled | Use::Later => self.leave(Reason::NoSamples, gain),
        }
    }

    /// Begins the account of a process with nothing: from now on samples speak of it.
    pub(super) fn open(&mut self, key: Key) {
        self.processes.entry(key).or_default();
    }

    /// The energy of a process; `None` if it has no account.
    #[must_use]
    pub(super) fn of(&self, key: &Key) -> Option<u64> {
        self.processes.get(key).copied()
    }

    /// Processes with an account.
    pub(super) fn processes(&self) -> impl Iterator<Item = Key> {
        self.processes.keys().copied()
    }

    /// Forgets processes that ended. What they got stays with their groups.
    pub(super) fn retain(&mut self, alive: impl Fn(&Key) -> bool) {
        self.processes.retain(|key, _| alive(key));
    }

    /// The whole account; `None` before the first reading.
    #[must_use]
    pub(super) fn facts(&self) -> Option<Energy> {
        self.shared_at?;
        let reasons = Reason::ALL.into_iter().map(Reason::label);
        Some(Energy {
            total_microjoules: self.counter.total(),
            unattributed: reasons.zip(self.unattributed).collect(),
            groups: self
                .groups
                .iter()
                .map(|(name, part)| (*name, *part))
                .collect(),
        })
    }

    fn leave(&mut self, reason: Reason, microjoules: u64) {
        if let Some(sum) = self.unattributed.get_mut(reason as usize) {
            *sum += microjoules;
        }
    }

    fn divide(&mut self, gain: u64, claims: &[Claim]) {
        let weights: Vec<_> = claims
            .iter()
            .map(|claim| weight(claim.sm_percent))
            .collect();
        // Samples of several processes can add up to more than the interval.
        let whole = weights.iter().sum::<u64>().max(weight(100.0));
        let mut rest = gain;
        for (claim, weight) in claims.iter().zip(weights) {
            let part = u128::from(gain) * u128::from(weight) / u128::from(whole);
            let part = u64::try_from(part).unwrap_or(gain).min(rest);
            rest -= part;
            match claim.claimant {
                Claimant::Process(key, name) => {
                    *self.processes.entry(key).or_default() += part;
                    self.give(name, part);
                }
                Claimant::Ended(name) => self.give(name, part),
                Claimant::Nobody(reason) => self.leave(reason, part),
            }
        }
        self.leave(Reason::Idle, rest);
    }

    fn give(&mut self, name: Name, microjoules: u64) {
        let full = self.groups.len() >= GROUPS && !self.groups.contains_key(&name);
        let name = if full {
            Name::from_bytes(*OVERFLOW)
        } else {
            name
        };
        *self.groups.entry(name).or_default() += microjoules;
    }
}

/// Percent in whole thousandths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 100 times 1000"
)]
fn weight(percent: f64) -> u64 {
    (percent.clamp(0.0, 100.0) * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Name::from_bytes(bytes)
    }

    fn key(pid: u32) -> Key {
        Key {
            pid,
            start_nanoseconds: 7,
        }
    }

    fn claim(pid: u32, sm_percent: f64) -> Claim {
        Claim {
            claimant: Claimant::Process(key(pid), name("vllm")),
            sm_percent,
        }
    }

    fn reason(account: &EnergyAccount, reason: Reason) -> u64 {
        account.unattributed[reason as usize]
    }

    fn assert_conserved(account: &EnergyAccount) {
        let facts = account.facts().expect("read");
        let unattributed: u64 = facts.unattributed.iter().map(|(_, part)| part).sum();
        let groups: u64 = facts.groups.iter().map(|(_, part)| part).sum();
        assert_eq!(facts.total_microjoules, unattributed + groups);
    }

    /// An account that stands at 1 J before the agent, and seconds after it.
    fn account() -> (EnergyAccount, impl Fn(u64) -> Instant) {
        let begin = Instant::now();
        let mut account = EnergyAccount::default();
        account.share(1_000, begin, false, Use::Sampled(&[]));
        (account, move |seconds| begin + Duration::from_secs(seconds))
    }

    #[test]
    fn shares_by_utilisation_and_leaves_the_idle_rest() {
        let (mut account, after) = account();
        let claims = [claim(1, 30.0), claim(2, 20.0)];
        account.share(2_000, after(1), false, Use::Sampled(&claims));
        assert_eq!(account.of(&key(1)), Some(300_000));
        assert_eq!(account.of(&key(2)), Some(200_000));
        assert_eq!(reason(&account, Reason::Idle), 500_000);
        assert_eq!(reason(&account, Reason::BeforeAgent), 1_000_000);
        assert_conserved(&account);
    }

    #[test]
    fn more_than_the_whole_is_shared_in_proportion() {
        let (mut account, after) = account();
        let claims = [claim(1, 90.0), claim(2, 60.0)];
        account.share(1_001, after(1), false, Use::Sampled(&claims));
        assert_eq!(account.of(&key(1)), Some(600));
        assert_eq!(account.of(&key(2)), Some(400));
        // Thirds do not divide; what is left over is nobody's, not lost.
        let claims = [claim(1, 90.0), claim(2, 90.0), claim(3, 90.0)];
        account.share(1_002, after(2), false, Use::Sampled(&claims));
        assert_eq!(account.of(&key(3)), Some(333));
        assert_eq!(reason(&account, Reason::Idle), 1);
        assert_conserved(&account);
    }

    #[test]
    fn the_dead_stay_in_their_group() {
        let (mut account, after) = account();
        account.share(2_000, after(1), false, Use::Sampled(&[claim(1, 100.0)]));
        account.retain(|_| false);
        let ended = Claim {
            claimant: Claimant::Ended(name("vllm")),
            sm_percent: 50.0,
        };
        account.share(3_000, after(2), false, Use::Sampled(&[ended]));
        assert_eq!(account.of(&key(1)), None);
        let facts = account.facts().expect("read");
        assert_eq!(facts.groups, [(name("vllm"), 1_500_000)]);
        assert_conserved(&account);
    }

    #[test]
    fn an_interval_without_samples_waits_for_the_next() {
        let (mut account, after) = account();
        account.share(2_000, after(1), false, Use::Later);
        assert_eq!(account.facts().expect("read").total_microjoules, 1_000_000);
        account.share(3_000, after(2), false, Use::Sampled(&[claim(1, 50.0)]));
        assert_eq!(account.of(&key(1)), Some(1_000_000));
        // But not for longer than the driver keeps samples.
        account.share(4_000, after(13), false, Use::Later);
        assert_eq!(reason(&account, Reason::Gap), 1_000_000);
        account.share(5_000, after(14), false, Use::NotSampled);
        assert_eq!(reason(&account, Reason::NoSamples), 1_000_000);
        assert_conserved(&account);
    }

    #[test]
    fn a_restart_of_the_driver_takes_nothing_back() {
        let (mut account, after) = account();
        account.share(2_000, after(1), false, Use::Sampled(&[claim(1, 100.0)]));
        account.share(50, after(2), true, Use::Sampled(&[claim(1, 100.0)]));
        assert_eq!(account.of(&key(1)), Some(1_000_000));
        assert_eq!(reason(&account, Reason::Gap), 50_000);
        assert_eq!(account.facts().expect("read").total_microjoules, 2_050_000);
        assert_conserved(&account);
    }

    #[test]
    fn names_are_bounded() {
        let (mut account, after) = account();
        let groups = u32::try_from(GROUPS).expect("small");
        let named = |number: u32| Claim {
            claimant: Claimant::Ended(name(&number.to_string())),
            sm_percent: 100.0,
        };
        for number in 0..groups + 2 {
            let millijoules = 1_001 + u64::from(number);
            account.share(millijoules, after(1), false, Use::Sampled(&[named(number)]));
        }
        assert_eq!(account.groups.len(), GROUPS + 1);
        assert_eq!(account.groups[&name("other")], 2_000);
        assert_conserved(&account);
    }
}
