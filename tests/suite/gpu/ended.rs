//! The energy of workers that end: what they used stays, and nobody else gets it.

use anyhow::{Result, ensure};
use esnode_tests::page::Page;
use esnode_tests::workload::{Name, Workload};
use serde_json::json;

use super::energy::{UTILIZATION, of_group, of_nobody, of_process, settled, use_energy};
use super::support::{PROCESS_ENERGY, Rig, SELDOM, check_value, gpu, process, workers};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::ended::killed_worker", killed),
        Case::new("gpu::ended::in_the_interval", ended_in_interval),
        Case::new("gpu::ended::reused_pid", reused_pid),
    ]
}

/// A worker is killed: its series go, and its group keeps what it used.
fn killed() -> Result<()> {
    let [(name, one), (_, two)] = workers(["victim", "other"])?;
    let both = [process(one.pid(), 50), process(two.pid(), 20)];
    let rig = Rig::start(&[gpu(0, &both)], &[])?;
    settled(&rig, &[(&one, 50.0), (&two, 20.0)])?;
    let page = use_energy(&rig, 0, 10_000)?;
    ensure_eq!(of_process(&page, &one), 5_000_000, "µJ of the victim");
    let pid = one.pid().to_string();
    // SIGKILL, as kill -9.
    drop(one);
    rig.put(0, json!({ "processes": [process(two.pid(), 20)] }))?;
    let page = rig.until(|page| {
        let left = page.samples().find(|sample| sample.has(&[("pid", &pid)]));
        ensure!(left.is_none(), "it's killed, and has {left:?}");
        check_value(page, "esnode_gpu_processes", &[], Some(1.0))
    })?;
    ensure_eq!(of_group(&page, &name), 5_000_000, "µJ of its group");
    check_value(
        &page,
        "esnode_group_gpu_memory_used_bytes",
        &[("group", &name.comm)],
        Some(0.0),
    )?;
    let page = use_energy(&rig, 0, 20_000)?;
    ensure_eq!(of_group(&page, &name), 5_000_000, "µJ of its group, later");
    ensure_eq!(of_process(&page, &two), 4_000_000, "µJ of the other");
    ensure_eq!(of_nobody(&page, "idle"), 11_000_000, "µJ of nobody");
    // Another worker of that name adds to its group.
    let again = Workload::run(&name, &["idle"])?;
    rig.put(0, json!({ "processes": [process(again.pid(), 30)] }))?;
    settled(&rig, &[(&again, 30.0)])?;
    let page = use_energy(&rig, 0, 30_000)?;
    ensure_eq!(
        of_process(&page, &again),
        3_000_000,
        "µJ of the next worker"
    );
    ensure_eq!(of_group(&page, &name), 8_000_000, "µJ of both workers");
    Ok(())
}

/// Samples of a worker that has ended since the last look are its group's; in the driver's list,
/// it's unknown.
fn ended_in_interval() -> Result<()> {
    let [(name, worker)] = workers(["ending"])?;
    let rig = Rig::start_with(&[gpu(0, &[process(worker.pid(), 50)])], &SELDOM)?;
    settled(&rig, &[(&worker, 50.0)])?;
    // Now it's some time to the next sample.
    drop(worker);
    let page = use_energy(&rig, 0, 4_000)?;
    ensure_eq!(
        of_group(&page, &name),
        2_000_000,
        "µJ of the interval in which it ended"
    );
    let page = use_energy(&rig, 0, 8_000)?;
    ensure_eq!(of_group(&page, &name), 2_000_000, "µJ of its group");
    ensure_eq!(
        of_nobody(&page, "unknown_process"),
        2_000_000,
        "µJ of whom the driver still names"
    );
    Ok(())
}

/// The kernel gives the id of an ended worker to another one: what was used when it changed is
/// nobody's, and the new one begins with nothing.
fn reused_pid() -> Result<()> {
    let name = Name::new("reuse")?;
    let mut family = Workload::start(&name, &["same-pid", "10", "10"])?;
    family.wait_for("at first")?;
    let pid = u32::try_from(family.report.fact("pid")?)?;
    let text = pid.to_string();
    let labels = [("pid", text.as_str()), ("comm", &name.comm)];
    let rig = Rig::start_with(&[gpu(0, &[process(pid, 50)])], &SELDOM)?;
    let sm = [&labels[..], &[("engine_type", "sm")]].concat();
    rig.until_value(UTILIZATION, &sm, 50.0)?;
    let page = use_energy(&rig, 0, 10_000)?;
    check_value(&page, PROCESS_ENERGY, &labels, Some(5.0))?;
    let start_times = |page: &Page| {
        let times = page.label_values("esnode_process_info", &labels, "start_time");
        times.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = start_times(&page);
    // Now it's some time to the next sample.
    family.go_on()?;
    family.wait_for("at second")?;
    let page = use_energy(&rig, 0, 20_000)?;
    ensure!(
        start_times(&page) != first,
        "the same start time, {first:?}"
    );
    check_value(&page, PROCESS_ENERGY, &labels, Some(0.0))?;
    check_value(&page, UTILIZATION, &sm, None)?;
    ensure_eq!(
        of_nobody(&page, "reused_pid"),
        5_000_000,
        "µJ of the interval of the change"
    );
    ensure_eq!(of_group(&page, &name), 5_000_000, "µJ of the group");
    rig.until_value(UTILIZATION, &sm, 50.0)?;
    let page = use_energy(&rig, 0, 24_000)?;
    check_value(&page, PROCESS_ENERGY, &labels, Some(2.0))?;
    ensure_eq!(of_group(&page, &name), 7_000_000, "µJ of both");
    ensure_eq!(
        of_nobody(&page, "reused_pid"),
        5_000_000,
        "µJ of the interval of the change"
    );
    family.go_on()?;
    family.release()?;
    Ok(())
}
