//! The image, and the service that runs it under a real Docker.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::compose::{Compose, Generation};
use esnode_tests::docker::{Container, Docker};
use esnode_tests::gpu::{FakeNvml, device, host, uuid};
use esnode_tests::page::{Format, Page};
use esnode_tests::tally::Protocol;
use esnode_tests::workload::{self, Name, Workload, select_all};
use esnode_tests::{http, skip};
use serde_json::Value;

use crate::Case;
use crate::check::{Calls, ensure_eq, process, within_grace};
use crate::disk::need_disk;
use crate::docker::{Running, WEB};

/// The image, as the tests call it.
const IMAGE: &str = "esnode-test/core:1";

/// What `cargo xtask test` has prepared for docker.
const CONTEXT: &str = "ESNODE_IMAGE_CONTEXT";

/// The image may be so large, compressed.
const LARGEST: u64 = 12_000_000;

/// Who owns its files.
const OWNER: &str = "65532/65532";

/// Bytes that a process of the host sends.
const BYTES: u64 = 300_001;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("compose::image_holds_what_it_says", image),
        Case::new("compose::image_is_small", small),
        Case::new("compose::image_loads_nvml", nvml),
    ];
    cases.extend(Generation::ALL.map(|generation| {
        Case::new(
            format!("compose::least_privilege_by_{generation}"),
            move || least_privilege(generation),
        )
    }));
    cases
}

/// The daemon, with the image.
fn docker_with_image() -> Result<Arc<Docker>> {
    let docker = Docker::shared()?;
    docker.build(&context()?, IMAGE)?;
    Ok(docker)
}

fn context() -> Result<PathBuf> {
    match env::var_os(CONTEXT) {
        Some(context) => Ok(context.into()),
        None => skip!("needs {CONTEXT}, as `cargo xtask test` sets it"),
    }
}

fn image() -> Result<()> {
    let docker = docker_with_image()?;
    let image: Value = serde_json::from_str(&docker.ask(&["image", "inspect", IMAGE])?)?;
    let at = |pointer: &str| image.pointer(&format!("/0{pointer}")).cloned();
    let agent = "/usr/bin/esnode-core";
    let expected = [
        ("/Config/Entrypoint", serde_json::json!([agent])),
        (
            "/Config/Healthcheck/Test",
            serde_json::json!(["CMD", agent, "health"]),
        ),
        (
            "/Config/ExposedPorts",
            serde_json::json!({ "9100/tcp": {} }),
        ),
        (
            "/Config/Labels/org.opencontainers.image.version",
            env!("CARGO_PKG_VERSION").into(),
        ),
        (
            "/Config/Labels/org.opencontainers.image.title",
            "esnode-core".into(),
        ),
    ];
    for (pointer, value) in expected {
        ensure_eq!(at(pointer), Some(value), "{pointer}");
    }
    check_files(&docker)
}

/// Everything in the image is nobody's who runs there, and nothing in it can be written.
fn check_files(docker: &Arc<Docker>) -> Result<()> {
    let files = exported(docker)?;
    let agent = files.get("usr/bin/esnode-core").context("no agent")?;
    ensure!(agent.starts_with("-r-xr-xr-x "), "the agent: {agent}");
    let root = context()?.join("root");
    let mut seen = 0;
    for file in below(&root)? {
        let name = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        // Docker itself has files there for the container.
        if name.starts_with("etc") {
            continue;
        }
        let line = files.get(&name).with_context(|| format!("no {name}"))?;
        ensure!(line.contains(OWNER), "{name} is not {OWNER}: {line}");
        if line.starts_with('-') {
            let mode = line.get(..10).unwrap_or_default();
            ensure!(!mode.contains('w'), "{name} can be written: {line}");
            seen += 1;
        }
    }
    ensure!(seen > 5, "only {seen} files were looked at");
    for shell in ["bin/sh", "usr/bin/sh", "usr/bin/curl"] {
        ensure!(!files.contains_key(shell), "the image has {shell}");
    }
    Ok(())
}

/// The files of the image as `tar` lists them, by name.
fn exported(docker: &Arc<Docker>) -> Result<BTreeMap<String, String>> {
    let listing = pipe(docker, &["tar", "--numeric-owner", "-tvf", "-"])?;
    let lines = String::from_utf8(listing)?;
    let files = lines.lines().filter_map(|line| {
        // Mode, owner, size, date, time, name.
        let name = line.split_whitespace().nth(5)?;
        Some((name.trim_end_matches('/').to_owned(), line.to_owned()))
    });
    Ok(files.collect())
}

fn small() -> Result<()> {
    let docker = docker_with_image()?;
    let compressed = pipe(&docker, &["gzip", "--stdout"])?;
    let size = u64::try_from(compressed.len())?;
    ensure!(size > 1_000_000, "an image of {size} bytes has no agent");
    ensure!(size < LARGEST, "compressed, the image has {size} bytes");
    Ok(())
}

