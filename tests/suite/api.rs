//! `/api/v1/processes`: what it says, next to the page before and after.

mod compare;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::gpu::{FakeNvml, device, host, uuid};
use esnode_tests::http;
use esnode_tests::workload::{self, Name, Workload};
use serde_json::{Value, json};

use crate::Case;
use crate::check::ensure_eq;
use compare::{Between, member};

const PATH: &str = "/api/v1/processes";

/// How long something may take that is to come by itself.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("api::the_table_is_the_page", table_is_page),
        Case::new("api::the_table_is_the_page_without_bpf", without_bpf),
        Case::new("api::what_a_process_moved", moved),
        Case::new("api::one_collector_alone", one_alone),
        Case::new("api::gpus_and_who_uses_them", gpus),
        Case::new("api::how_it_answers", answers),
        Case::new("api::it_is_no_scrape", no_scrape),
        Case::new("api::many_at_once", many_at_once),
    ]
}

/// Reads the table.
fn table(agent: &Agent) -> Result<Value> {
    let answer = http::get(agent.address()?, PATH)?;
    ensure_eq!(answer.status, 200, "{PATH}");
    ensure_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "content type"
    );
    serde_json::from_str(answer.text()?).context("not JSON")
}

/// The table, and the page before and after.
fn between(agent: &Agent) -> Result<Between> {
    Ok(Between {
        before: agent.page()?,
        table: table(agent)?,
        after: agent.page()?,
    })
}

/// The row of this process.
fn row(table: &Value, pid: u32) -> Result<&Value> {
    let rows = member(table, "processes")?.as_array();
    let mut rows = rows.context("processes aren't a list")?.iter();
    rows.find(|row| row.get("pid") == Some(&json!(pid)))
        .with_context(|| format!("no row of {pid}"))
}

fn table_is_page() -> Result<()> {
    let agent = Agent::shared()?;
    let name = Name::new("table")?;
    let worker = Workload::run(&name, &["move", "send", "tcp4", "70000", "50000"])?;
    let seen = between(&agent)?;
    seen.check_node()?;
    seen.check_processes()?;
    row(&seen.table, worker.pid())?;
    Ok(())
}

/// As far as it's known from `/proc`.
fn without_bpf() -> Result<()> {
    let select = workload::select_all();
    let agent = Agent::start(&["--no-bpf", "--select", &select])?;
    let name = Name::new("nobpf")?;
    let file = name.file(".data");
    let file = file.to_str().context("not UTF-8")?;
    let worker = Workload::run(&name, &["disk", "write", file, "1000000"])?;
    let seen = between(&agent)?;
    seen.check_node()?;
    seen.check_processes()?;
    let row = row(&seen.table, worker.pid())?;
    ensure_eq!(member(row, "comm")?, &json!(name.comm), "command name");
    ensure!(row.get("engine").is_none(), "an engine: {row}");
    let written = member(row, "disk_write_bytes_total")?.as_u64();
    ensure!(written >= Some(1_000_000), "wrote {written:?}: {row}");
    Ok(())
}

/// By BPF, all of it is known, from the outside.
fn moved() -> Result<()> {
    need_bpf()?;
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("moved")?;
    let worker = Workload::run(&name, &["move", "send", "udp4", "7000", "3000"])?;
    let table = table(&agent)?;
    let row = row(&table, worker.pid())?;
    for (field, expected) in [
        ("pid", json!(worker.pid())),
        ("parent_pid", json!(std::process::id())),
        ("comm", json!(name.comm)),
        ("group", json!(name.comm)),
        (
            "network",
            json!({ "udp": { "receive_bytes_total": 3000, "transmit_bytes_total": 7000 } }),
        ),
        ("gpus", json!([])),
    ] {
        ensure_eq!(member(row, field)?, &expected, "{field}");
    }
    Ok(())
}

