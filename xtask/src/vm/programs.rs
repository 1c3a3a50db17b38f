//! The programs that run in a virtual machine or a container: the agent, the suite and its
//! workload, each one file that needs nothing else.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf,
    processor::{Processor, ensure_standard_library, link_by_rust},
    step,
    workspace::Workspace,
};

/// Where they are.
pub(super) struct Programs {
    pub(super) agent: PathBuf,
    pub(super) suite: PathBuf,
    pub(super) workload: PathBuf,
}

/// Builds them.
pub(super) fn build(workspace: &Workspace, processor: Processor) -> Result<Programs> {
    let agent = agent(workspace, processor)?;
    let target = processor.static_target();
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
    let processor = Processor::own()?;
    let agent = agent(workspace, processor)?;
    let target = processor.static_target();
    let mut workload = cargo(workspace, "build", &target);
    workload.args(["--package=esnode-tests", "--bin=esnode-workload"]);
    step::run(
        &format!("Building the workload for {target}"),
        &mut workload,
    )?;
    Ok((agent, folder(workspace, &target).join("esnode-workload")))
}

/// Builds the agent.
fn agent(workspace: &Workspace, processor: Processor) -> Result<PathBuf> {
    let target = processor.static_target();
    ensure_standard_library(workspace, &target)?;
    let object = build_ebpf::build_for(workspace, processor.arch())?;
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

/// What is tried with these programs is not how fast they are, so that they are built for fast
/// building: in parts, which the linker joins as they are.
fn cargo(workspace: &Workspace, subcommand: &str, target: &str) -> Command {
    let mut cargo = workspace.cargo_locked(subcommand);
    cargo
        .args(["--release", "--target", target])
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    link_by_rust(&mut cargo, target);
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
