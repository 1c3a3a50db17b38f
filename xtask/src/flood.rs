//! `cargo xtask flood`: tens of thousands of short-lived processes a minute, for minutes, beside an
//! agent that must not grow.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    bench::exporter::{self, Exporter},
    build, privilege, step,
    workspace::Workspace,
};

/// Make short-lived processes for minutes, and watch whether the agent grows.
///
/// A quarter of the processes executes a program; all take a command name out of 20,000. The agent
/// is scraped every 5 s. Fails if the page, the agent's memory or the CPU time of a scrape have grown
/// from the first minute after the warm-up (or a third of the time, if that is shorter) to the last.
/// Needs root for the agent's BPF programs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long, in minutes, without the warm-up of half a minute
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Processes per second
    #[arg(long, default_value_t = 834, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Flags for the agent
    #[arg(last = true, value_name = "AGENT FLAGS")]
    agent: Vec<String>,
}

/// Command names that the processes have.
const NAMES: u32 = 20_000;
/// After this, the agent has met as many names as it keeps.
const WARM_UP: Duration = Duration::from_secs(30);
/// As Prometheus would at its busiest.
const INTERVAL: Duration = Duration::from_secs(5);

/// What one scrape found.
#[derive(Clone, Copy, Default)]
struct Reading {
    made: u64,
    series: f64,
    page_kb: f64,
    resident_mb: f64,
    cpu_milliseconds: f64,
    seconds: f64,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    ensure!(
        privilege::is_root(),
        "run this as root: it loads BPF programs"
    );
    let workspace = Workspace::locate()?;
    let agent = build::with_ebpf(&workspace)?.agent;
    let workload = build::workload(&workspace)?;
    let flags: Vec<&str> = args.agent.iter().map(String::as_str).collect();
    let agent = Exporter::agent(&agent, &flags)?;
    let measured = Duration::from_secs(u64::from(args.minutes) * 60);
    let source = Source::start(&workload, args.rate, WARM_UP + measured)?;
    step::announce("Warming up for half a minute");
    watch(&agent, &source, WARM_UP)?;
    step::announce(&format!("Making {} processes per second", args.rate));
    step::print("minute  processes  series  page kB  RSS MB  CPU ms/scrape  scrape s");
    let mut rows = Vec::new();
    for minute in 1..=args.minutes {
        let row = watch(&agent, &source, Duration::from_mins(1))?;
        tell(minute, &row);
        rows.push(row);
    }
    let made = source.finish()?;
    step::print(&format!("{made} processes were made"));
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        bail!("no minute was measured");
    };
    Ok(judge(first, last))
}

fn tell(minute: u32, row: &Reading) {
    step::print(&format!(
        "{minute:>6}  {:>9}  {:>6.0}  {:>7.1}  {:>6.1}  {:>13.2}  {:>8.3}",
        row.made, row.series, row.page_kb, row.resident_mb, row.cpu_milliseconds, row.seconds
    ));
}

/// Scrapes for a while; gives the largest of all, the mean CPU time, and how many were made.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn watch(agent: &Exporter, source: &Source, time: Duration) -> Result<Reading> {
    let begin = Instant::now();
    let made = source.made();
    let mut row = Reading::default();
    let mut scrapes = 0.0;
    while begin.elapsed() < time {
        thread::sleep(INTERVAL.min(time.saturating_sub(begin.elapsed())));
        let cpu = agent.cpu_nanoseconds()?;
        let start = Instant::now();
        let page = agent.scrape()?;
        row.seconds = row.seconds.max(start.elapsed().as_secs_f64());
        row.cpu_milliseconds += (agent.cpu_nanoseconds()? - cpu) as f64 / 1e6;
        let is_series = |line: &&str| line.contains(' ') && !line.starts_with('#');
        let (_, body) = page.split_once("\r\n\r\n").context("no page")?;
        row.series = row
            .series
            .max(body.lines().filter(is_series).count() as f64);
        row.page_kb = row.page_kb.max(page.len() as f64 / 1e3);
        row.resident_mb = row.resident_mb.max(agent.resident_mb()?);
        scrapes += 1.0;
    }
    row.cpu_milliseconds /= scrapes;
    row.made = source.made() - made;
    Ok(row)
}

/// Compares the last minute with the first.
fn judge(first: &Reading, last: &Reading) -> ExitCode {
    // Names have various lengths, and the allocator its moods.
    let bars = [
        ("series", first.series * 1.03, last.series),
        ("page, kB", first.page_kb * 1.05, last.page_kb),
        ("RSS, MB", first.resident_mb * 1.05, last.resident_mb),
        (
            "CPU per scrape, ms",
            first.cpu_milliseconds * 1.3 + 1.0,
            last.cpu_milliseconds,
        ),
        ("scrape, s", first.seconds * 2.0 + 0.1, last.seconds),
    ];
    let mut code = ExitCode::SUCCESS;
    for (what, most, seen) in bars {
        if seen > most {
            code = ExitCode::FAILURE;
            step::print(&format!(
                "FAILED  {what}: {seen:.3} at the end, at most {most:.3}"
            ));
        }
    }
    if code == ExitCode::SUCCESS {
        step::print("Nothing has grown");
    }
    code
}

/// The workload that makes processes.
struct Source {
    child: Child,
    made: Arc<AtomicU64>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Source {
    fn start(workload: &Path, rate: u32, time: Duration) -> Result<Self> {
        let words = [rate.into(), time.as_secs(), NAMES.into()].map(|word| word.to_string());
        let mut command = Command::new(workload);
        command.arg("flood").args(words).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the workload")?;
        let lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let made = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&made);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let more = line
                    .strip_prefix("fact made=")
                    .and_then(|it| it.parse().ok());
                sum.fetch_add(more.unwrap_or(0), Ordering::Relaxed);
            }
        });
        Ok(Self {
            child,
            made,
            reader: Some(reader),
        })
    }

    /// How many processes it made so far.
    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Waits for its end.
    fn finish(mut self) -> Result<u64> {
        let status = self.child.wait().context("cannot wait for the workload")?;
        ensure!(status.success(), "the workload failed ({status})");
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
        Ok(self.made())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        exporter::end(&mut self.child);
    }
}
