//! `cargo xtask gpu-check`: the page next to nvidia-smi, on a machine with a GPU.

mod answer;
mod compare;
mod energy;
mod families;
mod fields;
mod load;
mod page;
mod report;
mod smi;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use self::{
    compare::{Round, shown},
    energy::Scrape,
    load::{Load, Wanted},
    page::Page,
    report::Report,
    smi::{Smi, Snapshot},
};
use crate::{bench::exporter::Exporter, build, step, workspace::Workspace};

/// How often the agent samples, and a bit: what a scrape shows is not older.
const INTERVAL: Duration = Duration::from_millis(1_100);

/// How long the agent may take to sample every GPU.
const PATIENCE: Duration = Duration::from_secs(20);

/// Compare the GPU families of the page with nvidia-smi, under a small load.
///
/// Prints a table, then what the agent took for it. Readings have to be between what nvidia-smi
/// says before and after, give or take a little; names, limits and counts have to be equal;
/// energy has to fit the power that is drawn; what a GPU does not have has to be absent. Exits
/// with 1 if a family is wrong, or if nothing could be compared.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An agent that is built already
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// NVIDIA's management library, for the agent
    #[arg(long, value_name = "PATH")]
    nvml_library: Option<PathBuf>,
    /// Another nvidia-smi than that on the path
    #[arg(long, value_name = "PATH", default_value = "nvidia-smi")]
    nvidia_smi: PathBuf,
    /// What the GPU is to do: `auto` for products of matrices by PyTorch or CuPy, `none`, or a
    /// command
    #[arg(long, value_name = "auto|none|COMMAND", default_value = "auto")]
    #[arg(value_parser = |text: &str| Ok::<_, String>(Wanted::from(text)))]
    load: Wanted,
    /// How long to compare, such as 15s
    #[arg(long, default_value = "15s", value_parser = duration)]
    duration: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text);
    let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "whole seconds are needed, such as 15s".to_owned())
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let mut smi = Smi::open(&args.nvidia_smi).context("nothing was checked")?;
    let workspace = Workspace::locate()?;
    let agent = match &args.agent {
        Some(agent) => agent.clone(),
        None => build::with_ebpf(&workspace)?.agent,
    };
    let mut load = Load::start(&args.load)?;
    let mut snapshots = vec![smi.snapshot()?];
    step::announce("Starting the agent");
    let exporter = Agent::start(&agent, args.nvml_library.as_deref(), &workspace.target)?;
    exporter.wait_for_samples(&snapshots)?;

    step::announce("Comparing");
    let begun = Instant::now();
    let mut scrapes: Vec<Scrape> = Vec::new();
    let mut report = Report::default();
    snapshots.push(smi.snapshot()?);
    let cpu = exporter.exporter.cpu_nanoseconds()?;
    let from = Instant::now();
    while begun.elapsed() < args.duration || scrapes.len() < 2 {
        thread::sleep(INTERVAL);
        let page = exporter.page()?;
        scrapes.push(Scrape {
            at: Instant::now(),
            page,
        });
        snapshots.push(smi.snapshot()?);
        if let (Some(scrape), [.., before, after]) = (scrapes.last(), snapshots.as_slice()) {
            let round = Round {
                page: &scrape.page,
                around: [before, after],
                since_start: &snapshots,
                is_here: |pid| Path::new(&format!("/proc/{pid}")).exists(),
            };
            report.extend(compare::round(&round));
        }
        load.as_mut().map_or(Ok(()), Load::check)?;
    }
    let took = Took {
        cpu_nanoseconds: exporter.exporter.cpu_nanoseconds()? - cpu,
        elapsed: from.elapsed(),
        resident_mb: exporter.exporter.resident_mb()?,
    };
    finish(report, &scrapes, &snapshots, &smi, &took)
}

/// What the agent took while it was compared.
struct Took {
    cpu_nanoseconds: u64,
    elapsed: Duration,
    resident_mb: f64,
}

