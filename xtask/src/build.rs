//! `cargo xtask build`: the agent, with the BPF programs inside.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{build_ebpf, step, workspace::Workspace};

/// Build the agent in release, with the BPF programs inside.
///
/// Leaves it in `target/release/esnode-core`: one file that needs nothing else to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    ebpf: Ebpf,
}

/// Whether there are BPF programs in what is built.
#[derive(Default, clap::Args)]
pub(crate) struct Ebpf {
    /// Leave the BPF programs out.
    ///
    /// The agent then reads /proc only: no network bytes, and nothing of processes that ended
    /// between two scrapes. Needs neither rust-src nor bpf-linker.
    #[arg(long)]
    no_ebpf: bool,
}

/// What [`build`] leaves: the agent, and how to tell cargo about its BPF object again.
pub(crate) struct Built {
    /// The path of the agent.
    pub(crate) agent: PathBuf,
    object: Option<PathBuf>,
}

impl Built {
    /// Points the agent's build script to the object, or to none.
    pub(crate) fn set_object(&self, cargo: &mut Command) {
        set_object(cargo, self.object.as_ref());
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let built = build(&Workspace::locate()?, &args.ebpf)?;
    step::announce(&format!("Built {}", built.agent.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds the agent with the BPF programs inside.
pub(crate) fn with_ebpf(workspace: &Workspace) -> Result<Built> {
    build(workspace, &Ebpf::default())
}

/// Builds the agent.
pub(crate) fn build(workspace: &Workspace, ebpf: &Ebpf) -> Result<Built> {
    let object = if ebpf.no_ebpf {
        None
    } else {
        Some(build_ebpf::build(workspace)?)
    };
    let mut cargo = workspace.cargo_locked("build");
    cargo.args(["--release", "--package=esnode-agent", "--bin=esnode-core"]);
    set_object(&mut cargo, object.as_ref());
    step::run("Building the agent", &mut cargo)?;
    Ok(Built {
        agent: workspace.agent(),
        object,
    })
}

/// Builds the NVML without GPUs that tests load, and says where it is.
pub(crate) fn fake_nvml(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo_locked("build");
    cargo.args(["--release", "--package=esnode-fake-nvml"]);
    step::run("Building the fake NVML", &mut cargo)?;
    Ok(workspace.target.join("release/libfake_nvml.so"))
}

/// Builds the workload of the tests, and says where it is.
pub(crate) fn workload(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo_locked("build");
    cargo.args([
        "--release",
        "--package=esnode-tests",
        "--bin=esnode-workload",
    ]);
    step::run("Building the workload", &mut cargo)?;
    Ok(workspace.target.join("release/esnode-workload"))
}

fn set_object(cargo: &mut Command, object: Option<&PathBuf>) {
    const NAME: &str = "ESNODE_BPF_OBJECT";
    match object {
        Some(path) => cargo.env(NAME, path),
        None => cargo.env_remove(NAME),
    };
}
