//! Starts, ends and what happens in between: signals, ports, crowds of scrapes.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use esnode_tests::agent::{self, ACCEPT_OPENMETRICS, Agent, finish, need_bpf};
use esnode_tests::http;
use esnode_tests::page::{Format, Page};
use esnode_tests::workload::{Name, Workload};
use esnode_tests::{skip, vm};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Case;
use crate::check::{Calls, ensure_eq, group, within_grace};

/// The longest that an end may take on a real processor.
const STOP: Duration = Duration::from_secs(1);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("lifecycle::sigterm_ends_it_within_a_second", || {
            stops_on(Signal::SIGTERM)
        }),
        Case::new("lifecycle::sigint_ends_it_within_a_second", || {
            stops_on(Signal::SIGINT)
        }),
        Case::new("lifecycle::signal_while_it_starts", stops_while_starting),
        Case::new("lifecycle::log_that_cannot_be_written", unwritable_log),
        Case::new(
            "lifecycle::open_connections_do_not_delay_the_end",
            stops_with_open_connections,
        ),
        Case::new(
            "lifecycle::double_start_leaves_the_first_unharmed",
            double_start,
        ),
        Case::new("lifecycle::port_of_another_program", port_taken),
        Case::new("lifecycle::killed_and_started_again", killed_and_restarted),
        Case::new("lifecycle::two_agents_side_by_side", two_agents),
        Case::new("lifecycle::hundred_scrapes_in_parallel", parallel_scrapes),
        Case::new(
            "lifecycle::page_is_not_older_than_its_request",
            fresh_under_load,
        ),
        Case::new("lifecycle::scrapes_during_a_fork_storm", || {
            scrapes_in_storm(&[], false)
        }),
        Case::new("lifecycle::scrapes_during_an_exec_storm", || {
            scrapes_in_storm(&[], true)
        }),
        Case::new("lifecycle::few_groups_during_an_exec_storm", || {
            scrapes_in_storm(&["--group-limit", "3"], true)
        }),
        Case::alone("lifecycle::programs_are_gone_after_the_end", || {
            programs_gone(Signal::SIGTERM)
        }),
        Case::alone("lifecycle::programs_are_gone_after_a_kill", || {
            programs_gone(Signal::SIGKILL)
        }),
    ]
}

fn stops_on(signal: Signal) -> Result<()> {
    let agent = Agent::start(&[])?;
    agent.page()?;
    ends_well(agent, signal)
}

/// Programs are being loaded for a fifth of a second: a signal in that time counts too.
fn stops_while_starting() -> Result<()> {
    for milliseconds in [20, 60, 120] {
        let mut command = agent::command()?;
        command.args(["--listen-address", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        // Its first line tells that it listens to signals soon after.
        let mut log = BufReader::new(child.stderr.take().context("no log")?);
        log.read_line(&mut String::new())?;
        thread::sleep(Duration::from_millis(milliseconds));
        kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
        ensure_eq!(child.wait()?.code(), Some(0), "exit code");
    }
    Ok(())
}

/// A full disk under the log is no reason to end.
fn unwritable_log() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let mut command = agent::command()?;
    command.args(["--listen-address", &address]);
    let full = OpenOptions::new().write(true).open("/dev/full")?;
    let mut child = command.stderr(full).spawn()?;
    let answered = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        TcpStream::connect(&address).is_ok()
    });
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
    ensure_eq!(child.wait()?.code(), Some(0), "exit code");
    ensure!(answered, "it never listened on {address}");
    Ok(())
}

fn ends_well(agent: Agent, signal: Signal) -> Result<()> {
    let ended = agent.stop_by(signal)?;
    ensure_eq!(ended.status.code(), Some(0), "exit code");
    let longest = STOP * vm::slowness();
    ensure!(ended.took < longest, "the end took {:?}", ended.took);
    Ok(())
}

