//! Counters of the device that wrap or begin anew: those of the page go on.

use anyhow::Result;
use serde_json::{Value, json};

use super::support::{Rig, check_value};
use super::table::full;
use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::counters::of_32_bits_wrap", wrap),
        Case::new("gpu::counters::of_64_bits_begin_anew", begin_anew),
        Case::new("gpu::counters::cleared_ones_are_no_wraps", cleared),
    ]
}

/// 2^32.
const RANGE: u64 = 1 << 32;

/// Family, labels beside those of the GPU, and the value.
type Row = (&'static str, &'static [(&'static str, &'static str)], f64);

/// A GPU whose counters are at first like this, then like that.
fn check(first: &[(&str, Value)], then: &[(&str, Value)], rows: &[Row]) -> Result<()> {
    let mut gpu = full(0);
    let set = |gpu: &mut Value, values: &[(&str, Value)]| {
        for (pointer, value) in values {
            if let Some(place) = gpu.pointer_mut(pointer) {
                *place = value.clone();
            }
        }
    };
    set(&mut gpu, first);
    let rig = Rig::start(&[gpu], &["--gpu-slow-interval", "100ms"])?;
    rig.next_sample()?;
    rig.change(|script| set(&mut script["devices"][0], then))?;
    rig.until(|page| {
        rows.iter()
            .try_for_each(|(name, labels, value)| check_value(page, name, labels, Some(*value)))
    })?;
    // It stays so.
    let page = rig.next_sample()?;
    rows.iter()
        .try_for_each(|(name, labels, value)| check_value(&page, name, labels, Some(*value)))
}

/// Where the driver counts in 32 bits, a lower number is one of after 2^32.
fn wrap() -> Result<()> {
    check(
        &[
            ("/fields/198", json!({ "u32": RANGE - 100 })),
            ("/fields/74", json!({ "u32": RANGE - 1_000 })),
            ("/fields/138@0", json!({ "u32": RANGE - 6 })),
            ("/pcie/replays", json!(RANGE - 7)),
        ],
        &[
            ("/fields/198", json!({ "u32": 23 })),
            ("/fields/74", json!({ "u32": 500_000_000 })),
            ("/fields/138@0", json!({ "u32": 5 })),
            ("/pcie/replays", json!(4)),
        ],
        &[
            ("esnode_gpu_pcie_rx_bytes_total", &[], 4_294_967_319.0),
            (
                "esnode_gpu_throttle_seconds_total",
                &[("reason", "sw_power_cap")],
                4.794_967_296,
            ),
            // These are KiB.
            (
                "esnode_gpu_nvlink_tx_bytes_total",
                &[("link", "0")],
                4_294_967_301.0 * 1024.0,
            ),
            ("esnode_gpu_pcie_replays_total", &[], 4_294_967_300.0),
        ],
    )
}

/// 64 bits don't wrap: what is lower counts from 0 again.
fn begin_anew() -> Result<()> {
    check(
        &[
            ("/fields/198", json!({ "u64": 10_000_000_000_u64 })),
            ("/fields/204@1", json!({ "u64": 7_000 })),
            ("/nvlinks/0/replay", json!(50)),
            ("/ecc/corrected_volatile", json!(30)),
            ("/energy_millijoules", json!(80_000)),
        ],
        &[
            ("/fields/198", json!({ "u64": 400 })),
            ("/fields/204@1", json!({ "u64": 1_000 })),
            ("/nvlinks/0/replay", json!(2)),
            ("/ecc/corrected_volatile", json!(0)),
            ("/energy_millijoules", json!(500)),
        ],
        &[
            ("esnode_gpu_pcie_rx_bytes_total", &[], 10_000_000_400.0),
            (
                "esnode_gpu_nvlink_rx_bytes_total",
                &[("link", "1")],
                8_000.0,
            ),
            (
                "esnode_gpu_nvlink_errors_total",
                &[("link", "0"), ("kind", "replay")],
                52.0,
            ),
            (
                "esnode_gpu_ecc_errors_total",
                &[("kind", "corrected"), ("scope", "volatile")],
                30.0,
            ),
            ("esnode_gpu_energy_joules_total", &[], 80.5),
        ],
    )
}

/// A counter of 32 bits that falls from far below 2^32 was cleared.
fn cleared() -> Result<()> {
    check(
        &[
            ("/fields/198", json!({ "u32": 1_000 })),
            ("/pcie/replays", json!(90)),
        ],
        &[
            ("/fields/198", json!({ "u32": 10 })),
            ("/pcie/replays", json!(1)),
        ],
        &[
            ("esnode_gpu_pcie_rx_bytes_total", &[], 1_010.0),
            ("esnode_gpu_pcie_replays_total", &[], 91.0),
        ],
    )
}