fn finish(
    mut report: Report,
    scrapes: &[Scrape],
    snapshots: &[Snapshot],
    smi: &Smi,
    took: &Took,
) -> Result<ExitCode> {
    let last = scrapes.last().context("no scrape")?;
    let gpus = snapshots.last().map_or(&[][..], |snapshot| &snapshot.gpus);
    for gpu in gpus {
        for scrape in scrapes {
            report.extend(energy::sum(gpu, &scrape.page));
        }
        report.extend(energy::power(gpu, scrapes, snapshots));
    }
    report
        .table(&last.page)
        .iter()
        .for_each(|line| step::print(line));
    if !smi.unknown.is_empty() {
        step::print(&format!(
            "This nvidia-smi does not know: {}",
            smi.unknown.join(" ")
        ));
    }
    if let Some(reason) = &smi.no_pmon {
        step::print(&format!(
            "Processes' utilisation was not compared, as pmon says: {reason}"
        ));
    }
    step::print("");
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
    let percent = took.cpu_nanoseconds as f64 / 1e7 / took.elapsed.as_secs_f64();
    step::print(&format!(
        "The agent took {percent:.3} % of a core, {} scrapes in {:.1} s included, and {:.1} MB.",
        scrapes.len(),
        took.elapsed.as_secs_f64(),
        took.resident_mb
    ));
    for gpu in gpus {
        step::print(&calls(&gpu.index, scrapes));
    }
    let wrong = report.wrong();
    step::print("");
    if report.compared() == 0 {
        bail!("nothing was checked: nvidia-smi told nothing that could be compared");
    }
    if wrong.is_empty() {
        step::print(&format!(
            "{} series agree with nvidia-smi.",
            report.compared()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    step::print(&format!(
        "{} series are wrong: {}",
        wrong.len(),
        wrong.join(", ")
    ));
    Ok(ExitCode::FAILURE)
}

/// How long NVML's calls for a GPU took.
fn calls(gpu: &str, scrapes: &[Scrape]) -> String {
    let family = "esnode_gpu_sample_duration_seconds";
    let took = scrapes
        .iter()
        .filter_map(|scrape| scrape.page.number(family, &[("gpu", gpu)]));
    let mut took: Vec<f64> = took.map(|seconds| seconds * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let middle = took.get(took.len() / 2).copied();
    format!(
        "NVML's calls for a sample of GPU {gpu} took {} ms, {} ms at most.",
        shown(middle),
        shown(took.last().copied())
    )
}

/// The agent, and where its log is.
struct Agent {
    exporter: Exporter,
    log: PathBuf,
}

impl Agent {
    fn start(agent: &Path, nvml_library: Option<&Path>, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let log = folder.join(format!("gpu-check-{}.log", std::process::id()));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(agent);
        if let Some(library) = nvml_library {
            command.arg("--nvml-library").arg(library);
        }
        command.stderr(file);
        let exporter = Exporter::agent_by(command).map_err(|error| said(error, &log))?;
        Ok(Self { exporter, log })
    }

    fn page(&self) -> Result<Page> {
        Page::parse(&self.exporter.scrape()?)
    }

    /// Waits until it has sampled all GPUs that nvidia-smi lists, and their processes twice.
    fn wait_for_samples(&self, snapshots: &[Snapshot]) -> Result<()> {
        let expected = snapshots.last().map_or(0, |snapshot| snapshot.gpus.len());
        let begun = Instant::now();
        loop {
            let page = self.page()?;
            let up = page.select("esnode_gpu_up", &[]);
            if up.filter(|up| up.number() == Some(1.0)).count() >= expected {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let error = anyhow::anyhow!("the agent does not sample all {expected} GPUs");
                return Err(said(error, &self.log));
            }
            thread::sleep(Duration::from_millis(100));
        }
        thread::sleep(INTERVAL);
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It was for a failure to be explained.
        fs::remove_file(&self.log).ok();
    }
}

/// The error, with what the agent said of GPUs.
fn said(error: anyhow::Error, log: &Path) -> anyhow::Error {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines = log
        .lines()
        .filter(|line| line.to_lowercase().contains("gpu"));
    let lines: Vec<&str> = lines.collect();
    if lines.is_empty() {
        return error;
    }
    error.context(format!(
        "nothing was checked; the agent says:\n{}",
        lines.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        for text in ["", "s", "0s", "1m", "-1s"] {
            duration(text).unwrap_err();
        }
    }
}
