//! What is shown at one moment: a snapshot, and the rates since the one before.

use crate::api::{Node, Process, Snapshot, Traffic};
use rustc_hash::FxHashMap;
use serde::Serialize;
use std::collections::BTreeMap;

/// Sockets within the host, which are no traffic of a network.
const LOCAL_PROTOCOL: &str = "unix";

/// Devices that pass on to others what they are given: their bytes are counted there as well.
const STACKED_DISKS: [&str; 5] = ["dm-", "md", "bcache", "drbd", "zram"];

/// Interfaces whose bytes stay on the host, or pass through another one.
const STACKED_INTERFACES: [&str; 15] = [
    "lo", "bond", "br-", "br0", "cali", "cilium", "cni", "docker", "flannel", "lxc", "team", "tun",
    "veth", "virbr", "wg",
];

/// A process as long as it lives: a process id is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Process id.
    pub(super) pid: u32,
    /// Bits of the start time.
    start: Option<u64>,
}

impl Key {
    pub(super) fn of(process: &Process) -> Self {
        Self {
            pid: process.pid,
            start: process.start_time_seconds.map(f64::to_bits),
        }
    }
}

/// A snapshot with rates.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// The snapshot, but for its processes.
    pub(super) snapshot: Snapshot,
    /// Seconds since the one before, if that can be compared.
    pub(super) interval_seconds: Option<f64>,
    /// Rates of the node.
    pub(super) rates: NodeRates,
    /// The processes with what they use.
    pub(super) workers: Vec<Worker>,
}

/// Rates of the node: sums over devices that pass nothing on to other ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "they are the names in JSON")]
pub(super) struct NodeRates {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk_read_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk_written_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_rx_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_tx_bytes_per_second: Option<f64>,
}

/// A process, and what it uses.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Worker {
    #[serde(flatten)]
    pub(super) process: Process,
    #[serde(flatten)]
    pub(super) usage: Usage,
}

/// What a process uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Usage {
    /// 100 is one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_percent: Option<f64>,
    /// 100 is one GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gpu_percent: Option<f64>,
    /// On all GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gpu_memory_used_bytes: Option<u64>,
    /// Its part of the draw of GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gpu_watts: Option<f64>,
    /// Its part of the draw of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_watts: Option<f64>,
    /// Both, as far as they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk_read_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk_write_bytes_per_second: Option<f64>,
    /// Payload of sockets that leave the process, but for UNIX sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_receive_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network_transmit_bytes_per_second: Option<f64>,
}

impl Usage {
    /// Read and written.
    pub(super) fn disk(&self) -> Option<f64> {
        sum([
            self.disk_read_bytes_per_second,
            self.disk_write_bytes_per_second,
        ])
    }

    /// Received and sent.
    pub(super) fn network(&self) -> Option<f64> {
        sum([
            self.network_receive_bytes_per_second,
            self.network_transmit_bytes_per_second,
        ])
    }
}

/// The sum of those that are known, if any is.
fn sum(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    values
        .into_iter()
        .flatten()
        .reduce(|sum, value| sum + value)
}

impl Frame {
    /// A snapshot with none before it: no rate is known.
    pub(super) fn first(snapshot: Snapshot) -> Self {
        Self::after(&Self::default(), snapshot)
    }

    /// A snapshot after another. Where time stands still or goes back, no rate is known.
    pub(super) fn after(before: &Self, mut snapshot: Snapshot) -> Self {
        let elapsed = snapshot.time_seconds - before.snapshot.time_seconds;
        let comparable = before.snapshot.time_seconds > 0.0 && elapsed > 0.0;
        let clock = Clock(comparable.then_some(elapsed));
        let earlier: FxHashMap<_, _> = before
            .workers
            .iter()
            .map(|worker| (Key::of(&worker.process), &worker.process))
            .collect();
        let workers = std::mem::take(&mut snapshot.processes)
            .into_iter()
            .map(|process| {
                let usage = clock.usage(earlier.get(&Key::of(&process)).copied(), &process);
                Worker { process, usage }
            })
            .collect();
        Self {
            rates: clock.node(&before.snapshot.node, &snapshot.node),
            interval_seconds: clock.0,
            snapshot,
            workers,
        }
    }
}

/// The time between two readings of counters, in seconds, if they can be compared.
#[derive(Clone, Copy)]
struct Clock(Option<f64>);

impl Clock {
    /// The rate of a counter; none if it fell, as it does when what counts starts anew.
    fn per_second(self, before: Option<f64>, now: Option<f64>) -> Option<f64> {
        let grown = now? - before?;
        (grown >= 0.0).then_some(grown / self.0?)
    }

