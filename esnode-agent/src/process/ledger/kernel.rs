//! Where the kernel's hooks keep the groups.

use super::groups::Members;
use crate::process::{Group, Key, Process, Usage};
use esnode_ebpf::Name;
use rustc_hash::{FxHashMap, FxHashSet};

/// Completes groups that the kernel's hooks kept: with their live members, and so that no
/// number falls when a pass just missed a process between life and death, or when a process goes
/// from one group to another.
#[derive(Debug, Default)]
pub struct KernelLedger {
    /// Whether somebody else keeps the network bytes of groups.
    without_network: bool,
    published: FxHashMap<Name, Group>,
    moved: FxHashMap<Name, Moved>,
    /// Where processes were, as far as that is kept.
    members: FxHashMap<Key, Member>,
    /// Those of them that the agent has put elsewhere since.
    adopted: FxHashSet<Key>,
    looked: bool,
}

/// A process at the last look.
#[derive(Clone, Copy, Debug)]
struct Member {
    group: Name,
    /// What it had used that no group had for good.
    unsettled: Usage,
    /// What it had used before.
    settled: Usage,
}

impl Member {
    /// What of `before` is still to be settled, and so went along to the group that it is in now.
    /// The rest was settled where it was: by threads that ended, or all of it by a new name.
    fn took_along(&self, before: &Self) -> Usage {
        let settled = self.settled.beyond_known(&before.settled);
        before.unsettled.beyond_known(&settled)
    }
}

/// What the hooks do not know of a group.
#[derive(Debug, Default)]
struct Moved {
    /// What processes used here before they went elsewhere, and what was folded into this group.
    more: Group,
    /// What the hooks will count here, or do already, that counts elsewhere: what a process used
    /// before it came, and what this group had while it was taken for part of another one.
    less: Group,
}

impl KernelLedger {
    /// Of groups whose network bytes somebody else keeps, or not.
    #[must_use]
    pub fn new(without_network: bool) -> Self {
        Self {
            without_network,
            ..Self::default()
        }
    }

    /// `groups` hold usage, started and exited, by the hooks; the rest comes from `processes`.
    pub fn complete(&mut self, groups: &mut Vec<Group>, processes: &[Process]) {
        self.follow(processes);
        let members = Members::of(processes);
        let known = groups.first().map(|group| group.usage.nothing());
        let hooked: FxHashSet<_> = groups.iter().map(|group| group.name).collect();
        let others = self.moved.keys().filter(|name| !hooked.contains(name));
        groups.extend(others.map(|name| Group {
            usage: known.unwrap_or_default(),
            ..Group::of(*name)
        }));
        for group in groups {
            if let Some(moved) = self.moved.get(&group.name) {
                group.absorb(&moved.more);
                group.usage = group.usage.beyond_known(&moved.less.usage);
                group.started = group.started.saturating_sub(moved.less.started);
                group.exited = group.exited.saturating_sub(moved.less.exited);
            }
            members.complete(group);
            if let Some(published) = self.published.get(&group.name) {
                group.usage.raise_to(&published.usage);
            }
            self.published.insert(group.name, group.clone());
        }
    }

    /// Notes that a process was put into a group, which hooks count as begun in another one.
    pub fn adopt(&mut self, process: &Process, group: Name) {
        if self.members.contains_key(&process.key) {
            self.adopted.insert(process.key);
        } else if self.looked {
            // Who was there before the agent did not begin since.
            let known = process.unsettled.as_deref().copied().unwrap_or_default();
            self.moved_of(group, &known).more.started += 1;
        }
    }

    /// Puts all that a group had, which has no members any more, into another one. The hooks have to
    /// forget it.
    pub fn fold(&mut self, from: Name, into: Name) {
        self.moved.remove(&from);
        if let Some(all) = self.take_published(from) {
            self.moved_of(into, &all.usage).more.absorb(&all);
        }
    }

    /// Lets a group begin with nothing: what it had until now counts in another one, as whose part
    /// it was shown.
    pub fn leave_past(&mut self, of: Name, into: Name) {
        if let Some(past) = self.take_published(of) {
            self.moved_of(into, &past.usage).more.absorb(&past);
            self.moved_of(of, &past.usage).less.absorb(&past);
        }
    }

    fn take_published(&mut self, name: Name) -> Option<Group> {
        let mut group = self.published.remove(&name)?;
        if self.without_network {
            group.usage.network = None;
        }
        Some(group)
    }

