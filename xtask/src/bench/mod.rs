//! `cargo xtask bench`: what the agent costs, next to what the peers cost in the same run.

mod events;
pub(crate) mod exporter;
mod gpu;
mod node;

use std::{
    path::Path,
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
/// CPU time of a scrape of the collectors of the node, as a share of that of node_exporter with its
/// default collectors.
const NODE_BAR: f64 = 0.2;

/// Starts of which the median is taken.
const STARTS: usize = 7;
/// Scrapes between two looks at the CPU time.
const BATCH: usize = 10;

/// Measure what the agent costs: a scrape, memory, its start, each BPF program per event, GPUs, and
/// the node.
///
/// Debian's node and process exporters are measured in the same run, turn by turn, if they are
/// installed (prometheus-node-exporter, prometheus-process-exporter). Exits with 1 if the agent
/// misses a bar: 2 ms of CPU time per scrape and 15 MB with 1,000 idle processes, 0.5 s from exec
/// to the first answer, 0.1 % of a core and 1 MB for 8 GPUs with 64 processes, by a library
/// without GPUs that answers at once, and for the collectors of the node a fifth of the CPU time of
/// node_exporter. Needs root for BPF.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure only this; repeatable
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Idle processes to start, on top of those that are there
    #[arg(long, default_value_t = 1_000)]
    processes: usize,
    /// Scrapes of each exporter
    #[arg(long, default_value_t = 300)]
    scrapes: usize,
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Collectors of the node, next to node_exporter
    Node,
    /// Everything, with many processes: start, scrapes, memory
    Whole,
    /// BPF programs, per event
    Events,
    /// GPUs
    Gpu,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    report: Vec<String>,
    bars: Vec<Bar>,
}

/// What the agent is to stay below.
struct Bar {
    what: &'static str,
    seen: f64,
    most: f64,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    let agent = build::with_ebpf(&workspace)?.agent;
    let wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let mut found = Found::default();
    // Before there are idle processes.
    if wanted(Part::Node) {
        step::announce("Scraping the collectors of the node and node_exporter, turn by turn");
        let cost = node::measure(&agent)?;
        let share = cost
            .share
            .map(|share| ("node, of node_exporter's", share, NODE_BAR));
        found.add(cost.report, share);
    }
    let crowded = [Part::Whole, Part::Events, Part::Gpu].map(wanted);
    let count = if crowded.contains(&true) {
        step::announce(&format!("Starting {} idle processes", args.processes));
        args.processes
    } else {
        0
    };
    let _idle = Idle::start(count)?;
    if wanted(Part::Whole) {
        measure_whole(&agent, args.scrapes, &mut found)?;
    }
    if wanted(Part::Events) {
        step::announce("Counting events with the kernel's BPF statistics");
        found.add(events::measure(&agent)?, []);
    }
    if wanted(Part::Gpu) {
        let fake_nvml = build::fake_nvml(&workspace)?;
        step::announce("Leaving the agent alone, with and without the GPU collector");
        let gpu = gpu::measure(&agent, &fake_nvml)?;
        let bars = [
            (
                "GPU collector, % of a core",
                gpu.cpu_percent,
                GPU_CPU_BAR_PERCENT,
            ),
            ("GPU collector, memory, MB", gpu.resident_mb, GPU_RSS_BAR_MB),
        ];
        found.add(gpu.report, bars);
    }
    Ok(found.tell())
}

/// Starts the agent several times, and scrapes it and its peers.
fn measure_whole(agent: &Path, scrapes: usize, found: &mut Found) -> Result<()> {
    step::announce("Starting the agent several times");
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(Exporter::agent(agent, &[])?.seconds_to_first_answer);
    }

    step::announce("Scraping the agent and its peers, turn by turn");
    let mut exporters = vec![Exporter::agent(agent, &[])?];
    exporters.extend(exporter::peers()?);
    let mut costs = vec![Vec::new(); exporters.len()];
    for _ in 0..scrapes.div_ceil(BATCH) {
        for (exporter, costs) in exporters.iter().zip(&mut costs) {
            costs.push(exporter.scrape_cost(BATCH)?);
        }
    }
    let mut report = vec![format!(
        "{:<28} {:>18} {:>9} {:>10}",
        "exporter", "CPU ms per scrape", "RSS MB", "page kB"
    )];
    let mut own = None;
    for (exporter, costs) in exporters.iter().zip(&mut costs) {
        let (cpu, rss) = (median(costs), exporter.resident_mb()?);
        own = own.or(Some((cpu, rss)));
        let page = exporter.page_kb()?;
        report.push(format!(
            "{:<28} {cpu:>18.2} {rss:>9.1} {page:>10.0}",
            exporter.name
        ));
    }
    let (cpu, rss) = own.unwrap_or((f64::NAN, f64::NAN));
    let bars = [
        ("CPU time per scrape, ms", cpu, CPU_BAR_MS),
        ("resident memory, MB", rss, RSS_BAR_MB),
        ("exec to first answer, s", median(&mut starts), START_BAR_S),
    ];
    found.add(report, bars);
    Ok(())
}

impl Found {
    /// Takes in what a part gave.
    fn add(
        &mut self,
        report: Vec<String>,
        bars: impl IntoIterator<Item = (&'static str, f64, f64)>,
    ) {
        self.report.extend(report);
        self.report.push(String::new());
        let bars = bars.into_iter();
        self.bars
            .extend(bars.map(|(what, seen, most)| Bar { what, seen, most }));
    }

    /// Prints everything, and which bars were missed; a value that is none misses its bar.
    fn tell(self) -> ExitCode {
        for line in self.report {
            step::print(&line);
        }
        let mut code = ExitCode::SUCCESS;
        for Bar { what, seen, most } in self.bars {
            let ok = seen <= most;
            let verdict = if ok { "ok" } else { "MISSED" };
            step::print(&format!(
                "{what:<28} {seen:>8.3}, bar {most:>5.1}: {verdict}"
            ));
            if !ok {
                code = ExitCode::FAILURE;
            }
        }
        code
    }
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
