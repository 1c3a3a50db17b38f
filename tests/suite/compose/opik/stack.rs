//! Opik's compose file with ours beside it, and what of Compose's answer is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::compose::{Compose, Generation};
use serde_norway::Value;

use super::{FOLDER, checkout, repository};

/// Opik's folder, and how Compose is asked about it.
pub(super) struct Stack {
    compose: Compose,
    pub(super) folder: PathBuf,
    pub(super) repository: PathBuf,
    pub(super) files: Vec<PathBuf>,
}

impl Stack {
    /// Opik's file, with these of `docker/` beside it.
    pub(super) fn new(generation: Generation, ours: &[&str]) -> Result<Self> {
        let compose = Compose::find(generation)?;
        let repository = repository()?;
        let folder = checkout()?.join(FOLDER);
        let file = folder.join("docker-compose.yaml");
        if generation == Generation::One {
            // It doesn't know `name`, so it refuses Opik's file as it is.
            let text = fs::read_to_string(&file)?.replace("\nname: opik\n", "\n");
            fs::write(&file, text)?;
        }
        let ours = ours.iter().map(|name| repository.join("docker").join(name));
        let files = [file].into_iter().chain(ours).collect();
        Ok(Self {
            compose,
            folder,
            repository,
            files,
        })
    }

    pub(super) fn ask(&self, profiles: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
        let mut command = self.compose.command();
        if self.compose.generation == Generation::One {
            command.args(["-p", "opik"]);
        }
        for file in &self.files {
            command.arg("-f").arg(file);
        }
        for profile in profiles {
            command.args(["--profile", profile]);
        }
        command.arg("config").envs(variables.iter().copied());
        command.output().with_context(|| format!("{command:?}"))
    }

    /// What becomes of the files.
    pub(super) fn document(&self, profiles: &[&str], variables: &[(&str, &str)]) -> Result<Value> {
        let repository = self.repository.to_str().context("a path in UTF-8")?;
        let variables = [&[("ESNODE_DIR", repository)], variables].concat();
        let output = self.ask(profiles, &variables)?;
        ensure!(
            output.status.success(),
            "{profiles:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_norway::from_slice(&output.stdout)?)
    }

    /// The services that run with these profiles.
    pub(super) fn config(&self, profiles: &[&str]) -> Result<Config> {
        Config::of(&self.document(profiles, &[])?, profiles)
    }
}

/// Services, by name.
pub(super) struct Config(pub(super) BTreeMap<String, Value>);

impl Config {
    /// Those of a document that run with these profiles: the first generation shows all of them,
    /// whatever profile is named.
    pub(super) fn of(document: &Value, profiles: &[&str]) -> Result<Self> {
        let services = document.get("services").context("services")?;
        let mut services: BTreeMap<String, Value> = serde_norway::from_value(services.clone())?;
        services.retain(|_, service| {
            let needed = strings(service.get("profiles"));
            needed.is_empty() || needed.iter().any(|name| profiles.contains(&name.as_str()))
        });
        Ok(Self(services))
    }

    pub(super) fn service(&self, name: &str) -> Result<&Value> {
        self.0.get(name).with_context(|| name.to_owned())
    }
}

/// The elements of a list, and the keys of a map: Compose writes either.
pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    let of = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Some(Value::Sequence(list)) => list.iter().filter_map(of).collect(),
        Some(Value::Mapping(map)) => map.keys().filter_map(of).collect(),
        _ => Vec::new(),
    }
}

/// Addresses and ports of the host.
pub(super) fn ports(service: &Value) -> Result<Vec<(Option<String>, String)>> {
    let mut ports = Vec::new();
    let list = service.get("ports").and_then(Value::as_sequence);
    for port in list.into_iter().flatten() {
        let text = |key: &str| {
            let value = port.get(key)?;
            let number = value.as_u64().map(|number| number.to_string());
            number.or_else(|| value.as_str().map(str::to_owned))
        };
        if port.is_mapping() {
            let protocol = text("protocol").filter(|protocol| protocol != "tcp");
            let published = text("published").map(|port| port + protocol.as_deref().unwrap_or(""));
            ports.extend(published.map(|published| (text("host_ip"), published)));
            continue;
        }
        let whole = port.as_str().context("a port")?;
        let pieces: Vec<&str> = whole.trim_end_matches("/tcp").split(':').collect();
        match pieces.as_slice() {
            [_] => {}
            [published, _] => ports.push((None, (*published).to_owned())),
            [address, published, _] => {
                ports.push((Some((*address).to_owned()), (*published).to_owned()));
            }
            _ => anyhow::bail!("port {whole}"),
        }
    }
    Ok(ports)
}

/// Sources and targets of what a service mounts of the host.
pub(super) fn mounts(service: &Value) -> Vec<(String, String)> {
    let list = service.get("volumes").and_then(Value::as_sequence);
    let mount = |volume: &Value| {
        let text = |key: &str| Some(volume.get(key)?.as_str()?.to_owned());
        if let Some(short) = volume.as_str() {
            let (source, rest) = short.split_once(':')?;
            let target = rest.split(':').next()?;
            return Some((source.to_owned(), target.to_owned()));
        }
        (text("type")? == "bind").then(|| Some((text("source")?, text("target")?)))?
    };
    let mounts = list.into_iter().flatten().filter_map(mount);
    mounts
        .filter(|(source, _)| source.starts_with('/'))
        .collect()
}

/// The services that have the agent for a target, by the files that their commands name.
pub(super) fn scrapers(config: &Config) -> Result<Vec<&str>> {
    let mut scrapers = Vec::new();
    for name in ["otel-collector", "prometheus"] {
        let Some(service) = config.0.get(name) else {
            continue;
        };
        let mounts = mounts(service);
        for argument in strings(service.get("command")) {
            let option = argument.strip_prefix("--config.file=");
            let Some(path) = option.or_else(|| argument.strip_prefix("--config=")) else {
                continue;
            };
            let source = mounts.iter().find_map(|(source, target)| {
                let rest = path.strip_prefix(target.as_str())?;
                Some(format!("{source}{rest}"))
            });
            let source = source.with_context(|| format!("{name} has no {path}"))?;
            // Opik's own, of which the stand-in has none.
            if source.ends_with("/otel-collector-config.yaml") {
                continue;
            }
            let text = fs::read_to_string(&source).with_context(|| source.clone())?;
            if targets(&serde_norway::from_str(&text)?).contains("esnode-core:9100") {
                scrapers.push(name);
            }
        }
    }
    Ok(scrapers)
}

/// All that stands in lists called `targets`.
fn targets(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Mapping(map) => {
            let own = strings(value.get("targets"));
            own.into_iter()
                .chain(map.values().flat_map(targets))
                .collect()
        }
        Value::Sequence(list) => list.iter().flat_map(targets).collect(),
        _ => BTreeSet::new(),
    }
}