/// What a program makes of the archive of the image's files.
fn pipe(docker: &Arc<Docker>, program: &[&str]) -> Result<Vec<u8>> {
    let container = Container::of_image(docker, "files", IMAGE, &["--network", "none"], &[])?;
    let mut export = docker.client(&["export", &container.id]);
    let mut export = export.stdout(Stdio::piped()).spawn()?;
    let (name, arguments) = program.split_first().context("no program")?;
    let archive = export.stdout.take().context("no output")?;
    let output = Command::new(name).args(arguments).stdin(archive).output()?;
    ensure!(output.status.success(), "{program:?}: {}", output.status);
    let status = export.wait()?;
    ensure!(status.success(), "docker export: {status}");
    Ok(output.stdout)
}

/// Files and folders below one.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(below(&entry.path())?);
        }
        all.push(entry.path());
    }
    Ok(all)
}

/// Mounted where NVIDIA's container runtime mounts it, the library is found by its name.
fn nvml() -> Result<()> {
    let docker = docker_with_image()?;
    for folder in ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"] {
        let fake = FakeNvml::new(&host(&[device(0), device(1)]))?;
        let library = fake.library().canonicalize()?;
        let volume = format!("{}:{folder}/libnvidia-ml.so.1:ro", library.display());
        let mut flags: Vec<String> = ["--pid=host", "--network=host", "--read-only"]
            .map(str::to_owned)
            .into();
        flags.push(format!("--volume={volume}"));
        for (name, value) in fake.env() {
            let path = Path::new(&value);
            let folder = path.parent().context("no folder")?.canonicalize()?;
            let file = path.file_name().context("no file")?;
            let within = Path::new("/fake").join(file);
            flags.push(format!("--env={name}={}", within.display()));
            let mount = format!("--volume={}:/fake", folder.display());
            if !flags.contains(&mount) {
                flags.push(mount);
            }
        }
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let words = ["--no-bpf", "--listen-address=127.0.0.1:0"];
        let own = Container::of_image(&docker, "gpus", IMAGE, &flags, &words)?;
        let agent = Agent::launch(own.start(), 1)?;
        within_grace(|| {
            let page = agent.page()?;
            ensure_eq!(
                page.value("esnode_gpu_driver_up", &[]),
                Some(1.0),
                "driver by {folder}"
            );
            let uuids = page.label_values("esnode_gpu_info", &[], "uuid");
            let expected = [uuid(0), uuid(1)];
            ensure_eq!(
                uuids.into_iter().collect::<Vec<_>>(),
                expected.iter().map(String::as_str).collect::<Vec<_>>(),
                "GPUs by {folder}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// The service runs healthy by its named capabilities, with BPF, and sees the host and another
/// container to the byte.
fn least_privilege(generation: Generation) -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = docker_with_image()?;
    let service = Service::start(&docker, Compose::find(generation)?)?;
    service.check_confined()?;
    let page = service.page()?;
    let source = page.label_values(
        "esnode_attribution_source",
        &[("signal", "process_table")],
        "source",
    );
    ensure_eq!(
        source.into_iter().collect::<Vec<_>>(),
        ["iter_task"],
        "source of the process table"
    );

    let other = Running::start(&docker, "other", 0, &WEB)?;
    within_grace(|| other.check_named(&service.page()?))?;
    within_grace(|| other.check_bytes(&service.page()?, &WEB))?;

    let name = Name::new("outside")?;
    let bytes = BYTES.to_string();
    let workload = Workload::run(&name, &["move", "send", "tcp4", &bytes, &bytes])?;
    let sent = workload.report.total();
    ensure_eq!(
        sent.of(Protocol::Tcp).transmit_bytes,
        BYTES,
        "sent by the workload"
    );
    let pid = workload.pid().to_string();
    let page = service.page()?;
    let labels = [("pid", pid.as_str()), ("comm", name.comm.as_str())];
    process(&page, &labels).check_moved(&sent, Calls::Exact)?;
    let info = page.select("esnode_process_info", &[("pid", pid.as_str())]);
    let containers: Vec<_> = info
        .iter()
        .map(|info| info.labels.get("container_id"))
        .collect();
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure_eq!(
        containers,
        [Some(&String::new())],
        "container of a process of the host, whose control groups are {group}"
    );
    service.check_log()?;
    service.stop()
}

/// `esnode-core` by the Compose files; taken down when dropped.
struct Service {
    docker: Arc<Docker>,
    compose: Compose,
    project: String,
    /// What the test needs to be otherwise.
    overlay: PathBuf,
    address: SocketAddr,
    /// Its container.
    id: String,
}

impl Service {
    fn start(docker: &Arc<Docker>, compose: Compose) -> Result<Self> {
        let project = format!("esnode-{}-{}", process::id(), compose.generation);
        let overlay = workload::directory()?.join(format!("{project}.yaml"));
        fs::write(&overlay, overlay_of(docker))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut service = Self {
            docker: Arc::clone(docker),
            compose,
            project,
            overlay,
            address: port,
            id: String::new(),
        };
        service.run(&["up", "--detach", "--no-build"])?;
        service.id = service.run(&["ps", "--quiet", "esnode-core"])?;
        service.wait()?;
        Ok(service)
    }

    /// What Compose prints when it does this.
    fn run(&self, words: &[&str]) -> Result<String> {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker");
        let mut command = self.compose.command();
        command
            .args(["--project-name", &self.project])
            .arg("--file")
            .arg(files.join("compose.yaml"))
            .arg("--file")
            .arg(files.join(least_privilege_file(&self.docker.version()?)))
            .arg("--file")
            .arg(&self.overlay)
            .args(["--profile", "opik"])
            .args(words)
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.docker.socket().display()),
            )
            .env("ESNODE_IMAGE", IMAGE)
            .env("ESNODE_PORT", self.address.port().to_string());
        let output = command.output().with_context(|| format!("{command:?}"))?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Waits for its health check.
    fn wait(&self) -> Result<()> {
        for _ in 0..600 {
            let state = self.inspect("{{.State.Health.Status}}")?;
            match state.as_str() {
                "healthy" => return Ok(()),
                "starting" => thread::sleep(Duration::from_millis(100)),
                other => bail!("it is {other}: {}", self.log()?),
            }
        }
        bail!("it is never healthy: {}", self.log()?)
    }

    fn inspect(&self, format: &str) -> Result<String> {
        self.docker.ask(&["inspect", "--format", format, &self.id])
    }

    fn log(&self) -> Result<String> {
        let output = self.docker.client(&["logs", &self.id]).output()?;
        Ok(String::from_utf8(output.stderr)?)
    }

    /// The page, by the port that is published on loopback.
    fn page(&self) -> Result<Page> {
        Page::parse(http::get(self.address, "/metrics")?.text()?, Format::Text)
    }

    fn check_confined(&self) -> Result<()> {
        for (format, expected) in [
            ("{{.HostConfig.Privileged}}", "false"),
            ("{{.HostConfig.ReadonlyRootfs}}", "true"),
            ("{{.HostConfig.CapDrop}}", "[ALL]"),
            ("{{.HostConfig.PidMode}}", "host"),
            (
                "{{(index .NetworkSettings.Ports \"9100/tcp\" 0).HostIp}}",
                "127.0.0.1",
            ),
        ] {
            ensure_eq!(self.inspect(format)?, expected, "{format}");
        }
        let format = "{{range .Mounts}}{{.Source}}:{{.Destination}}:{{.RW}} {{end}}";
        let mounts = self.inspect(format)?;
        let mut mounts: Vec<_> = mounts.split_whitespace().collect();
        mounts.retain(|mount| !mount.contains(SOCKET));
        ensure_eq!(mounts, ["/sys:/host/sys:false"], "mounts");
        Ok(())
    }

    fn check_log(&self) -> Result<()> {
        let log = self.log()?;
        for line in [
            "Starting esnode-core",
            "Metrics listener active on 0.0.0.0:9100",
        ] {
            ensure!(log.contains(line), "{line:?} is not in the log: {log}");
        }
        Ok(())
    }

    fn stop(self) -> Result<()> {
        self.run(&["down", "--volumes"])?;
        let left = self.docker.ask(&["ps", "--all", "--quiet"])?;
        ensure!(!left.contains(&self.id), "it is still there: {left}");
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Fails where it's down already, or was never up.
        let _ = self.run(&["down", "--volumes"]);
    }
}

/// Engines before Docker 23 don't know all capabilities by name.
fn least_privilege_file(version: &str) -> &'static str {
    let major = version.split('.').next().and_then(|text| text.parse().ok());
    if major.is_some_and(|major: u32| major < 23) {
        "compose.least-privilege-docker20.yaml"
    } else {
        "compose.least-privilege.yaml"
    }
}

/// Where the socket of the tests' own engine is in the container: users have theirs below the root of
/// process 1, which need not be the one that the tests see.
const SOCKET: &str = "/run/engine.sock";

/// The engine that names containers is the tests' own; processes of the tests have series.
fn overlay_of(docker: &Docker) -> String {
    // Compose takes a dollar for a variable.
    let select = format!("^box-|{}", select_all()).replace('$', "$$");
    let environment = serde_json::json!({
        "ESNODE_GROUP_BY": "container",
        "ESNODE_SELECT": select,
        "ESNODE_DOCKER_SOCKET": SOCKET,
    });
    let volume = format!("{}:{SOCKET}", docker.socket().display());
    let service = serde_json::json!({ "environment": environment, "volumes": [volume] });
    serde_json::json!({ "services": { "esnode-core": service } }).to_string()
}
