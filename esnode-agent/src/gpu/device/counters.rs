//! Counters that devices keep.

use crate::gpu::counter::Reading;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP,
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST,
    NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES, NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES,
    NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
    NVML_FI_DEV_PCIE_COUNT_RX_BYTES, NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
};

/// What a device said of its own counters.
pub(in crate::gpu) type CounterReadings = Vec<(CounterName, Reading)>;

/// A counter of a device, by what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::gpu) enum CounterName {
    /// Nanoseconds that clocks were held down for this reason.
    Throttle(&'static str),
    /// Bytes.
    PcieRx,
    /// Bytes.
    PcieTx,
    /// Packets sent again.
    PcieReplays,
    /// Bytes by link.
    NvlinkRx(u32),
    /// Bytes by link.
    NvlinkTx(u32),
    /// By link and kind.
    NvlinkErrors(u32, &'static str),
    /// By kind and scope.
    Ecc(&'static str, &'static str),
}

/// A field that is a counter, and what its unit is in bytes or nanoseconds.
pub(super) type CounterField = (u32, u64, CounterName);

/// Fields of the device as a whole that are counters.
pub(super) const COUNTER_FIELDS: [CounterField; 7] = [
    (NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 1, CounterName::PcieRx),
    (NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 1, CounterName::PcieTx),
    (
        NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP,
        1,
        CounterName::Throttle("sw_power_cap"),
    ),
    (
        NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST,
        1,
        CounterName::Throttle("sync_boost"),
    ),
    (
        NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
        1,
        CounterName::Throttle("sw_thermal_slowdown"),
    ),
    (
        NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
        1,
        CounterName::Throttle("hw_thermal_slowdown"),
    ),
    (
        NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
        1,
        CounterName::Throttle("hw_power_brake_slowdown"),
    ),
];

/// Fields of an NVLink: bytes on newer parts, KiB on older ones. Where both are there, the first
/// counts.
pub(super) fn nvlink_fields(link: u32) -> [CounterField; 4] {
    let (rx, tx) = (CounterName::NvlinkRx(link), CounterName::NvlinkTx(link));
    [
        (NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES, 1, rx),
        (NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES, 1, tx),
        (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, 1024, rx),
        (NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, 1024, tx),
    ]
}
