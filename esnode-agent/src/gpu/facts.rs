//! What is known of the GPUs at one moment. Plain values: whoever holds them makes no NVML calls.
//!
//! `None`, and an entry that is missing from a list, is unknown or not offered by the device; it
//! is never zero.

use crate::process::Key;
use esnode_ebpf::Name;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Everything that was known when it was taken.
#[derive(Clone, Debug, Default)]
pub struct GpuFacts {
    /// Whether the library is open and the driver answers; `None` until a library was found.
    pub driver_up: Option<bool>,
    /// The driver that answered last.
    pub driver: Option<Driver>,
    /// How often the library was opened again after it had been lost.
    pub reinitializations: u64,
    /// GPUs that were seen since the start, by index.
    pub devices: Vec<DeviceFacts>,
}

/// The driver, by its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// `nvmlSystemGetDriverVersion`, such as `570.86.10`.
    pub version: String,
    /// Newest CUDA that it serves, such as `12.8` (`nvmlSystemGetCudaDriverVersion_v2`).
    pub cuda_version: Option<String>,
}

/// What does not change while a GPU is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Index among the devices of NVML.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// Product name.
    pub name: Option<String>,
    /// `domain:bus:device.function`, as the driver writes it.
    pub pci_bus_id: Option<String>,
    /// Version of the video BIOS.
    pub vbios: Option<String>,
    /// Name of the architecture, such as `Hopper`.
    pub architecture: Option<String>,
    /// The N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
}

/// One GPU.
#[derive(Clone, Debug, Default)]
pub struct DeviceFacts {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Whether the last sample succeeded and is not older than three intervals.
    pub up: bool,
    /// Whether it is not up though it was not lost: a call does not come back.
    pub hangs: bool,
    /// Time since the last sample that succeeded.
    pub age: Option<Duration>,
    /// How long the calls of the last sample took; `None` as `fast`.
    pub sample_duration: Option<Duration>,
    /// The last fast sample; `None` once it is older than three intervals.
    pub fast: Option<Fast>,
    /// The last slow sample; `None` once it is older than three of its own intervals, or the
    /// device is not up.
    pub slow: Option<Slow>,
    /// Counters of the device, which never fall, also across restarts of the driver; `None` as
    /// `fast`.
    pub counters: Option<Counters>,
    /// Energy and who got it. Survives whatever happens to the device.
    pub energy: Option<Energy>,
    /// Processes that use it now and are in `/proc`; empty as `fast`.
    pub processes: Vec<GpuProcess>,
    /// Process ids that the driver lists and `/proc` does not have; `None` where the driver
    /// gives no list.
    pub unknown_processes: Option<u64>,
    /// Critical errors since the agent started, by code. Survives whatever happens.
    pub xids: BTreeMap<u64, Xid>,
    /// MIG devices; empty where MIG is off.
    pub mig: Vec<MigDevice>,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Installed.
    pub total: u64,
    /// Allocated.
    pub used: u64,
    /// Not allocated.
    pub free: u64,
    /// Set aside by the driver (`nvmlDeviceGetMemoryInfo_v2`).
    pub reserved: Option<u64>,
}

/// Readings of every interval.
#[derive(Clone, Debug, Default)]
pub struct Fast {
    /// Percent of time in which a kernel ran.
    pub utilization_percent: Option<u32>,
    /// Percent of time in which memory was read or written.
    pub memory_utilization_percent: Option<u32>,
    /// Percent.
    pub encoder_utilization_percent: Option<u32>,
    /// Percent.
    pub decoder_utilization_percent: Option<u32>,
    /// Frame buffer.
    pub memory: Option<Memory>,
    /// By sensor: `gpu`, `memory`.
    pub temperatures_celsius: Vec<(&'static str, u32)>,
    /// Percent of the maximum, by fan.
    pub fan_speeds_percent: Vec<(u32, u32)>,
    /// Draw of the board.
    pub power_milliwatts: Option<u32>,
    /// Clock of the streaming multiprocessors.
    pub clock_sm_mhz: Option<u32>,
    /// Memory clock.
    pub clock_memory_mhz: Option<u32>,
    /// Graphics clock.
    pub clock_graphics_mhz: Option<u32>,
    /// Clock of encoder and decoder.
    pub clock_video_mhz: Option<u32>,
    /// 0 (fastest) to 15.
    pub performance_state: Option<u32>,
    /// Every reason that the driver knows, and whether it holds clocks down now.
    pub throttle_reasons: Vec<(&'static str, bool)>,
    /// What the chip itself samples, from Hopper on.
    pub activity: Activity,
}

/// Percent of the last interval, from GPU performance monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activity {
    /// Time in which a multiprocessor had a warp, mean over all of them.
    pub sm_active_percent: Option<f64>,
    /// Warps that were resident, of those that could be.
    pub sm_occupancy_percent: Option<f64>,
    /// Tensor cores.
    pub tensor_active_percent: Option<f64>,
    /// Bandwidth of device memory, of what there is.
    pub dram_active_percent: Option<f64>,
    /// Half precision.
    pub fp16_active_percent: Option<f64>,
    /// Single precision.
    pub fp32_active_percent: Option<f64>,
    /// Double precision.
    pub fp64_active_percent: Option<f64>,
    /// Integers.
    pub int_active_percent: Option<f64>,
    /// Graphics and compute engine.
    pub graphics_active_percent: Option<f64>,
}

/// A setting now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In use.
    pub current: Option<u32>,
    /// What device and slot can do.
    pub max: Option<u32>,
}

