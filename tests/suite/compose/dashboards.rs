//! Every query of every dashboard and rule, on a real Prometheus that scrapes real agents: this host
//! under load with GPUs that a script makes, the same without BPF, and hosts that are made of files.

mod host;
mod load;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::fixture::folder;
use esnode_tests::prometheus::{Prometheus, Sample};
use esnode_tests::{skip, tools};
use serde_json::Value;

use self::host::ThisHost;
use self::load::Load;
use crate::Case;
use crate::check::{ensure_eq, within_grace};
use crate::disk::need_disk;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // It switches statistics of the kernel on, and looks at who is busiest.
        Case::alone("compose::dashboards::every_query_has_data", every_query),
    ]
}

/// How long Prometheus scrapes, once a second.
const SCRAPING: Duration = Duration::from_secs(20);

/// How much of that is looked at, in seconds: what was there when a window began is known then.
const LAST: &str = "12";

/// Hosts that are files, for hardware that this one may lack.
const FIXTURES: [&str; 3] = ["numa-server", "gpu-server", "arm64"];

/// What the first worker sends.
const SENT: &str = "esnode_process_network_transmit_bytes_total";

/// Metrics that can't be had here, each with the reason: they and the queries that take them have no
/// data.
const ABSENT: &[(&str, &str)] = &[(
    "esnode_bpf_missed_returns_total",
    "is of the rung `kprobe`, which this kernel does not need or does not have",
)];

fn every_query() -> Result<()> {
    let Some(xtask) = env::var_os("ESNODE_XTASK") else {
        skip!("needs ESNODE_XTASK, which `cargo xtask test` sets");
    };
    // A query that can't be read is asked of nobody.
    let checked = Command::new(&xtask).arg("dashboards").output()?;
    let said = String::from_utf8_lossy(&checked.stderr);
    ensure!(checked.status.success(), "{said}");
    tools::find("prometheus")?;
    need_bpf()?;
    need_disk()?;
    let fixtures = folder()?;
    let _statistics = host::Statistics::on()?;
    let mut load = Load::start()?;
    let mut this = ThisHost::start(&load)?;
    let mut agents = this.agents(&load)?;
    for name in FIXTURES {
        agents.push((name, host::of_files(&fixtures.join(name))?));
    }
    let docker = fixtures.join("../../docker");
    let prometheus = Prometheus::start("dashboards", &configuration(&agents, &docker)?)?;
    let start = Instant::now();
    while start.elapsed() < SCRAPING {
        load.go_on()?;
        this.go_on()?;
    }
    // Asking for everything takes a while, after which rates of the last seconds are those of rest.
    let end = SystemTime::now();
    let report = ask(xtask.as_ref(), &prometheus)?;
    check_complete(&report)?;
    check_own(&prometheus, &report, &load, end)
}

/// Scrapes all agents under the name of the job that the dashboards expect, and evaluates the rules
/// as often.
fn configuration(agents: &[(&str, Agent)], docker: &Path) -> Result<Vec<(String, String)>> {
    let mut targets = String::new();
    for (name, agent) in agents {
        let address = agent.address()?;
        write!(
            targets,
            "\n  - {{targets: ['{address}'], labels: {{instance: {name}}}}}"
        )?;
    }
    let mut files = Vec::new();
    let rules = docker.join("prometheus/rules");
    for entry in fs::read_dir(&rules).with_context(|| rules.display().to_string())? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        // Groups say how often they are evaluated on a real host.
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("interval:"));
        let name = path.file_name().context("a file")?.to_string_lossy();
        files.push((
            format!("rules-{name}"),
            lines.collect::<Vec<_>>().join("\n"),
        ));
    }
    ensure!(!files.is_empty(), "no rules in {}", rules.display());
    let configuration = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['rules-*']\n\
         scrape_configs:\n\
         - job_name: esnode-core\n  static_configs:{targets}\n"
    );
    files.push(("prometheus.yml".to_owned(), configuration));
    Ok(files)
}

/// What `cargo xtask dashboards` finds there.
fn ask(xtask: &Path, prometheus: &Prometheus) -> Result<Value> {
    let mut command = Command::new(xtask);
    command
        .args([
            "dashboards",
            "--json",
            "--last",
            LAST,
            "--scrape-interval",
            "1",
        ])
        .args(["--prometheus", &prometheus.url()])
        .stdin(Stdio::null());
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("xtask: {said}"))
}

/// Fails where a query has no data, or a metric isn't there, but for those of [`ABSENT`]; and where
/// one of these is there.
fn check_complete(report: &Value) -> Result<()> {
    let list = |key: &str| report.get(key).and_then(Value::as_array);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: BTreeSet<String> = BTreeSet::new();
    for empty in list("empty").context("no list of queries without data")? {
        let [place, query, why] = ["place", "query", "why"].map(|key| empty.get(key).map(text));
        found.insert(format!(
            "{}: {}: {}",
            place.unwrap_or_default(),
            why.unwrap_or_default(),
            query.unwrap_or_default()
        ));
    }
    for name in list("missing").context("no list of metrics that are missing")? {
        found.insert(text(name));
    }
    let mut wrong: Vec<String> = found
        .iter()
        .filter(|line| !ABSENT.iter().any(|(metric, _)| line.contains(metric)))
        .map(|line| format!("no data: {line}"))
        .collect();
    for (metric, reason) in ABSENT {
        if !found.contains(*metric) {
            wrong.push(format!(
                "{metric} is there, though it {reason}: take it off ABSENT"
            ));
        }
    }
    for name in list("undocumented").context("no list of undocumented metrics")? {
        wrong.push(format!("not in README.md: {name}"));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What the test itself caused is what the panels show.
fn check_own(prometheus: &Prometheus, report: &Value, load: &Load, end: SystemTime) -> Result<()> {
    let [worker, reader, _] = load.on_gpus().map(|pid| pid.to_string());
    let all = format!(
        "{SENT}{{instance=\"bpf\", protocol=\"udp\", pid=\"{worker}\"}} == {}",
        load.sent
    );
    within_grace(|| {
        let sent = prometheus.query(&all)?;
        ensure_eq!(
            sent.len(),
            1,
            "series of {} bytes that were sent",
            load.sent
        );
        Ok(())
    })?;
    for (metric, pid) in [
        (SENT, &worker),
        ("esnode_process_disk_read_bytes_total", &reader),
        ("esnode_process_gpu_energy_joules_total", &worker),
    ] {
        check_shown(prometheus, report, metric, pid, end)?;
    }
    Ok(())
}

/// A panel with a rate of this showed the process when the load ended, with more than nothing.
fn check_shown(
    prometheus: &Prometheus,
    report: &Value,
    metric: &str,
    pid: &str,
    end: SystemTime,
) -> Result<()> {
    let asked = report.get("answered").and_then(Value::as_array);
    let asked = asked.context("no list of queries with data")?;
    let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut tried = 0;
    for one in asked {
        let (Some(place), Some(query)) = (text(one, "place"), text(one, "query")) else {
            continue;
        };
        if !place.contains("workers.json: panel") || !query.contains(metric) {
            continue;
        }
        tried += 1;
        let series = prometheus.query_at(&query, end)?;
        let of_process = |one: &&Sample| one.label("pid") == Some(pid);
        if series.iter().filter(of_process).any(|one| one.value > 0.0) {
            return Ok(());
        }
    }
    bail!("none of {tried} queries of workers.json for {metric} shows process {pid}")
}
