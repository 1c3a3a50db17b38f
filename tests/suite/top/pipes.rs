//! `--once` and `--json`, and what is said where there is nothing to show.

use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::finish;
use serde_json::{Value, json};

use super::agent::{FakeAgent, Script, hostile, node};
use super::top;
use crate::Case;
use crate::check::ensure_eq;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("top::once", once),
        Case::new("top::once_is_sorted_and_filtered", once_sorted),
        Case::new("top::once_is_text_alone", once_plain),
        Case::new("top::json", data),
        Case::new("top::no_agent", no_agent),
        Case::new("top::another_server", another_server),
        Case::new("top::no_terminal", no_terminal),
    ]
}

fn run(url: &str, flags: &[&str]) -> Result<Output> {
    let mut command = top(url, flags)?;
    command.stdout(Stdio::piped());
    finish(command)
}

/// What it prints of an agent.
fn print(script: Script, flags: &[&str]) -> Result<String> {
    let agent = FakeAgent::start(script)?;
    let output = run(&agent.url(), flags)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure_eq!(output.status.code(), Some(0), "exit code with {errors}");
    ensure_eq!(agent.asked(), 2, "samples");
    Ok(String::from_utf8(output.stdout)?)
}

fn once() -> Result<()> {
    let text = print(node, &["--once"])?;
    for words in [
        "gpu-node-7",
        "POWER 6.5kW DISK read 2.0G/s write 0/s NET rx 0/s tx 3.0K/s",
        "60.0G/80.0G 60C 405/700W 1980MHz THERM",
        "108 serving vllm worker TP7 meta-llama/Llama-3.3-70B-Instruct 7 77 58.0G 307 10.0 5.0G \
         1.0M 0 2.0K 0 VLLM::Worker_TP7",
        "900 ada - - - 0.0 5.0G - - - - toolbox bash",
    ] {
        let mut lines = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        ensure!(
            lines.any(|line| line.contains(words)),
            "{words:?} is not in\n{text}"
        );
    }
    Ok(())
}

fn once_sorted() -> Result<()> {
    let text = print(
        node,
        &[
            "--once", "--sort", "pid", "--filter", "tp", "--width", "100",
        ],
    )?;
    let pids: Vec<u32> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .filter(|pid| *pid > 7)
        .collect();
    ensure_eq!(
        pids,
        (101..=108).collect::<Vec<_>>(),
        "processes in\n{text}"
    );
    ensure!(
        text.lines().all(|line| line.chars().count() <= 100),
        "wider than told:\n{text}"
    );
    Ok(())
}

fn once_plain() -> Result<()> {
    let text = print(hostile, &["--once"])?;
    ensure!(text.contains("EVIL") && text.contains("通义千问"), "{text}");
    let controls: Vec<_> = text
        .chars()
        .filter(|char| char.is_control() && *char != '\n')
        .collect();
    ensure_eq!(controls, [], "control characters");
    Ok(())
}

fn data() -> Result<()> {
    let text = print(
        node,
        &["--json", "--filter", "worker_tp", "--sort", "cpu-percent"],
    )?;
    let value: Value = serde_json::from_str(&text)?;
    for (place, expected) in [
        ("/interval_seconds", json!(2.0)),
        ("/node/hostname", json!("gpu-node-7")),
        ("/node/disk_read_bytes_per_second", json!(2_147_483_648.0)),
        ("/gpus/5/throttle_reasons/0", json!("sw_thermal_slowdown")),
        ("/processes/0/comm", json!("VLLM::Worker_TP0")),
        ("/processes/7/comm", json!("VLLM::Worker_TP7")),
    ] {
        ensure_eq!(value.pointer(place), Some(&expected), "{place}");
    }
    ensure_eq!(
        value.pointer("/processes/8"),
        None,
        "more processes than match"
    );
    let first = value.pointer("/processes/0").context("no processes")?;
    for (name, expected) in [
        ("pid", 101.0),
        ("cpu_percent", 80.0),
        ("gpu_percent", 70.0),
        ("watts", 300.0),
        ("gpu_watts", 300.0),
        ("disk_read_bytes_per_second", 1_048_576.0),
        ("network_receive_bytes_per_second", 2048.0),
        ("network_transmit_bytes_per_second", 0.0),
    ] {
        let seen = first
            .get(name)
            .and_then(Value::as_f64)
            .with_context(|| format!("no {name} in {first}"))?;
        ensure!((seen - expected).abs() < 1e-6, "{name} is {seen}");
    }
    ensure!(
        first.get("cpu_watts").is_none(),
        "what is not known is absent"
    );
    let text = print(hostile, &["--json"])?;
    let value: Value = serde_json::from_str(&text)?;
    ensure!(
        value
            .pointer("/node/hostname")
            .and_then(Value::as_str)
            .is_some_and(|name| name.starts_with('\u{1b}')),
        "the name is as it is"
    );
    ensure!(
        !text.contains(['\u{1b}', '\u{9b}', '\u{7}']),
        "control characters"
    );
    Ok(())
}

fn no_agent() -> Result<()> {
    // A port that was free a moment ago.
    let url = FakeAgent::start(node)?.url();
    for flag in ["--once", "--json"] {
        let output = run(&url, &[flag])?;
        ensure_eq!(output.status.code(), Some(1), "exit code of {flag}");
        let errors = String::from_utf8(output.stderr)?;
        for part in [url.as_str(), "refused", "is esnode-core running there"] {
            ensure!(errors.contains(part), "{part:?} is not in {errors:?}");
        }
        ensure!(output.stdout.is_empty(), "something is printed");
    }
    let output = run("https://localhost:9100", &["--once"])?;
    ensure_eq!(output.status.code(), Some(2), "exit code of https");
    ensure!(
        String::from_utf8(output.stderr)?.contains("http://HOST:PORT"),
        "no help"
    );
    Ok(())
}

/// What serves there is none of ours, or an old one.
fn another_server() -> Result<()> {
    let scripts: [(Script, &str); 2] = [
        (|_| Value::Null, "too old"),
        (|_| json!("hello"), "no snapshot of a node"),
    ];
    for (script, expected) in scripts {
        let agent = FakeAgent::start(script)?;
        let output = run(&agent.url(), &["--once"])?;
        ensure_eq!(output.status.code(), Some(1), "exit code");
        let errors = String::from_utf8(output.stderr)?;
        ensure!(
            errors.contains(expected),
            "{expected:?} is not in {errors:?}"
        );
    }
    Ok(())
}

fn no_terminal() -> Result<()> {
    let agent = FakeAgent::start(node)?;
    let output = run(&agent.url(), &[])?;
    ensure_eq!(output.status.code(), Some(2), "exit code");
    let errors = String::from_utf8(output.stderr)?;
    ensure!(
        errors.contains("--once") && errors.contains("--json"),
        "{errors:?}"
    );
    Ok(())
}
