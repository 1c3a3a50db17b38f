//! `cargo xtask tools`: programs of others that tests and benchmarks use.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    apt::{Apt, remove},
    processor::Processor,
    step,
    workspace::Workspace,
};

/// What is taken from which release of Debian, in the order in which it's unpacked: where two have
/// the same file, the later stays. The second Compose is an unlike generation; its predecessor's
/// programs run on all releases since.
const PACKAGES: [(&str, &[&str]); 2] = [
    ("trixie", &["docker-compose", "kubectl"]),
    (
        "bookworm",
        &[
            "containerd",
            "docker-compose",
            "docker.io",
            "prometheus",
            "prometheus-node-exporter",
            "prometheus-process-exporter",
            "runc",
        ],
    ),
];

/// Written in Python: what it's made of comes along.
const IN_PYTHON: (&str, &str) = ("bookworm", "docker-compose");

/// From PyPI: the schemas of Kubernetes' API, and those of Prometheus Operator.
const PYTHON: [&str; 2] = [
    "kubernetes-validate==1.37.0",
    "cloudcoil-models-prometheus-operator==0.80.1.0",
];

/// Bring programs of others that tests use: Docker, both generations of Compose, Prometheus, kubectl.
///
/// They are packages of Debian, and schemas from PyPI, unpacked below target/tools/debian. Nothing is
/// installed, and nothing starts. What needs them looks there after PATH. Takes apt, dpkg, Debian's
/// keyring, and python3 with pip.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_: &Args) -> Result<ExitCode> {
    let folder = bring(&Workspace::locate()?)?;
    step::announce(&format!("The programs are in {}", folder.display()));
    Ok(ExitCode::SUCCESS)
}

/// Where they are, if they were brought.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("debian")
}

/// Brings those that are not there yet.
pub(crate) fn bring(workspace: &Workspace) -> Result<PathBuf> {
    let folder = folder(workspace);
    let list = format!("{PACKAGES:?} {PYTHON:?}");
    let noted = folder.join("packages");
    if fs::read_to_string(&noted).is_ok_and(|text| text == list) {
        return Ok(folder);
    }
    remove(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (release, names) in PACKAGES {
        let apt = Apt::new(workspace, release, Processor::own()?)?;
        apt.update()?;
        let mut packages: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        if release == IN_PYTHON.0 {
            let mut modules = apt.depends_in_turn(IN_PYTHON.1)?;
            // The language itself is there, or none of it is of use.
            modules.retain(|name| name.starts_with("python3-") && name != "python3-minimal");
            packages.extend(modules);
        }
        apt.unpack(&packages, &folder)
            .with_context(|| format!("cannot bring packages of Debian {release}"))?;
    }
    let mut pip = workspace.program("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-warn-conflicts"])
        .arg("--root-user-action=ignore")
        .arg("--target")
        .arg(folder.join("python"))
        .args(PYTHON);
    step::run("Installing schemas of Kubernetes", &mut pip)?;
    fs::write(&noted, list).with_context(|| format!("cannot write {}", noted.display()))?;
    Ok(folder)
}