/// Readings that change seldom.
#[derive(Clone, Debug, Default)]
pub struct Slow {
    /// The limit that the driver enforces.
    pub power_limit_milliwatts: Option<u32>,
    /// By clock: `sm`, `memory`, `graphics`, `video`.
    pub clocks_max_mhz: Vec<(&'static str, u32)>,
    /// Window through which the host reaches device memory, in bytes.
    pub bar1: Option<(u64, u64)>,
    /// Generation of the PCIe link.
    pub pcie_generation: Limits,
    /// Lanes of the PCIe link.
    pub pcie_width: Limits,
    /// Whether a link is up, by link.
    pub nvlinks_up: Vec<(u32, bool)>,
    /// Pages taken out of use, by cause: `single_bit_ecc`, `double_bit_ecc`.
    pub retired_pages: Vec<(&'static str, u64)>,
    /// Rows replaced by spare ones, by cause: `corrected`, `uncorrected`.
    pub remapped_rows: Vec<(&'static str, u64)>,
    /// Whether a row waits for the next reset to be replaced.
    pub row_remap_pending: Option<bool>,
    /// Whether replacing a row failed.
    pub row_remap_failed: Option<bool>,
}

/// What the device has counted. Never falls: where the driver begins anew, counting goes on.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Time that clocks were held down, in nanoseconds, by reason.
    pub throttle_nanoseconds: Vec<(&'static str, u64)>,
    /// Bytes received over PCIe.
    pub pcie_rx_bytes: Option<u64>,
    /// Bytes sent over PCIe.
    pub pcie_tx_bytes: Option<u64>,
    /// Bytes per second received over PCIe, over the last interval.
    pub pcie_rx_bytes_per_second: Option<f64>,
    /// Bytes per second sent over PCIe, over the last interval.
    pub pcie_tx_bytes_per_second: Option<f64>,
    /// Packets sent again over PCIe.
    pub pcie_replays: Option<u64>,
    /// Bytes received, by link.
    pub nvlink_rx_bytes: Vec<(u32, u64)>,
    /// Bytes sent, by link.
    pub nvlink_tx_bytes: Vec<(u32, u64)>,
    /// Errors by link and kind: `replay`, `recovery`, `crc`.
    pub nvlink_errors: Vec<(u32, &'static str, u64)>,
    /// Memory errors by kind (`corrected`, `uncorrected`) and scope (`volatile`, `aggregate`).
    pub ecc_errors: Vec<(&'static str, &'static str, u64)>,
}

/// Energy of a device in microjoules. `total` is `unattributed` and `groups` together, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Energy {
    /// By the device's own counter, since the driver was loaded; does not fall when it is loaded
    /// again.
    pub total_microjoules: u64,
    /// What no process got, by reason.
    pub unattributed: Vec<(&'static str, u64)>,
    /// What processes got, ended ones too, by group.
    pub groups: Vec<(Name, u64)>,
}

/// A process on a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuProcess {
    /// Identity, by `/proc`: its start time is in whole ticks.
    pub key: Key,
    /// Memory in bytes, by MIG instance (`None` for the device as a whole). Empty where the
    /// driver does not tell.
    pub memory: Vec<(Option<u32>, u64)>,
    /// Whether it is in the driver's list now.
    pub listed: bool,
    /// Mean over the last interval; `None` where the driver does not sample processes.
    pub utilization: Option<ProcessUtilization>,
    /// Its part of the device's energy since the agent started, in microjoules; `None` where
    /// energy can't be shared.
    pub energy_microjoules: Option<u64>,
}

/// Percent of an interval, from the driver's samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUtilization {
    /// Streaming multiprocessors.
    pub sm_percent: f64,
    /// Memory.
    pub memory_percent: f64,
    /// Encoder.
    pub encoder_percent: f64,
    /// Decoder.
    pub decoder_percent: f64,
}

/// Critical errors of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xid {
    /// How many.
    pub count: u64,
    /// When the last came.
    pub last: SystemTime,
}

/// A compute instance of a GPU instance, as MIG cuts a device.
#[derive(Clone, Debug, Default)]
pub struct MigDevice {
    /// Id of the GPU instance: the label `mig`.
    pub gpu_instance: u32,
    /// Id of the compute instance in it.
    pub compute_instance: u32,
    /// `MIG-…`.
    pub uuid: String,
    /// Such as `1g.10gb`.
    pub profile: String,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Processes on it.
    pub processes: Option<u64>,
    /// What the chip samples of it.
    pub activity: Activity,
}