/// One connection that says nothing, one that waits for its next request, one in mid-request.
fn stops_with_open_connections() -> Result<()> {
    let agent = Agent::start(&[])?;
    let _silent = http::connect(agent.address()?)?;
    let mut waiting = http::connect(agent.address()?)?;
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")?;
    ensure!(waiting.read(&mut [0; 1024])? > 0, "no answer");
    let mut halfway = http::connect(agent.address()?)?;
    halfway.write_all(b"GET /metr")?;
    agent.page()?;
    ends_well(agent, Signal::SIGTERM)
}

/// Checks how the agent complains: one line that says what's wrong, no trace of the program.
fn check_complaint(address: &str) -> Result<()> {
    let mut command = agent::command()?;
    command.env("RUST_BACKTRACE", "full");
    command.args(["--log-level", "error", "--listen-address", address]);
    let output = finish(command)?;
    ensure_eq!(output.status.code(), Some(1), "exit code");
    let text = String::from_utf8(output.stderr)?;
    ensure_eq!(text.lines().count(), 1, "lines on stderr of {text:?}");
    ensure!(
        text.contains(address),
        "the address {address} isn't in {text:?}"
    );
    // "Address already in use" with glibc, "Address in use" with musl
    ensure!(
        text.to_lowercase().contains("in use"),
        "the reason isn't in {text:?}"
    );
    Ok(())
}

fn double_start() -> Result<()> {
    let first = Agent::start(&[])?;
    first.page()?;
    check_complaint(&first.address()?.to_string())?;
    first.page()?;
    ends_well(first, Signal::SIGTERM)
}

fn port_taken() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    check_complaint(&listener.local_addr()?.to_string())
}

/// The new agent has the old one's port at once, counts from zero, and counts once.
fn killed_and_restarted() -> Result<()> {
    need_bpf()?;
    let first = Agent::start(&[])?;
    let address = first.address()?.to_string();
    first.page()?;
    first.stop_by(Signal::SIGKILL)?;
    let mut command = agent::command()?;
    command.args(["--listen-address", &address, "--group-limit", "100000"]);
    let second = Agent::launch(command, 1)?;
    ensure_eq!(second.address()?.to_string(), address, "the address");
    let name = Name::new("again")?;
    let ended = Workload::run(&name, &["move", "send", "tcp4", "100000", "90000"])?.release()?;
    let page = second.page()?;
    group(&page, &[("group", &name.comm)]).check_moved(&ended.report.total(), Calls::Exact)
}

/// Each of two agents sees everything once.
fn two_agents() -> Result<()> {
    need_bpf()?;
    let agents = [Agent::start(&[])?, Agent::start(&[])?];
    let name = Name::new("both")?;
    let ended = Workload::run(&name, &["move", "send", "udp4", "100000", "90000"])?.release()?;
    for agent in agents {
        let page = agent.page()?;
        group(&page, &[("group", &name.comm)]).check_moved(&ended.report.total(), Calls::Exact)?;
    }
    Ok(())
}

/// Everyone gets a whole valid page, and each is counted.
fn parallel_scrapes() -> Result<()> {
    const CLIENTS: usize = 100;
    let agent = Agent::start(&[])?;
    let answered = |page: &Page| page.count("esnode_scrapes_total", &[("code", "200")]);
    let before = answered(&agent.page()?)?.unwrap_or(0);
    let (barrier, address) = (Barrier::new(CLIENTS), agent.address()?);
    thread::scope(|scope| {
        let client = || -> Result<()> {
            barrier.wait();
            let answer = http::request(address, "GET", "/metrics", &[ACCEPT_OPENMETRICS])?;
            ensure_eq!(answer.status, 200, "status");
            Page::parse(answer.text()?, Format::OpenMetrics)?;
            Ok(())
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    let after = answered(&agent.page()?)?.unwrap_or(0);
    ensure_eq!(after - before, CLIENTS as u64 + 1, "scrapes counted");
    Ok(())
}

/// Scrapes that share a pass must not get one that began before they came.
fn fresh_under_load() -> Result<()> {
    let agent = Agent::start(&["--group-limit", "100000"])?;
    let address = agent.address()?;
    let name = Name::new("fresh")?;
    let (started, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let going_on = || {
                    let gone = gone
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    gone.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty)
                };
                while going_on() {
                    // What others get isn't of interest; the one below is.
                    let _ = http::get(address, "/metrics");
                }
            });
        }
        let check = || -> Result<()> {
            for _ in 0..50 {
                let workload = Workload::run(&name, &["idle"])?;
                let page = agent.page()?;
                ensure_eq!(
                    group(&page, &[("group", &name.comm)]).number("_processes")?,
                    1,
                    "processes alive"
                );
                workload.release()?;
                let page = agent.page()?;
                let alive = page.count("esnode_group_processes", &[("group", &name.comm)])?;
                ensure_eq!(alive.unwrap_or(0), 0, "processes alive");
            }
            Ok(())
        };
        let result = check();
        drop(started);
        result
    })
}

