//! Calls that hang: they cost the readings of their GPU, and nobody else anything.

use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::gpu::{FakeNvml, host, uuid};
use esnode_tests::page::Page;
use serde_json::json;

use super::support::{DEVICE_ENERGY, Rig, check_value, energy};
use super::watch::{
    CALM, INTERVAL, busy, check_fresh, check_lines, check_only_counters, families_of, two_busy,
    watch,
};
use crate::Case;
use crate::check::ensure_eq;

/// Longer than any test.
const FOR_EVER: u64 = 30_000;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("gpu::hangs::at_the_start", at_the_start),
        Case::new("gpu::hangs::event_wait", event_wait),
        Case::new("gpu::hangs::comes_back", comes_back),
        Case::new("gpu::hangs::and_the_driver_is_lost", driver_lost_too),
        Case::new("gpu::hangs::and_another_is_lost", another_lost_too),
        Case::new("gpu::hangs::two_of_three", two_hang),
        Case::new("gpu::hangs::late_news_is_no_news", late_news),
        Case::new("gpu::hangs::threads_do_not_pile_up", threads_stay),
        Case::new(
            "gpu::hangs::event_threads_do_not_pile_up",
            event_threads_stay,
        ),
    ];
    for (name, function) in [
        ("energy", "nvmlDeviceGetTotalEnergyConsumption"),
        ("processes", "nvmlDeviceGetComputeRunningProcesses_v3"),
        ("process_samples", "nvmlDeviceGetProcessUtilization"),
        ("power", "nvmlDeviceGetPowerUsage"),
        ("limit", "nvmlDeviceGetEnforcedPowerLimit"),
    ] {
        let name = format!("gpu::hangs::call_for_{name}");
        cases.push(Case::new(name, move || a_call(function)));
    }
    cases
}

/// Names of the threads of the GPU collector.
fn threads(agent: &Agent) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        // It may end meanwhile.
        let name = fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
        if name.starts_with("gpu") {
            names.push(name.trim_end().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Fails where there is more than one thread more for each call that hung.
fn check_threads(rig: &Rig, before: &[String], hung: usize) -> Result<()> {
    let now = threads(&rig.agent)?;
    ensure!(now.len() <= before.len() + hung, "{now:?} were {before:?}");
    Ok(())
}

fn check_ends(rig: Rig) -> Result<()> {
    let ended = rig.agent.stop()?;
    ensure_eq!(ended.status.code(), Some(0), "exit code");
    ensure!(ended.took < Duration::from_secs(2), "took {:?}", ended.took);
    Ok(())
}

/// Has a call on the first GPU hang, once.
fn hang(rig: &Rig, function: &str, milliseconds: u64) -> Result<()> {
    let rule = json!({ "hang_ms": milliseconds, "times": 1 });
    rig.put(0, json!({ "calls": { function: rule } }))
}

/// The other GPU and the page go on; of this one, what can't be known any more goes, what was
/// counted stays.
fn a_call(function: &str) -> Result<()> {
    let rig = two_busy()?;
    hang(&rig, function, FOR_EVER)?;
    let first = uuid(0);
    // The last sample before it may be as new as the script.
    let gone = Duration::from_secs_f64(5.5 * INTERVAL);
    let page = watch(&rig, gone.mul_f64(1.2), |page, since| {
        check_fresh(page, 1, 60.0)?;
        if since > gone {
            check_only_counters(page, &first)?;
        }
        let up = page.value("esnode_gpu_up", &[("uuid", &first)]);
        let age = page.value("esnode_gpu_sample_age_seconds", &[("uuid", &first)]);
        let old = age > Some(3.0 * INTERVAL);
        ensure_eq!(up, Some(if old { 0.0 } else { 1.0 }), "up at {age:?} s");
        Ok(())
    })?;
    let age = |page: &Page| page.value("esnode_gpu_sample_age_seconds", &[("uuid", &first)]);
    let before = age(&page).unwrap_or(0.0);
    ensure!(before > 4.0 * INTERVAL, "sampled {before} s ago");
    let later = watch(&rig, Duration::from_millis(300), |_, _| Ok(()))?;
    ensure!(age(&later) > Some(before + 0.25), "no older than {before}");
    let of_first = |page: &Page| energy(page, DEVICE_ENERGY, &[("uuid", &first)]);
    ensure_eq!(of_first(&later), of_first(&page), "energy in a hang");
    let labels = [("uuid", first.as_str()), ("xid", "79")];
    check_value(&later, "esnode_gpu_xid_errors_total", &labels, Some(1.0))?;
    check_value(&later, "esnode_gpu_driver_up", &[], Some(1.0))?;
    check_ends(rig)
}

/// A GPU that never tells who it is keeps no other from being sampled.
fn at_the_start() -> Result<()> {
    for function in ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"] {
        let mut first = busy(0, 40);
        first["calls"] = json!({ function: { "hang_ms": FOR_EVER } });
        let script = host(&[first, busy(1, 60)]);
        let fake = FakeNvml::new(&script)?;
        let begun = Instant::now();
        let rig = Rig::of(fake, script, &CALM)?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(3), "the start took {took:?}");
        let page = watch(&rig, Duration::from_millis(600), |page, _| {
            check_fresh(page, 1, 60.0)
        })?;
        let of_first = families_of(&page, &uuid(0));
        ensure!(of_first.is_empty(), "families of a stranger: {of_first:?}");
        check_ends(rig)?;
    }
    Ok(())
}