    fn bytes_per_second(self, before: Option<u64>, now: Option<u64>) -> Option<f64> {
        let grown = now?.checked_sub(before?)?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "exact up to 8 PiB in one interval"
        )]
        let grown = grown as f64;
        Some(grown / self.0?)
    }

    fn usage(self, before: Option<&Process>, now: &Process) -> Usage {
        let bytes = |counter: fn(&Process) -> Option<u64>| {
            self.bytes_per_second(before.and_then(counter), counter(now))
        };
        let per_second = |counter: fn(&Process) -> Option<f64>| {
            self.per_second(before.and_then(counter), counter(now))
        };
        let gpu_watts = self.gpu_watts(before, now);
        let cpu_watts = per_second(|process| process.cpu_energy_joules_total);
        let network = |way: fn(&Traffic) -> u64| {
            let before = before?.network.as_ref()?;
            self.network(before, now.network.as_ref()?, way)
        };
        Usage {
            cpu_percent: per_second(|process| Some(process.cpu_seconds_total))
                .map(|cpus| cpus * 100.0),
            gpu_percent: sum(now.gpus.iter().map(|gpu| gpu.utilization_sm_percent)),
            gpu_memory_used_bytes: now
                .gpus
                .iter()
                .filter_map(|gpu| gpu.memory_used_bytes)
                .reduce(u64::saturating_add),
            gpu_watts,
            cpu_watts,
            watts: sum([gpu_watts, cpu_watts]),
            disk_read_bytes_per_second: bytes(|process| process.disk_read_bytes_total),
            disk_write_bytes_per_second: bytes(|process| process.disk_write_bytes_total),
            network_receive_bytes_per_second: network(|traffic| traffic.receive_bytes_total),
            network_transmit_bytes_per_second: network(|traffic| traffic.transmit_bytes_total),
        }
    }

    fn gpu_watts(self, before: Option<&Process>, now: &Process) -> Option<f64> {
        let before = &before?.gpus;
        sum(now.gpus.iter().map(|gpu| {
            let same = before
                .iter()
                .find(|old| (old.gpu, &old.uuid) == (gpu.gpu, &gpu.uuid))?;
            self.per_second(same.energy_joules_total, gpu.energy_joules_total)
        }))
    }

    /// The sum over protocols; one that is absent was not used.
    fn network(
        self,
        before: &BTreeMap<String, Traffic>,
        now: &BTreeMap<String, Traffic>,
        way: fn(&Traffic) -> u64,
    ) -> Option<f64> {
        let total = |of: &BTreeMap<String, Traffic>| {
            of.iter()
                .filter(|(protocol, _)| *protocol != LOCAL_PROTOCOL)
                .map(|(_, traffic)| way(traffic))
                .reduce(u64::saturating_add)
                .unwrap_or(0)
        };
        self.bytes_per_second(Some(total(before)), Some(total(now)))
    }

    fn node(self, before: &Node, now: &Node) -> NodeRates {
        let disk = |counter: fn(&crate::api::Disk) -> u64| {
            let stacked = |device: &str| is_stacked(device, &STACKED_DISKS);
            let all = now.disks.iter().all(|disk| stacked(&disk.device));
            sum(now
                .disks
                .iter()
                .filter(|disk| all || !stacked(&disk.device))
                .map(|disk| {
                    let same = before.disks.iter().find(|old| old.device == disk.device)?;
                    self.bytes_per_second(Some(counter(same)), Some(counter(disk)))
                }))
        };
        let network = |counter: fn(&crate::api::Interface) -> u64| {
            let stacked =
                |iface: &str| iface.contains('.') || is_stacked(iface, &STACKED_INTERFACES);
            let all = now
                .interfaces
                .iter()
                .all(|interface| stacked(&interface.iface));
            let counted = now
                .interfaces
                .iter()
                .filter(|interface| all || !stacked(&interface.iface));
            sum(counted.map(|interface| {
                let same = before
                    .interfaces
                    .iter()
                    .find(|old| old.iface == interface.iface)?;
                self.bytes_per_second(Some(counter(same)), Some(counter(interface)))
            }))
        };
        NodeRates {
            disk_read_bytes_per_second: disk(|disk| disk.read_bytes_total),
            disk_written_bytes_per_second: disk(|disk| disk.written_bytes_total),
            network_rx_bytes_per_second: network(|interface| interface.rx_bytes_total),
            network_tx_bytes_per_second: network(|interface| interface.tx_bytes_total),
        }
    }
}

/// Whether a device passes on to others what it is given; on a host that has only such, they
/// are what there is.
fn is_stacked(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;
