//! What `/api/v1/processes` answers: the page as one table, for tools.
//!
//! The names are those of the families on the page, without `esnode_` and what the place in the
//! table says already. A value that is not known is absent, here as there. Lists are always there:
//! without their collector, they are empty.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One moment of the node: what it has, and who uses it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Version of the agent.
    pub version: String,
    /// When it was sampled, in seconds since 1970.
    pub time_seconds: f64,
    /// The node as a whole.
    pub node: Node,
    /// Its GPUs, by index.
    pub gpus: Vec<Gpu>,
    /// The processes that have series of their own.
    pub processes: Vec<Process>,
    /// Live processes beyond them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes_not_selected: Option<u64>,
}

/// The node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Logical CPUs that are online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u64>,
    /// Busy time of all CPUs, 0 to 100, over the last interval of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_usage_percent: Option<f64>,
    /// Load averages of 1, 5 and 15 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_load_avg: Option<[f64; 3]>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Memory that can be had without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_total_bytes: Option<u64>,
    /// Swap in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_used_bytes: Option<u64>,
    /// Draw of the machine, by its best source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<f64>,
    /// Seconds since boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<f64>,
    /// Block devices.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
}

/// A block device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Its name.
    pub device: String,
    /// Bytes read.
    pub read_bytes_total: u64,
    /// Bytes written.
    pub written_bytes_total: u64,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub iface: String,
    /// Bytes received.
    pub rx_bytes_total: u64,
    /// Bytes sent.
    pub tx_bytes_total: u64,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Index.
    pub gpu: u32,
    /// UUID.
    pub uuid: String,
    /// Model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether its last sample succeeded and is fresh.
    pub up: bool,
    /// Time in which a kernel ran, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<f64>,
    /// Memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Of the chip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
    /// Of its most; the first fan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fan_speed_percent: Option<f64>,
    /// Draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<f64>,
    /// Limit that is enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit_watts: Option<f64>,
    /// Clock of the multiprocessors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_sm_mhz: Option<f64>,
    /// What holds its clocks down now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_reasons: Option<Vec<String>>,
}

/// A process: who it is, and what it used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Process id of the parent.
    pub parent_pid: u32,
    /// Command name.
    pub comm: String,
    /// Start, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time_seconds: Option<f64>,
    /// Name of the user, or else the number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Inference engine; empty if none is known, as the following.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub engine: String,
    /// What it does there: `server`, `worker` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Which of the workers it is, such as `TP1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rank: String,
    /// The model that it serves.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Process id of the server that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_pid: Option<u32>,
    /// Group whose series it is part of.
    pub group: String,
    /// Id of the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Name of the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Image of the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// What runs the container: `docker`, `containerd` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// Kubernetes: name of the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Kubernetes: its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Live threads.
    pub threads: u32,
    /// User and system time.
    pub cpu_seconds_total: f64,
    /// RSS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_memory_bytes: Option<u64>,
    /// Read from storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes_total: Option<u64>,
    /// Dirtied, or written directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_write_bytes_total: Option<u64>,
    /// Truncated before it reached storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_cancelled_write_bytes_total: Option<u64>,
    /// Traffic by protocol, of those used; absent if it is not known at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<BTreeMap<String, Traffic>>,
    /// Its part of the energy of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_energy_joules_total: Option<f64>,
    /// What it uses of GPUs.
    pub gpus: Vec<ProcessGpu>,
}

/// What went through sockets of one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Payload received.
    pub receive_bytes_total: u64,
    /// Payload sent.
    pub transmit_bytes_total: u64,
}

/// What a process uses of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessGpu {
    /// Index.
    pub gpu: u32,
    /// UUID.
    pub uuid: String,
    /// Memory that it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// How busy it keeps the multiprocessors, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_sm_percent: Option<f64>,
    /// How busy it keeps the memory, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization_memory_percent: Option<f64>,
    /// Its part of the GPU's energy, since the agent started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_joules_total: Option<f64>,
}
