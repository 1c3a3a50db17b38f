//! What a BPF program takes per event, by the kernel's own statistics, next to an empty program
//! on the same hook.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::exporter::Exporter;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Datagrams sent and received.
const DATAGRAMS: usize = 200_000;
/// Processes started and ended.
const PROCESSES: usize = 1_000;
/// Scrapes, each of which runs the iterator over all tasks.
const SCRAPES: usize = 50;

/// Our programs, and the empty ones on the same hooks.
const PROGRAMS: [(&str, Option<&str>); 7] = [
    ("sock_send_length", Some("empty_send_length")),
    ("sock_recv_length", Some("empty_recv_length")),
    ("task_newtask", Some("empty_newtask")),
    ("task_rename", Some("empty_rename")),
    ("sched_process_exit", Some("empty_exit")),
    ("sched_process_free", Some("empty_free")),
    ("tasks", None),
];

/// Makes events of every kind, and reports the mean time of each program.
pub(crate) fn measure(agent: &Path) -> Result<Vec<String>> {
    let _statistics = Statistics::on()?;
    let exporter = Exporter::agent(agent, &["--bpf-baseline"])?;
    exchange_datagrams()?;
    for _ in 0..PROCESSES {
        let mut command = Command::new("true");
        command
            .stdin(Stdio::null())
            .status()
            .context("cannot run `true`")?;
    }
    let mut page = String::new();
    for _ in 0..SCRAPES {
        page = exporter.scrape()?;
    }
    let mut report = vec![format!(
        "{:<20} {:>9} {:>8} {:>14}",
        "BPF program", "runs", "ns/run", "empty, ns/run"
    )];
    for (program, empty) in PROGRAMS {
        let (runs, mean) = mean(&page, program)?;
        let empty = empty.map(|empty| mean_of(&page, empty)).transpose()?;
        let empty = empty.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.0}"));
        report.push(format!("{program:<20} {runs:>9} {mean:>8.0} {empty:>14}"));
    }
    Ok(report)
}

fn exchange_datagrams() -> Result<()> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    sender.connect(receiver.local_addr()?)?;
    let mut buffer = [0; 64];
    for _ in 0..DATAGRAMS {
        sender.send(&buffer)?;
        receiver.recv(&mut buffer)?;
    }
    Ok(())
}

fn mean_of(page: &str, program: &str) -> Result<f64> {
    mean(page, program).map(|(_, mean)| mean)
}

/// Runs of a program, and mean nanoseconds per run.
fn mean(page: &str, program: &str) -> Result<(f64, f64)> {
    let value = |family: &str| {
        let series = format!("{family}{{program=\"{program}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&series));
        let value = line.and_then(|line| line.parse::<f64>().ok());
        value.with_context(|| format!("no {series}on the page: is BPF loaded (needs root)?"))
    };
    let runs = value("esnode_bpf_program_runs_total")?;
    Ok((
        runs,
        value("esnode_bpf_program_run_seconds_total")? * 1e9 / runs,
    ))
}

/// Turns the kernel's BPF statistics on, and back to what they were when dropped.
struct Statistics(String);

impl Statistics {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).context(SWITCH)?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH} (needs root)"))?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.0.trim()) {
            eprintln!(
                "warning: cannot set {SWITCH} back to {}: {error}",
                self.0.trim()
            );
        }
    }
}
