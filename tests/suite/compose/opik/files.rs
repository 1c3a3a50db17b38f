//! What Compose makes of Opik's file with ours beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::compose::Generation;
use serde_norway::Value;

use super::repository;
use super::stack::{Config, Stack, mounts, ports, scrapers, strings};
use crate::Case;
use crate::check::ensure_eq;

/// Services of Opik that always run, and what profiles add.
const ALWAYS: [&str; 7] = [
    "clickhouse",
    "clickhouse-init",
    "mc",
    "minio",
    "mysql",
    "redis",
    "zookeeper",
];
const OPIK: [&str; 4] = [
    "backend",
    "demo-data-generator",
    "frontend",
    "python-backend",
];
const OTEL: [&str; 4] = ["backend", "frontend", "jaeger", "otel-collector"];
const OURS: [&str; 3] = ["esnode-core", "grafana", "prometheus"];
/// What `collector.compose.yaml` adds to ours.
const COLLECTOR: [&str; 2] = ["jaeger", "otel-collector"];

const MAPPING: &str = "docker-compose.override.yaml";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("compose::opik::services_are_ours", same_services)];
    for generation in Generation::ALL {
        let name = |what: &str| format!("compose::opik::{generation}::{what}");
        cases.extend([
            Case::new(name("every_combination"), move || combinations(generation)),
            Case::new(name("older_opik_without_collector"), move || {
                older(generation)
            }),
            Case::new(name("names_what_is_not_set"), move || unset(generation)),
            Case::new(name("least_privilege_on_top"), move || least(generation)),
        ]);
    }
    cases.push(Case::new("compose::opik::v2::project_name", project));
    cases
}

/// With Opik's Collector and without, with its ports mapped and not, each set of profiles starts what
/// it should, and everything that this needs; ours are as they should be, and the agent is scraped by
/// exactly one.
fn combinations(generation: Generation) -> Result<()> {
    for collector in [false, true] {
        let mut ours = vec!["opik/opik.compose.yaml"];
        if collector {
            ours.push("opik/collector.compose.yaml");
        }
        let mut stack = Stack::new(generation, &ours)?;
        for mapping in [false, true] {
            if mapping {
                stack.files.insert(1, stack.folder.join(MAPPING));
            }
            let mut document = None;
            for set in 0..8_u8 {
                let all = ["opik", "opik-otel", "infra-metrics"];
                let profiles: Vec<&str> = (0..3)
                    .zip(all)
                    .filter_map(|(bit, name)| (set >> bit & 1 == 1).then_some(name))
                    .collect();
                // It shows the same whatever profile is named, and takes a second.
                if generation == Generation::Two || document.is_none() {
                    document = Some(stack.document(&profiles, &[])?);
                }
                let config = Config::of(document.as_ref().context("a document")?, &profiles)?;
                combination(&config, &profiles, collector)
                    .with_context(|| format!("{profiles:?}, {collector}, {mapping}"))?;
            }
        }
    }
    Ok(())
}

fn combination(config: &Config, profiles: &[&str], collector: bool) -> Result<()> {
    let metrics = profiles.contains(&"infra-metrics");
    let mut expected: BTreeSet<&str> = ALWAYS.into();
    if profiles.contains(&"opik") {
        expected.extend(OPIK);
    }
    if profiles.contains(&"opik-otel") {
        expected.extend(OTEL);
    }
    if metrics {
        expected.extend(OURS);
    }
    if metrics && collector {
        expected.extend(COLLECTOR);
    }
    let running: BTreeSet<&str> = config.0.keys().map(String::as_str).collect();
    ensure_eq!(running, expected, "services");

    let mut taken = BTreeMap::new();
    for (name, service) in &config.0 {
        for needed in strings(service.get("depends_on")) {
            ensure!(running.contains(needed.as_str()), "{name} needs {needed}");
        }
        for (address, port) in ports(service)? {
            let ours = OURS.contains(&name.as_str());
            ensure!(
                !ours || address.as_deref() == Some("127.0.0.1"),
                "{name} publishes {port} on {address:?}"
            );
            let other = taken.insert(port.clone(), name);
            ensure!(other.is_none(), "{name} and {other:?} publish {port}");
        }
    }
    if metrics {
        for name in OURS {
            check(name, config.service(name)?).context(name)?;
        }
        ensure_eq!(
            scrapers(config)?,
            [if collector {
                "otel-collector"
            } else {
                "prometheus"
            }],
            "who scrapes the agent"
        );
    }
    Ok(())
}

/// What holds for each of ours, whatever it is.
fn check(name: &str, service: &Value) -> Result<()> {
    // A container's name is made of the project's: opik-esnode-core-1.
    ensure!(service.get("container_name").is_none(), "has a name");
    let networks = strings(service.get("networks"));
    ensure!(
        networks.iter().all(|network| network == "default"),
        "is in {networks:?}"
    );
    ensure!(service.get("network_mode").is_none(), "has a network mode");
    // Opik's script takes a container without one for one that failed.
    let test = service
        .get("healthcheck")
        .and_then(|check| check.get("test"));
    ensure!(!strings(test).is_empty(), "has no health check");
    let image = service.get("image").and_then(Value::as_str);
    let (_, tag) = image
        .and_then(|image| image.rsplit_once(':'))
        .context("a tag")?;
    ensure!(tag != "latest", "{tag}");
    let privileged = service.get("privileged") == Some(&Value::Bool(true));
    ensure_eq!(privileged, name == "esnode-core", "privileged");
    for (source, target) in mounts(service) {
        ensure!(source != "/", "mounts the root filesystem");
        ensure!(!source.contains("docker.sock"), "mounts Docker's socket");
        ensure!(Path::new(&source).exists(), "mounts {source} at {target}");
    }
    Ok(())
}

