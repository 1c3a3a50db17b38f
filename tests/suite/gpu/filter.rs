//! Which GPUs are sampled: what `--gpu-devices` says, or the container runtime.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use esnode_tests::agent::{Agent, command};
use esnode_tests::gpu::{FakeNvml, device, host};
use esnode_tests::page::Page;
use serde_json::{Value, json};

use super::support::{QUICK, Rig, check_value};
use super::watch::check_lines;
use crate::Case;
use crate::check::ensure_eq;

/// The variable of NVIDIA's container runtime.
const VARIABLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// UUIDs of which some begin alike.
const UUIDS: [&str; 4] = [
    "GPU-aa000000",
    "GPU-ab000000",
    "GPU-b0000000",
    "GPU-c0000000",
];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::filter::by_index_and_uuid", by_flag),
        Case::new("gpu::filter::missing_is_told_by_name", missing),
        Case::new("gpu::filter::none_is_there", none_there),
        Case::new("gpu::filter::others_are_not_sampled", not_sampled),
        Case::new("gpu::filter::mig_devices", mig_devices),
        Case::new("gpu::filter::visible_devices", visible),
        Case::new("gpu::filter::no_visible_devices", none_visible),
        Case::new("gpu::filter::flag_before_variable", flag_wins),
        Case::new("gpu::filter::follows_the_uuid", after_a_reload),
    ]
}

fn four() -> Vec<Value> {
    let gpus = (0..).zip(UUIDS).map(|(index, uuid)| {
        let mut gpu = device(index);
        gpu["uuid"] = json!(uuid);
        gpu["utilization"]["gpu"] = json!(10 + index);
        gpu
    });
    gpus.collect()
}

/// Indices of the GPUs that have a series of this name.
fn indices<'a>(page: &'a Page, name: &str) -> Vec<&'a str> {
    let indices = page.label_values(name, &[], "gpu");
    indices.into_iter().collect()
}

/// Fails where others than these four of GPUs are sampled.
fn check_sampled(agent: &Agent, expected: &[&str]) -> Result<()> {
    let page = agent.page()?;
    let info = indices(&page, "esnode_gpu_info");
    ensure_eq!(info, expected, "GPUs on the page");
    let names = page
        .samples()
        .filter(|it| it.name.starts_with("esnode_gpu_"));
    let names: BTreeSet<_> = names.map(|sample| sample.name.as_str()).collect();
    for name in names {
        let of = indices(&page, name);
        ensure!(
            of.is_empty() || of == expected,
            "{name} is of {of:?}, not of {expected:?}"
        );
    }
    for index in expected {
        let number: u8 = index.parse()?;
        let labels = [("gpu", *index), ("uuid", UUIDS[usize::from(number)])];
        let value = Some(10.0 + f64::from(number));
        check_value(&page, "esnode_gpu_utilization_percent", &labels, value)?;
        check_value(&page, "esnode_gpu_up", &labels, Some(1.0))?;
    }
    let told = format!("GPU collector is on: {} of 4 GPUs", expected.len());
    check_lines(agent, &told, 1)?;
    Ok(())
}

/// An agent with this in the variable of the runtime.
fn start(fake: &FakeNvml, visible: Option<&str>, flags: &[&str]) -> Result<Agent> {
    let mut command = command()?;
    command
        .args(["--listen-address", "127.0.0.1:0"])
        .args(QUICK)
        .args(fake.flags())
        .args(flags)
        .envs(fake.env())
        .env_remove(VARIABLE);
    command.envs(visible.map(|visible| (VARIABLE, visible)));
    Agent::launch(command, 1)
}

fn by_flag() -> Result<()> {
    let fake = FakeNvml::new(&host(&four()))?;
    for (flags, expected) in [
        (&["--gpu-devices", "0"][..], &["0"][..]),
        (&["--gpu-devices", "3,1"], &["1", "3"]),
        (&["--gpu-devices", "1", "--gpu-devices", "3"], &["1", "3"]),
        (&["--gpu-devices", "GPU-b0000000"], &["2"]),
        (&["--gpu-devices", "GPU-c"], &["3"]),
        (&["--gpu-devices", "GPU-a"], &["0", "1"]),
        (&["--gpu-devices", "0,GPU-aa,GPU-b"], &["0", "2"]),
        (&[], &["0", "1", "2", "3"]),
    ] {
        let agent = start(&fake, None, flags)?;
        check_sampled(&agent, expected)?;
        check_lines(&agent, "there is no such GPU", 0)?;
    }
    Ok(())
}