fn event_wait() -> Result<()> {
    let rig = two_busy()?;
    rig.change(|script| {
        script["calls"] = json!({ "nvmlEventSetWait_v2": { "hang_ms": FOR_EVER } });
    })?;
    watch(&rig, Duration::from_millis(1500), |page, _| {
        check_fresh(page, 0, 40.0)?;
        check_fresh(page, 1, 60.0)
    })?;
    check_ends(rig)
}

/// After the hang, everything is back, and energy of the meantime is counted.
fn comes_back() -> Result<()> {
    let rig = two_busy()?;
    let before = threads(&rig.agent)?;
    hang(&rig, "nvmlDeviceGetPowerUsage", 2500)?;
    let first = uuid(0);
    rig.until_value("esnode_gpu_up", &[("uuid", &first)], 0.0)?;
    rig.put(
        0,
        json!({
            "calls": {},
            "utilization": { "gpu": 44, "memory": 1 },
            "energy_millijoules": 9_000_000,
        }),
    )?;
    let page = rig.until(|page| {
        check_fresh(page, 1, 60.0)?;
        check_value(
            page,
            "esnode_gpu_power_watts",
            &[("uuid", &first)],
            Some(70.0),
        )?;
        check_fresh(page, 0, 44.0)?;
        check_value(page, DEVICE_ENERGY, &[("uuid", &first)], Some(9000.0))
    })?;
    let gap = [("uuid", first.as_str()), ("reason", "gap")];
    ensure_eq!(
        energy(&page, super::support::NOBODYS_ENERGY, &gap),
        0,
        "gap"
    );
    check_value(&page, "esnode_gpu_reinitializations_total", &[], Some(0.0))?;
    check_threads(&rig, &before, 1)?;
    Ok(())
}

/// Two that hang, one after the other or at the same time, and the third goes on.
fn two_hang() -> Result<()> {
    for at_once in [false, true] {
        let rig = Rig::start_with(&[busy(0, 40), busy(1, 60), busy(2, 80)], &CALM)?;
        let before = threads(&rig.agent)?;
        let hang = json!({ "nvmlDeviceGetPowerUsage": { "hang_ms": FOR_EVER, "times": 1 } });
        let third = |page: &Page, _| check_fresh(page, 2, 80.0);
        rig.put(0, json!({ "calls": hang }))?;
        if !at_once {
            watch(&rig, Duration::from_millis(1300), third)?;
        }
        rig.put(1, json!({ "calls": hang }))?;
        let page = watch(&rig, Duration::from_millis(2500), third)?;
        for gpu in ["0", "1"] {
            check_value(&page, "esnode_gpu_up", &[("gpu", gpu)], Some(0.0))?;
        }
        check_threads(&rig, &before, 2)?;
        check_ends(rig)?;
    }
    Ok(())
}

/// The library is opened again for those that don't hang; the one that does joins them.
fn driver_lost_too() -> Result<()> {
    let rig = two_busy()?;
    let before = threads(&rig.agent)?;
    let begun = Instant::now();
    hang(&rig, "nvmlDeviceGetPowerUsage", 5000)?;
    let (first, second) = (uuid(0), uuid(1));
    rig.until_value("esnode_gpu_up", &[("uuid", &first)], 0.0)?;
    rig.change(|script| script["system"] = json!("UNINITIALIZED"))?;
    let page = rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
    check_value(&page, "esnode_gpu_up", &[("uuid", &second)], Some(0.0))?;
    rig.change(|script| {
        script["system"] = json!("SUCCESS");
        script["devices"][0]["calls"] = json!({});
        script["devices"][1]["utilization"]["gpu"] = json!(66);
    })?;
    let page = rig.until_value("esnode_gpu_up", &[("uuid", &second)], 1.0)?;
    ensure!(
        begun.elapsed() < Duration::from_millis(4800),
        "only after the hang"
    );
    check_fresh(&page, 1, 66.0)?;
    check_value(&page, "esnode_gpu_driver_up", &[], Some(1.0))?;
    check_only_counters(&page, &first)?;
    check_threads(&rig, &before, 1)?;
    rig.until(|page| {
        check_fresh(page, 1, 66.0)?;
        check_fresh(page, 0, 40.0)
    })?;
    check_threads(&rig, &before, 1)?;
    check_lines(&rig.agent, "XIDs", 0)?;
    // Both are waited for again.
    for (index, gpu) in ["0", "1"].into_iter().enumerate() {
        rig.put(index, json!({ "events": [{ "xid": 79, "id": 2 }] }))?;
        rig.until_value("esnode_gpu_xid_errors_total", &[("gpu", gpu)], 2.0)?;
    }
    Ok(())
}

