//! The OpenTelemetry Collector's configuration, by its structure: alone, and beside another one.
//!
//! The Collector itself can't be had here. What it does with the files is said in its
//! documentation: maps of several files are merged, lists are replaced, `${env:NAME:-DEFAULT}` is
//! that variable.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

use super::{at, read, yaml};
use crate::Case;

/// A Collector's configuration as a stack may have it already: every kind of part that ours has.
const STANDING: &str = "
extensions:
  health_check: {endpoint: 0.0.0.0:13133}
  zpages: {endpoint: 0.0.0.0:55679}
receivers:
  otlp: {protocols: {grpc: {endpoint: 0.0.0.0:4317}}}
  prometheus:
    config:
      scrape_configs:
        - job_name: otel-collector
          static_configs: [{targets: ['0.0.0.0:8888']}]
processors:
  batch: {}
exporters:
  debug: {verbosity: detailed}
  otlp/traces: {endpoint: traces:4317, tls: {insecure: true}}
service:
  extensions: [health_check, zpages]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp/traces]}
    metrics: {receivers: [otlp, prometheus], processors: [batch], exporters: [debug]}
    logs: {receivers: [otlp], processors: [batch], exporters: [debug]}
";

/// Exporters that hand nothing on.
const DEAD_ENDS: [&str; 2] = ["debug", "nop"];

/// The kinds of parts, as a pipeline names them.
const PARTS: [&str; 3] = ["receivers", "processors", "exporters"];

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("compose::collector::every_part_is_defined", defined),
        Case::new("compose::collector::samples_end_somewhere", ends),
        Case::new("compose::collector::leaves_what_stands_beside_it", merged),
        Case::new("compose::collector::agent_is_scraped_once", scraped),
        Case::new("compose::collector::variables_reach_it", variables),
        Case::new(
            "compose::collector::prometheus_takes_what_it_writes",
            written,
        ),
    ]
}

fn defined() -> Result<()> {
    check_parts(&expanded(yaml("otel-collector/esnode.yaml")?, &[])?)
}

/// Each pipeline's parts are there, and each part is in a pipeline or could be put there.
fn check_parts(configuration: &Value) -> Result<()> {
    for (name, pipeline) in pipelines(configuration)? {
        for part in PARTS {
            let named = at(pipeline, &[part]).as_array();
            let named = named.with_context(|| format!("{name} has no {part}"))?;
            ensure!(!named.is_empty(), "{name} has no {part}");
            for id in named {
                let id = id.as_str().with_context(|| format!("{name}: {id}"))?;
                ensure!(
                    at(configuration, &[part]).get(id).is_some(),
                    "{name} names {id}, which is not among the {part}"
                );
            }
        }
    }
    Ok(())
}

/// Whatever the variable says, there is an exporter that hands samples on; with an OTLP endpoint,
/// there are two.
fn ends() -> Result<()> {
    let choices = [
        (None, 1),
        (Some("otlp/esnode"), 2),
        (Some("otlphttp/esnode"), 2),
    ];
    for (choice, expected) in choices {
        let variables: Vec<_> = choice
            .map(|id| ("ESNODE_OTLP_EXPORTER", id))
            .into_iter()
            .collect();
        let configuration = expanded(yaml("otel-collector/esnode.yaml")?, &variables)?;
        check_parts(&configuration).with_context(|| format!("{choice:?}"))?;
        for (name, pipeline) in pipelines(&configuration)? {
            let exporters = at(pipeline, &["exporters"])
                .as_array()
                .into_iter()
                .flatten();
            let alive: Vec<_> = exporters
                .filter_map(Value::as_str)
                .filter(|id| !DEAD_ENDS.contains(&kind(id)))
                .collect();
            ensure!(
                alive.len() == expected,
                "{name} with {choice:?} goes to {alive:?}"
            );
            // Memory is looked at before anything is kept.
            let first = at(pipeline, &["processors", "0"])
                .as_str()
                .unwrap_or_default();
            ensure!(
                kind(first) == "memory_limiter",
                "{name} begins with {first}"
            );
        }
    }
    Ok(())
}

/// Beside another configuration, all that was there is as it was, and ours works.
fn merged() -> Result<()> {
    let standing: Value = serde_norway::from_str(STANDING)?;
    let ours = expanded(yaml("otel-collector/esnode.yaml")?, &[])?;
    let mut both = standing.clone();
    merge(&mut both, &ours);
    check_parts(&both)?;
    for part in ["extensions", "receivers", "processors", "exporters"] {
        for (id, settings) in map(at(&standing, &[part]))? {
            ensure!(
                at(&both, &[part, id]) == settings,
                "{part}: {id} became another"
            );
        }
        let names = |value: &Value| value.as_object().map(Map::len).into_iter().sum::<usize>();
        ensure!(
            names(at(&both, &[part])) == names(at(&standing, &[part])) + names(at(&ours, &[part])),
            "{part}: names are taken twice"
        );
    }
    let service = at(&standing, &["service"]);
    ensure!(
        at(&both, &["service", "extensions"]) == at(service, &["extensions"]),
        "other extensions run: {}",
        at(&both, &["service", "extensions"])
    );
    for (name, pipeline) in pipelines(&standing)? {
        ensure!(
            at(&both, &["service", "pipelines", name]) == pipeline,
            "the pipeline {name} became another"
        );
    }
    ensure!(pipelines(&both)?.len() == pipelines(&standing)?.len() + 1);
    // The stack's own addition touches nothing but the Collector's telemetry.
    let telemetry = yaml("otel-collector/telemetry.yaml")?;
    ensure!(map(&telemetry)?.keys().eq(["service"]), "{telemetry}");
    ensure!(
        map(at(&telemetry, &["service"]))?.keys().eq(["telemetry"]),
        "{telemetry}"
    );
    Ok(())
}

