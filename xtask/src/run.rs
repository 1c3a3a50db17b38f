//! `cargo xtask run`: builds the agent and becomes it.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Error, Result};

use crate::{build, privilege, step, workspace::Workspace};

/// Build the agent and run it.
///
/// Loading BPF programs takes root. When this is not run by root, the agent is started through
/// sudo, which may ask for a password; where there is no sudo it runs unprivileged, on /proc
/// alone. The ESNODE_… variables reach the agent in each case.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask run -- --listen-address 127.0.0.1:9100")]
pub(crate) struct Args {
    #[command(flatten)]
    ebpf: build::Ebpf,
    /// Flags for the agent (`cargo xtask run -- --help` lists them)
    #[arg(last = true, value_name = "AGENT FLAGS")]
    agent: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let agent = build::build(&Workspace::locate()?, &args.ebpf)?.agent;
    let mut command = if privilege::is_root() {
        Command::new(agent)
    } else if privilege::has_sudo() {
        let mut sudo = Command::new("sudo");
        sudo.arg(privilege::preserve_env(["RUST_BACKTRACE"]))
            .arg("--")
            .arg(agent);
        sudo
    } else {
        step::announce("Not root, and sudo is not installed: the agent runs unprivileged");
        Command::new(agent)
    };
    command.args(&args.agent);
    step::announce(&format!("Running {}", step::shown(&command)));
    // Takes this process's place, so that signals reach the agent.
    let error = command.exec();
    Err(Error::new(error)).with_context(|| format!("cannot run `{}`", step::shown(&command)))
}