/// One hangs, one is lost, and the third goes on.
fn another_lost_too() -> Result<()> {
    let rig = Rig::start_with(&[busy(0, 40), busy(1, 60), busy(2, 80)], &CALM)?;
    hang(&rig, "nvmlDeviceGetPowerUsage", FOR_EVER)?;
    rig.until_value("esnode_gpu_up", &[("gpu", "0")], 0.0)?;
    rig.put(1, json!({ "status": "GPU_IS_LOST" }))?;
    watch(&rig, Duration::from_millis(2500), |page, _| {
        check_fresh(page, 2, 80.0)
    })?;
    rig.put(1, json!({ "status": "SUCCESS" }))?;
    rig.until(|page| {
        check_fresh(page, 2, 80.0)?;
        check_fresh(page, 1, 60.0)
    })?;
    Ok(())
}

/// What a call says that hung since before the driver was lost, isn't true any more.
fn late_news() -> Result<()> {
    let rig = two_busy()?;
    let begun = Instant::now();
    let rule = json!({ "hang_ms": 3500, "times": 1, "error": "UNINITIALIZED" });
    rig.put(0, json!({ "status": "GPU_IS_LOST" }))?;
    rig.until_value("esnode_gpu_up", &[("gpu", "0")], 0.0)?;
    let calls = json!({ "nvmlDeviceGetHandleByIndex_v2": rule });
    rig.put(0, json!({ "status": "SUCCESS", "calls": calls }))?;
    // It's opened again for the first one, which hangs then.
    rig.until_value("esnode_gpu_reinitializations_total", &[], 1.0)?;
    rig.until(|page| check_fresh(page, 1, 60.0))?;
    rig.change(|script| {
        script["system"] = json!("UNINITIALIZED");
        script["devices"][0]["calls"] = json!({});
    })?;
    rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
    rig.change(|script| script["system"] = json!("SUCCESS"))?;
    let page = rig.until(|page| check_fresh(page, 1, 60.0))?;
    check_value(&page, "esnode_gpu_up", &[("gpu", "0")], Some(0.0))?;
    let opened = page.value("esnode_gpu_reinitializations_total", &[]);
    let rest = Duration::from_secs(6).saturating_sub(begun.elapsed());
    let page = watch(&rig, rest, |page, _| {
        check_fresh(page, 1, 60.0)?;
        check_value(page, "esnode_gpu_driver_up", &[], Some(1.0))
    })?;
    check_fresh(&page, 0, 40.0)?;
    check_value(&page, "esnode_gpu_reinitializations_total", &[], opened)
}

/// A GPU that hangs holds one thread, however often the library is opened again.
fn threads_stay() -> Result<()> {
    let rig = two_busy()?;
    let before = threads(&rig.agent)?;
    hang(&rig, "nvmlDeviceGetPowerUsage", FOR_EVER)?;
    rig.until_value("esnode_gpu_up", &[("gpu", "0")], 0.0)?;
    rig.put(0, json!({ "calls": {} }))?;
    for _ in 0..2 {
        rig.change(|script| script["system"] = json!("DRIVER_NOT_LOADED"))?;
        rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
        rig.change(|script| script["system"] = json!("SUCCESS"))?;
        rig.until_value("esnode_gpu_up", &[("gpu", "1")], 1.0)?;
        check_threads(&rig, &before, 1)?;
    }
    check_ends(rig)
}

/// The same for the thread that waits for events.
fn event_threads_stay() -> Result<()> {
    let rig = two_busy()?;
    let before = threads(&rig.agent)?;
    rig.change(|script| {
        script["calls"] = json!({ "nvmlEventSetWait_v2": { "hang_ms": FOR_EVER } });
    })?;
    let hanging = || thread::sleep(Duration::from_millis(500));
    hanging();
    for _ in 0..2 {
        rig.change(|script| script["system"] = json!("DRIVER_NOT_LOADED"))?;
        rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
        rig.change(|script| script["system"] = json!("SUCCESS"))?;
        rig.until_value("esnode_gpu_up", &[("gpu", "1")], 1.0)?;
        hanging();
    }
    check_threads(&rig, &before, 1)?;
    check_ends(rig)
}
