//! What a GPU has counted.

use super::{Family, Labels, Page, Part, Value, listed};
use crate::gpu::facts::DeviceFacts;
use std::{fmt, time::UNIX_EPOCH};

/// Families with one series for each GPU.
const FAMILIES: [Family; 4] = [
    (
        "esnode_gpu_energy_joules",
        "Energy that the GPU used, in joules, since its driver was loaded; goes on when that is \
         loaded again (nvmlDeviceGetTotalEnergyConsumption)",
        |part| {
            let energy = part.device?.energy.as_ref()?;
            Some(Value::joules(energy.total_microjoules))
        },
    ),
    (
        "esnode_gpu_pcie_rx_bytes",
        "Bytes that the GPU received over PCIe, by its own counter (nvmlDeviceGetFieldValues)",
        |part| Some(part.counters()?.pcie_rx_bytes?.into()),
    ),
    (
        "esnode_gpu_pcie_tx_bytes",
        "Bytes that the GPU sent over PCIe, by its own counter (nvmlDeviceGetFieldValues)",
        |part| Some(part.counters()?.pcie_tx_bytes?.into()),
    ),
    (
        "esnode_gpu_pcie_replays",
        "Packets that were sent again over PCIe (nvmlDeviceGetPcieReplayCounter)",
        |part| Some(part.counters()?.pcie_replays?.into()),
    ),
];

pub(super) fn encode(
    page: &mut Page<'_>,
    parts: &[Part<'_>],
    devices: &[DeviceFacts],
) -> fmt::Result {
    for (name, help, value) in FAMILIES {
        page.counter(
            name,
            help,
            parts
                .iter()
                .filter_map(|part| Some((part.labels(), value(part)?))),
        )?;
    }
    page.counter(
        "esnode_unattributed_gpu_energy_joules",
        "Energy of the GPU that no process got, in joules, by why; with the groups' \
         esnode_group_gpu_energy_joules_total it adds up to esnode_gpu_energy_joules_total",
        devices.iter().flat_map(|device| {
            let energy = device.energy.iter();
            let unattributed = energy.flat_map(|energy| &energy.unattributed);
            unattributed.map(|(reason, microjoules)| {
                let labels = (Labels::of(device), [("reason", *reason)]);
                (labels, Value::joules(*microjoules))
            })
        }),
    )?;
    encode_throttling(page, devices)?;
    encode_links(page, devices)?;
    encode_errors(page, devices)
}

fn encode_throttling(page: &mut Page<'_>, devices: &[DeviceFacts]) -> fmt::Result {
    page.counter(
        "esnode_gpu_throttle_seconds",
        "Time in which this held clocks down, in seconds, by the driver \
         (nvmlDeviceGetFieldValues)",
        devices.iter().flat_map(|device| {
            let counters = device.counters.iter();
            let reasons = counters.flat_map(|counters| &counters.throttle_nanoseconds);
            reasons.map(|(reason, nanoseconds)| {
                let labels = (Labels::of(device), [("reason", *reason)]);
                (labels, Value::seconds(*nanoseconds))
            })
        }),
    )
}

fn encode_links(page: &mut Page<'_>, devices: &[DeviceFacts]) -> fmt::Result {
    page.counter(
        "esnode_gpu_nvlink_rx_bytes",
        "Bytes that the GPU received over an NVLink, by its own counter \
         (nvmlDeviceGetFieldValues)",
        listed(devices, "link", |device| {
            Some(&device.counters.as_ref()?.nvlink_rx_bytes)
        }),
    )?;
    page.counter(
        "esnode_gpu_nvlink_tx_bytes",
        "Bytes that the GPU sent over an NVLink, by its own counter (nvmlDeviceGetFieldValues)",
        listed(devices, "link", |device| {
            Some(&device.counters.as_ref()?.nvlink_tx_bytes)
        }),
    )?;
    page.counter(
        "esnode_gpu_nvlink_errors",
        "Errors on an NVLink, by kind (nvmlDeviceGetNvLinkErrorCounter)",
        devices.iter().flat_map(|device| {
            let counters = device.counters.iter();
            let errors = counters.flat_map(|counters| &counters.nvlink_errors);
            errors.map(|(link, kind, count)| {
                let labels = ([("link", *link)], [("kind", *kind)]);
                ((Labels::of(device), labels), *count)
            })
        }),
    )
}

fn encode_errors(page: &mut Page<'_>, devices: &[DeviceFacts]) -> fmt::Result {
    page.counter(
        "esnode_gpu_ecc_errors",
        "Memory errors that ECC found, corrected or not, since the driver was loaded (volatile) or \
         in the life of the board (aggregate) (nvmlDeviceGetTotalEccErrors)",
        devices.iter().flat_map(|device| {
            let counters = device.counters.iter();
            let errors = counters.flat_map(|counters| &counters.ecc_errors);
            errors.map(|(kind, scope, count)| {
                let labels = [("kind", *kind), ("scope", *scope)];
                ((Labels::of(device), labels), *count)
            })
        }),
    )?;
    page.counter(
        "esnode_gpu_xid_errors",
        "Critical errors (XID) since the agent started, by NVIDIA's code, as the driver reports \
         them (nvmlEventSetWait)",
        devices.iter().flat_map(|device| {
            device.xids.iter().map(|(code, xid)| {
                let labels = (Labels::of(device), [("xid", *code)]);
                (labels, xid.count)
            })
        }),
    )?;
    page.gauge(
        "esnode_gpu_xid_last_time_seconds",
        "When the last critical error (XID) of the code came, in seconds since 1970 \
         (nvmlEventSetWait)",
        devices.iter().flat_map(|device| {
            device.xids.iter().filter_map(|(code, xid)| {
                let labels = (Labels::of(device), [("xid", *code)]);
                let last = xid.last.duration_since(UNIX_EPOCH).ok()?;
                Some((labels, last.as_secs_f64()))
            })
        }),
    )
}
