//! The names of dcgm-exporter.

use std::fs;

use anyhow::{Result, ensure};
use esnode_tests::gpu::uuid;
use esnode_tests::page::Page;
use serde_json::json;

use super::mig::cut;
use super::support::{Rig, check_value};
use super::table::full;
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::dcgm::names_labels_and_units", names),
        Case::new("gpu::dcgm::absent_by_default", absent),
        Case::new("gpu::dcgm::rates_of_pcie", rates),
        Case::new("gpu::dcgm::instances", instances),
        Case::new("gpu::dcgm::last_xid", last_xid),
    ]
}

/// By name: type, and the value of the GPU `full(1)`.
const NAMES: [(&str, &str, f64); 22] = [
    ("DCGM_FI_DEV_SM_CLOCK", "gauge", 1221.0),
    ("DCGM_FI_DEV_MEM_CLOCK", "gauge", 1331.0),
    ("DCGM_FI_DEV_GPU_TEMP", "gauge", 32.0),
    ("DCGM_FI_DEV_MEMORY_TEMP", "gauge", 48.0),
    ("DCGM_FI_DEV_POWER_USAGE", "gauge", 345.679),
    (
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "unknown",
        1_234_568.0,
    ),
    ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "unknown", 72.0),
    ("DCGM_FI_DEV_GPU_UTIL", "gauge", 22.0),
    ("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", 42.0),
    ("DCGM_FI_DEV_ENC_UTIL", "gauge", 62.0),
    ("DCGM_FI_DEV_DEC_UTIL", "gauge", 82.0),
    ("DCGM_FI_DEV_FB_FREE", "gauge", 29_696.0),
    ("DCGM_FI_DEV_FB_USED", "gauge", 51_200.0),
    ("DCGM_FI_DEV_FB_RESERVED", "gauge", 1_024.0),
    ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "unknown", 10.0),
    ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "unknown", 8.0),
    ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", 0.0),
    // Nothing moves.
    ("DCGM_FI_PROF_PCIE_TX_BYTES", "gauge", 0.0),
    ("DCGM_FI_PROF_PCIE_RX_BYTES", "gauge", 0.0),
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", 0.5),
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge", 0.54),
    ("DCGM_FI_PROF_DRAM_ACTIVE", "gauge", 0.55),
];

fn is_sampled_by_the_chip(page: &Page) -> Result<()> {
    let ratios = page.select("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", &[]);
    ensure!(!ratios.is_empty(), "nothing that the chip sampled");
    Ok(())
}

fn names() -> Result<()> {
    let rig = Rig::start(&[full(0), full(1)], &["--dcgm-names"])?;
    let page = rig.until(|page| {
        is_sampled_by_the_chip(page)?;
        // Rates and activity need two samples.
        for name in ["DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_DRAM_ACTIVE"] {
            ensure_eq!(page.select(name, &[]).len(), 2, "GPUs with {name}");
        }
        Ok(())
    })?;
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let gpu = uuid(1);
    let labels = [
        ("gpu", "1"),
        ("UUID", gpu.as_str()),
        ("pci_bus_id", "00000000:11:00.0"),
        ("device", "nvidia1"),
        ("modelName", "NVIDIA H100 number 1"),
        ("Hostname", hostname.trim_end()),
        ("DCGM_FI_DRIVER_VERSION", "570.86.10"),
    ];
    for (name, kind, value) in NAMES {
        check_value(&page, name, &labels, Some(value))?;
        let samples = page.select(name, &[]);
        ensure_eq!(samples.len(), 2, "GPUs with {name}");
        for sample in samples {
            ensure_eq!(sample.labels.len(), labels.len(), "labels of {sample:?}");
        }
        let family = page.families.iter().find(|family| family.name == name);
        let seen = family.map(|family| family.kind.as_str());
        ensure_eq!(seen, Some(kind), "type of {name}");
    }
    let all = page.families.iter().map(|family| family.name.as_str());
    let all: Vec<_> = all.filter(|name| name.starts_with("DCGM_")).collect();
    ensure_eq!(all.len(), NAMES.len(), "families {all:?}");
    // The agent's own names are there all the same.
    check_value(
        &page,
        "esnode_gpu_power_watts",
        &[("gpu", "1")],
        Some(345.679),
    )
}

