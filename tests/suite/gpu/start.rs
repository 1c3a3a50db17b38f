//! How the GPU collector starts; and where it can't, that it says so once, and nothing else
//! suffers.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent, finish};
use esnode_tests::gpu::{FakeNvml, device, host, uuid};
use esnode_tests::page::Page;
use esnode_tests::{skip, workload};
use serde_json::{Value, json};

use super::support::{QUICK, Rig, check_value, process};
use super::watch::{check_lines, watch};
use crate::Case;
use crate::check::ensure_eq;

/// What the log says before the reason.
const DISABLED: &str = "GPU collector disabled: ";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::start::no_library", no_library),
        Case::new("gpu::start::no_driver", no_driver),
        Case::new("gpu::start::no_device", no_device),
        Case::new("gpu::start::check_says_that_gpus_are_there", check_of_gpus),
        Case::new("gpu::start::slow_driver_holds_up_nobody", slow_driver),
        Case::new("gpu::start::check_of_a_driver_that_hangs", check_of_a_hang),
        Case::new("gpu::start::ends_while_a_call_hangs", end_in_a_hang),
        Case::new("gpu::start::disabled_loads_nothing", disabled),
        Case::new("gpu::start::the_same_without_bpf", without_bpf),
    ]
}

/// Names of the families that have to do with GPUs.
fn families(page: &Page) -> Vec<&str> {
    let names = page.families.iter().map(|family| family.name.as_str());
    names
        .filter(|name| name.contains("gpu") || name.contains("mig_"))
        .collect()
}

/// `check` with these collectors: what it says as JSON and as a table, and its exit code.
fn check(fake: Option<&FakeNvml>, flags: &[&str]) -> Result<(i32, Value, String)> {
    let run = |json: Option<&str>| -> Result<Output> {
        let mut command = agent::command()?;
        command.arg("check").args(json).args(flags);
        command.args(["--collectors", "cpu,gpu"]);
        if let Some(fake) = fake {
            command.args(fake.flags()).envs(fake.env());
        }
        command.stdout(Stdio::piped());
        finish(command)
    };
    let (json, table) = (run(Some("--json"))?, run(None)?);
    ensure_eq!(json.status.code(), table.status.code(), "exit codes");
    let code = json.status.code().context("ended by a signal")?;
    let table = String::from_utf8(table.stdout)?;
    Ok((code, serde_json::from_slice(&json.stdout)?, table))
}

/// Fails where `check` doesn't say this of the collector, for these words, in both its forms.
fn check_report(
    (code, json, table): &(i32, Value, String),
    state: &str,
    words: &str,
) -> Result<()> {
    let degraded = state == "missing";
    ensure_eq!(*code, if degraded { 3 } else { 0 }, "exit code of {table}");
    ensure_eq!(json["degraded"], json!(degraded), "degraded");
    let collectors = json["collectors"].as_array().context("no collectors")?;
    let gpu = collectors.iter().find(|it| it["collector"] == "gpu");
    let gpu = gpu.context("no gpu")?;
    ensure_eq!(gpu["state"], json!(state), "state of {gpu}");
    let row = table.lines().find(|line| line.starts_with("gpu "));
    let row = row.context("no row of gpu")?;
    let told = row.strip_prefix("gpu ").unwrap_or(row).trim_start();
    let Some(reason) = gpu["reason"].as_str() else {
        ensure_eq!(state, "ok", "{gpu} has no reason");
        ensure_eq!(told, state, "row");
        return Ok(());
    };
    ensure!(reason.contains(words), "{reason:?} doesn't say {words:?}");
    ensure_eq!(told, format!("{state}: {reason}"), "row");
    Ok(())
}

/// Fails where other collectors suffer.
fn check_others(page: &Page) -> Result<()> {
    for collector in ["cpu", "process"] {
        let labels = [("collector", collector)];
        check_value(page, "esnode_collector_success", &labels, Some(1.0))?;
    }
    let own = page.value("process_threads", &[]);
    ensure!(own.is_some(), "nothing about the agent");
    let groups = page.value("esnode_group_processes", &[]);
    ensure!(groups > Some(1.0), "processes in groups: {groups:?}");
    Ok(())
}

/// Fails where there is not one line with this reason, or anything of a GPU on the page.
fn check_off(agent: &Agent, words: &str) -> Result<()> {
    for _ in 0..2 {
        let page = agent.page()?;
        check_others(&page)?;
        ensure_eq!(families(&page), Vec::<&str>::new(), "families");
        let labels = [("collector", "gpu")];
        check_value(&page, "esnode_collector_success", &labels, None)?;
        // Some intervals later, nothing is added.
        thread::sleep(Duration::from_millis(300));
    }
    check_lines(agent, DISABLED, 1)?;
    let reason = format!("{DISABLED}{words}");
    check_lines(agent, &reason, 1)?;
    Ok(())
}

