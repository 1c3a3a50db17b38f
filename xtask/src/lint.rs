//! `cargo xtask lint`: everything about the code that needs no run.

use std::{
    env::consts::ARCH,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Result, bail};

use crate::{build_ebpf, dashboards, step, workspace::Workspace};

/// Check the format, the lints, the documentation, the licences and the dashboards.
///
/// Runs rustfmt, clippy (for the host, and for the BPF programs on their own target), rustdoc
/// with warnings as errors, cargo-deny where that is installed, and `cargo xtask dashboards`. All of
/// them run, also when one fails; the last line names those that did.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_: &Args) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    build_ebpf::ensure_rust_src(&workspace)?;

    let mut failed = Vec::new();
    for (name, mut command) in checks(&workspace) {
        if let Err(error) = step::run(&format!("Checking with {name}"), &mut command) {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    step::announce("Checking dashboards and rules");
    if let Err(error) = dashboards::check() {
        eprintln!("error: {error:#}");
        failed.push("dashboards");
    }
    if !failed.is_empty() {
        bail!("found something to mend: {}", failed.join(", "));
    }
    step::announce("Nothing to mend");
    Ok(ExitCode::SUCCESS)
}

fn checks(workspace: &Workspace) -> Vec<(&'static str, Command)> {
    let mut fmt = workspace.cargo("fmt");
    fmt.args(["--all", "--check"]);

    let mut clippy = workspace.cargo_locked("clippy");
    clippy.args(["--workspace", "--all-targets", "--", "-Dwarnings"]);

    let mut bpf = workspace.cargo("clippy");
    build_ebpf::target_options(&mut bpf, workspace, ARCH);
    bpf.args(["--", "-Dwarnings"]);

    let mut doc = workspace.cargo_locked("doc");
    doc.args([
        "--no-deps",
        "--package=esnode-agent",
        "--package=esnode-ebpf",
    ])
    .env("RUSTDOCFLAGS", "-Dwarnings");

    let mut checks = vec![
        ("rustfmt", fmt),
        ("clippy", clippy),
        ("clippy for BPF", bpf),
        ("rustdoc", doc),
    ];
    if let Some(mut deny) = cargo_deny(workspace) {
        deny.args(["--locked", "--config", ".cargo/deny.toml", "check"])
            .args(["licenses", "bans", "sources"]);
        checks.push(("cargo-deny", deny));
    } else {
        step::announce(
            "Skipping cargo-deny, which is not installed: \
             `cargo install cargo-deny --locked` brings it in three minutes",
        );
    }
    checks
}

/// The copy under `target/tools`, else the one on the path.
fn cargo_deny(workspace: &Workspace) -> Option<Command> {
    let own = workspace.tools().join("bin/cargo-deny");
    [own.into_os_string(), "cargo-deny".into()]
        .into_iter()
        .find(|program| {
            let mut version = workspace.program(program);
            version.arg("--version").stderr(Stdio::null());
            version.output().is_ok_and(|output| output.status.success())
        })
        .map(|program| workspace.program(program))
}
