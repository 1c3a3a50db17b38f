//! What Compose makes of the files, in both of its generations, and what the Collector gets.

mod collector;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::compose::{Compose, Generation};
use serde_json::Value;

use self::service::Service;
use crate::Case;

/// Ports of the host that Opik's own stack publishes, with `--port-mapping` and `opik-otel` too.
const PORTS_OF_OPIK: [u16; 21] = [
    2181, 3003, 3306, 4317, 4318, 5000, 5140, 5173, 6379, 8000, 8080, 8123, 8888, 9000, 9001, 9090,
    13133, 14317, 14318, 16686, 55679,
];

/// What stands in for `privileged`, by the overlay that says so.
const CAPABILITIES: [(&str, &[&str]); 2] = [
    (
        "compose.least-privilege.yaml",
        &["BPF", "DAC_READ_SEARCH", "PERFMON", "SYS_PTRACE"],
    ),
    (
        "compose.least-privilege-docker20.yaml",
        &["DAC_READ_SEARCH", "SYS_ADMIN", "SYS_PTRACE"],
    ),
];

const GPU: &str = "compose.gpu.yaml";

/// Everything that may be put on top of `compose.yaml`.
const OVERLAYS: [&[&str]; 6] = [
    &[],
    &[CAPABILITIES[0].0],
    &[CAPABILITIES[1].0],
    &[GPU],
    &[CAPABILITIES[0].0, GPU],
    &[CAPABILITIES[1].0, GPU],
];

/// The profiles, and what each starts.
const PROFILES: [(&str, &[&str]); 2] = [
    ("opik", &["esnode-core"]),
    ("opik-otel", &["grafana", "otel-collector", "prometheus"]),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("compose::config::example_has_every_variable", example),
        Case::new("compose::config::grafana_finds_what_it_is_given", grafana),
    ];
    for generation in Generation::ALL {
        cases.push(Case::new(
            format!("compose::config::{generation}_takes_every_combination"),
            move || combinations(generation),
        ));
        cases.push(Case::new(
            format!("compose::config::{generation}_takes_every_variable"),
            move || variables(generation),
        ));
    }
    cases.extend(collector::cases());
    cases
}

/// The folder `docker` of the repository.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker")
}

/// A file of that folder.
pub(super) fn read(name: &str) -> Result<String> {
    let path = folder().join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// What a YAML file of that folder says.
pub(super) fn yaml(name: &str) -> Result<Value> {
    serde_norway::from_str(&read(name)?).with_context(|| name.to_owned())
}

/// What is at this path of keys and numbers; null if nothing is.
pub(super) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, step| {
        let found = match value {
            Value::Array(values) => step.parse().ok().and_then(|index: usize| values.get(index)),
            value => value.get(*step),
        };
        found.unwrap_or(&Value::Null)
    })
}

fn combinations(generation: Generation) -> Result<()> {
    let compose = Compose::find(generation)?;
    for overlays in OVERLAYS {
        for chosen in [&[][..], &PROFILES[..1], &PROFILES[1..], &PROFILES[..]] {
            let profiles: Vec<_> = chosen.iter().map(|(name, _)| *name).collect();
            let what = || {
                format!(
                    "{overlays:?} with {profiles:?}, Compose {}",
                    compose.version
                )
            };
            let services = services(&compose, overlays, &profiles, &[]).with_context(what)?;
            let names: BTreeSet<_> = services.keys().map(String::as_str).collect();
            let expected = chosen.iter().flat_map(|(_, services)| *services).copied();
            ensure!(
                names == expected.collect(),
                "{}: it starts {names:?}",
                what()
            );
            check(&services, overlays).with_context(what)?;
        }
    }
    Ok(())
}

/// What is to be started, by name.
fn services(
    compose: &Compose,
    overlays: &[&str],
    profiles: &[&str],
    variables: &[(&str, &str)],
) -> Result<BTreeMap<String, Service>> {
    let folder = folder().canonicalize()?;
    let mut command = compose.command();
    for file in ["compose.yaml"].iter().chain(overlays) {
        command.arg("-f").arg(folder.join(file));
    }
    for profile in profiles {
        command.args(["--profile", profile]);
    }
    let output = command
        .arg("config")
        .envs(variables.iter().copied())
        .output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {complaints}", output.status);
    ensure!(complaints.is_empty(), "it complains: {complaints}");
    let document: Value = serde_norway::from_slice(&output.stdout)?;
    let Some(services) = at(&document, &["services"]).as_object() else {
        bail!("no services in {document}");
    };
    let mut enabled = BTreeMap::new();
    for (name, value) in services {
        let service = Service::read(value).with_context(|| name.clone())?;
        // Compose 1.29 shows those as well that it does not start.
        if profiles.iter().any(|profile| service.has_profile(profile)) {
            enabled.insert(name.clone(), service);
        }
    }
    Ok(enabled)
}