const FLAGS: [&str; 5] = [
    "--no-bpf",
    "--collectors",
    "cpu,gpu,process",
    "--gpu-interval",
    "100ms",
];

/// The C library, by where this program has it.
fn c_library() -> Result<String> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let paths = maps.lines().filter_map(|line| line.split(' ').next_back());
    let path = paths.into_iter().find(|path| path.contains("/libc.so"));
    match path {
        Some(path) => Ok(path.to_owned()),
        None => skip!("this program has no libc.so to take for NVML"),
    }
}

/// Whether the dynamic linker may find an NVML.
fn has_nvml() -> bool {
    [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/nvidia/lib64",
    ]
    .iter()
    .any(|folder| Path::new(folder).join("libnvidia-ml.so.1").exists())
}

/// No library, and no file that could be one: nothing is missing on such a host.
fn no_library() -> Result<()> {
    let text = workload::directory()?.join("no-library.so");
    fs::write(&text, "This is no library.\n")?;
    let text = text.to_string_lossy();
    let libc = c_library()?;
    let missing = "/nonexistent/libnvidia-ml.so";
    let mut cases = vec![
        (
            vec!["--nvml-library", missing],
            format!("no NVML: {missing}: "),
        ),
        (vec!["--nvml-library", &text], format!("no NVML: {text}: ")),
        (
            vec!["--nvml-library", &libc],
            format!("{libc} is not NVML: "),
        ),
    ];
    if !has_nvml() {
        cases.push((vec![], "no NVML: libnvidia-ml.so.1: ".to_owned()));
    }
    for (library, words) in cases {
        let agent = Agent::start(&[&FLAGS[..], &library].concat())?;
        check_off(&agent, &words)?;
        check_report(&check(None, &library)?, "off", &words)?;
        ensure_eq!(agent.stop()?.status.code(), Some(0), "exit code");
    }
    Ok(())
}

/// A library whose driver refuses: that is missing on such a host. It's there without a restart
/// of the agent once the driver is.
fn no_driver() -> Result<()> {
    for (code, words) in [
        ("DRIVER_NOT_LOADED", "driver is not loaded"),
        ("NO_PERMISSION", "permission"),
        ("LIB_RM_VERSION_MISMATCH", "version mismatch"),
    ] {
        let mut script = host(&[device(0)]);
        script["init"] = json!(code);
        let fake = FakeNvml::new(&script)?;
        check_report(&check(Some(&fake), &[])?, "missing", words)?;
        let rig = Rig::of(fake, script, &FLAGS)?;
        for _ in 0..5 {
            let page = rig.page()?;
            check_others(&page)?;
            let expected = ["esnode_gpu_driver_up", "esnode_gpu_reinitializations"];
            ensure_eq!(families(&page), expected, "families with {code}");
            check_value(&page, "esnode_gpu_driver_up", &[], Some(0.0))?;
            let labels = [("collector", "gpu")];
            check_value(&page, "esnode_collector_success", &labels, Some(0.0))?;
            thread::sleep(Duration::from_millis(100));
        }
        check_lines(&rig.agent, DISABLED, 1)?;
        let told = rig.agent.log.lines();
        let told = told.iter().find(|line| line.contains(DISABLED));
        ensure!(
            told.is_some_and(|line| line.contains(words) && line.contains("(to do: ")),
            "{code}: {told:?} doesn't say {words:?} and what to do"
        );
        rig.change(|script| {
            script["init"] = json!("SUCCESS");
            script["devices"][0]["utilization"]["gpu"] = json!(37);
        })?;
        let page = rig.until_value("esnode_gpu_utilization_percent", &[("gpu", "0")], 37.0)?;
        check_value(&page, "esnode_gpu_driver_up", &[], Some(1.0))?;
        check_value(&page, "esnode_gpu_up", &[("gpu", "0")], Some(1.0))?;
        check_value(&page, "esnode_gpu_reinitializations_total", &[], Some(0.0))?;
        let labels = [("collector", "gpu")];
        check_value(&page, "esnode_collector_success", &labels, Some(1.0))?;
        check_lines(&rig.agent, "GPU collector is on: 1 of 1 GPUs", 1)?;
        check_lines(&rig.agent, DISABLED, 1)?;
    }
    Ok(())
}

/// A driver without devices is in good order.
fn no_device() -> Result<()> {
    let script = host(&[]);
    let fake = FakeNvml::new(&script)?;
    let words = "the driver knows no GPU";
    check_report(&check(Some(&fake), &[])?, "off", words)?;
    check_off(&Rig::of(fake, script, &FLAGS)?.agent, words)
}

fn check_of_gpus() -> Result<()> {
    let fake = FakeNvml::new(&host(&[device(0), device(1)]))?;
    check_report(&check(Some(&fake), &[])?, "ok", "")
}

