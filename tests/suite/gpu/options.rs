//! Flags and variables on GPUs, and the rights that sampling them has.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent, finish, run};
use esnode_tests::gpu::{FakeNvml, device, host, uuid};
use esnode_tests::skip;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::support::{Rig, check_value};
use crate::Case;
use crate::check::{ensure_eq, within_grace};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::options::wrong_usage", wrong_usage),
        Case::new("gpu::options::help", help),
        Case::new("gpu::options::variables", variables),
        Case::new("gpu::options::wrong_variables", wrong_variables),
        Case::new("gpu::options::intervals", intervals),
        Case::new("gpu::options::threads_keep_few_privileges", privileges),
    ]
}

const WRONG: [(&str, &str, &str); 14] = [
    ("gpu-interval", "1", "a duration such as"),
    ("gpu-interval", "99ms", "100ms to 5s"),
    ("gpu-interval", "5001ms", "100ms to 5s"),
    ("gpu-interval", "0s", "100ms to 5s"),
    ("gpu-interval", "-1s", "a duration such as"),
    ("gpu-interval", "", "a duration such as"),
    ("gpu-slow-interval", "99ms", "100ms to 1h"),
    ("gpu-slow-interval", "2h", "100ms to 1h"),
    ("gpu-slow-interval", "slowly", "a duration such as"),
    ("gpu-devices", "first", "an index such as 0"),
    ("gpu-devices", "-1", "an index such as 0"),
    ("gpu-devices", "0,GPU-", "an index such as 0"),
    ("gpu-devices", "0:1:2", "an index such as 0"),
    ("gpu-devices", "4294967296", "an index such as 0"),
];

/// Fails where the agent didn't end for wrong usage, with these words.
fn check_refused(output: &std::process::Output, what: &str, words: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure_eq!(output.status.code(), Some(2), "exit code of {what}: {text}");
    ensure!(output.stdout.is_empty(), "{what} writes to stdout");
    for words in words {
        ensure!(text.contains(words), "{what}: no {words:?} in {text:?}");
    }
    Ok(())
}

fn wrong_usage() -> Result<()> {
    for (flag, value, words) in WRONG {
        for command in [None, Some("check")] {
            let argument = format!("--{flag}={value}");
            let mut arguments: Vec<_> = command.into_iter().collect();
            arguments.push(&argument);
            let named = format!("--{flag}");
            check_refused(&run(&arguments)?, &argument, &[words, &named])?;
        }
    }
    for flag in ["--nvml-library", "--gpu-devices", "--gpu-interval"] {
        check_refused(&run(&[flag])?, flag, &["a value is required", flag])?;
    }
    // What is for the page only isn't for `check`.
    check_refused(
        &run(&["check", "--dcgm-names"])?,
        "check",
        &["--dcgm-names"],
    )
}

fn help() -> Result<()> {
    for (command, flags) in [
        (&["--help"][..], 5),
        // It has no page.
        (&["check", "--help"], 4),
    ] {
        let output = run(command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let known = [
            "gpu-interval",
            "gpu-slow-interval",
            "gpu-devices",
            "nvml-library",
            "dcgm-names",
        ];
        for flag in known.into_iter().take(flags) {
            let variable = format!("ESNODE_{}", flag.to_uppercase().replace('-', "_"));
            for words in [format!("--{flag}"), variable] {
                ensure!(text.contains(&words), "no {words} in {text}");
            }
        }
    }
    Ok(())
}

/// An agent whose flags are all in the environment.
fn by_variables(fake: &FakeNvml, variables: &[(&str, &str)]) -> Result<std::process::Command> {
    let mut command = agent::command()?;
    command
        .env("ESNODE_LISTEN_ADDRESS", "127.0.0.1:0")
        .env("ESNODE_NO_BPF", "true")
        .env("ESNODE_COLLECTORS", "gpu")
        .env("ESNODE_NVML_LIBRARY", fake.library())
        .envs(fake.env());
    command.envs(variables.iter().copied());
    Ok(command)
}

fn variables() -> Result<()> {
    let mut script = host(&[device(0), device(1), device(2)]);
    let fake = FakeNvml::new(&script)?;
    let two = uuid(2);
    let devices = format!("1,{two}");
    let command = by_variables(
        &fake,
        &[
            ("ESNODE_GPU_INTERVAL", "100ms"),
            ("ESNODE_GPU_SLOW_INTERVAL", "100ms"),
            ("ESNODE_GPU_DEVICES", &devices),
        ],
    )?;
    let agent = Agent::launch(command, 1)?;
    let page = agent.page()?;
    let seen = page.label_values("esnode_gpu_up", &[], "uuid");
    ensure_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [uuid(1), two],
        "GPUs of {devices}"
    );
    // By default, the one would come in 1 s and the other in 30 s.
    script["devices"][1]["utilization"]["gpu"] = json!(61);
    script["devices"][1]["power_limit_milliwatts"] = json!(456_000);
    fake.set(&script)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let page = agent.page()?;
        let labels = [("gpu", "1")];
        let seen = check_value(&page, "esnode_gpu_utilization_percent", &labels, Some(61.0))
            .and_then(|()| {
                check_value(&page, "esnode_gpu_power_limit_watts", &labels, Some(456.0))
            });
        if seen.is_ok() || Instant::now() > deadline {
            return seen;
        }
    }
}

