//! `esnode-core health`: what a container engine hears of an agent, in every state of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent, finish};
use nix::sys::signal::Signal;

use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("health::agent_that_runs_and_ends", runs_and_ends),
        Case::new("health::agent_that_is_stopped", stopped),
        Case::new("health::all_addresses_are_asked", all_addresses),
        Case::new("health::something_else_answers", something_else),
        Case::new("health::free_port_is_refused", free_port),
    ]
}

/// Asks by the variable that the agent would have been told by.
fn ask(addresses: &str) -> Result<Output> {
    let mut command = agent::command()?;
    command
        .arg("health")
        .env("ESNODE_LISTEN_ADDRESS", addresses)
        .env("ESNODE_HEALTH_TIMEOUT", "500ms");
    finish(command)
}

fn ensure_ill(output: &Output, said: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure_eq!(output.status.code(), Some(1), "exit code: {text}");
    ensure!(text.contains(said), "{said:?} is not in {text:?}");
    ensure_eq!(text.lines().count(), 1, "lines: {text}");
    Ok(())
}

fn runs_and_ends() -> Result<()> {
    // On all addresses, as in a container: it's asked on loopback.
    let mut command = agent::command()?;
    command.args(["--no-bpf", "--listen-address", "0.0.0.0:0"]);
    let agent = Agent::launch(command, 1)?;
    let address = agent.address()?.to_string();
    let output = ask(&address)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure_eq!(output.status.code(), Some(0), "exit code: {text}");
    ensure!(
        text.is_empty(),
        "a healthy agent has nothing to say: {text}"
    );
    agent.stop()?;
    ensure_ill(&ask(&address)?, "cannot connect")
}

fn stopped() -> Result<()> {
    let agent = Agent::start(&["--no-bpf"])?;
    agent.signal(Signal::SIGSTOP)?;
    let asked = ask(&agent.address()?.to_string());
    agent.signal(Signal::SIGCONT)?;
    ensure_ill(&asked?, "no answer within 500ms")
}

fn all_addresses() -> Result<()> {
    let agent = Agent::start(&["--no-bpf"])?;
    // Bound, and nobody's any more.
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let both = format!("{},{closed}", agent.address()?);
    ensure_ill(&ask(&both)?, &format!("http://{closed}/healthz"))
}

/// Answers one request as another program would that has this path.
fn impostor(answer: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let length = stream.read(&mut [0; 1024])?;
        ensure!(length > 0, "no request");
        stream.write_all(answer.as_bytes()).context("answer")
    });
    Ok(address)
}

fn something_else() -> Result<()> {
    let address = impostor("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nwelcome")?;
    ensure_ill(&ask(&address.to_string())?, "is no esnode-core")?;
    let address = impostor("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")?;
    ensure_ill(&ask(&address.to_string())?, "503")
}

fn free_port() -> Result<()> {
    ensure_ill(&ask("127.0.0.1:0")?, "free port")
}
