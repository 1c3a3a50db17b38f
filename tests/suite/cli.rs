//! The command line and the log.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent, finish, run};
use esnode_tests::http;

use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("cli::version", version),
        Case::new("cli::help", help),
        Case::new("cli::wrong_usage", wrong_usage),
        Case::new("cli::unreadable_root", unreadable_root),
        Case::new("cli::log_begins_with_the_version", first_line),
        Case::new("cli::json_log", json_log),
        Case::new("cli::quiet_log", quiet_log),
        Case::new("cli::scrapes_are_not_logged", no_line_per_scrape),
        Case::new("cli::flags_as_variables", variables),
        Case::new("cli::several_listeners", several_listeners),
        Case::new("cli::collectors_are_chosen", collectors),
    ]
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn version() -> Result<()> {
    let output = run(&["--version"])?;
    ensure_eq!(output.status.code(), Some(0), "exit code");
    let text = stdout(&output);
    for part in [
        "esnode-core",
        env!("CARGO_PKG_VERSION"),
        "commit",
        "-linux-",
        "BPF",
    ] {
        ensure!(
            text.to_lowercase().contains(&part.to_lowercase()),
            "{part} isn't in {text:?}"
        );
    }
    Ok(())
}

/// Every flag that users know is there, with its variable.
fn help() -> Result<()> {
    let output = run(&["--help"])?;
    ensure_eq!(output.status.code(), Some(0), "exit code");
    let text = stdout(&output);
    for flag in [
        "listen-address",
        "procfs",
        "sysfs",
        "no-bpf",
        "collectors",
        "disable-collector",
        "disk-device-exclude",
        "disk-device-include",
        "network-device-exclude",
        "network-device-include",
        "process-limit",
        "group-limit",
        "select",
        "log-level",
        "log-format",
    ] {
        ensure!(
            text.contains(&format!("--{flag}")),
            "--{flag} isn't in the help"
        );
        let variable = format!("ESNODE_{}", flag.to_uppercase().replace('-', "_"));
        ensure!(text.contains(&variable), "{variable} isn't in the help");
    }
    Ok(())
}

fn wrong_usage() -> Result<()> {
    for flags in [
        &["--no-such-flag"][..],
        &["argument"],
        &["--listen-address", "nowhere"],
        &["--listen-address", "127.0.0.1"],
        &["--log-level", "loud"],
        &["--log-format", "xml"],
        &["--process-limit", "-1"],
        &["--process-limit", "many"],
        &["--group-limit", ""],
        &["--select", "("],
        &["--collectors", "no-such-collector"],
        &["--disable-collector", "no-such-collector"],
    ] {
        let output = run(flags)?;
        ensure_eq!(
            output.status.code(),
            Some(2),
            "exit code for {flags:?}: {}",
            stderr(&output)
        );
        let text = stderr(&output);
        ensure!(text.starts_with("error:"), "{flags:?}: {text:?}");
        ensure!(
            !text.contains("backtrace") && !text.contains("panicked"),
            "{flags:?}: {text:?}"
        );
        ensure!(output.stdout.is_empty(), "{flags:?} write to stdout");
    }
    Ok(())
}

/// One line that names the root, no backtrace, whatever the log level.
fn unreadable_root() -> Result<()> {
    for flag in ["--procfs", "--sysfs"] {
        for level in ["error", "info"] {
            let mut command = agent::command()?;
            command.env("RUST_BACKTRACE", "full").args([
                flag,
                "/nonexistent",
                "--log-level",
                level,
            ]);
            command.args(["--listen-address", "127.0.0.1:0"]);
            let output = finish(command)?;
            let text = stderr(&output);
            ensure_eq!(
                output.status.code(),
                Some(1),
                "exit code with {flag}: {text}"
            );
            let lines: Vec<_> = text
                .lines()
                .filter(|line| line.contains("/nonexistent"))
                .collect();
            ensure_eq!(lines.len(), 1, "lines that name the root in {text:?}");
            ensure!(
                !text.contains("backtrace") && !text.contains("panicked"),
                "{text:?}"
            );
            if level == "error" {
                ensure_eq!(text.lines().count(), 1, "lines in {text:?}");
            }
        }
    }
    Ok(())
}

fn first_line() -> Result<()> {
    let agent = Agent::start(&[])?;
    let lines = agent.log.lines();
    let first = lines.first().context("no log")?;
    let expected = format!("Starting esnode-core {}", env!("CARGO_PKG_VERSION"));
    ensure!(first.contains(&expected), "the log begins with {first:?}");
    ensure!(
        !lines.iter().any(|line| line.contains('\u{1b}')),
        "colours in a log that isn't a terminal's"
    );
    Ok(())
}

