//! Which groups have series of their own, and by what label.

use super::{
    Group, Process,
    membership::{Membership, Retired},
};
use esnode_ebpf::Name;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{sync::Arc, time::Instant};

/// The group of everything beyond the limit.
pub const OTHER: &str = "other";

/// A group with the text of its label.
#[derive(Clone, Debug, Default)]
pub struct NamedGroup {
    /// Value of the label `group`.
    pub label: String,
    /// The numbers.
    pub group: Group,
    /// What hooks and ledgers call those that it is made of.
    pub names: Vec<Name>,
}

/// Picks the groups that get series of their own. Who has one keeps it: a group that moved to
/// [`OTHER`] would make that fall when it left again.
#[derive(Debug)]
pub struct GroupSelection {
    limit: usize,
    /// Who is in which group.
    pub membership: Membership,
    named: FxHashSet<Arc<str>>,
    /// Those that came too late.
    beyond: FxHashSet<Arc<str>>,
}

impl GroupSelection {
    /// At most `limit` series, [`OTHER`] among them.
    #[must_use]
    pub fn new(limit: usize, membership: Membership) -> Self {
        Self {
            limit,
            membership,
            named: FxHashSet::default(),
            beyond: FxHashSet::default(),
        }
    }

    /// The label of a group, for as long as it is there.
    #[must_use]
    pub fn label(&mut self, name: Name) -> Arc<str> {
        let text = self.membership.text(name);
        if &*text == OTHER || self.named.contains(&text) {
            return text;
        }
        if self.beyond.contains(&text) || self.named.len() + 1 >= self.limit {
            self.beyond.insert(text);
            return OTHER.into();
        }
        self.named.insert(Arc::clone(&text));
        text
    }

    /// Gives up containers, and control groups of the host, that have had no processes for a while,
    /// which makes room for others. `known` are all that have an account.
    pub fn retire(&mut self, processes: &[Process], known: &[Name], now: Instant) -> Retired {
        let beyond = &self.beyond;
        let is_other = |text: &str| beyond.contains(text);
        let retired = self.membership.retire(processes, known, now, is_other);
        for text in &retired.texts {
            self.named.remove(text);
            self.beyond.remove(text);
        }
        retired
    }

    /// The labels of the groups that these processes are in.
    #[must_use]
    pub fn labels(&mut self, processes: &[Process]) -> Vec<Arc<str>> {
        let labels = processes.iter().map(|process| self.label(process.group));
        labels.collect()
    }

    /// Adds up groups of one label, and those beyond the limit as [`OTHER`].
    #[must_use]
    pub fn choose(&mut self, mut groups: Vec<Group>) -> Vec<NamedGroup> {
        let weight = |group: &Group| group.usage.weight();
        groups.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.name.cmp(&b.name)));
        let mut chosen: Vec<NamedGroup> = Vec::new();
        let mut places: FxHashMap<Arc<str>, usize> = FxHashMap::default();
        for group in groups {
            let label = self.label(group.name);
            let place = places.get(&label).and_then(|place| chosen.get_mut(*place));
            if let Some(named) = place {
                merge(&mut named.group, &group);
                named.names.push(group.name);
                continue;
            }
            places.insert(Arc::clone(&label), chosen.len());
            chosen.push(NamedGroup {
                label: label.to_string(),
                names: vec![group.name],
                group,
            });
        }
        chosen
    }
}

fn merge(sum: &mut Group, part: &Group) {
    sum.absorb(part);
    sum.processes += part.processes;
    sum.threads += part.threads;
    sum.resident_bytes = sum
        .resident_bytes
        .zip(part.resident_bytes)
        .map(|(a, b)| a + b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{Identity, container::cgroup},
        process::{Usage, membership::GroupBy},
    };
    use std::time::Duration;

    fn by_command(limit: usize) -> GroupSelection {
        GroupSelection::new(limit, Membership::new(GroupBy::Command, None, 64))
    }

    fn group(command: &str, cpu: u64) -> Group {
        let mut bytes = [0; 16];
        bytes[..command.len()].copy_from_slice(command.as_bytes());
        Group {
            name: Name::from_bytes(bytes),
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

    fn sums(chosen: &[NamedGroup]) -> Vec<(&str, u64)> {
        let sums = chosen.iter();
        sums.map(|named| (named.label.as_str(), named.group.usage.cpu_nanoseconds))
            .collect()
    }

    #[test]
    fn groups_beyond_the_limit_are_other_and_stay_there() {
        let mut selection = by_command(3);
        let groups = vec![
            group("a", 5),
            group("b", 50),
            group("c", 500),
            group("d", 1),
        ];
        let chosen = selection.choose(groups);
        assert_eq!(sums(&chosen), [("c", 500), ("b", 50), ("other", 6)]);
        assert_eq!((chosen[2].group.processes, chosen[2].group.started), (2, 4));
        assert_eq!(chosen[2].names.len(), 2);
        // However busy `a` gets, its past is part of `other`.
        let chosen = selection.choose(vec![group("a", 5_000), group("c", 500)]);
        assert_eq!(sums(&chosen), [("other", 5_000), ("c", 500)]);
    }

    #[test]
    fn a_command_called_other_shares_its_name() {
        let chosen = by_command(2).choose(vec![group("other", 5), group("a", 7)]);
        assert_eq!(sums(&chosen), [("a", 7), ("other", 5)]);
    }

    #[test]
    fn who_is_retired_makes_room_for_those_to_come() {
        let (first, second, third) = (Name::of_cgroup(7), Name::of_cgroup(8), Name::of_cgroup(9));
        let mut selection = GroupSelection::new(2, Membership::new(GroupBy::Container, None, 64));
        let of = |name: Name, cpu| Group {
            name,
            ..group("", cpu)
        };
        for (name, digit) in [(first, "1"), (second, "2"), (third, "3")] {
            let path = format!("0::/docker/{}\n", digit.repeat(64));
            let identity = Identity {
                cgroup: cgroup::parse(&path).map(Arc::new),
                ..Identity::default()
            };
            let process = Process {
                group: name,
                ..Process::default()
            };
            selection.membership.learn(&process, &identity);
        }
        let one = "1".repeat(12);
        let chosen = selection.choose(vec![of(first, 5), of(second, 3)]);
        assert_eq!(sums(&chosen), [(one.as_str(), 5), ("other", 3)]);
        // The first is no more; the second lives on, and stays in `other`.
        let lives = [Process {
            group: second,
            ..Process::default()
        }];
        selection.membership.keep_for(Duration::ZERO);
        let mut retired = Vec::new();
        for _ in 0..4 {
            let pass = selection.retire(&lives, &[first, second], Instant::now());
            retired.extend(pass.folded);
        }
        assert!(
            retired.contains(&(first, Membership::gone())),
            "{retired:?}"
        );
        assert_eq!(sums(&selection.choose(vec![of(second, 9)])), [("other", 9)]);
        // When it ends, it counts on there.
        let mut retired = Vec::new();
        for _ in 0..4 {
            retired.extend(selection.retire(&[], &[second], Instant::now()).folded);
        }
        let (_, into) = retired
            .iter()
            .find(|(name, _)| *name == second)
            .expect("folded");
        assert_eq!(&*selection.membership.text(*into), OTHER);
    }
}
