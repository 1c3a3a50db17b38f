//! GPUs that are lost: what can't be known goes, what was counted stays, and others go on.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use esnode_tests::gpu::{device, uuid};
use esnode_tests::workload;
use serde_json::json;

use super::support::{DEVICE_ENERGY, NOBODYS_ENERGY, Rig, check_value, energy};
use super::watch::{CALM, busy, check_fresh, check_lines, check_only_counters, two_busy, watch};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("gpu::faults::lost_for_long_is_told_once", lost_for_long),
        Case::new("gpu::faults::every_call_fails", storm),
        Case::new("gpu::faults::one_call_fails_for_a_while", one_fails),
        Case::new("gpu::faults::off_the_bus", off_the_bus),
    ];
    for status in ["GPU_IS_LOST", "RESET_REQUIRED"] {
        let name = format!("gpu::faults::lost_and_back::{status}");
        cases.push(Case::new(name, move || lost_and_back(status)));
    }
    cases
}

/// One is lost for some seconds, the other is on every page.
fn lost_and_back(status: &str) -> Result<()> {
    let rig = two_busy()?;
    let first = uuid(0);
    let labels = [("uuid", first.as_str())];
    rig.put(0, json!({ "status": status }))?;
    let page = rig.until(|page| {
        check_fresh(page, 1, 60.0)?;
        check_only_counters(page, &first)
    })?;
    let before = energy(&page, DEVICE_ENERGY, &labels);
    let page = watch(&rig, Duration::from_secs(2), |page, _| {
        check_fresh(page, 1, 60.0)?;
        check_value(page, "esnode_gpu_driver_up", &[], Some(1.0))?;
        check_only_counters(page, &first)
    })?;
    ensure_eq!(
        energy(&page, DEVICE_ENERGY, &labels),
        before,
        "µJ while lost"
    );
    let age = page.value("esnode_gpu_sample_age_seconds", &labels);
    ensure!(age > Some(1.9), "the sample is {age:?} s old");
    let opened = page.count("esnode_gpu_reinitializations_total", &[])?;
    ensure!(
        opened > Some(0),
        "the library was opened again {opened:?} times"
    );

    rig.put(
        0,
        json!({
            "status": "SUCCESS",
            "energy_millijoules": 5_600_000,
            "utilization": { "gpu": 45, "memory": 9 },
        }),
    )?;
    let page = rig.until(|page| {
        check_fresh(page, 1, 60.0)?;
        check_fresh(page, 0, 45.0)
    })?;
    // What it used in the meantime, nobody has.
    let gap = [("uuid", first.as_str()), ("reason", "gap")];
    ensure_eq!(energy(&page, DEVICE_ENERGY, &labels), 5_600_000_000, "µJ");
    ensure_eq!(
        energy(&page, NOBODYS_ENERGY, &gap),
        200_000_000,
        "µJ of the gap"
    );
    let xid = [("uuid", first.as_str()), ("xid", "79")];
    check_value(&page, "esnode_gpu_xid_errors_total", &xid, Some(1.0))?;
    check_lines(&rig.agent, "GPU 0 is lost: ", 1)?;
    check_lines(&rig.agent, "GPU 1 is lost: ", 0)?;
    check_lines(&rig.agent, "GPU 1: without ", 1)?;
    // On at first, and again.
    check_lines(&rig.agent, "GPU collector is on: 2 of 2 GPUs", 2)?;
    Ok(())
}

/// One that fell off the bus can't come back by opening the library again, which takes time from
/// the other: that waits until the bus has it again.
fn off_the_bus() -> Result<()> {
    let sysfs = workload::directory()?.join("sysfs-off-the-bus");
    let device = sysfs.join("bus/pci/devices/0000:10:00.0");
    fs::create_dir_all(&device)?;
    let config = device.join("config");
    fs::write(&config, [0xff; 64])?;
    let folder = sysfs.to_string_lossy();
    let flags = ["--no-bpf", "--collectors", "gpu", "--gpu-interval", "200ms"];
    let rig = Rig::start_with(
        &[busy(0, 40), busy(1, 60)],
        &[&flags[..], &["--sysfs", &folder]].concat(),
    )?;
    rig.put(0, json!({ "status": "GPU_IS_LOST" }))?;
    let first = uuid(0);
    rig.until(|page| check_value(page, "esnode_gpu_up", &[("uuid", &first)], Some(0.0)))?;
    watch(&rig, Duration::from_secs(2), |page, _| {
        let opened = page.count("esnode_gpu_reinitializations_total", &[])?;
        ensure_eq!(opened, Some(0), "times that the library was opened again");
        check_fresh(page, 1, 60.0)
    })?;
    fs::write(&config, [0xde, 0x10, 0, 0])?;
    rig.put(0, json!({ "status": "SUCCESS" }))?;
    rig.until(|page| check_fresh(page, 0, 40.0))?;
    fs::remove_dir_all(&sysfs)?;
    Ok(())
}

/// Two that are lost at the same time are told once each, however often they are looked for.
fn lost_for_long() -> Result<()> {
    let flags = ["--no-bpf", "--collectors", "gpu", "--gpu-interval", "100ms"];
    let rig = Rig::start_with(&[busy(0, 40), busy(1, 60), busy(2, 80)], &flags)?;
    rig.change(|script| {
        for index in 0..2 {
            script["devices"][index]["status"] = json!("GPU_IS_LOST");
        }
    })?;
    rig.until(|page| {
        let opened = page.count("esnode_gpu_reinitializations_total", &[])?;
        ensure!(opened >= Some(4), "opened again {opened:?} times");
        Ok(())
    })?;
    for (words, expected) in [
        ("GPU 0 is lost: ", 1),
        ("GPU 1 is lost: ", 1),
        ("GPU 2 is lost: ", 0),
        ("GPU 2: without ", 1),
    ] {
        check_lines(&rig.agent, words, expected)?;
    }
    Ok(())
}

/// No call is answered, by no error that says that the GPU is lost.
fn storm() -> Result<()> {
    lost_and_back("UNKNOWN")
}

/// A reading that fails now and then is absent then, and told when it begins and when it ends.
fn one_fails() -> Result<()> {
    let rig = Rig::start_with(&[busy(0, 40), device(1)], &CALM)?;
    let rule = |error: &str| json!({ "error": error, "after": 1, "times": 3 });
    rig.put(
        0,
        json!({ "calls": { "nvmlDeviceGetPowerUsage": rule("UNKNOWN") } }),
    )?;
    let power = "esnode_gpu_power_watts";
    rig.until(|page| {
        check_fresh(page, 0, 40.0)?;
        check_value(page, power, &[("gpu", "0")], None)?;
        check_value(page, power, &[("gpu", "1")], Some(70.0))
    })?;
    rig.until(|page| {
        check_fresh(page, 0, 40.0)?;
        check_value(page, power, &[("gpu", "0")], Some(70.0))
    })?;
    for words in ["GPU 0: power can't be read: ", "GPU 0: power is read again"] {
        check_lines(&rig.agent, words, 1)?;
    }
    // One answer is enough to know that it's lost.
    rig.put(
        0,
        json!({ "calls": { "nvmlDeviceGetPowerUsage": rule("GPU_IS_LOST") } }),
    )?;
    rig.until_value("esnode_gpu_up", &[("gpu", "0")], 0.0)?;
    check_lines(&rig.agent, "GPU 0 is lost: ", 1)?;
    rig.put(0, json!({ "calls": {} }))?;
    rig.until(|page| check_fresh(page, 0, 40.0))?;
    Ok(())
}
