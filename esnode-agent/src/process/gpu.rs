//! What processes and groups use of GPUs: the GPU collector's facts, joined with the process
//! table.

use super::{Key, Process, named::GroupSelection, procfs::Units};
use crate::gpu::facts::{GpuFacts, GpuProcess, Identity, ProcessUtilization};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::BTreeMap, sync::Arc};

/// What a group uses of a GPU. `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupGpu {
    /// Memory of its live processes in bytes.
    pub memory_bytes: Option<u64>,
    /// Of its live processes together.
    pub utilization: Option<ProcessUtilization>,
    /// Of all its processes, ended ones too.
    pub energy_microjoules: Option<u64>,
}

/// What the page says of processes and GPUs.
#[derive(Clone, Debug, Default)]
pub struct GpuShares {
    /// Index among the processes that are shown, GPU, and what the one uses of the other.
    pub processes: Vec<(usize, Arc<Identity>, GpuProcess)>,
    /// Label of the group, GPU, and what the one uses of the other.
    pub groups: Vec<(Arc<str>, Arc<Identity>, GroupGpu)>,
}

/// The processes of the table that are on GPUs.
#[must_use]
pub fn holders(facts: &GpuFacts, processes: &[Process], units: Units) -> FxHashSet<Key> {
    let known = known(facts);
    if known.is_empty() {
        return FxHashSet::default();
    }
    let keys = processes.iter().map(|process| process.key);
    keys.filter(|key| known.contains(&rounded(*key, units)))
        .collect()
}

/// Who is on GPUs, as the GPU collector knows them.
fn known(facts: &GpuFacts) -> FxHashSet<Key> {
    let processes = facts.devices.iter().flat_map(|device| &device.processes);
    processes.map(|process| process.key).collect()
}

/// As the GPU collector knows a process, which has its start time from `/proc`.
pub(super) fn rounded(key: Key, units: Units) -> Key {
    Key {
        start_nanoseconds: units.round_down(key.start_nanoseconds),
        ..key
    }
}

impl GpuShares {
    /// Joins the facts with the processes that are `shown`, and adds up `all` by group.
    #[must_use]
    pub fn new(
        facts: &GpuFacts,
        (all, shown): (&[Process], &[Process]),
        groups: &mut GroupSelection,
        units: Units,
    ) -> Self {
        let places: FxHashMap<_, _> = shown
            .iter()
            .enumerate()
            .map(|(place, process)| (rounded(process.key, units), place))
            .collect();
        let known = known(facts);
        let by_key = all
            .iter()
            .map(|process| (rounded(process.key, units), process.group));
        let names: FxHashMap<_, _> = by_key.filter(|(key, _)| known.contains(key)).collect();
        let mut shares = Self::default();
        // By label and GPU.
        let mut sums = BTreeMap::<(Arc<str>, u32, &str), _>::new();
        for device in &facts.devices {
            let identity = &device.identity;
            // Without a list of processes, nobody knows that there are none.
            let nothing = match device.unknown_processes {
                Some(_) => GroupGpu::NOTHING,
                None => GroupGpu::default(),
            };
            let mut with_group = |name, add: &dyn Fn(&mut GroupGpu)| {
                let key = (groups.label(name), identity.index, identity.uuid.as_str());
                let empty = || (Arc::clone(identity), nothing);
                add(&mut sums.entry(key).or_insert_with(empty).1);
            };
            for (name, energy) in device.energy.iter().flat_map(|energy| &energy.groups) {
                with_group(*name, &|sum| {
                    sum.energy_microjoules = Some(sum.energy_microjoules.unwrap_or(0) + energy);
                });
            }
            for process in &device.processes {
                if let Some(name) = names.get(&process.key) {
                    with_group(*name, &|sum| sum.add(process));
                }
                if let Some(place) = places.get(&process.key) {
                    let share = (*place, Arc::clone(identity), process.clone());
                    shares.processes.push(share);
                }
            }
        }
        let sums = sums.into_iter();
        shares.groups = sums
            .map(|((label, ..), (identity, sum))| (label, identity, sum))
            .collect();
        shares
    }
}

impl GroupGpu {
    const NOTHING: Self = Self {
        memory_bytes: Some(0),
        utilization: Some(ProcessUtilization {
            sm_percent: 0.0,
            memory_percent: 0.0,
            encoder_percent: 0.0,
            decoder_percent: 0.0,
        }),
        energy_microjoules: None,
    };

    /// Adds a live process. What is not known of it, is not known of the sum.
    fn add(&mut self, process: &GpuProcess) {
        if process.listed {
            let memory = process.memory.iter().map(|(_, bytes)| bytes).sum::<u64>();
            let known = self.memory_bytes.filter(|_| !process.memory.is_empty());
            self.memory_bytes = known.map(|sum| sum + memory);
        }
        // One that is not listed any more does nothing.
        if process.listed || process.utilization.is_some() {
            self.utilization = self.utilization.zip(process.utilization).map(sum);
        }
    }
}

