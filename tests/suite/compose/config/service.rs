//! A service as Compose resolved it, whichever generation wrote it down.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::at;

/// What the tests look at.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) image: String,
    pub(super) profiles: Vec<String>,
    pub(super) privileged: bool,
    /// In alphabetical order.
    pub(super) capabilities: Vec<String>,
    pub(super) host_processes: bool,
    pub(super) gpus: bool,
    /// Address and port on the host.
    pub(super) ports: Vec<(String, u16)>,
    /// The command that asks for its health.
    pub(super) health: Vec<String>,
    pub(super) needs: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    mounts: Vec<Mount>,
    raw: Value,
}

#[derive(Debug)]
struct Mount {
    source: String,
    target: String,
    read_only: bool,
}

impl Service {
    pub(super) fn read(value: &Value) -> Result<Self> {
        let mut capabilities = texts(at(value, &["cap_add"]));
        capabilities.sort();
        let devices = at(value, &["deploy", "resources", "reservations", "devices"]);
        let ports = at(value, &["ports"]).as_array().into_iter().flatten();
        let mounts = at(value, &["volumes"]).as_array().into_iter().flatten();
        let needs = match at(value, &["depends_on"]) {
            Value::Object(needs) => needs.keys().cloned().collect(),
            needs => texts(needs),
        };
        Ok(Self {
            image: at(value, &["image"])
                .as_str()
                .context("no image")?
                .to_owned(),
            profiles: texts(at(value, &["profiles"])),
            privileged: at(value, &["privileged"]) == true,
            capabilities,
            host_processes: at(value, &["pid"]) == "host",
            gpus: at(devices, &["0", "driver"]) == "nvidia",
            ports: ports.map(port).collect::<Result<_>>()?,
            health: texts(at(value, &["healthcheck", "test"])),
            needs,
            command: texts(at(value, &["command"])),
            environment: environment(at(value, &["environment"])),
            mounts: mounts.map(Mount::read).collect::<Result<_>>()?,
            raw: value.clone(),
        })
    }

    pub(super) fn has_profile(&self, name: &str) -> bool {
        self.profiles.iter().any(|profile| profile == name)
    }

    /// What holds of every service. `folder` is where the files are.
    pub(super) fn check(&self, folder: &Path) -> Result<()> {
        self.check_image()?;
        for mount in &self.mounts {
            mount
                .check(folder)
                .with_context(|| format!("mount of {}", mount.source))?;
        }
        let raw = &self.raw;
        ensure!(
            at(raw, &["read_only"]) == true,
            "its filesystem can be written"
        );
        ensure!(
            at(raw, &["restart"]) == "unless-stopped",
            "{}",
            at(raw, &["restart"])
        );
        for limit in ["mem_limit", "pids_limit"] {
            ensure!(!at(raw, &[limit]).is_null(), "no {limit}");
        }
        let log = at(raw, &["logging", "options"]);
        ensure!(at(log, &["max-size"]) == "10m", "its log has no limit");
        // A host's network is not needed, and would take its ports.
        ensure!(
            at(raw, &["network_mode"]).is_null(),
            "{}",
            at(raw, &["network_mode"])
        );
        if !self.privileged {
            ensure!(
                texts(at(raw, &["cap_drop"])) == ["ALL"],
                "{}",
                at(raw, &["cap_drop"])
            );
            let options = texts(at(raw, &["security_opt"]));
            let once = "no-new-privileges:true".to_owned();
            ensure!(options.contains(&once), "{options:?}");
            ensure!(
                !options.iter().any(|option| option.starts_with("seccomp")),
                "{options:?}"
            );
        }
        Ok(())
    }

    /// An image has a version: a tag with a number, or a digest.
    fn check_image(&self) -> Result<()> {
        if self.image.contains("@sha256:") {
            return Ok(());
        }
        let name = self.image.rsplit('/').next().unwrap_or_default();
        let tag = name.split_once(':').map(|(_, tag)| tag);
        ensure!(
            tag.is_some_and(|tag| tag.contains('.') && tag.contains(|c: char| c.is_ascii_digit())),
            "{} names no version",
            self.image
        );
        Ok(())
    }
}

impl Mount {
    /// `SOURCE:TARGET[:ro]` as Compose 1.29 writes it, or the long form of newer ones.
    fn read(value: &Value) -> Result<Self> {
        if let Some(text) = value.as_str() {
            let parts: Vec<_> = text.split(':').collect();
            let [source, target, mode] = parts[..] else {
                bail!("{text} is not SOURCE:TARGET:MODE");
            };
            return Ok(Self {
                source: source.to_owned(),
                target: target.to_owned(),
                read_only: mode == "ro",
            });
        }
        let text = |name: &str| {
            let text = at(value, &[name]).as_str();
            text.map(str::to_owned)
                .with_context(|| format!("{value} has no {name}"))
        };
        Ok(Self {
            source: text("source")?,
            target: text("target")?,
            read_only: at(value, &["read_only"]) == true,
        })
    }

    /// Of the host: its `/sys`, and files from beside the compose file. All else are volumes.
    fn check(&self, folder: &Path) -> Result<()> {
        if !self.source.starts_with('/') {
            return Ok(());
        }
        ensure!(self.read_only, "it can be written");
        if self.source == "/sys" {
            ensure!(self.target == "/host/sys", "it goes to {}", self.target);
            return Ok(());
        }
        let source = Path::new(&self.source);
        ensure!(
            source.starts_with(folder) && source != folder,
            "it is not from {}",
            folder.display()
        );
        ensure!(source.is_dir(), "there is no such folder");
        Ok(())
    }
}

/// The strings of a list; none if there is no list.
fn texts(value: &Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// `ADDRESS:PORT:TARGET/tcp` as Compose 1.29 writes it, or the long form of newer ones.
fn port(value: &Value) -> Result<(String, u16)> {
    let short: Option<Vec<_>> = value.as_str().map(|text| text.split(':').collect());
    let (address, port) = match short.as_deref() {
        Some([address, port, _]) => (*address, *port),
        Some(_) => bail!("{value} is not ADDRESS:PORT:TARGET"),
        None => (
            at(value, &["host_ip"]).as_str().context("no address")?,
            at(value, &["published"]).as_str().context("no port")?,
        ),
    };
    Ok((address.to_owned(), port.parse()?))
}

fn environment(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            (name.clone(), text.unwrap_or_else(|| value.to_string()))
        })
        .collect()
}
