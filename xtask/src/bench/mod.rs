//! `cargo xtask bench`: what the agent costs, next to what the peers cost in the same run.

mod events;
pub(crate) mod exporter;
mod gpu;

use std::{
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use self::exporter::Exporter;
use crate::{build, step, workspace::Workspace};

/// CPU time of one scrape, in milliseconds, that the agent is to stay below.
const CPU_BAR_MS: f64 = 2.0;
/// Resident memory in MB.
const RSS_BAR_MB: f64 = 15.0;
/// Seconds from exec to the first answered scrape.
const START_BAR_S: f64 = 0.5;
/// What the GPU collector may take of a core when nobody scrapes, with 8 GPUs and 64 processes.
const GPU_CPU_BAR_PERCENT: f64 = 0.1;
/// What it may add to resident memory, in MB.
const GPU_RSS_BAR_MB: f64 = 1.0;

/// Starts of which the median is taken.
const STARTS: usize = 7;
/// Scrapes between two looks at the CPU time.
const BATCH: usize = 10;

/// Measure what the agent costs: a scrape, memory, its start, each BPF program per event, and
/// GPUs.
///
/// Debian's node and process exporters are measured in the same run, turn by turn, if they are
/// installed (prometheus-node-exporter, prometheus-process-exporter). Exits with 1 if the agent
/// misses a bar: 2 ms of CPU time per scrape and 15 MB with 1,000 idle processes, 0.5 s from exec
/// to the first answer, and 0.1 % of a core and 1 MB for 8 GPUs with 64 processes, by a library
/// without GPUs that answers at once. Needs root for BPF.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Idle processes to start, on top of those that are there
    #[arg(long, default_value_t = 1_000)]
    processes: usize,
    /// Scrapes of each exporter
    #[arg(long, default_value_t = 300)]
    scrapes: usize,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    let agent = build::with_ebpf(&workspace)?.agent;
    let fake_nvml = build::fake_nvml(&workspace)?;
    step::announce(&format!("Starting {} idle processes", args.processes));
    let _idle = Idle::start(args.processes)?;

    step::announce("Starting the agent several times");
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(Exporter::agent(&agent, &[])?.seconds_to_first_answer);
    }
    let start = median(&mut starts);

    step::announce("Scraping the agent and its peers, turn by turn");
    let mut exporters = vec![Exporter::agent(&agent, &[])?];
    exporters.extend(exporter::peers()?);
    let batches = args.scrapes.div_ceil(BATCH);
    let mut costs = vec![Vec::new(); exporters.len()];
    for _ in 0..batches {
        for (exporter, costs) in exporters.iter().zip(&mut costs) {
            costs.push(exporter.scrape_cost(BATCH)?);
        }
    }
    let mut report = vec![format!(
        "{:<28} {:>18} {:>9} {:>10}",
        "exporter", "CPU ms per scrape", "RSS MB", "page kB"
    )];
    let mut own = (0.0, 0.0);
    for (place, (exporter, costs)) in exporters.iter().zip(&mut costs).enumerate() {
        let (cpu, rss) = (median(costs), exporter.resident_mb()?);
        if place == 0 {
            own = (cpu, rss);
        }
        let page = exporter.page_kb()?;
        report.push(format!(
            "{:<28} {cpu:>18.2} {rss:>9.1} {page:>10.0}",
            exporter.name
        ));
    }
    drop(exporters);

    step::announce("Counting events with the kernel's BPF statistics");
    report.push(String::new());
    report.extend(events::measure(&agent)?);

    step::announce("Leaving the agent alone, with and without the GPU collector");
    let gpu = gpu::measure(&agent, &fake_nvml)?;
    report.push(String::new());
    report.extend(gpu.report);

    let bars = [
        ("CPU time per scrape, ms", own.0, CPU_BAR_MS),
        ("resident memory, MB", own.1, RSS_BAR_MB),
        ("exec to first answer, s", start, START_BAR_S),
        (
            "GPU collector, % of a core",
            gpu.cpu_percent,
            GPU_CPU_BAR_PERCENT,
        ),
        ("GPU collector, memory, MB", gpu.resident_mb, GPU_RSS_BAR_MB),
    ];
    report.push(String::new());
    let mut missed = false;
    for (what, seen, bar) in bars {
        let verdict = if seen <= bar { "ok" } else { "MISSED" };
        missed |= seen > bar;
        report.push(format!("{what:<28} {seen:>8.3}, bar {bar:>5.1}: {verdict}"));
    }
    for line in report {
        step::print(&line);
    }
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The value in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Processes that do nothing, ended when dropped.
struct Idle(Vec<Child>);

impl Idle {
    fn start(count: usize) -> Result<Self> {
        let mut idle = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let mut sleep = Command::new("sleep");
            sleep
                .arg("86400")
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            idle.0.push(
                sleep
                    .spawn()
                    .context("cannot start an idle process (`sleep`)")?,
            );
        }
        thread::sleep(Duration::from_millis(500));
        Ok(idle)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for child in &mut self.0 {
            exporter::end(child);
        }
    }
}
