//! What the script may say. A device that lacks a field answers that query with `NOT_SUPPORTED`;
//! a name that isn't known here is an error, as a test with a slip in its script tests nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::abi::Code;
use crate::calls::Function;
use crate::queue::Utilization;

/// The most devices that a script may have.
pub(crate) const MAX_DEVICES: usize = 64;

/// What is to happen to calls of a function.
pub(crate) type Rules = BTreeMap<Function, Rule>;

/// A host.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Script {
    pub(crate) driver_version: Option<String>,
    /// 12080 is CUDA 12.8.
    pub(crate) cuda_version: Option<i32>,
    /// Answer of `nvmlInit_v2` and `nvmlInitWithFlags`.
    pub(crate) init: Code,
    pub(crate) init_hang_ms: u64,
    /// Answer of everything but init, shutdown and `nvmlErrorString`: a driver that went away.
    pub(crate) system: Code,
    /// For all devices that have no rule of their own, and for functions without a device.
    pub(crate) calls: Rules,
    pub(crate) devices: Vec<Device>,
}

/// What is to happen to calls of one function, counted since this version of the script was
/// loaded, for each device by itself.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rule {
    /// What they answer; without it, they only hang.
    pub(crate) error: Option<Code>,
    /// Calls before the first one that the rule is for.
    pub(crate) after: u64,
    /// How many calls it is for; all, if not given.
    pub(crate) times: Option<u64>,
    /// How long they take.
    pub(crate) hang_ms: u64,
}

impl Rule {
    /// Whether the rule is for a call that so many went before.
    pub(crate) fn is_for(&self, before: u64) -> bool {
        let number = before.checked_sub(self.after);
        number.is_some_and(|number| self.times.is_none_or(|times| number < times))
    }

    pub(crate) fn hang(&self) -> Duration {
        Duration::from_millis(self.hang_ms)
    }
}

/// A GPU.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Device {
    pub(crate) uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) pci_bus_id: Option<PciBusId>,
    pub(crate) vbios: Option<String>,
    pub(crate) architecture: Option<u32>,
    pub(crate) minor: Option<u32>,
    /// Answer of every call on it.
    #[serde(default)]
    pub(crate) status: Code,
    /// It counts, but a handle can't be had: `GPU_IS_LOST` by index, `NOT_FOUND` by UUID.
    #[serde(default)]
    pub(crate) absent: bool,
    #[serde(default)]
    pub(crate) calls: Rules,
    pub(crate) energy_millijoules: Option<u64>,
    /// Added to the energy since this version of the script was loaded.
    #[serde(default)]
    pub(crate) energy_milliwatts: u64,
    pub(crate) utilization: Option<Rates>,
    pub(crate) encoder: Option<u32>,
    pub(crate) decoder: Option<u32>,
    pub(crate) memory: Option<Memory>,
    pub(crate) bar1: Option<Memory>,
    pub(crate) temperature: Option<u32>,
    /// Percent, by fan.
    pub(crate) fans: Option<Vec<u32>>,
    pub(crate) power_milliwatts: Option<u32>,
    pub(crate) power_limit_milliwatts: Option<u32>,
    #[serde(default)]
    pub(crate) clocks: Clocks,
    #[serde(default)]
    pub(crate) clocks_max: Clocks,
    pub(crate) performance_state: Option<u32>,
    pub(crate) throttle_supported: Option<u64>,
    pub(crate) throttle: Option<u64>,
    #[serde(default)]
    pub(crate) pcie: Pcie,
    #[serde(default)]
    pub(crate) ecc: Ecc,
    #[serde(default)]
    pub(crate) nvlinks: Vec<NvLink>,
    #[serde(default)]
    pub(crate) fields: BTreeMap<FieldKey, FieldValue>,
    pub(crate) processes: Option<Vec<Process>>,
    /// Between samples of process utilisation.
    #[serde(default = "default_period_ms")]
    pub(crate) sample_period_ms: u64,
    /// Samples beside those that come of `processes`.
    #[serde(default)]
    pub(crate) samples: Vec<FixedSample>,
    #[serde(default)]
    pub(crate) events: Vec<Event>,
    #[serde(default = "default_event_types")]
    pub(crate) event_types: u64,
    /// Value by metric id; without it, GPM isn't supported.
    pub(crate) gpm: Option<BTreeMap<u32, f64>>,
    /// Slots for MIG devices, which may be empty; without it, MIG isn't supported.
    pub(crate) mig: Option<Vec<Option<Mig>>>,
}

fn default_period_ms() -> u64 {
    166
}

