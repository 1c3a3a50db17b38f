//! Where the kernel's hooks keep the groups.

use super::groups::Members;
use crate::process::{Group, Process, Usage};
use esnode_ebpf::Name;
use std::collections::HashMap;

/// Completes groups that the kernel's hooks kept: with their live members, and so that no
/// number falls when a pass just missed a process between life and death.
#[derive(Debug, Default)]
pub struct KernelLedger {
    published: HashMap<Name, Usage>,
}

impl KernelLedger {
    /// `groups` hold usage, started and exited; the rest comes from `processes`.
    pub fn complete(&mut self, groups: &mut [Group], processes: &[Process]) {
        let members = Members::of(processes);
        for group in groups {
            members.complete(group);
            let published = self.published.entry(group.name).or_insert(group.usage);
            group.usage.raise_to(published);
            *published = group.usage;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ledger::fixtures::{SH, process};

    #[test]
    fn a_kernel_group_never_falls() {
        let name = Name::from_bytes(*SH);
        let group = |cpu| Group {
            name,
            usage: Usage {
                cpu_nanoseconds: cpu,
                ..Usage::default()
            },
            ..Group::default()
        };
        let mut ledger = KernelLedger::default();
        let mut groups = [group(10)];
        ledger.complete(&mut groups, &[process(1, SH, 0, None)]);
        assert_eq!(
            (groups[0].usage.cpu_nanoseconds, groups[0].processes),
            (10, 1)
        );
        let mut groups = [group(7)];
        ledger.complete(&mut groups, &[]);
        assert_eq!(
            (groups[0].usage.cpu_nanoseconds, groups[0].processes),
            (10, 0)
        );
        assert_eq!(groups[0].resident_bytes, Some(0));
    }
}