    /// Notes who went from one group to another: what was published of it stays where it was.
    fn follow(&mut self, processes: &[Process]) {
        let mut alive = FxHashMap::default();
        for process in processes {
            let Some(unsettled) = process.unsettled.as_deref() else {
                continue;
            };
            let now = Member {
                group: process.group,
                unsettled: *unsettled,
                settled: process.usage.beyond_known(unsettled),
            };
            alive.insert(process.key, now);
            let before = self.members.get(&process.key).copied();
            if let Some(before) = before.filter(|before| before.group != now.group) {
                let took = now.took_along(&before);
                self.moved_of(before.group, &took)
                    .more
                    .usage
                    .add_known(&took);
                let adopted = self.adopted.contains(&process.key);
                let here = self.moved_of(now.group, &took);
                here.less.usage.add_known(&took);
                // Who only took another name has begun under it for the hooks as well.
                here.more.started += u64::from(adopted || !now.group.is_command());
            }
        }
        self.adopted.clear();
        self.members = alive;
        self.looked = true;
    }

    fn moved_of(&mut self, name: Name, known: &Usage) -> &mut Moved {
        let nothing = || Group {
            usage: known.nothing(),
            ..Group::of(name)
        };
        self.moved.entry(name).or_insert_with(|| Moved {
            more: nothing(),
            less: nothing(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ledger::fixtures::{LS, SH, find, process};

    fn usage(cpu_nanoseconds: u64) -> Usage {
        Usage {
            cpu_nanoseconds,
            ..Usage::default()
        }
    }

    fn group(name: Name, cpu_nanoseconds: u64) -> Group {
        Group {
            usage: usage(cpu_nanoseconds),
            ..Group::of(name)
        }
    }

    fn member(pid: u32, name: Name, unsettled: u64) -> Process {
        Process {
            group: name,
            unsettled: Some(Box::new(usage(unsettled))),
            ..process(pid, SH, unsettled, None)
        }
    }

    fn cpu(ledger: &mut KernelLedger, groups: &[Group], members: &[Process]) -> Vec<(Name, u64)> {
        let mut groups = groups.to_vec();
        ledger.complete(&mut groups, members);
        let mut sums: Vec<_> = groups
            .iter()
            .map(|group| (group.name, group.usage.cpu_nanoseconds))
            .collect();
        sums.sort_unstable();
        sums
    }

    #[test]
    fn a_kernel_group_never_falls() {
        let name = Name::from_bytes(*SH);
        let mut ledger = KernelLedger::default();
        let mut groups = vec![group(name, 10)];
        ledger.complete(&mut groups, &[process(1, SH, 0, None)]);
        assert_eq!(
            (groups[0].usage.cpu_nanoseconds, groups[0].processes),
            (10, 1)
        );
        let mut groups = vec![group(name, 7)];
        ledger.complete(&mut groups, &[]);
        assert_eq!(
            (groups[0].usage.cpu_nanoseconds, groups[0].processes),
            (10, 0)
        );
        assert_eq!(groups[0].resident_bytes, Some(0));
    }

    #[test]
    fn what_was_used_before_a_move_stays() {
        let (from, to) = (Name::of_number(1), Name::of_number(2));
        let mut ledger = KernelLedger::default();
        // 5 are settled, 10 are not.
        let sums = cpu(&mut ledger, &[group(from, 15)], &[member(1, from, 10)]);
        assert_eq!(sums, [(from, 15)]);
        // It moved, and used 3 more; for the hooks, all that is not settled is in the new group.
        let hooks = [group(from, 5), group(to, 13)];
        let sums = cpu(&mut ledger, &hooks, &[member(1, to, 13)]);
        assert_eq!(sums, [(from, 15), (to, 3)]);
        // It ended after 4 more.
        let hooks = [group(from, 5), group(to, 17)];
        let sums = cpu(&mut ledger, &hooks, &[]);
        assert_eq!(sums, [(from, 15), (to, 7)]);
        let mut groups = hooks.to_vec();
        ledger.complete(&mut groups, &[]);
        assert_eq!(find_started(&groups, to), 1);
    }

    #[test]
    fn what_was_settled_before_a_move_is_not_counted_twice() {
        let (from, to) = (Name::from_bytes(*SH), Name::of_number(2));
        let mut ledger = KernelLedger::default();
        let sums = cpu(&mut ledger, &[group(from, 10)], &[member(1, from, 10)]);
        assert_eq!(sums, [(from, 10)]);
        // It used 2 more, took another name, which settled all, and used 3 under that.
        let renamed = Process {
            usage: usage(15),
            ..member(1, to, 3)
        };
        let hooks = [group(from, 12), group(to, 3)];
        let mut sums = cpu(&mut ledger, &hooks, &[renamed]);
        sums.sort_unstable();
        let mut expected = [(from, 12), (to, 3)];
        expected.sort_unstable();
        assert_eq!(sums, expected);
        // One of two threads had used 4 of 10 when it ended.
        let mut ledger = KernelLedger::default();
        let (from, to) = (Name::of_number(1), Name::of_number(2));
        cpu(&mut ledger, &[group(from, 10)], &[member(1, from, 10)]);
        let moved = Process {
            usage: usage(10),
            ..member(1, to, 6)
        };
        let hooks = [group(from, 4), group(to, 6)];
        assert_eq!(cpu(&mut ledger, &hooks, &[moved]), [(from, 10), (to, 0)]);
    }

    #[test]
    fn a_new_name_is_a_start_for_the_hooks_alone() {
        let (from, to) = (Name::from_bytes(*SH), Name::from_bytes(*LS));
        let started = |adopted: bool| {
            let mut ledger = KernelLedger::default();
            cpu(&mut ledger, &[group(from, 0)], &[member(1, from, 0)]);
            if adopted {
                ledger.adopt(&member(1, from, 0), to);
            }
            let mut groups = vec![group(from, 0), group(to, 0)];
            ledger.complete(&mut groups, &[member(1, to, 0)]);
            find_started(&groups, to)
        };
        assert_eq!((started(false), started(true)), (0, 1));
    }

    fn find_started(groups: &[Group], name: Name) -> u64 {
        let group = groups.iter().find(|group| group.name == name);
        group.expect("there").started
    }

    #[test]
    fn who_is_adopted_has_begun_here() {
        let group_of = Name::of_number(5);
        let mut ledger = KernelLedger::default();
        ledger.adopt(&member(1, group_of, 5), group_of);
        cpu(
            &mut ledger,
            &[group(group_of, 5)],
            &[member(1, group_of, 5)],
        );
        ledger.adopt(&member(2, group_of, 5), group_of);
        ledger.adopt(&member(1, group_of, 5), group_of);
        let mut groups = vec![group(group_of, 5)];
        ledger.complete(&mut groups, &[]);
        assert_eq!(find_started(&groups, group_of), 1);
    }

    #[test]
    fn what_is_folded_counts_on_elsewhere() {
        let (from, into) = (Name::of_cgroup(1), Name::of_number(0));
        let mut ledger = KernelLedger::default();
        let first = Group {
            started: 2,
            exited: 2,
            ..group(from, 15)
        };
        cpu(&mut ledger, &[first], &[]);
        ledger.fold(from, into);
        // A few nanoseconds more came after the hooks forgot it.
        let sums = cpu(&mut ledger, &[group(from, 1)], &[]);
        assert_eq!(sums, [(from, 1), (into, 15)]);
        let mut groups = vec![group(from, 1)];
        ledger.complete(&mut groups, &[]);
        assert_eq!(find_started(&groups, into), 2);
    }

    #[test]
    fn what_was_part_of_another_group_stays_there() {
        let (group_of, into) = (Name::of_cgroup(1), Name::of_number(0));
        let mut ledger = KernelLedger::default();
        cpu(&mut ledger, &[group(group_of, 15)], &[]);
        ledger.leave_past(group_of, into);
        let sums = cpu(&mut ledger, &[group(group_of, 18)], &[]);
        assert_eq!(sums, [(group_of, 3), (into, 15)]);
    }

    #[test]
    fn a_command_group_is_not_followed() {
        let mut ledger = KernelLedger::default();
        let mut groups = vec![group(Name::from_bytes(*SH), 5)];
        ledger.complete(&mut groups, &[process(1, SH, 5, None)]);
        let mut groups = vec![group(Name::from_bytes(*SH), 5)];
        ledger.complete(&mut groups, &[process(1, LS, 5, None)]);
        assert_eq!(groups.len(), 1);
        assert_eq!(find(&groups, SH).usage.cpu_nanoseconds, 5);
    }
}
