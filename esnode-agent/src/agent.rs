//! Putting the parts together: from the command line to the collectors.

use crate::{
    bpf::{self, Bpf, BpfError, sys},
    cli::Cli,
    collectors::{
        Collector, CollectorName, cpu::CpuCollector, load::LoadCollector, memory::MemoryCollector,
    },
    error::read_file,
    ladder::{Refusal, Standing},
    process::{
        collector::ProcessCollector,
        procfs::Units,
        selection::{GroupSelection, ProcessSelection},
        table::TableReader,
    },
};
use anyhow::{Context, Result};
use std::{fs, net::TcpListener, path::Path};
use tracing::{info, warn};

/// Binds every address, before anything is loaded: a port that is taken ends the start.
///
/// # Errors
/// The first address that can't be bound, and what to do.
pub fn bind(cli: &Cli) -> Result<Vec<TcpListener>> {
    let bind = |address| {
        TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address} (choose another address with --listen-address)")
        })
    };
    cli.serving.listen_address.iter().map(bind).collect()
}

/// Checks that the roots can be read.
///
/// # Errors
/// The first that can't.
pub fn check_roots(cli: &Cli) -> Result<()> {
    for (flag, root) in [
        ("--procfs", &cli.sources.procfs),
        ("--sysfs", &cli.sources.sysfs),
    ] {
        fs::read_dir(root).with_context(|| format!("cannot read {flag} {}", root.display()))?;
    }
    Ok(())
}

/// Loads BPF if it is wanted and possible. Also gives the rungs of the ladder that BPF has, with
/// what refused those that are not in use.
#[must_use]
pub fn load_bpf(cli: &Cli) -> (Option<Bpf>, Vec<Standing>) {
    if !cli.sources.enabled().contains(&CollectorName::Process) {
        return (None, Vec::new());
    }
    if cli.sources.no_bpf {
        return (None, bpf::all_refused(&BpfError::Off));
    }
    let loaded = Bpf::load(&cli.sources.sysfs, cli.sources.bpf());
    // Loading reads all types of the kernel; that memory is not needed again.
    sys::release_free_memory();
    match loaded {
        Ok(bpf) => {
            if !bpf.knows_disk() {
                warn!("this kernel counts no disk bytes (CONFIG_TASK_IO_ACCOUNTING)");
            }
            let standings = bpf.standings().to_vec();
            (Some(bpf), standings)
        }
        Err(error) => (None, bpf::all_refused(&error)),
    }
}

/// Says in the log where every signal stands, and why it stands no better.
pub fn log_standings(standings: &[Standing]) {
    for standing in standings {
        let Standing {
            signal,
            rung,
            refused,
        } = standing;
        match rung {
            Some(rung) => info!("{signal} is read from {rung}"),
            None => warn!("{signal} is not known"),
        }
        for Refusal {
            rung,
            reason,
            remedy,
        } in refused
        {
            info!("{signal} is not read from {rung}: {reason} (to do: {remedy})");
        }
    }
}

/// Makes the collectors that are to run.
///
/// # Errors
/// If the patterns of `--select` can't be used together.
pub fn collectors(cli: &Cli, mut bpf: Option<Bpf>) -> Result<Vec<Collector>> {
    let procfs = &cli.sources.procfs;
    let units = Units::of_this_kernel();
    let mut collectors = Vec::new();
    for name in cli.sources.enabled() {
        collectors.push(match name {
            CollectorName::Cpu => Collector::Cpu(CpuCollector::new(procfs, units.ticks_per_second)),
            CollectorName::Load => Collector::Load(LoadCollector::new(procfs)),
            CollectorName::Memory => Collector::Memory(MemoryCollector::new(procfs)),
            CollectorName::Process => {
                Collector::Process(Box::new(processes(cli, bpf.take(), units)?))
            }
        });
    }
    for name in &cli.sources.disable_collector {
        info!("collector {name} is off (--disable-collector)");
    }
    for collector in &collectors {
        info!("collector {} is on", collector.name());
    }
    Ok(collectors)
}

fn processes(cli: &Cli, bpf: Option<Bpf>, units: Units) -> Result<ProcessCollector> {
    let procfs = &cli.sources.procfs;
    let patterns = cli
        .page
        .patterns()
        .context("cannot use the patterns of --select together")?;
    Ok(ProcessCollector::new(
        TableReader::new(bpf, procfs.clone(), units),
        ProcessSelection::new(cli.page.process_limit, patterns),
        GroupSelection::new(cli.page.group_limit),
        cli.sources.bpf_groups as usize,
        boot_time_seconds(procfs),
    ))
}

/// Boot time of the kernel, from `btime` of `/proc/stat`.
fn boot_time_seconds(procfs: &Path) -> Option<f64> {
    let stat = read_file(&procfs.join("stat")).ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}
