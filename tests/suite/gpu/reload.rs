//! Drivers that are loaded again: counters go on from where they were, by UUID.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use esnode_tests::gpu::uuid;
use esnode_tests::page::Page;
use serde_json::{Value, json};

use super::support::{
    DEVICE_ENERGY, GROUP_ENERGY, NOBODYS_ENERGY, PROCESS_ENERGY, Rig, check_value, energy,
};
use super::watch::{
    FLAGS, busy, check_fresh, check_lines, check_only_counters, families_of, two_busy, watch,
};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("gpu::reload::gone_for_good", gone_for_good),
        Case::new("gpu::reload::other_order", other_order),
    ];
    for code in [
        "UNINITIALIZED",
        "DRIVER_NOT_LOADED",
        "LIB_RM_VERSION_MISMATCH",
    ] {
        let name = format!("gpu::reload::counters_go_on::{code}");
        cases.push(Case::new(name, move || counters_go_on(code)));
    }
    cases
}

/// A driver that begins to count from nothing, with other numbers.
fn reloaded(gpu: &mut Value) {
    gpu["energy_millijoules"] = json!(3_000);
    gpu["fields"]["197"] = json!({ "u64": 700 });
    gpu["fields"]["198"] = json!({ "u64": 800 });
    gpu["fields"]["74"] = json!({ "u64": 500_000_000 });
    gpu["fields"]["204@0"] = json!({ "u64": 64 });
    gpu["fields"]["202@0"] = json!({ "u64": 32 });
    gpu["pcie"]["replays"] = json!(2);
    gpu["nvlinks"][0]["crc"] = json!(1);
    gpu["ecc"]["corrected_volatile"] = json!(1);
}

/// A counter of a GPU, labels that it has beside those of the GPU, and its value.
type Counter = (&'static str, &'static [(&'static str, &'static str)], f64);

/// Every counter goes on from where it was.
const AFTER: [Counter; 8] = [
    ("pcie_tx_bytes", &[], 1_000_700.0),
    ("pcie_rx_bytes", &[], 2_000_800.0),
    ("throttle_seconds", &[("reason", "sw_power_cap")], 8.0),
    ("nvlink_rx_bytes", &[("link", "0")], 4_000_064.0),
    ("nvlink_tx_bytes", &[("link", "0")], 3_000_032.0),
    ("pcie_replays", &[], 9.0),
    ("nvlink_errors", &[("link", "0"), ("kind", "crc")], 6.0),
    (
        "ecc_errors",
        &[("kind", "corrected"), ("scope", "volatile")],
        4.0,
    ),
];

/// A busy GPU with counters of all kinds.
fn counting(index: u8) -> Value {
    let mut gpu = busy(index, 40);
    gpu["fields"]["197"] = json!({ "u64": 1_000_000 });
    gpu["fields"]["198"] = json!({ "u64": 2_000_000 });
    gpu["fields"]["74"] = json!({ "u64": 7_500_000_000_u64 });
    gpu["fields"]["204@0"] = json!({ "u64": 4_000_000 });
    gpu["fields"]["202@0"] = json!({ "u64": 3_000_000 });
    gpu["pcie"]["replays"] = json!(7);
    gpu["nvlinks"] = json!([{ "up": true, "replay": 0, "recovery": 0, "crc": 5 }]);
    gpu["ecc"]["corrected_volatile"] = json!(3);
    gpu["events"] = json!([{ "xid": 31, "id": 1 }, { "xid": 31, "id": 2 }]);
    gpu
}

