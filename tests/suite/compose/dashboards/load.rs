//! What happens on this host while Prometheus scrapes: a server with two workers, another engine, and
//! one in a container, all of which send, read, write and start processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use esnode_tests::container::Container;
use esnode_tests::puppet::{Child, Programs, Puppet};
use esnode_tests::workload;

/// What a worker sends at once.
const SENT_BYTES: u64 = 100_000;

/// What is read and written at once, around the page cache.
const FILE_BYTES: &str = "262144";

/// How long the host is left alone between rounds.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Load {
    server: Puppet,
    first: Child,
    second: Child,
    other: Puppet,
    contained: Puppet,
    docker: PathBuf,
    file: PathBuf,
    /// Bytes that the first worker sent by UDP.
    pub(super) sent: u64,
    // The last, as it can be removed once all in it have ended.
    _folder: Container,
}

impl Load {
    pub(super) fn start() -> Result<Self> {
        let folder = Container::new()?;
        let programs = Programs::new("dashboards-programs")?;
        let title = programs.get("vllm")?.to_string_lossy().into_owned();
        let words = ["serve", "org/dashboards-7B", "--tensor-parallel-size", "2"];
        let mut server = Puppet::start(&programs, "vllm", &title, &words)?;
        let worker = programs.get("VLLM::Worker_TP")?;
        let first = server.spawn(&worker, "VLLM::Worker_TP0", &[])?;
        let second = server.spawn(&worker, "VLLM::Worker_TP1", &[])?;
        let title = programs.get("ollama")?.to_string_lossy().into_owned();
        let other = Puppet::start(&programs, "ollama", &title, &["serve"])?;
        let words = ["serve", "org/contained-1B"];
        let contained = Puppet::launch(&programs, folder.command(&programs.get("vllm")?, &words))?;
        let docker = workload::directory()?.join("dashboards-docker");
        let state = docker.join("containers").join(&folder.id);
        fs::create_dir_all(&state)?;
        fs::write(
            state.join("config.v2.json"),
            r#"{"Name": "/dashboards-1", "Config": {"Image": "vllm:1", "Labels": {
                "io.kubernetes.container.name": "dashboards", "io.kubernetes.pod.name": "web-0",
                "io.kubernetes.pod.namespace": "prod"}}}"#,
        )?;
        let file = programs.file("data");
        fs::write(&file, vec![b'x'; FILE_BYTES.parse()?])?;
        Ok(Self {
            server,
            first,
            second,
            other,
            contained,
            docker,
            file,
            sent: 0,
            _folder: folder,
        })
    }

    /// Docker's folder, which knows the container.
    pub(super) fn docker(&self) -> &Path {
        &self.docker
    }

    /// Processes that are to hold memory of GPUs.
    pub(super) fn on_gpus(&self) -> [u32; 3] {
        [self.first.pid, self.second.pid, self.other.root.pid()]
    }

    /// One round of everything.
    pub(super) fn go_on(&mut self) -> Result<()> {
        let send = format!("send {SENT_BYTES}");
        self.server.order_child(&mut self.first, &send)?;
        self.sent += SENT_BYTES;
        let file = self.file.to_str().context("a path in UTF-8")?.to_owned();
        for case in ["direct-read", "direct-write"] {
            let disk = format!("disk {case} {file} {FILE_BYTES}");
            self.server.order_child(&mut self.second, &disk)?;
        }
        self.server.order("fork 3 1000")?;
        self.other.order(&send)?;
        self.contained.order(&send)?;
        self.contained
            .order(&format!("write {file}.contained 100000"))?;
        self.contained.order("fork 3 1000")?;
        thread::sleep(PAUSE);
        Ok(())
    }
}