fn wrong_variables() -> Result<()> {
    for (flag, value, words) in WRONG.into_iter().filter(|(_, value, _)| !value.is_empty()) {
        let fake = FakeNvml::new(&host(&[device(0)]))?;
        let variable = format!("ESNODE_{}", flag.to_uppercase().replace('-', "_"));
        let output = finish(by_variables(&fake, &[(&variable, value)])?)?;
        check_refused(&output, &format!("{variable}={value}"), &[words])?;
        ensure!(fake.calls()?.is_empty(), "the library was asked");
    }
    Ok(())
}

/// How often the driver is asked is what the flags say, whoever reads the page.
fn intervals() -> Result<()> {
    let flags = [
        "--no-bpf",
        "--collectors",
        "gpu",
        "--gpu-interval",
        "250ms",
        "--gpu-slow-interval",
        "1s",
    ];
    let rig = Rig::start_with(&[device(0)], &flags)?;
    rig.next_sample()?;
    let count = || -> Result<[u64; 2]> {
        let calls = rig.fake.calls()?;
        let names = ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetBAR1MemoryInfo"];
        Ok(names.map(|name| calls.get(name).copied().unwrap_or(0)))
    };
    let (begun, before) = (Instant::now(), count()?);
    while begun.elapsed() < Duration::from_secs(3) {
        rig.page()?;
    }
    let after = count()?;
    let [fast, slow] = [after[0] - before[0], after[1] - before[1]];
    // A machine that is busy may be late, never early.
    ensure!((6..=13).contains(&fast), "{fast} samples in 3 s, not 12");
    ensure!((2..=4).contains(&slow), "{slow} slow ones in 3 s, not 3");
    Ok(())
}

/// By the numbers of `linux/capability.h`.
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;

/// What a thread may do, by the fields of its status.
fn rights(status: &str) -> Result<BTreeMap<&str, u64>> {
    let mut rights = BTreeMap::new();
    for line in status.lines() {
        let (name, value) = line.split_once(":\t").unwrap_or_default();
        if name.starts_with("Cap") || name == "NoNewPrivs" {
            let value = u64::from_str_radix(value, 16);
            rights.insert(name, value.with_context(|| line.to_owned())?);
        }
    }
    Ok(rights)
}

/// The README: `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH`, of what there was, and `no_new_privs`;
/// what BPF and other namespaces need is for other threads. What the driver gives to administrators
/// is permitted to the thread that starts others, and in effect in the one that samples where there
/// is any of it.
fn privileges() -> Result<()> {
    if !geteuid().is_root() {
        skip!("needs root, for privileges to give up");
    }
    keeps(&[device(0), device(1)], 0)?;
    let mut counting = device(1);
    counting["gpm"] = json!({ "2": 50.0 });
    keeps(&[device(0), counting], CAP_SYS_ADMIN | CAP_PERFMON)
}

/// Checks the rights of an agent with these devices, whose thread that samples has `more`.
fn keeps(devices: &[Value], more: u64) -> Result<()> {
    let fake = FakeNvml::new(&host(devices))?;
    let mut command = agent::command()?;
    command
        .args(["--listen-address", "127.0.0.1:0", "--collectors", "gpu"])
        .args(fake.flags());
    // Without its counts of calls, the library starts no thread.
    command.envs(fake.env().into_iter().take(1));
    let agent = Agent::launch(command, 1)?;
    let own = fs::read_to_string("/proc/self/status")?;
    let permitted = *rights(&own)?.get("CapPrm").context("no CapPrm")?;
    let kept = permitted & (CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH);
    let bounding = *rights(&own)?.get("CapBnd").context("no CapBnd")?;
    // A thread gives itself its name.
    let driver = permitted & (CAP_SYS_ADMIN | CAP_PERFMON);
    let more = permitted & more;
    within_grace(|| check_rights(&agent, (kept, driver, more), bounding))
}

/// Fails where a thread may do anything else, or there are not these.
fn check_rights(agent: &Agent, (kept, driver, more): (u64, u64, u64), bounding: u64) -> Result<()> {
    let mut names = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        let folder = thread?.path();
        let name = fs::read_to_string(folder.join("comm"))?
            .trim_end()
            .to_owned();
        let status = fs::read_to_string(folder.join("status"))?;
        let (permitted, effective) = match name.as_str() {
            "gpu" => (kept | driver, kept),
            "gpu-sampler" => (kept | more, kept | more),
            _ => (kept, kept),
        };
        let expected = [
            ("CapInh", 0),
            ("CapPrm", permitted),
            ("CapEff", effective),
            ("CapBnd", bounding),
            ("CapAmb", 0),
            ("NoNewPrivs", 1),
        ];
        let expected = BTreeMap::from(expected);
        ensure_eq!(rights(&status)?, expected, "rights of the thread {name}");
        names.push(name);
    }
    for thread in ["gpu", "gpu-events", "gpu-sampler"] {
        let count = names.iter().filter(|name| *name == thread).count();
        ensure_eq!(count, 1, "threads {thread} among {names:?}");
    }
    Ok(())
}
