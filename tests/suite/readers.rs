//! Programs that read the page for a living.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::http;
use esnode_tests::tools;
use esnode_tests::workload::{Name, Workload};

use crate::Case;
use crate::check::{ensure_eq, within_grace};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("readers::promtool_finds_nothing", promtool),
        Case::new("readers::prometheus_scrapes_it", prometheus),
    ]
}

/// Prometheus' own checker takes the page and has nothing to say about it.
fn promtool() -> Result<()> {
    check_by_promtool(&*Agent::shared()?)
}

/// Has the page read by promtool, which must take it and find nothing to say about it.
pub(crate) fn check_by_promtool(agent: &Agent) -> Result<()> {
    let page = http::request(agent.address()?, "GET", "/metrics", &["Accept: text/plain"])?;
    let mut command = Command::new(tools::find("promtool")?);
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(&page.body)?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "promtool: {said}");
    Ok(())
}

/// A Prometheus that ends with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A real Prometheus finds the agent healthy and stores the value that a workload caused.
fn prometheus() -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("prom")?;
    let _workload = Workload::run(&name, &["move", "send", "udp4", "123000", "0"])?;
    let config = name.file(".yml");
    let target = agent.address()?;
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: esnode, static_configs: [{{targets: ['{target}']}}]}}]\n"
        ),
    )?;
    // Free at this moment; Prometheus can't tell which port it took by itself.
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let mut command = Command::new(tools::find("prometheus")?);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!(
        "--storage.tsdb.path={}",
        name.file(".tsdb").display()
    ));
    command
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=error");
    let server = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let server = Prometheus(server);
    let api = |path: &str| -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&http::get(address, path)?.body)?)
    };
    within_grace(|| {
        let targets = api("/api/v1/targets")?;
        let health = targets
            .pointer("/data/activeTargets/0/health")
            .and_then(serde_json::Value::as_str);
        ensure!(health == Some("up"), "the target isn't up: {targets}");
        Ok(())
    })?;
    let query = format!(
        "/api/v1/query?query=esnode_group_network_transmit_bytes_total%7Bgroup=%22{}%22,protocol=%22udp%22%7D",
        name.comm
    );
    within_grace(|| {
        let answer = api(&query)?;
        let value = answer
            .pointer("/data/result/0/value/1")
            .and_then(serde_json::Value::as_str);
        ensure_eq!(value, Some("123000"), "the value in {answer}");
        Ok(())
    })?;
    drop(server);
    Ok(())
}
