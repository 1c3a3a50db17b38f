//! Both read hosts that are folders, which have what the machine that runs the tests has not: sensors,
//! InfiniBand, ECC memory, meters of energy, frequencies of cores.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use esnode_tests::agent::Agent;
use esnode_tests::page::Labels;
use esnode_tests::{fixture, workload};

use super::bounds::Motion;
use super::exporter::{self, NodeExporter};
use super::report::Report;
use super::run::{self, Run};
use super::{mapping, names};

const HOSTS: [&str; 5] = [
    "numa-server",
    "gpu-server",
    "small-vm",
    "arm64",
    "container",
];

/// What node_exporter does not read from these folders, but from the machine.
const OF_THE_MACHINE: [&str; 4] = ["node_os_", "node_time_", "node_timex_", "node_uname_"];

/// What it reads of a frequency policy, and gives up on all without, though every kernel has them.
const POLICY: [(&str, &str); 5] = [
    ("related_cpus", "0\n"),
    ("scaling_available_governors", "performance powersave\n"),
    ("scaling_driver", "intel_pstate\n"),
    ("scaling_governor", "performance\n"),
    ("scaling_setspeed", "<unsupported>\n"),
];
/// The same of a device of InfiniBand. Without a text, they are labels that aren't there.
const DEVICE: [(&str, &str); 3] = [("board_id", ""), ("fw_ver", ""), ("hca_type", "")];
/// The same of a network interface: without, it is neither up nor down to us, and down to it.
const INTERFACE: [(&str, &str); 1] = [("operstate", "down\n")];

pub(super) fn check() -> Result<()> {
    let mut report = Report::default();
    for host in HOSTS {
        let folder = prepare(host)?;
        report.add(compare(&folder)?.of(host));
        fs::remove_dir_all(&folder)?;
    }
    report.finish()
}

/// Everything that both say of a host.
fn compare(host: &Path) -> Result<Report> {
    let root = |name: &str| -> Result<String> {
        let root = host.join(name).into_os_string().into_string();
        root.ok().context("the folder of this run is not UTF-8")
    };
    let (procfs, sysfs) = (root("proc")?, root("sys")?);
    let theirs = [
        format!("--path.procfs={procfs}"),
        format!("--path.sysfs={sysfs}"),
        // They would ask the machine.
        "--no-collector.netdev.netlink".to_owned(),
        "--no-collector.filesystem".to_owned(),
    ];
    let exporter = NodeExporter::start(&theirs)?;
    exporter::need_version(&exporter.page()?)?;
    let devices = run::agent_flags();
    let mut ours: Vec<&str> = devices.iter().map(String::as_str).collect();
    ours.extend(["--disable-collector=filesystem", "--node-exporter-names"]);
    ours.extend(["--procfs", &procfs, "--sysfs", &sysfs]);
    let agent = Agent::start(&ours)?;
    let run = Run::take(&agent, &exporter)?;
    let mut report = mapping::compare(&run, motion);
    report.add(names::compare(&run, is_of_the_machine, motion)?);
    Ok(report)
}

fn is_of_the_machine(name: &str) -> bool {
    OF_THE_MACHINE.iter().any(|start| name.starts_with(start))
}

/// Nothing moves in a folder.
fn motion(name: &str, kind: &str, labels: &Labels) -> Motion {
    if is_of_the_machine(name) {
        Motion::of(name, kind, labels)
    } else {
        Motion::Stands
    }
}

/// A copy of a host in which both are where process 1 is, with what node_exporter can't do without.
fn prepare(host: &str) -> Result<PathBuf> {
    let copy = workload::directory()?.join(format!("parity-{host}"));
    fixture::copy(&fixture::folder()?.join(host), &copy)?;
    let own = copy.join("proc/self");
    // In the container's view, who asks is all that there is.
    if own.is_symlink() {
        fs::remove_file(&own).with_context(|| own.display().to_string())?;
        symlink("1", &own)?;
    }
    let sys = copy.join("sys");
    add(&sys.join("devices/system/cpu/cpufreq"), &POLICY)?;
    add(&sys.join("class/infiniband"), &DEVICE)?;
    add(&sys.join("class/net"), &INTERFACE)?;
    Ok(copy)
}

/// Adds files to each folder in a folder, where they are missing.
fn add(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    for entry in entries {
        let device = entry?.path();
        for (name, text) in files {
            let file = device.join(name);
            if device.is_dir() && !file.exists() {
                fs::write(&file, text).with_context(|| file.display().to_string())?;
            }
        }
    }
    Ok(())
}