fn missing() -> Result<()> {
    let mut cut = four();
    cut[0]["mig"] = json!([mig(1, "MIG-a")]);
    let fake = FakeNvml::new(&host(&cut))?;
    let agent = start(&fake, None, &["--gpu-devices", "2,9,GPU-d,MIG-z,7:0,0:5"])?;
    agent.page()?;
    for wanted in ["9", "GPU-d", "MIG-z", "7:0", "0:5"] {
        let told = format!("--gpu-devices {wanted}: there is no such GPU");
        check_lines(&agent, &told, 1)?;
    }
    check_lines(&agent, "there is no such GPU", 5)?;
    let page = agent.page()?;
    check_value(
        &page,
        "esnode_gpu_utilization_percent",
        &[("gpu", "2")],
        Some(12.0),
    )
}

/// Fails where the collector isn't off with these words, in one line.
fn check_off(agent: &Agent, words: &str) -> Result<()> {
    let page = agent.page()?;
    let of_gpus = page.samples().find(|sample| sample.name.contains("gpu"));
    ensure!(of_gpus.is_none(), "there is {of_gpus:?}");
    check_lines(agent, "GPU collector disabled: ", 1)?;
    let told = format!("GPU collector disabled: none of the 4 GPUs is among {words}");
    check_lines(agent, &told, 1)?;
    Ok(())
}

fn none_there() -> Result<()> {
    let fake = FakeNvml::new(&host(&four()))?;
    for wanted in ["9", "GPU-d", "9,GPU-d,MIG-x,7:1"] {
        let agent = start(&fake, None, &["--gpu-devices", wanted])?;
        check_off(&agent, &format!("--gpu-devices {wanted}"))?;
    }
    Ok(())
}

/// Of a GPU that nobody wants, nothing is read but who it is; its errors aren't counted, and it
/// may hang or be lost.
fn not_sampled() -> Result<()> {
    let mut gpus = four();
    for index in [0, 2, 3] {
        gpus[index]["calls"] = json!({
            "nvmlDeviceGetPowerUsage": { "hang_ms": 30_000 },
            "nvmlDeviceGetTotalEnergyConsumption": { "error": "GPU_IS_LOST" },
        });
    }
    let rig = Rig::start(&gpus, &["--gpu-devices", "1"])?;
    rig.change(|script| {
        for index in 0..4 {
            script["devices"][index]["events"] = json!([{ "xid": 79, "id": 1 }]);
        }
    })?;
    let errors = "esnode_gpu_xid_errors_total";
    rig.until_value(errors, &[("gpu", "1")], 1.0)?;
    let page = rig.next_sample()?;
    check_value(&page, errors, &[], Some(1.0))?;
    check_sampled(&rig.agent, &["1"])?;
    // What is read once by 30 s, and once in a set of events.
    for function in ["nvmlDeviceGetBAR1MemoryInfo", "nvmlDeviceRegisterEvents"] {
        let calls = rig.fake.calls()?.get(function).copied();
        ensure_eq!(calls, Some(1), "calls of {function}");
    }
    check_lines(&rig.agent, "is lost", 0)?;
    Ok(())
}

fn mig(instance: u32, uuid: &str) -> Value {
    json!({
        "gpu_instance": instance,
        "uuid": uuid,
        "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "memory": { "total": 1000 * instance, "used": instance, "free": 999 * instance },
    })
}