/// An Opik that has no Collector takes the first file, and is told about the second.
fn older(generation: Generation) -> Result<()> {
    let mut stack = Stack::new(generation, &["opik/opik.compose.yaml"])?;
    let file = stack.folder.join("docker-compose.yaml");
    let mut opik: Value = serde_norway::from_str(&fs::read_to_string(&file)?)?;
    let services = opik.get_mut("services").and_then(Value::as_mapping_mut);
    let services = services.context("services")?;
    for name in COLLECTOR {
        services.remove(name).context(name)?;
    }
    fs::write(&file, serde_norway::to_string(&opik)?)?;
    let profiles = ["opik", "infra-metrics"];
    let config = stack.config(&profiles)?;
    ensure_eq!(scrapers(&config)?, ["prometheus"], "who scrapes the agent");

    let more = stack.repository.join("docker/opik/collector.compose.yaml");
    stack.files.push(more);
    let error = stack.config(&profiles).err().context("it's taken")?;
    let error = error.to_string();
    ensure!(
        COLLECTOR.iter().any(|name| error.contains(name)) && error.contains("neither an image"),
        "{error}"
    );
    Ok(())
}

/// Without `ESNODE_DIR`, Compose says what to do.
fn unset(generation: Generation) -> Result<()> {
    let stack = Stack::new(generation, &["opik/opik.compose.yaml"])?;
    let output = stack.ask(&["infra-metrics"], &[])?;
    ensure!(!output.status.success(), "it's taken");
    let error = String::from_utf8(output.stderr)?;
    ensure!(
        error.contains("set it to the folder that esnode was cloned into"),
        "{error}"
    );
    Ok(())
}

/// The override that takes `privileged` away fits here too.
fn least(generation: Generation) -> Result<()> {
    let files = ["opik/opik.compose.yaml", "compose.least-privilege.yaml"];
    let config = Stack::new(generation, &files)?.config(&["infra-metrics"])?;
    let agent = config.service("esnode-core")?;
    ensure!(
        agent.get("privileged") != Some(&Value::Bool(true)),
        "privileged"
    );
    ensure!(
        strings(agent.get("cap_add")).contains(&"BPF".to_owned()),
        "capabilities"
    );
    Ok(())
}

/// Opik names the project, or whoever starts it does.
fn project() -> Result<()> {
    let stack = Stack::new(Generation::Two, &["opik/opik.compose.yaml"])?;
    for (variables, expected) in [
        (vec![], "opik"),
        (vec![("COMPOSE_PROJECT_NAME", "opik-branch")], "opik-branch"),
    ] {
        let document = stack.document(&["infra-metrics"], &variables)?;
        let name = document.get("name").and_then(Value::as_str);
        ensure_eq!(name, Some(expected), "project");
    }
    Ok(())
}

/// What stands for the folder of this repository in a path.
const HERE: &str = "${ESNODE_DIR:?set it to the folder that esnode was cloned into}";

/// The services of a compose file of ours as it's written, without what must differ: profiles, and
/// how this repository is called.
fn written(path: &Path) -> Result<BTreeMap<String, Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut document: Value = serde_norway::from_str(&text)?;
    document.apply_merge()?;
    let services = document.get("services").context("services")?;
    let mut services: BTreeMap<String, Value> = serde_norway::from_value(services.clone())?;
    for service in services.values_mut() {
        rename(service);
        service
            .as_mapping_mut()
            .context("a service")?
            .remove("profiles");
    }
    Ok(services)
}

fn rename(value: &mut Value) {
    match value {
        Value::String(text) if text == ".." => "HERE".clone_into(text),
        Value::String(text) if text.starts_with("./") => {
            *text = text.replacen('.', "HERE/docker", 1);
        }
        Value::String(text) => *text = text.replace(HERE, "HERE"),
        Value::Sequence(list) => list.iter_mut().for_each(rename),
        Value::Mapping(map) => map.values_mut().for_each(rename),
        _ => {}
    }
}

/// The services here are those of `docker/compose.yaml`, but for who scrapes the agent.
fn same_services() -> Result<()> {
    let docker = repository()?.join("docker");
    let own = written(&docker.join("compose.yaml"))?;
    let mut beside = written(&docker.join("opik/opik.compose.yaml"))?;
    let collector = written(&docker.join("opik/collector.compose.yaml"))?;
    let names: Vec<&str> = beside.keys().map(String::as_str).collect();
    ensure_eq!(names, OURS, "services");
    let prometheus = beside.get_mut("prometheus").context("prometheus")?;
    let direct = strings(prometheus.get("command"));
    let command = collector.get("prometheus").and_then(|it| it.get("command"));
    let command = command.context("a command")?;
    let indirect = strings(Some(command));
    let differ: Vec<_> = direct
        .iter()
        .zip(&indirect)
        .filter(|(a, b)| a != b)
        .collect();
    ensure_eq!(direct.len(), indirect.len(), "arguments of Prometheus");
    ensure!(
        matches!(differ.as_slice(), [(direct, indirect)]
            if direct.ends_with("/scrape.yml") && indirect.ends_with("/prometheus.yml")),
        "arguments of Prometheus: {differ:?}"
    );
    let map = prometheus.as_mapping_mut().context("prometheus")?;
    map.insert("command".into(), command.clone());
    for (name, service) in &beside {
        ensure_eq!(Some(service), own.get(name), "{name}");
    }
    let variables = |services: &BTreeMap<String, Value>| {
        let service = services.get("otel-collector")?;
        service.get("environment").cloned()
    };
    ensure_eq!(
        variables(&collector),
        variables(&own),
        "variables of the Collector"
    );
    Ok(())
}