fn absent() -> Result<()> {
    let rig = Rig::start(&[full(0)], &[])?;
    let page = rig.next_sample()?;
    let dcgm = page
        .samples()
        .find(|sample| sample.name.starts_with("DCGM_"));
    ensure!(dcgm.is_none(), "nobody asked for {dcgm:?}");
    check_value(&page, "esnode_gpu_power_watts", &[], Some(345.678))
}

/// Bytes of the last interval by its length, and nothing in the next.
fn rates() -> Result<()> {
    const BYTES: f64 = 50_000_000.0;
    let flags = [
        "--no-bpf",
        "--collectors",
        "gpu",
        "--gpu-interval",
        "500ms",
        "--dcgm-names",
    ];
    let rig = Rig::start_with(&[full(0)], &flags)?;
    rig.until_value("DCGM_FI_PROF_PCIE_TX_BYTES", &[], 0.0)?;
    let fields =
        json!({ "197": { "u64": 5_000_000_001_u64 }, "198": { "u64": 6_050_000_001_u64 } });
    rig.put(0, json!({ "fields": fields }))?;
    rig.until(|page| {
        let rate = page.value("DCGM_FI_PROF_PCIE_RX_BYTES", &[]).unwrap_or(0.0);
        // An interval is of 500 ms, or more if the machine is busy.
        let seconds = BYTES / rate;
        ensure!(
            (0.2..5.0).contains(&seconds),
            "{BYTES} bytes in {seconds} s"
        );
        check_value(page, "DCGM_FI_PROF_PCIE_TX_BYTES", &[], Some(0.0))?;
        check_value(
            page,
            "esnode_gpu_pcie_rx_bytes_total",
            &[],
            Some(6_050_000_001.0),
        )
    })?;
    rig.until_value("DCGM_FI_PROF_PCIE_RX_BYTES", &[], 0.0)?;
    Ok(())
}

/// Memory and activity are those of instances, the rest that of the GPU.
fn instances() -> Result<()> {
    let rig = Rig::start(&[cut(0)], &["--dcgm-names"])?;
    let page = rig.until(is_sampled_by_the_chip)?;
    for (id, profile, used, tensor) in [
        ("1", "1g.10gb", 2_048.0, 0.61),
        ("2", "2g.20gb", 4_096.0, 0.62),
    ] {
        let labels = [
            ("GPU_I_ID", id),
            ("GPU_I_PROFILE", profile),
            ("device", "nvidia0"),
        ];
        check_value(&page, "DCGM_FI_DEV_FB_USED", &labels, Some(used))?;
        check_value(
            &page,
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
            &labels,
            Some(tensor),
        )?;
    }
    ensure_eq!(
        page.select("DCGM_FI_DEV_FB_USED", &[]).len(),
        2,
        "series of memory"
    );
    let power = page.select("DCGM_FI_DEV_POWER_USAGE", &[]);
    ensure!(
        power.len() == 1
            && power
                .iter()
                .all(|sample| !sample.labels.contains_key("GPU_I_ID")),
        "{power:?}"
    );
    Ok(())
}

/// The code of the last error, in whatever order codes are; absent before the first.
fn last_xid() -> Result<()> {
    const XID: &str = "DCGM_FI_DEV_XID_ERRORS";
    let rig = Rig::start(&[full(0), full(1)], &["--dcgm-names"])?;
    check_value(&rig.next_sample()?, XID, &[], None)?;
    let mut events = Vec::new();
    for (id, code) in [(1, 94), (2, 31), (3, 79)] {
        events.push(json!({ "xid": code, "id": id }));
        rig.put(1, json!({ "events": events }))?;
        let page = rig.until_value(XID, &[("gpu", "1")], f64::from(code))?;
        let labels = [
            ("gpu", "1"),
            ("device", "nvidia1"),
            ("err_code", &code.to_string()),
        ];
        check_value(&page, XID, &labels, Some(f64::from(code)))?;
        ensure_eq!(page.select(XID, &[]).len(), 1, "GPUs with an error");
    }
    Ok(())
}