/// By the Collector in the stack, by Prometheus where there is no Collector, and never by both.
fn scraped() -> Result<()> {
    let collector = yaml("otel-collector/esnode.yaml")?;
    let receivers = map(at(&collector, &["receivers"]))?.values();
    let by_collector: Vec<_> = receivers
        .flat_map(|receiver| targets(at(receiver, &["config"])))
        .collect();
    ensure!(by_collector == ["esnode-core:9100"], "{by_collector:?}");
    let stack = targets(&yaml("prometheus/prometheus.yml")?);
    let alone = targets(&yaml("prometheus/scrape.yml")?);
    let agents = |targets: &[String]| {
        let agents = targets.iter().filter(|target| target.contains("9100"));
        agents.count()
    };
    ensure!(agents(&stack) == 0, "Prometheus scrapes {stack:?} as well");
    ensure!(agents(&alone) == 1, "{alone:?}");
    ensure!(!alone.iter().any(|target| target.contains("collector")));
    let flags = at(
        &yaml("compose.yaml")?,
        &["services", "prometheus", "command"],
    )
    .clone();
    ensure!(
        at(&flags, &["0"]) == "--config.file=/etc/prometheus/prometheus.yml",
        "{flags}"
    );
    Ok(())
}

/// Every variable of the file is one of its service, with the same default.
fn variables() -> Result<()> {
    let file = read("otel-collector/esnode.yaml")?;
    let environment = at(
        &yaml("compose.yaml")?,
        &["services", "otel-collector", "environment"],
    )
    .clone();
    let mut used = BTreeSet::new();
    for text in file.split("${env:").skip(1) {
        let text = text.split('}').next().unwrap_or_default();
        let (name, default) = text
            .split_once(":-")
            .with_context(|| format!("{text} has no default"))?;
        // To the Collector, what is empty is null.
        ensure!(!default.is_empty(), "{name} is empty by default");
        let expected = format!("${{{name}:-{default}}}");
        ensure!(
            at(&environment, &[name]) == expected.as_str(),
            "the service gets {name} as {}, not {expected}",
            at(&environment, &[name])
        );
        used.insert(name);
    }
    let given: BTreeSet<_> = map(&environment)?.keys().map(String::as_str).collect();
    ensure!(used == given, "used: {used:?}, given: {given:?}");
    Ok(())
}

fn written() -> Result<()> {
    let configuration = expanded(yaml("otel-collector/esnode.yaml")?, &[])?;
    let exporter = at(
        &configuration,
        &["exporters", "prometheusremotewrite/esnode"],
    );
    ensure!(
        at(exporter, &["endpoint"]) == "http://prometheus:9090/api/v1/write",
        "{exporter}"
    );
    // Names are those of the page: dashboards and rules know no others.
    ensure!(
        at(exporter, &["add_metric_suffixes"]) == false,
        "{exporter}"
    );
    let services = at(&yaml("compose.yaml")?, &["services"]).clone();
    let flags = at(&services, &["prometheus", "command"]).as_array();
    ensure!(
        flags.is_some_and(|flags| flags
            .iter()
            .any(|flag| flag == "--web.enable-remote-write-receiver")),
        "Prometheus does not take what is written: {flags:?}"
    );
    Ok(())
}

/// The type of a component, before the slash.
fn kind(id: &str) -> &str {
    id.split('/').next().unwrap_or_default()
}

fn map(value: &Value) -> Result<&Map<String, Value>> {
    value
        .as_object()
        .with_context(|| format!("no map: {value}"))
}

fn pipelines(configuration: &Value) -> Result<&Map<String, Value>> {
    map(at(configuration, &["service", "pipelines"]))
}

/// All targets of a Prometheus configuration.
fn targets(configuration: &Value) -> Vec<String> {
    let jobs = at(configuration, &["scrape_configs"]).as_array();
    let groups = jobs
        .into_iter()
        .flatten()
        .filter_map(|job| at(job, &["static_configs"]).as_array());
    let targets = groups
        .flatten()
        .filter_map(|group| at(group, &["targets"]).as_array());
    targets
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Puts `more` on top: maps are joined, everything else is replaced.
fn merge(base: &mut Value, more: &Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (name, value) in more {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more.clone(),
    }
}

/// With `${env:NAME:-DEFAULT}` replaced.
fn expanded(mut value: Value, variables: &[(&str, &str)]) -> Result<Value> {
    match &mut value {
        Value::String(text) => *text = expand(text, variables)?,
        Value::Array(values) => {
            for value in values {
                *value = expanded(value.take(), variables)?;
            }
        }
        Value::Object(values) => {
            for value in values.values_mut() {
                *value = expanded(value.take(), variables)?;
            }
        }
        _ => {}
    }
    Ok(value)
}

fn expand(text: &str, variables: &[(&str, &str)]) -> Result<String> {
    let Some((before, rest)) = text.split_once("${env:") else {
        return Ok(text.to_owned());
    };
    let (inside, after) = rest
        .split_once('}')
        .with_context(|| format!("{text} has no end"))?;
    let (name, default) = inside
        .split_once(":-")
        .with_context(|| format!("{text} has no default"))?;
    let set = variables.iter().find(|(known, _)| *known == name);
    let value = set.map_or(default, |(_, value)| *value);
    Ok(format!("{before}{value}{}", expand(after, variables)?))
}