fn check(services: &BTreeMap<String, Service>, overlays: &[&str]) -> Result<()> {
    let mut ports = BTreeSet::new();
    for (name, service) in services {
        service
            .check(&folder().canonicalize()?)
            .with_context(|| name.clone())?;
        let agent = name == "esnode-core";
        let named = CAPABILITIES
            .iter()
            .find(|(overlay, _)| overlays.contains(overlay));
        let expected = named.filter(|_| agent).map_or(&[][..], |(_, names)| *names);
        ensure!(
            service.capabilities == expected,
            "{name} has the capabilities {:?}",
            service.capabilities
        );
        ensure!(
            service.privileged == (agent && named.is_none()),
            "{name}: privileged is {}",
            service.privileged
        );
        ensure!(
            service.host_processes == agent,
            "{name} has the host's processes"
        );
        ensure!(
            service.gpus == (agent && overlays.contains(&GPU)),
            "{name}: asks for GPUs: {}",
            service.gpus
        );
        // The Collector's image has no program that could ask.
        ensure!(
            service.health.is_empty() == (name == "otel-collector"),
            "{name}: its health is asked by {:?}",
            service.health
        );
        for (address, port) in &service.ports {
            ensure!(address == "127.0.0.1", "{name} listens on {address}");
            ensure!(
                !PORTS_OF_OPIK.contains(port),
                "{name} takes Opik's port {port}"
            );
            ensure!(ports.insert(*port), "port {port} is taken twice");
        }
        for other in &service.needs {
            // Newer Compose refuses to start one whose dependency is in no profile that is named.
            let there = services.get(other);
            ensure!(
                there.is_some_and(|other| other.profiles == service.profiles),
                "{name} needs {other} of another profile"
            );
        }
    }
    Ok(())
}

fn variables(generation: Generation) -> Result<()> {
    let compose = Compose::find(generation)?;
    let profiles = PROFILES.map(|(name, _)| name);
    let variables = [
        ("ESNODE_BIND_ADDRESS", "127.0.0.9"),
        ("ESNODE_PORT", "29100"),
        ("ESNODE_PROMETHEUS_PORT", "29090"),
        ("ESNODE_GRAFANA_PORT", "23000"),
        ("ESNODE_GRAFANA_PASSWORD", "another"),
        ("ESNODE_IMAGE", "registry.example/agent:1.2.3"),
        ("ESNODE_PROMETHEUS_RETENTION", "3d"),
    ];
    let services = services(&compose, &[], &profiles, &variables)?;
    let ports: BTreeSet<_> = services
        .values()
        .flat_map(|service| &service.ports)
        .map(|(address, port)| (address.as_str(), *port))
        .collect();
    let address = "127.0.0.9";
    ensure!(
        ports == [(address, 29100), (address, 29090), (address, 23000)].into(),
        "ports: {ports:?}"
    );
    let of = |name: &str| services.get(name).context("no such service");
    let password = of("grafana")?.environment.get("GF_SECURITY_ADMIN_PASSWORD");
    ensure!(
        password.is_some_and(|value| value == "another"),
        "{password:?}"
    );
    ensure!(of("esnode-core")?.image == "registry.example/agent:1.2.3");
    let flags = &of("prometheus")?.command;
    ensure!(
        flags.contains(&"--storage.tsdb.retention.time=3d".to_owned()),
        "{flags:?}"
    );
    Ok(())
}

/// `env.example` has every variable of `compose.yaml`, with its default.
fn example() -> Result<()> {
    let example = read("env.example")?;
    let stated: BTreeSet<_> = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .collect();
    let file = read("compose.yaml")?;
    let mut count = 0;
    for part in file.split("${").skip(1) {
        let part = part.split('}').next().unwrap_or_default();
        let (name, default) = part
            .split_once(":-")
            .with_context(|| format!("{part} has no default"))?;
        ensure!(
            stated.contains(&(name, default)),
            "env.example lacks {name}={default}"
        );
        count += 1;
    }
    ensure!(count >= 10, "only {count} variables");
    Ok(())
}

/// Grafana asks the Prometheus that is there, and shows the dashboards that are mounted.
fn grafana() -> Result<()> {
    let services = at(&yaml("compose.yaml")?, &["services"]).clone();
    let mounts = at(&services, &["grafana", "volumes"]);
    let sources = yaml("grafana/provisioning/datasources/prometheus.yaml")?;
    let source = at(&sources, &["datasources", "0"]);
    ensure!(at(source, &["uid"]) == "esnode-prometheus", "{source}");
    ensure!(at(source, &["url"]) == "http://prometheus:9090", "{source}");
    let providers = yaml("grafana/provisioning/dashboards/esnode.yaml")?;
    let path = at(&providers, &["providers", "0", "options", "path"]);
    let path = path.as_str().context("the dashboards have no path")?;
    let mounted = format!("./grafana/dashboards:{path}:ro");
    let found = mounts.as_array().into_iter().flatten();
    ensure!(
        found.into_iter().any(|mount| *mount == mounted.as_str()),
        "{mounts} lacks {mounted}"
    );
    let home = at(
        &services,
        &[
            "grafana",
            "environment",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH",
        ],
    );
    let home = home.as_str().context("no home dashboard")?;
    let name = home
        .strip_prefix(path)
        .with_context(|| format!("{home} is not below {path}"))?;
    read(&format!("grafana/dashboards{name}")).map(drop)
}
