//! A process on a GPU beside all else that is known of it: its other series, and its group.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::need_bpf;
use esnode_tests::gpu::{FakeNvml, host};
use esnode_tests::tally::{Io, Protocol};
use esnode_tests::workload::{Name, Workload};
use nix::unistd::geteuid;
use serde_json::json;

use super::processes::check_engines;
use super::support::{Rig, check_value, gpu, process, put, workers};
use crate::Case;
use crate::check::{self, Calls, ensure_eq, group};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::joined::cpu_disk_network_and_gpu", side_by_side),
        Case::new("gpu::joined::shown_before_all_others", before_others),
        Case::new("gpu::joined::groups_add_up", groups_add_up),
    ]
}

const MEMORY: &str = "esnode_process_gpu_memory_used_bytes";
const UTILIZATION: &str = "esnode_process_gpu_utilization_percent";
const GROUP_MEMORY: &str = "esnode_group_gpu_memory_used_bytes";
const GROUP_UTILIZATION: &str = "esnode_group_gpu_utilization_percent";

/// CPU, disk, network and GPU on one process id.
fn side_by_side() -> Result<()> {
    let name = Name::new("beside")?;
    let file = name.file(".data");
    let (path, data) = (name.path.to_string_lossy(), file.to_string_lossy());
    let words = [
        "disk-exec",
        &data,
        "1048576",
        &path,
        "exec",
        "50000",
        &path,
        "--hold",
        "cpu",
        "200",
    ];
    // Before the agent, so that it counts from its start what the kernel hasn't counted for it.
    let with_bpf = need_bpf().is_ok();
    let fake = FakeNvml::new(&host(&[gpu(0, &[])]))?;
    let select = format!("^{}$", name.comm.replace('.', "\\."));
    let flags = [
        "--collectors",
        "gpu,process",
        "--gpu-interval",
        "100ms",
        "--select",
        &select,
    ];
    let rig = Rig::of(fake, host(&[gpu(0, &[])]), &flags)?;
    let workload = Workload::run(&name, &words)?;
    let pid = workload.pid();
    let mut entry = process(pid, 45);
    put(&mut entry, json!({ "memory": 7_007 }));
    rig.put(0, json!({ "processes": [entry], "energy_millijoules": 0 }))?;
    let pid = pid.to_string();
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    let sm = [&labels[..], &[("engine_type", "sm")]].concat();
    rig.until_value(UTILIZATION, &sm, 45.0)?;
    rig.put(0, json!({ "energy_millijoules": 100_000 }))?;
    let page = rig.until_value("esnode_process_gpu_energy_joules_total", &labels, 45.0)?;
    check_value(&page, MEMORY, &labels, Some(7_007.0))?;
    check_value(&page, "esnode_process_info", &labels, Some(1.0))?;
    let cpu = page
        .value("esnode_process_cpu_seconds_total", &labels)
        .unwrap_or(0.0);
    let truth = cpu_seconds(&pid)?;
    ensure!(
        truth > 0.0 && (cpu - truth).abs() < 0.05,
        "CPU time: {cpu} s, and {truth} s by /proc"
    );
    if geteuid().is_root() {
        let truth = Io::of(&pid)?;
        ensure!(truth.write_bytes >= 1_048_576, "it wrote {truth:?}");
        check::process(&page, &labels).check_io(truth)?;
    }
    if with_bpf {
        let sent = workload.report.total();
        ensure_eq!(
            sent.of(Protocol::Udp).transmit_bytes,
            50_000,
            "bytes that it sent"
        );
        check::process(&page, &labels).check_moved(&sent, Calls::Any)?;
    }
    workload.release()?;
    Ok(fs::remove_file(file)?)
}

/// User and system time of a process, of ended threads too, in whole ticks of 10 ms.
fn cpu_seconds(pid: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("no end of the name")?;
    let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<u32>);
    let ticks: Vec<_> = ticks.collect::<Result<_, _>>()?;
    Ok(f64::from(ticks.iter().sum::<u32>()) / 100.0)
}