/// The start waits some time for GPUs, the page doesn't; they come when the driver answers.
fn slow_driver() -> Result<()> {
    let mut script = host(&[device(0)]);
    script["init_hang_ms"] = json!(4500);
    script["devices"][0]["utilization"]["gpu"] = json!(21);
    let fake = FakeNvml::new(&script)?;
    let begun = Instant::now();
    let rig = Rig::of(fake, script, &FLAGS)?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(4), "the start took {took:?}");
    let hanging = Duration::from_millis(4200).saturating_sub(took);
    watch(&rig, hanging, |page, since| {
        check_others(page)?;
        if since < hanging {
            check_value(page, "esnode_gpu_up", &[], None)?;
        }
        Ok(())
    })?;
    let page = rig.until_value("esnode_gpu_utilization_percent", &[("gpu", "0")], 21.0)?;
    check_value(&page, "esnode_gpu_up", &[("uuid", &uuid(0))], Some(1.0))?;
    check_lines(&rig.agent, DISABLED, 0)?;
    Ok(())
}

/// Nothing is known of GPUs, so that can't be well.
fn check_of_a_hang() -> Result<()> {
    let mut script = host(&[device(0)]);
    script["init_hang_ms"] = json!(30_000);
    let fake = FakeNvml::new(&script)?;
    let begun = Instant::now();
    let report = check(Some(&fake), &[])?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(8), "two checks took {took:?}");
    check_report(&report, "missing", "")
}

/// Neither a driver that hangs nor a device that does keeps the agent from ending.
fn end_in_a_hang() -> Result<()> {
    let mut opening = host(&[device(0)]);
    opening["init_hang_ms"] = json!(30_000);
    let mut sampling = host(&[device(0), device(1)]);
    sampling["devices"][0]["calls"] = json!({
        "nvmlDeviceGetPowerUsage": { "hang_ms": 30_000, "after": 1 },
    });
    for script in [opening, sampling] {
        let fake = FakeNvml::new(&script)?;
        let rig = Rig::of(fake, script, &QUICK)?;
        thread::sleep(Duration::from_millis(300));
        let log = std::sync::Arc::clone(&rig.agent.log);
        let ended = rig.agent.stop()?;
        ensure_eq!(ended.status.code(), Some(0), "exit code");
        ensure!(ended.took < Duration::from_secs(2), "took {:?}", ended.took);
        let last = log.lines().pop();
        ensure!(
            last.as_ref().is_some_and(|line| line.ends_with("Stopped")),
            "the last line is {last:?}"
        );
    }
    Ok(())
}

/// Nobody loads a library that nobody wants.
fn disabled() -> Result<()> {
    for flags in [
        &["--no-bpf", "--disable-collector", "gpu"][..],
        &["--no-bpf", "--collectors", "cpu,process"],
    ] {
        let fake = FakeNvml::new(&host(&[device(0)]))?;
        let agent = fake.start(flags)?;
        thread::sleep(Duration::from_millis(200));
        let page = agent.page()?;
        check_others(&page)?;
        ensure_eq!(families(&page), Vec::<&str>::new(), "families");
        let labels = [("collector", "gpu")];
        check_value(&page, "esnode_collector_success", &labels, None)?;
        let maps = fs::read_to_string(format!("/proc/{}/maps", agent.pid()))?;
        ensure!(!maps.contains("nvml"), "the library is loaded: {maps}");
        let calls = fake.calls()?;
        ensure!(calls.is_empty(), "calls: {calls:?}");
        check_lines(&agent, "GPU", 0)?;
    }
    Ok(())
}

/// What is known of GPUs doesn't come from BPF.
fn without_bpf() -> Result<()> {
    let pid = std::process::id();
    let mut gpu = device(0);
    gpu["utilization"] = json!({ "gpu": 55, "memory": 12 });
    gpu["energy_millijoules"] = json!(123_456);
    gpu["processes"] = json!([process(pid, 0)]);
    let series = |flags: &[&str]| -> Result<Vec<String>> {
        let flags = [&["--collectors", "gpu,process"], flags].concat();
        let rig = Rig::start_with(std::slice::from_ref(&gpu), &flags)?;
        let pid = pid.to_string();
        // That a process did nothing is known after some time.
        let page = rig.until(|page| {
            let samples = page.samples();
            let of_process = samples.filter(|it| it.has(&[("pid", &pid), ("gpu", "0")]));
            ensure_eq!(of_process.count(), 6, "memory, 4 engines, energy");
            Ok(())
        })?;
        let samples = page.samples().filter(|sample| {
            sample.name.contains("_gpu_") && !sample.name.contains("_gpu_sample_")
        });
        Ok(samples.map(|sample| format!("{sample:?}")).collect())
    };
    let with = series(&[])?;
    let without = series(&["--no-bpf"])?;
    ensure_eq!(without, with, "series");
    Ok(())
}
