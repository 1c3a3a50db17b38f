//! Opik's start script after `docker/opik/install.sh`, with a Docker that only says that it was called.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::install::{CONTAINERS, succeed};
use super::{checkout, repository};
use crate::Case;
use crate::check::ensure_eq;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("compose::opik::script::only_with_the_flag", flag),
        Case::new("compose::opik::script::stops_with_opik", stopped),
    ]
}

/// Runs Opik's script with a Docker that says of `sick` containers that they are unhealthy: what the
/// script prints, how Compose was called, and whether it succeeded.
fn start(checkout: &Path, arguments: &[&str], sick: &str) -> Result<(String, String, bool)> {
    let programs = checkout.join("programs");
    let log = programs.join("log");
    fs::create_dir_all(&programs)?;
    fs::write(&log, "")?;
    let docker = programs.join("docker");
    fs::write(
        &docker,
        r#"#!/bin/sh
case "$*" in
    compose*) echo "$*" >>"$LOG" ;;
    *State.Status*) echo running ;;
    *"$SICK"*) echo unhealthy ;;
    *Health*) echo healthy ;;
esac
"#,
    )?;
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755))?;
    let path = env::var("PATH")?;
    let output = Command::new(checkout.join("opik.sh"))
        .args(arguments)
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("LOG", &log)
        .env("SICK", sick)
        .env_remove("COMPOSE_PROJECT_NAME")
        .env_remove("ESNODE_DIR")
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(error.is_empty(), "{error}");
    let printed = String::from_utf8(output.stdout)?;
    Ok((printed, fs::read_to_string(&log)?, output.status.success()))
}

/// How Compose is called with the flag, in addition.
fn addition() -> Result<String> {
    let file = repository()?.join("docker/opik/opik.compose.yaml");
    Ok(format!(" -f {} --profile infra-metrics", file.display()))
}

/// With the flag, the script starts, verifies and shows ours too, also with its other flags, of which
/// one begins like it; without, all is as ever.
fn flag() -> Result<()> {
    let (plain, checkout) = (checkout()?, checkout()?);
    succeed(&checkout, &[])?;
    for arguments in [&[][..], &["--infra"], &["--guardrails", "--port-mapping"]] {
        let (printed, called, fine) = start(&checkout, arguments, "nobody")?;
        ensure!(fine, "{printed}");
        let (expected, expected_calls, _) = start(&plain, arguments, "nobody")?;
        ensure_eq!(printed, expected, "printed by {arguments:?}");
        let here = |text: &str, folder: &Path| text.replace(&folder.display().to_string(), "HERE");
        let (called, expected_calls) = (here(&called, &checkout), here(&expected_calls, &plain));
        ensure_eq!(called, expected_calls, "called by {arguments:?}");

        let with: Vec<&str> = ["--infra-metrics"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let (printed, called, fine) = start(&checkout, &with, "nobody")?;
        ensure!(fine, "{printed}");
        let called = here(&called, &checkout);
        let expected = expected_calls.replace(" up", &format!("{} up", addition()?));
        ensure_eq!(called, expected, "called by {with:?}");
        for action in [None, Some("--verify"), Some("--info")] {
            let with: Vec<&str> = with.iter().copied().chain(action).collect();
            let (printed, _, fine) = start(&checkout, &with, "nobody")?;
            ensure!(fine, "{printed}");
            for container in CONTAINERS {
                ensure!(
                    printed.contains(&format!("✅ {container}\n")),
                    "{with:?}: {printed}"
                );
            }
        }
    }
    let (printed, _, fine) = start(&checkout, &["--infra-metrics", "--info"], "esnode-core")?;
    ensure!(!fine, "{printed}");
    for said in [
        "❌ opik-esnode-core-1: running, unhealthy",
        "'./opik.sh --infra-metrics'",
        "'./opik.sh --infra-metrics --verify'",
    ] {
        ensure!(printed.contains(said), "not {said}, but {printed}");
    }
    let (printed, _, _) = start(&checkout, &["--help"], "nobody")?;
    ensure!(printed.contains("\n  --infra-metrics "), "{printed}");
    Ok(())
}

/// Who stops or cleans Opik may have started ours and forgotten the flag.
fn stopped() -> Result<()> {
    let checkout = checkout()?;
    succeed(&checkout, &[])?;
    for (action, ending) in [("--stop", " down\n"), ("--clean", " down -v\n")] {
        for arguments in [&[action][..], &["--infra-metrics", action]] {
            let (printed, called, fine) = start(&checkout, arguments, "nobody")?;
            ensure!(fine, "{printed}");
            ensure!(
                called.ends_with(&(addition()? + ending)),
                "{arguments:?}: {called}"
            );
        }
    }
    // Without esnode, Opik can still be stopped, and is not started with half of what was asked for.
    let path = checkout.join("opik.sh");
    let text = fs::read_to_string(&path)?;
    let place = repository()?;
    fs::write(
        &path,
        text.replace(&place.display().to_string(), "/nonexistent"),
    )?;
    let (printed, called, fine) = start(&checkout, &["--stop"], "nobody")?;
    ensure!(
        fine && called.ends_with("--profile opik down\n"),
        "{printed}{called}"
    );
    let (printed, called, fine) = start(&checkout, &["--infra-metrics"], "nobody")?;
    ensure!(!fine && called.is_empty(), "{printed}{called}");
    ensure!(printed.contains("set ESNODE_DIR"), "{printed}");
    Ok(())
}