/// However busy others are. More than the limit are not shown: see `selection`.
fn before_others() -> Result<()> {
    let [one, two, three] = workers(["idle", "idle", "idle"])?;
    let on_gpu = [&one, &two, &three].map(|(_, worker)| process(worker.pid(), 10));
    let busy = Name::new("busy")?;
    for limit in ["3", "4"] {
        let rig = Rig::start(&[gpu(0, &on_gpu)], &["--process-limit", limit])?;
        rig.next_sample()?;
        let others = [(); 3].map(|()| Workload::run(&busy, &["cpu", "60"]));
        let others: Vec<_> = others.into_iter().collect::<Result<_>>()?;
        let page = rig.next_sample()?;
        for (name, worker) in [&one, &two, &three] {
            let pid = worker.pid().to_string();
            let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
            check_value(&page, MEMORY, &labels, Some(1_073_741_824.0))?;
            check_engines(&page, &labels, [10.0, 0.0, 0.0, 0.0])?;
            for family in [
                "_info",
                "_cpu_seconds_total",
                "_resident_memory_bytes",
                "_threads",
            ] {
                let family = format!("esnode_process{family}");
                ensure!(
                    page.value(&family, &labels).is_some(),
                    "no {family} of {labels:?} at {limit}"
                );
            }
            if geteuid().is_root() {
                check::process(&page, &labels).check_io(Io::of(&pid)?)?;
            }
        }
        let shown = page.label_values("esnode_process_info", &[], "pid");
        ensure_eq!(shown.len().to_string(), limit, "processes with series");
        drop(others);
    }
    Ok(())
}

/// Two processes of one name, on two GPUs.
fn groups_add_up() -> Result<()> {
    let [(name, one)] = workers(["team"])?;
    let two = Workload::run(&name, &["idle"])?;
    let entry = |worker: &Workload, memory: u64, sm: u32| json!({ "pid": worker.pid(), "memory": memory, "sm": sm, "mem": 1, "enc": 2, "dec": 3 });
    let rig = Rig::start(
        &[
            gpu(0, &[entry(&one, 100, 30), entry(&two, 50, 25)]),
            gpu(1, &[entry(&two, 7, 60)]),
        ],
        &[],
    )?;
    let group_of = |gpu| [("group", name.comm.as_str()), ("gpu", gpu)];
    let page = rig.until(|page| {
        for (gpu, engines) in [("0", [55.0, 2.0, 4.0, 6.0]), ("1", [60.0, 1.0, 2.0, 3.0])] {
            for (engine, percent) in ["sm", "memory", "encoder", "decoder"]
                .into_iter()
                .zip(engines)
            {
                let labels = [&group_of(gpu)[..], &[("engine_type", engine)]].concat();
                check_value(page, GROUP_UTILIZATION, &labels, Some(percent))?;
            }
        }
        Ok(())
    })?;
    check_value(&page, GROUP_MEMORY, &group_of("0"), Some(150.0))?;
    check_value(&page, GROUP_MEMORY, &group_of("1"), Some(7.0))?;
    rig.put(0, json!({ "energy_millijoules": 10_000 }))?;
    let page = rig.until_value("esnode_group_gpu_energy_joules_total", &group_of("0"), 5.5)?;
    check_value(
        &page,
        "esnode_group_gpu_energy_joules_total",
        &group_of("1"),
        Some(0.0),
    )?;
    ensure_eq!(
        group(&page, &group_of("0")[..1]).number("_processes")?,
        2,
        "processes alive"
    );
    // Memory and use are those of who lives.
    two.release()?;
    rig.put(0, json!({ "processes": [entry(&one, 100, 30)] }))?;
    rig.put(1, json!({ "processes": [] }))?;
    let page = rig.until_value(GROUP_MEMORY, &group_of("0"), 100.0)?;
    check_value(
        &page,
        "esnode_group_gpu_energy_joules_total",
        &group_of("0"),
        Some(5.5),
    )?;
    Ok(())
}