/// Counters of groups only ever rise, whatever happens between two scrapes.
fn scrapes_in_storm(flags: &[&str], exec: bool) -> Result<()> {
    const SCRAPES: usize = 60;
    need_bpf()?;
    let agent = if flags.is_empty() {
        Agent::start(&["--group-limit", "100000"])?
    } else {
        Agent::start(flags)?
    };
    let name = Name::new("storm")?;
    let others: Vec<Name> = (0..4).map(|_| Name::new("storm")).collect::<Result<_>>()?;
    let paths: Vec<_> = others
        .iter()
        .map(|other| other.path.to_string_lossy().into_owned())
        .collect();
    let mut words = vec!["storm"];
    if exec {
        words.extend(paths.iter().map(String::as_str));
    }
    let mut workload = Workload::start(&name, &words)?;
    workload.wait_for("at storm")?;
    let mut last = agent.page()?;
    for scrape in 0..SCRAPES {
        let page = agent.page()?;
        page.check_monotonic(&last, "esnode_group_")
            .with_context(|| format!("scrape {scrape}"))?;
        page.check_monotonic(&last, "esnode_unattributed_")
            .with_context(|| format!("scrape {scrape}"))?;
        last = page;
    }
    let ended = workload.release()?;
    let page = agent.page()?;
    page.check_monotonic(&last, "esnode_group_")?;
    if flags.is_empty() {
        for (comm, tally) in &ended.report.moved {
            group(&page, &[("group", comm)]).check_moved(tally, Calls::Exact)?;
        }
    }
    if flags.is_empty() && !exec {
        let forks = ended.report.fact("forks")?;
        let labels = [("group", name.comm.as_str())];
        let storm = group(&page, &labels);
        ensure_eq!(
            storm.number("_exited_total")?,
            forks + 1,
            "processes that ended"
        );
        ensure_eq!(
            storm.number("_started_total")?,
            forks + 1,
            "processes that started"
        );
    }
    Ok(())
}

/// The BPF programs that the kernel has now.
fn programs() -> Result<Vec<u64>> {
    let mut command = Command::new("bpftool");
    command.args(["--json", "prog", "show"]);
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => skip!("needs bpftool"),
        output => output?,
    };
    ensure!(
        output.status.success(),
        "bpftool: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let programs: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let programs = programs.as_array().context("bpftool gives no list")?;
    programs
        .iter()
        .map(|program| {
            program
                .get("id")
                .and_then(serde_json::Value::as_u64)
                .context("no id")
        })
        .collect()
}

/// Nothing stays behind in the kernel; it takes a moment to free what nobody holds.
fn programs_gone(signal: Signal) -> Result<()> {
    need_bpf()?;
    let before = programs()?;
    let agent = Agent::start(&[])?;
    let with: Vec<u64> = programs()?
        .into_iter()
        .filter(|id| !before.contains(id))
        .collect();
    ensure!(!with.is_empty(), "the agent has loaded no program");
    agent.stop_by(signal)?;
    within_grace(|| {
        let left: Vec<u64> = programs()?
            .into_iter()
            .filter(|id| with.contains(id))
            .collect();
        ensure!(left.is_empty(), "programs that are still there: {left:?}");
        Ok(())
    })
}