fn mig_devices() -> Result<()> {
    let mut gpus = four();
    gpus[0]["mig"] = json!([mig(1, "MIG-a"), null, mig(2, "MIG-b")]);
    gpus[1]["mig"] = json!([mig(7, "MIG-c")]);
    let fake = FakeNvml::new(&host(&gpus))?;
    for (wanted, gpus, parts) in [
        ("MIG-b", &["0"][..], &["MIG-b"][..]),
        ("0:2", &["0"], &["MIG-b"]),
        ("0:0,1:0", &["0", "1"], &["MIG-a", "MIG-c"]),
        ("MIG-a,MIG-c", &["0", "1"], &["MIG-a", "MIG-c"]),
        ("0", &["0"], &["MIG-a", "MIG-b"]),
        ("GPU-ab", &["1"], &["MIG-c"]),
        ("1:0,2", &["1", "2"], &["MIG-c"]),
    ] {
        let agent = start(&fake, None, &["--gpu-devices", wanted])?;
        let page = agent.page()?;
        ensure_eq!(indices(&page, "esnode_gpu_up"), gpus, "GPUs of {wanted}");
        let seen = page.label_values("esnode_mig_info", &[], "mig_uuid");
        ensure_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            parts,
            "parts of {wanted}"
        );
        let known = [("MIG-a", "1"), ("MIG-b", "2"), ("MIG-c", "7")];
        for (uuid, instance) in known {
            let there = parts.contains(&uuid);
            let labels = [("mig", instance), ("profile", "1g.10gb")];
            let used = there.then_some(instance.parse()?);
            check_value(&page, "esnode_gpu_memory_used_bytes", &labels, used)?;
        }
    }
    Ok(())
}

fn visible() -> Result<()> {
    let fake = FakeNvml::new(&host(&four()))?;
    let all = ["0", "1", "2", "3"];
    for (text, expected, complaints) in [
        ("all", &all[..], 0),
        ("void", &all, 0),
        ("", &all, 0),
        ("2", &["2"], 0),
        ("1,GPU-c", &["1", "3"], 0),
        // The runtime shows these only, and numbers them anew.
        ("4,5,6,7", &all, 0),
        ("GPU-1,GPU-2,GPU-3,GPU-4,GPU-5", &all, 0),
        ("first", &all, 1),
        ("0,,1", &["0", "1"], 0),
        // Parts of one GPU are no four GPUs.
        ("1:0,1:1,1:2,1:3", &["1"], 0),
        ("0,one", &all, 1),
    ] {
        let agent = start(&fake, Some(text), &[])?;
        check_sampled(&agent, expected)?;
        let told = format!("{VARIABLE}={text} is ignored");
        check_lines(&agent, &told, complaints)?;
        check_lines(&agent, VARIABLE, complaints)?;
    }
    Ok(())
}

fn none_visible() -> Result<()> {
    let fake = FakeNvml::new(&host(&four()))?;
    for text in ["none", "9", "GPU-d,MIG-x"] {
        let agent = start(&fake, Some(text), &[])?;
        check_off(&agent, &format!("{VARIABLE}={text}"))?;
    }
    Ok(())
}

fn flag_wins() -> Result<()> {
    let fake = FakeNvml::new(&host(&four()))?;
    for text in ["0", "none", "first"] {
        let agent = start(&fake, Some(text), &["--gpu-devices", "3"])?;
        check_sampled(&agent, &["3"])?;
        check_lines(&agent, VARIABLE, 0)?;
    }
    Ok(())
}

/// Who is wanted by UUID stays wanted where the driver numbers GPUs anew.
fn after_a_reload() -> Result<()> {
    let rig = Rig::start(&four(), &["--gpu-devices", "GPU-c"])?;
    rig.until_value("esnode_gpu_up", &[("gpu", "3")], 1.0)?;
    rig.change(|script| script["system"] = json!("UNINITIALIZED"))?;
    rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
    rig.change(|script| {
        script["system"] = json!("SUCCESS");
        if let Some(devices) = script["devices"].as_array_mut() {
            devices.reverse();
        }
    })?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let page = rig.agent.page()?;
        let labels = [("gpu", "0"), ("uuid", "GPU-c0000000")];
        let seen = check_value(&page, "esnode_gpu_utilization_percent", &labels, Some(13.0));
        if seen.is_ok() {
            ensure_eq!(indices(&page, "esnode_gpu_info"), ["0"], "GPUs");
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{seen:?}");
    }
}
