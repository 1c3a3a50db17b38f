//! The programs that run in a virtual machine or a container: the agent, the suite and its
//! workload, each one file that needs nothing else.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::matrix::Machine;
use crate::{build_ebpf, step, workspace::Workspace};

/// Where they are.
pub(super) struct Programs {
    pub(super) agent: PathBuf,
    pub(super) suite: PathBuf,
    pub(super) workload: PathBuf,
}

/// Builds them.
pub(super) fn build(workspace: &Workspace, machine: Machine) -> Result<Programs> {
    let agent = agent(workspace, machine)?;
    let target = machine.target();
    let mut suite = cargo(workspace, "test", &target);
    suite
        .args(["--package=esnode-tests", "--test=suite", "--no-run"])
        .arg("--message-format=json-render-diagnostics");
    step::announce(&format!("Building the suite for {target}"));
    let messages = step::capture(&mut suite)?;
    Ok(Programs {
        agent,
        suite: executable(&messages).context("cargo names no executable of the suite")?,
        workload: folder(workspace, &target).join("esnode-workload"),
    })
}

/// Builds the agent and the workload for containers of this machine, and says where they are.
pub(crate) fn for_containers(workspace: &Workspace) -> Result<(PathBuf, PathBuf)> {
    let machine = Machine::own()?;
    let agent = agent(workspace, machine)?;
    let target = machine.target();
    let mut workload = cargo(workspace, "build", &target);
    workload.args(["--package=esnode-tests", "--bin=esnode-workload"]);
    step::run(
        &format!("Building the workload for {target}"),
        &mut workload,
    )?;
    Ok((agent, folder(workspace, &target).join("esnode-workload")))
}

/// Builds the agent.
fn agent(workspace: &Workspace, machine: Machine) -> Result<PathBuf> {
    let target = machine.target();
    ensure_target(workspace, &target)?;
    let object = build_ebpf::build_for(workspace, machine.arch())?;
    let mut agent = cargo(workspace, "build", &target);
    agent
        .args(["--package=esnode-agent", "--bin=esnode-core"])
        .env("ESNODE_BPF_OBJECT", object);
    step::run(&format!("Building the agent for {target}"), &mut agent)?;
    Ok(folder(workspace, &target).join("esnode-core"))
}

/// Where cargo leaves what it builds for a target.
fn folder(workspace: &Workspace, target: &str) -> PathBuf {
    workspace.target.join(target).join("release")
}

/// Links with the linker that comes with Rust: for another processor there is mostly no other. What
/// is tried with these programs is not how fast they are, so that they are built for fast building:
/// in parts, which the linker joins as they are.
fn cargo(workspace: &Workspace, subcommand: &str, target: &str) -> Command {
    let name = target.to_uppercase().replace('-', "_");
    let mut cargo = workspace.cargo_locked(subcommand);
    cargo
        .args(["--release", "--target", target])
        .env(format!("CARGO_TARGET_{name}_LINKER"), "rust-lld")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    cargo
}

/// The executable of the suite, from cargo's messages: a line of JSON for each thing built.
fn executable(messages: &str) -> Option<PathBuf> {
    let suite = |line: &&str| line.contains(r#""kind":["test"]"#);
    let (_, rest) = messages
        .lines()
        .find(suite)?
        .split_once(r#""executable":""#)?;
    Some(rest.split_once('"')?.0.into())
}

/// Brings the standard library for a target.
fn ensure_target(workspace: &Workspace, target: &str) -> Result<()> {
    let folder = workspace.rustc(&["--print", "target-libdir", "--target", target])?;
    if fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()) {
        return Ok(());
    }
    let mut rustup = workspace.program("rustup");
    rustup.args(["target", "add", target]).stdin(Stdio::null());
    step::run(&format!("Adding the target {target}"), &mut rustup).with_context(|| {
        format!("the standard library for {target} is missing: `rustup target add {target}`")
    })
}