/// What no collector reads is absent; lists are empty.
fn one_alone() -> Result<()> {
    for (collector, fields) in [
        ("cpu", &["cores", "cpu_usage_percent"][..]),
        ("load", &["cpu_load_avg"]),
        (
            "memory",
            &[
                "memory_available_bytes",
                "memory_total_bytes",
                "swap_total_bytes",
                "swap_used_bytes",
            ],
        ),
        ("node", &["hostname", "uptime_seconds"]),
        ("disk", &[]),
        ("network", &[]),
        ("pressure", &[]),
        ("process", &[]),
    ] {
        let agent = Agent::start(&["--no-bpf", "--collectors", collector])?;
        // Usage takes some time to be known.
        let deadline = Instant::now() + PATIENCE;
        let table = loop {
            let table = table(&agent)?;
            let unknown = member(&table, "node")?.get("cpu_usage_percent").is_none();
            if collector != "cpu" || !unknown || Instant::now() > deadline {
                break table;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let node = member(&table, "node")?.as_object();
        let known = node.context("the node isn't an object")?.iter();
        let known: Vec<_> = known
            .filter(|(_, value)| !value.is_array() || is_load(value))
            .collect();
        ensure_eq!(
            known
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            fields,
            "known by {collector}: {table}"
        );
        let of_process = collector == "process";
        let rows = member(&table, "processes")?.as_array().map(Vec::len);
        ensure_eq!(rows > Some(0), of_process, "processes by {collector}");
        let beyond = table.get("processes_not_selected").is_some();
        ensure_eq!(beyond, of_process, "processes beyond by {collector}");
        let interfaces = table.pointer("/node/interfaces").and_then(Value::as_array);
        let interfaces = interfaces.context("no list of interfaces")?.len();
        ensure_eq!(
            interfaces > 0,
            collector == "network",
            "{interfaces} by {collector}"
        );
    }
    Ok(())
}

fn is_load(value: &Value) -> bool {
    let numbers = value.as_array();
    numbers.is_some_and(|list| list.len() == 3 && list.iter().all(Value::is_number))
}

/// The object with these fields in place of its own.
fn with(mut object: Value, fields: Value) -> Value {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    object
}

/// A GPU with all there is, and one that lacks much.
fn gpus() -> Result<()> {
    let name = Name::new("ongpu")?;
    let worker = Workload::run(&name, &["idle"])?;
    let full = with(
        device(0),
        json!({
            "memory": { "total": 4000, "used": 1000, "free": 2500, "reserved": 500 },
            "utilization": { "gpu": 65, "memory": 7 },
            "throttle": 4,
            "power_milliwatts": 123_456,
            "processes": [{ "pid": worker.pid(), "memory": 640, "sm": 30, "mem": 31 }],
            "sample_period_ms": 60,
        }),
    );
    let mut poor = device(1);
    let fields = poor.as_object_mut().context("a device is an object")?;
    for field in [
        "name",
        "fans",
        "temperature",
        "power_milliwatts",
        "throttle",
    ] {
        fields.remove(field);
    }
    let fake = FakeNvml::new(&host(&[full, poor]))?;
    let agent = fake.start(&[
        "--no-bpf",
        "--collectors",
        "gpu,process",
        "--gpu-interval",
        "100ms",
    ])?;
    let deadline = Instant::now() + PATIENCE;
    let first = uuid(0);
    let labels = [("uuid", first.as_str()), ("engine_type", "sm")];
    while agent
        .page()?
        .value("esnode_process_gpu_utilization_percent", &labels)
        != Some(30.0)
    {
        ensure!(Instant::now() < deadline, "the worker never computed");
        thread::sleep(Duration::from_millis(20));
    }
    let seen = between(&agent)?;
    seen.check_gpus()?;
    seen.check_processes()?;
    let full = seen.table.pointer("/gpus/0").context("no first GPU")?;
    for (field, expected) in [
        ("gpu", json!(0)),
        ("uuid", json!(uuid(0))),
        ("name", json!("NVIDIA H100 80GB HBM3")),
        ("up", json!(true)),
        ("utilization_percent", json!(65.0)),
        ("memory_used_bytes", json!(1000)),
        ("memory_total_bytes", json!(4000)),
        ("temperature_celsius", json!(30.0)),
        ("fan_speed_percent", json!(30.0)),
        ("power_watts", json!(123.456)),
        ("power_limit_watts", json!(700.0)),
        ("clock_sm_mhz", json!(345.0)),
        ("throttle_reasons", json!(["sw_power_cap"])),
    ] {
        ensure_eq!(member(full, field)?, &expected, "{field} of the first GPU");
    }
    let poor = seen.table.pointer("/gpus/1").context("no second GPU")?;
    for field in [
        "name",
        "fan_speed_percent",
        "temperature_celsius",
        "power_watts",
        "throttle_reasons",
    ] {
        ensure!(poor.get(field).is_none(), "{field} is known: {poor}");
    }
    ensure_eq!(member(poor, "clock_sm_mhz")?, &json!(345.0), "a clock");
    let used = member(row(&seen.table, worker.pid())?, "gpus")?;
    ensure_eq!(
        used.pointer("/0/memory_used_bytes"),
        Some(&json!(640)),
        "{used}"
    );
    ensure_eq!(
        used.pointer("/0/utilization_sm_percent"),
        Some(&json!(30.0)),
        "{used}"
    );
    ensure_eq!(used.as_array().map(Vec::len), Some(1), "{used}");
    Ok(())
}

fn answers() -> Result<()> {
    let agent = Agent::shared()?;
    let address = agent.address()?;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = http::request(address, method, PATH, &["Content-Length: 0"])?;
        ensure_eq!(answer.status, 405, "{method}");
        ensure_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
    }
    ensure_eq!(
        http::get(address, &format!("{PATH}?pretty"))?.status,
        200,
        "a query"
    );
    for path in [
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/processes/",
        "/api/v2/processes",
    ] {
        ensure_eq!(http::get(address, path)?.status, 404, "{path}");
    }
    let landing = http::get(address, "/")?;
    ensure!(
        landing.text()?.contains(PATH),
        "the landing page doesn't lead there"
    );
    Ok(())
}

/// Who reads the table is in no statistics of scrapes.
fn no_scrape() -> Result<()> {
    let agent = Agent::start(&["--collectors", "load"])?;
    let scrapes = |count: f64| -> Result<()> {
        let seen = agent.page()?.value("esnode_scrapes_total", &[]);
        ensure_eq!(
            seen.unwrap_or_default().to_bits(),
            count.to_bits(),
            "scrapes"
        );
        Ok(())
    };
    scrapes(0.0)?;
    for _ in 0..3 {
        table(&agent)?;
    }
    scrapes(1.0)
}

/// Pages and tables that are asked for together.
fn many_at_once() -> Result<()> {
    let agent = Agent::start(&["--no-bpf"])?;
    let asked = |place: usize| -> Result<()> {
        for _ in 0..5 {
            if place.is_multiple_of(2) {
                agent.page()?;
            } else {
                member(&table(&agent)?, "version")?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|place| scope.spawn(move || asked(place)))
            .collect();
        let mut outcomes = threads.into_iter().map(thread::ScopedJoinHandle::join);
        outcomes
            .try_for_each(|outcome| outcome.map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })
}