fn default_event_types() -> u64 {
    u64::from(nvml_wrapper_sys::bindings::nvmlEventTypeXidCriticalError)
}

/// `DDDDDDDD:BB:DD.0`, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct PciBusId {
    pub(crate) domain: u32,
    pub(crate) bus: u32,
    pub(crate) device: u32,
    pub(crate) text: String,
}

impl TryFrom<String> for PciBusId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut numbers = text.split([':', '.']).map(|number| {
            let number = u32::from_str_radix(number, 16);
            number.map_err(|error| format!("{text}: {error}"))
        });
        let mut next = || numbers.next().unwrap_or_else(|| Err(text.clone()));
        let (domain, bus, device) = (next()?, next()?, next()?);
        Ok(Self {
            domain,
            bus,
            device,
            text,
        })
    }
}

/// Percent of time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rates {
    pub(crate) gpu: u32,
    pub(crate) memory: u32,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) used: u64,
    pub(crate) free: u64,
    #[serde(default)]
    pub(crate) reserved: u64,
}

/// MHz.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Clocks {
    pub(crate) graphics: Option<u32>,
    pub(crate) sm: Option<u32>,
    pub(crate) memory: Option<u32>,
    pub(crate) video: Option<u32>,
}

/// The link to the host.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pcie {
    pub(crate) generation: Option<u32>,
    pub(crate) generation_max: Option<u32>,
    pub(crate) width: Option<u32>,
    pub(crate) width_max: Option<u32>,
    pub(crate) replays: Option<u32>,
}

/// Errors of memory since the driver was loaded (volatile), and ever.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ecc {
    pub(crate) corrected_volatile: Option<u64>,
    pub(crate) uncorrected_volatile: Option<u64>,
    pub(crate) corrected_aggregate: Option<u64>,
    pub(crate) uncorrected_aggregate: Option<u64>,
}

/// A link to another GPU.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NvLink {
    pub(crate) up: Option<bool>,
    pub(crate) rx_bytes: Option<u64>,
    pub(crate) tx_bytes: Option<u64>,
    pub(crate) replay: Option<u64>,
    pub(crate) recovery: Option<u64>,
    pub(crate) crc: Option<u64>,
}

/// `ID`, or `ID@SCOPE` where the scope isn't 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct FieldKey {
    pub(crate) id: u32,
    pub(crate) scope: u32,
}

impl TryFrom<String> for FieldKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (id, scope) = text.split_once('@').unwrap_or((&text, "0"));
        let number = |number: &str| number.parse().map_err(|error| format!("{text}: {error}"));
        Ok(Self {
            id: number(id)?,
            scope: number(scope)?,
        })
    }
}

/// Value of a field, in the type that the driver has for it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FieldValue {
    U32(u32),
    U64(u64),
    I64(i64),
    F64(f64),
    Error(Code),
}

/// A process that computes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Bytes; without it, the driver doesn't know.
    pub(crate) memory: Option<u64>,
    #[serde(default)]
    sm: u32,
    #[serde(default)]
    mem: u32,
    #[serde(default)]
    enc: u32,
    #[serde(default)]
    dec: u32,
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) compute_instance: Option<u32>,
}

impl Process {
    pub(crate) fn utilization(&self) -> Utilization {
        Utilization {
            sm: self.sm,
            mem: self.mem,
            enc: self.enc,
            dec: self.dec,
        }
    }
}

/// A sample of process utilisation, taken before this version of the script was loaded.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FixedSample {
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) age_ms: i64,
    #[serde(default)]
    sm: u32,
    #[serde(default)]
    mem: u32,
    #[serde(default)]
    enc: u32,
    #[serde(default)]
    dec: u32,
}

impl FixedSample {
    pub(crate) fn utilization(&self) -> Utilization {
        Utilization {
            sm: self.sm,
            mem: self.mem,
            enc: self.enc,
            dec: self.dec,
        }
    }
}

/// A critical error, delivered once per id and device.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) xid: u64,
    pub(crate) id: u64,
}

/// A part of a GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mig {
    pub(crate) gpu_instance: u32,
    #[serde(default)]
    pub(crate) compute_instance: u32,
    pub(crate) uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) memory: Option<Memory>,
    pub(crate) gpm: Option<BTreeMap<u32, f64>>,
}

impl Script {
    /// Reads a script.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let script: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if script.devices.len() > MAX_DEVICES {
            return Err(format!("more than {MAX_DEVICES} devices"));
        }
        if script.devices.iter().any(|gpu| gpu.sample_period_ms == 0) {
            return Err("a sample period of no time".to_owned());
        }
        Ok(script)
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