fn json_log() -> Result<()> {
    let agent = Agent::start(&["--log-format", "json"])?;
    agent.page()?;
    let log = std::sync::Arc::clone(&agent.log);
    agent.stop()?;
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(value.is_object(), "not an object: {line}");
    }
    Ok(())
}

/// An agent that has nothing to complain about says nothing.
fn quiet_log() -> Result<()> {
    let mut command = agent::command()?;
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?;
    drop(taken);
    command.args([
        "--log-level",
        "error",
        "--no-bpf",
        "--listen-address",
        &address.to_string(),
    ]);
    let agent = Agent::launch(command, 0)?;
    crate::check::within_grace(|| http::get(address, "/metrics").map(drop))?;
    let log = std::sync::Arc::clone(&agent.log);
    agent.stop()?;
    ensure_eq!(log.lines().len(), 0, "lines in {:?}", log.lines());
    Ok(())
}

fn no_line_per_scrape() -> Result<()> {
    let agent = Agent::start(&[])?;
    agent.page()?;
    let before = agent.log.lines().len();
    for _ in 0..20 {
        agent.page()?;
    }
    let lines = agent.log.lines();
    ensure!(lines.len() < before + 5, "{:?}", lines.get(before..));
    Ok(())
}

/// A variable does what its flag does; the flag has the last word.
fn variables() -> Result<()> {
    let mut command = agent::command()?;
    command
        .env("ESNODE_LISTEN_ADDRESS", "127.0.0.1:0")
        .env("ESNODE_NO_BPF", "true");
    command
        .env("ESNODE_LOG_FORMAT", "json")
        .env("ESNODE_PROCESS_LIMIT", "2");
    let agent = Agent::launch(command, 1)?;
    ensure!(
        agent.log.lines().iter().all(|line| line.starts_with('{')),
        "the log isn't JSON"
    );
    let page = agent.page()?;
    ensure_eq!(
        page.label_values("esnode_process_info", &[], "pid").len(),
        2,
        "processes on the page"
    );
    ensure!(
        page.value("esnode_bpf_program_info", &[]).is_none(),
        "BPF is in use"
    );

    let mut command = agent::command()?;
    command
        .env("ESNODE_LISTEN_ADDRESS", "127.0.0.1:1")
        .args(["--listen-address", "127.0.0.1:0"]);
    let agent = Agent::launch(command, 1)?;
    ensure!(agent.address()?.port() != 1, "the variable won");

    let mut command = agent::command()?;
    command.env("ESNODE_LOG_LEVEL", "loud");
    ensure_eq!(
        finish(command)?.status.code(),
        Some(2),
        "exit code for a bad variable"
    );
    Ok(())
}

fn several_listeners() -> Result<()> {
    let mut command = agent::command()?;
    command.args([
        "--listen-address",
        "127.0.0.1:0",
        "--listen-address",
        "[::1]:0",
        "--no-bpf",
    ]);
    let v6 = std::net::TcpListener::bind(("::1", 0));
    if let Err(error) = v6 {
        esnode_tests::skip!("no IPv6 on the loopback interface: {error}");
    }
    let agent = Agent::launch(command, 2)?;
    ensure_eq!(agent.addresses.len(), 2, "listeners");
    for &address in &agent.addresses {
        ensure_eq!(
            http::get(address, "/metrics")?.status,
            200,
            "status of {address}"
        );
    }
    Ok(())
}

/// The collectors that run are those that were asked for.
fn collectors() -> Result<()> {
    let names = |flags: &[&str]| -> Result<Vec<String>> {
        let page = Agent::start(flags)?.page()?;
        let names = page.label_values("esnode_collector_success", &[], "collector");
        Ok(names.into_iter().map(str::to_owned).collect())
    };
    let all = names(&[])?;
    ensure!(all.len() >= 2, "collectors: {all:?}");
    for name in &all {
        ensure_eq!(
            names(&["--collectors", name])?,
            vec![name.clone()],
            "with --collectors {name}"
        );
        let rest: Vec<_> = all.iter().filter(|&other| other != name).cloned().collect();
        ensure_eq!(
            names(&["--disable-collector", name])?,
            rest,
            "with --disable-collector {name}"
        );
    }
    ensure_eq!(
        names(&["--collectors", &all.join(",")])?,
        all,
        "with all of them, by commas"
    );
    Ok(())
}
