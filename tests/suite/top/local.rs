//! What it reads of this host by itself.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::agent::{command, finish, need_bpf};
use esnode_tests::puppet::{Programs, Puppet};
use serde_json::Value;

use crate::Case;
use crate::check::ensure_eq;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("top::local", with_bpf),
        Case::new("top::local_without_bpf", without_bpf),
        Case::new("top::local_table", table),
    ]
}

/// A server that looks like vLLM's, and sends to itself what it is told to.
fn serve(folder: &str) -> Result<Puppet> {
    let programs = Programs::new(folder)?;
    let title = programs.get("vllm")?.to_string_lossy().into_owned();
    Puppet::start(&programs, "vllm", &title, &["serve", &model(folder)])
}

/// A model that no other test serves.
fn model(folder: &str) -> String {
    format!("org/model-of-{folder}")
}

fn run(folder: &str, flags: &[&str]) -> Result<String> {
    let mut command = command()?;
    command
        .args(["top", "--interval", "1s", "--filter", &model(folder)])
        .args(flags)
        .stdout(Stdio::piped());
    let output = finish(command)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure_eq!(output.status.code(), Some(0), "exit code with {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

fn worker(folder: &str, flags: &[&str], pid: u32) -> Result<Value> {
    let text = run(folder, &[&["--json"], flags].concat())?;
    let data: Value = serde_json::from_str(&text)?;
    let processes = data.get("processes").and_then(Value::as_array);
    let [worker] = processes.context("processes")?.as_slice() else {
        bail!("not one process in {text}");
    };
    ensure_eq!(id(worker, "pid")?, pid, "process id");
    Ok(worker.clone())
}

fn id(worker: &Value, name: &str) -> Result<u32> {
    let value = worker.get(name).and_then(Value::as_u64);
    let value = value.with_context(|| format!("no {name} in {worker}"))?;
    Ok(u32::try_from(value)?)
}

fn check_identity(folder: &str, worker: &Value, pid: u32) -> Result<()> {
    for (name, expected) in [
        ("engine", "vllm"),
        ("role", "server"),
        ("model", &model(folder)),
        ("comm", "vllm"),
    ] {
        let value = worker.get(name).and_then(Value::as_str);
        ensure_eq!(value, Some(expected), "{name}");
    }
    ensure_eq!(id(worker, "server_pid")?, pid, "server");
    Ok(())
}

fn with_bpf() -> Result<()> {
    need_bpf()?;
    let folder = "top-local-bpf";
    let server = serve(folder)?;
    let worker = worker(folder, &[], server.root.pid())?;
    check_identity(folder, &worker, server.root.pid())?;
    ensure!(worker.get("network").is_some(), "no traffic in {worker}");
    let cpu = worker.get("cpu_percent").and_then(Value::as_f64);
    let cpu = cpu.with_context(|| format!("no CPU in {worker}"))?;
    ensure!((0.0..50.0).contains(&cpu), "it waits, and takes {cpu} %");
    Ok(())
}

fn without_bpf() -> Result<()> {
    let folder = "top-local-proc";
    let server = serve(folder)?;
    let worker = worker(folder, &["--no-bpf"], server.root.pid())?;
    check_identity(folder, &worker, server.root.pid())
}

fn table() -> Result<()> {
    let folder = "top-local-table";
    let server = serve(folder)?;
    let text = run(folder, &["--once", "--width", "200"])?;
    let pid = server.root.pid().to_string();
    let row = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&pid.as_str()));
    let row = row.with_context(|| format!("{pid} is not in\n{text}"))?;
    ensure!(row.contains(&model(folder).as_str()), "{row:?}");
    Ok(())
}
