//! A running node_exporter.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::page::{Format, Page};
use esnode_tests::{http, skip, workload};

/// The version that the names are taken from.
pub(super) const VERSION: &str = "1.5";

/// How long it may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Debian's name first, then the project's.
const PROGRAMS: [&str; 2] = ["prometheus-node-exporter", "node_exporter"];

/// Expressions that both take: Debian's package has other defaults than the project, and neither has
/// all of ours.
const DISKS: &str = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
const MOUNTS: &str = r"^/(dev|proc|sys|var/lib/docker/.+)($|/)";
const FSTYPES: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|\
    hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|\
    squashfs|sysfs|tracefs)$";
/// All network interfaces.
const NO_INTERFACES: &str = "^$";

/// By a flag of the agent and one of node_exporter, what neither of both shows.
const EXCLUDED: [(&str, &str, &str); 4] = [
    ("disk-device", "diskstats.device", DISKS),
    ("network-device", "netdev.device", NO_INTERFACES),
    ("mount", "filesystem.mount-points", MOUNTS),
    ("fstype", "filesystem.fs-types", FSTYPES),
];

/// Flags of the agent that make it show the same devices.
pub(super) fn agent_flags() -> Vec<String> {
    let flags = EXCLUDED.iter();
    flags
        .map(|(flag, _, expression)| format!("--{flag}-exclude={expression}"))
        .collect()
}

/// Flags of node_exporter.
fn flags() -> Vec<String> {
    let flags = EXCLUDED.iter();
    let excluded =
        flags.map(|(_, flag, expression)| format!("--collector.{flag}-exclude={expression}"));
    let more = [
        // Families that are none of the node's, some of types that the agent's page has not.
        "--web.disable-exporter-metrics",
        "--collector.textfile.directory=",
        // What udev knows of disks is labels of node_disk_info there.
        "--path.udev.data=/nonexistent",
    ];
    excluded.chain(more.map(str::to_owned)).collect()
}

/// A node_exporter that answers; killed when dropped.
pub(super) struct NodeExporter {
    child: Child,
    address: SocketAddr,
}

impl NodeExporter {
    /// Starts it with its default collectors on a free loopback port, and with more flags.
    pub(super) fn start(more: &[String]) -> Result<Self> {
        // Whoever takes the port meanwhile makes this fail, and that's told.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let log = workload::directory()?.join("node_exporter.log");
        let mut exporter = Self {
            child: spawn(address, more, &log)?,
            address,
        };
        let start = Instant::now();
        while exporter.text("/metrics").is_err() {
            if let Some(status) = exporter.child.try_wait()? {
                bail!(
                    "node_exporter ended ({status}): {}",
                    fs::read_to_string(&log)?
                );
            }
            ensure!(start.elapsed() < PATIENCE, "node_exporter doesn't answer");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(exporter)
    }

    /// The page of all default collectors.
    pub(super) fn page(&self) -> Result<Page> {
        Page::parse(&self.text("/metrics")?, Format::Text)
    }

    /// The page of one collector.
    pub(super) fn page_of(&self, collector: &str) -> Result<Page> {
        let path = format!("/metrics?collect[]={collector}");
        Page::parse(&self.text(&path)?, Format::Text)
    }

    fn text(&self, path: &str) -> Result<String> {
        let response = http::get(self.address, path)?;
        ensure!(response.status == 200, "{path} has {}", response.status);
        Ok(response.text()?.to_owned())
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(address: SocketAddr, more: &[String], log: &Path) -> Result<Child> {
    let named = env::var_os("ESNODE_NODE_EXPORTER");
    let programs = match &named {
        Some(path) => vec![path.clone()],
        None => PROGRAMS.map(Into::into).to_vec(),
    };
    for program in programs {
        let mut command = Command::new(&program);
        command
            .arg(format!("--web.listen-address={address}"))
            .args(flags())
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?);
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {}
            child => return child.with_context(|| format!("{command:?}")),
        }
    }
    skip!("needs node_exporter: {} in PATH", PROGRAMS.join(" or "))
}

/// Skips the test if this isn't the version that the names are taken from; others have families more
/// or less.
pub(super) fn need_version(page: &Page) -> Result<()> {
    let versions = page.label_values("node_exporter_build_info", &[], "version");
    let version = versions.first().context("no version of node_exporter")?;
    let of_it = version
        .strip_prefix(VERSION)
        .is_some_and(|rest| rest.starts_with('.'));
    if !of_it {
        skip!("needs node_exporter {VERSION}, this is {version}");
    }
    Ok(())
}