/// The driver is gone for some time, and counts from nothing then.
fn counters_go_on(code: &str) -> Result<()> {
    let rig = Rig::start_with(&[counting(0), busy(1, 60)], &FLAGS)?;
    let first = uuid(0);
    let labels = [("uuid", first.as_str())];
    rig.next_sample()?;
    rig.put(0, json!({ "energy_millijoules": 5_400_000 }))?;
    rig.until(|page| {
        check_value(page, "esnode_gpu_xid_errors_total", &labels, Some(2.0))?;
        check_value(page, DEVICE_ENERGY, &labels, Some(5400.0))
    })?;
    let before = rig.next_sample()?;
    let of_process = energy(&before, PROCESS_ENERGY, &labels);
    ensure!(of_process > 0, "the process has used {of_process} µJ");

    rig.change(|script| {
        script["system"] = json!(code);
        script["init"] = json!(code);
    })?;
    let page = rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
    check_only_counters(&page, &first)?;
    let page = watch(&rig, Duration::from_millis(700), |page, _| {
        check_value(page, "esnode_gpu_driver_up", &[], Some(0.0))?;
        check_only_counters(page, &first)?;
        check_value(page, "esnode_gpu_up", &[], Some(0.0))?;
        let gpus = [("collector", "gpu")];
        check_value(page, "esnode_collector_success", &gpus, Some(0.0))?;
        let processes = [("collector", "process")];
        check_value(page, "esnode_collector_success", &processes, Some(1.0))
    })?;
    for name in [DEVICE_ENERGY, NOBODYS_ENERGY, GROUP_ENERGY, PROCESS_ENERGY] {
        let of = |page: &Page| energy(page, name, &labels);
        ensure_eq!(of(&page), of(&before), "µJ of {name}");
    }

    rig.change(|script| {
        script["system"] = json!("SUCCESS");
        script["init"] = json!("SUCCESS");
        script["driver_version"] = json!("580.95.05");
        reloaded(&mut script["devices"][0]);
    })?;
    let page = rig.until_value("esnode_gpu_up", &labels, 1.0)?;
    check_value(&page, "esnode_gpu_driver_up", &[], Some(1.0))?;
    check_value(&page, "esnode_gpu_reinitializations_total", &[], Some(1.0))?;
    let version = page.label_values("esnode_gpu_info", &labels, "driver_version");
    ensure_eq!(version, BTreeSet::from(["580.95.05"]), "version");
    for (name, more, value) in AFTER {
        let labels = [&labels, more].concat();
        check_value(
            &page,
            &format!("esnode_gpu_{name}_total"),
            &labels,
            Some(value),
        )?;
    }
    check_value(&page, "esnode_gpu_xid_errors_total", &labels, Some(2.0))?;
    check_value(&page, DEVICE_ENERGY, &labels, Some(5403.0))?;
    let gap = [("uuid", first.as_str()), ("reason", "gap")];
    check_value(&page, NOBODYS_ENERGY, &gap, Some(3.0))?;
    ensure_eq!(energy(&page, PROCESS_ENERGY, &labels), of_process, "µJ");
    for (words, expected) in [("GPU driver is down: ", 1), ("XIDs", 0)] {
        check_lines(&rig.agent, words, expected)?;
    }

    // And on from there, for the same process.
    rig.put(0, json!({ "energy_millijoules": 4_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &labels, 5404.0)?;
    let more = energy(&page, PROCESS_ENERGY, &labels) - of_process;
    ensure_eq!(more, 500_000, "µJ of the process since");
    Ok(())
}

/// A GPU that isn't there after the driver was loaded again: pulled, or dead.
fn gone_for_good() -> Result<()> {
    for absent in [false, true] {
        let rig = two_busy()?;
        rig.change(|script| script["system"] = json!("UNINITIALIZED"))?;
        rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
        rig.change(|script| {
            script["system"] = json!("SUCCESS");
            match script["devices"].as_array_mut() {
                Some(devices) if !absent => drop(devices.pop()),
                _ => script["devices"][1]["absent"] = json!(true),
            }
        })?;
        rig.until(|page| check_fresh(page, 0, 40.0))?;
        watch(&rig, Duration::from_millis(1500), |page, _| {
            check_fresh(page, 0, 40.0)?;
            check_value(page, "esnode_gpu_driver_up", &[], Some(1.0))?;
            check_only_counters(page, &uuid(1))
        })?;
        check_lines(
            &rig.agent,
            "1 of the GPUs that were there are not found any more",
            usize::from(!absent),
        )?;
        check_lines(&rig.agent, "GPU 1 is lost: ", usize::from(absent))?;
        // It comes back after all.
        rig.change(|script| script["devices"] = json!([busy(0, 40), busy(1, 60)]))?;
        rig.until(|page| {
            check_fresh(page, 0, 40.0)?;
            check_fresh(page, 1, 60.0)
        })?;
    }
    Ok(())
}

/// The driver may number GPUs anew; accounts are by UUID.
fn other_order() -> Result<()> {
    let rig = two_busy()?;
    rig.change(|script| script["system"] = json!("UNINITIALIZED"))?;
    rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
    let before = rig.page()?;
    rig.change(|script| {
        script["system"] = json!("SUCCESS");
        script["devices"][0]["energy_millijoules"] = json!(1_000);
        script["devices"][1]["energy_millijoules"] = json!(2_000);
        if let Some(devices) = script["devices"].as_array_mut() {
            devices.swap(0, 1);
        }
    })?;
    let mut tries = 0;
    // Labels of the index change, which is no loss of a counter here.
    let page = loop {
        let page = rig.agent.page()?;
        if page.value("esnode_gpu_up", &[]) == Some(2.0) {
            break page;
        }
        tries += 1;
        ensure!(tries < 100, "they don't come back");
        thread::sleep(Duration::from_millis(50));
    };
    for (index, gpu, percent, joules) in [(0, "1", 40.0, 5401.0), (1, "0", 60.0, 5402.0)] {
        let uuid = uuid(index);
        let labels = [("uuid", uuid.as_str())];
        check_fresh(&page, index, percent)?;
        check_value(&page, DEVICE_ENERGY, &labels, Some(joules))?;
        check_value(&page, "esnode_gpu_xid_errors_total", &labels, Some(1.0))?;
        for name in [PROCESS_ENERGY, GROUP_ENERGY] {
            let of = |page: &Page| energy(page, name, &labels);
            ensure_eq!(of(&page), of(&before), "µJ of {name} of {uuid}");
        }
        for name in families_of(&page, &uuid) {
            let seen = page.label_values(name, &labels, "gpu");
            ensure_eq!(seen, BTreeSet::from([gpu]), "gpu of {name} of {uuid}");
        }
    }
    Ok(())
}