fn sum((a, b): (ProcessUtilization, ProcessUtilization)) -> ProcessUtilization {
    ProcessUtilization {
        sm_percent: a.sm_percent + b.sm_percent,
        memory_percent: a.memory_percent + b.memory_percent,
        encoder_percent: a.encoder_percent + b.encoder_percent,
        decoder_percent: a.decoder_percent + b.decoder_percent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gpu::facts::{DeviceFacts, Energy},
        process::{
            Usage,
            membership::{GroupBy, Membership},
        },
    };
    use esnode_ebpf::Name;

    const UNITS: Units = Units {
        ticks_per_second: 100,
        page_bytes: 4096,
    };

    fn name(text: &str) -> Name {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Name::from_bytes(bytes)
    }

    fn process(pid: u32, start_nanoseconds: u64) -> Process {
        Process {
            key: Key {
                pid,
                start_nanoseconds,
            },
            parent: 1,
            name: name("vllm"),
            group: name("vllm"),
            kernel: false,
            threads: 1,
            resident_bytes: None,
            usage: Usage::default(),
            ..Process::default()
        }
    }

    fn by_command(limit: usize) -> GroupSelection {
        GroupSelection::new(limit, Membership::new(GroupBy::Command, None, 64))
    }

    fn on_gpu(pid: u32, start_nanoseconds: u64, memory: Option<u64>) -> GpuProcess {
        GpuProcess {
            key: Key {
                pid,
                start_nanoseconds,
            },
            memory: memory.map(|bytes| (None, bytes)).into_iter().collect(),
            listed: true,
            utilization: Some(ProcessUtilization {
                sm_percent: 30.0,
                ..ProcessUtilization::default()
            }),
            energy_microjoules: Some(5),
        }
    }

    fn facts(processes: Vec<GpuProcess>) -> GpuFacts {
        GpuFacts {
            devices: vec![DeviceFacts {
                unknown_processes: Some(0),
                processes,
                energy: Some(Energy {
                    total_microjoules: 20,
                    unattributed: vec![("idle", 3)],
                    groups: vec![(name("vllm"), 10), (name("gone"), 7)],
                }),
                ..DeviceFacts::default()
            }],
            ..GpuFacts::default()
        }
    }

    #[test]
    fn a_process_is_its_id_and_its_start_in_ticks() {
        // The table may know the start more exactly than /proc.
        let table = [process(1, 120_000_007), process(2, 50_000_000)];
        let facts = facts(vec![
            on_gpu(1, 120_000_000, Some(7)),
            on_gpu(2, 40_000_000, Some(7)),
        ]);
        let holders = holders(&facts, &table, UNITS);
        assert_eq!(holders, FxHashSet::from_iter([table[0].key]));
        let shares = GpuShares::new(&facts, (&table, &table), &mut by_command(9), UNITS);
        let places: Vec<_> = shares.processes.iter().map(|(place, ..)| *place).collect();
        assert_eq!(places, [0]);
    }

    #[test]
    fn groups_add_up_live_processes_and_the_energy_of_all() {
        let table = [process(1, 10_000_000), process(2, 10_000_000)];
        let both = vec![
            on_gpu(1, 10_000_000, Some(7)),
            on_gpu(2, 10_000_000, Some(8)),
        ];
        let shares = GpuShares::new(
            &facts(both),
            (&table, &table[1..]),
            &mut by_command(9),
            UNITS,
        );
        let sums: Vec<_> = shares
            .groups
            .iter()
            .map(|(label, _, sum)| (&**label, sum.memory_bytes, sum.energy_microjoules))
            .collect();
        assert_eq!(
            sums,
            [("gone", Some(0), Some(7)), ("vllm", Some(15), Some(10))]
        );
        // Those that are not shown are in the sums as well.
        assert_eq!(shares.processes.len(), 1);
        // One of which the memory is not known.
        let one = vec![on_gpu(1, 10_000_000, Some(7)), on_gpu(2, 10_000_000, None)];
        let shares = GpuShares::new(&facts(one), (&table, &table), &mut by_command(9), UNITS);
        assert_eq!(shares.groups[1].2.memory_bytes, None);
    }

    #[test]
    fn of_a_lost_gpu_only_the_past_is_known() {
        let mut facts = facts(Vec::new());
        facts.devices[0].unknown_processes = None;
        let shares = GpuShares::new(&facts, (&[], &[]), &mut by_command(9), UNITS);
        let past = GroupGpu {
            energy_microjoules: Some(7),
            ..GroupGpu::default()
        };
        assert_eq!(shares.groups[0].2, past);
    }

    #[test]
    fn groups_beyond_the_limit_share_a_label() {
        let shares = GpuShares::new(&facts(Vec::new()), (&[], &[]), &mut by_command(2), UNITS);
        let sums: Vec<_> = shares
            .groups
            .iter()
            .map(|(label, _, sum)| (&**label, sum.energy_microjoules))
            .collect();
        assert_eq!(sums, [("other", Some(7)), ("vllm", Some(10))]);
    }
}
