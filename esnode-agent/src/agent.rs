//! Putting the parts together: from the command line to the collectors.

use crate::{
    bpf::{Bpf, BpfError, Part, sys},
    cli::Cli,
    collectors::{
        Collector, CollectorName, cpu::CpuCollector, load::LoadCollector, memory::MemoryCollector,
    },
    error::read_file,
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

/// Loads BPF if it is wanted and possible; says in the log what is not.
#[must_use]
pub fn load_bpf(cli: &Cli) -> Option<Bpf> {
    if !cli.sources.enabled().contains(&CollectorName::Process) {
        return None;
    }
    if cli.sources.no_bpf {
        info!("BPF is off (--no-bpf): processes are read from /proc");
        return None;
    }
    if !in_host_pid_namespace() {
        warn!(
            "BPF is off, processes are read from /proc: this is not the host's PID namespace, so \
             hooks and process table would not speak of the same processes (start the container \
             with --pid=host)"
        );
        return None;
    }
    let loaded = Bpf::load(&cli.sources.sysfs, cli.sources.bpf());
    // Loading reads all types of the kernel; that memory is not needed again.
    sys::release_free_memory();
    match loaded {
        Ok(bpf) => {
            for (part, error) in bpf.refused() {
                warn!(%error, "{}", missing(*part));
            }
            if !bpf.resolved().disk {
                warn!("this kernel counts no disk bytes (CONFIG_TASK_IO_ACCOUNTING)");
            }
            Some(bpf)
        }
        Err(error @ BpfError::NotEmbedded) => {
            warn!("BPF is off, processes are read from /proc: {error}");
            None
        }
        Err(error) => {
            warn!(
                "BPF is off, processes are read from /proc: {error} (it takes root, or CAP_BPF, \
                 CAP_PERFMON and CAP_SYS_PTRACE; --no-bpf silences this)"
            );
            None
        }
    }
}

/// Whether this is the initial PID namespace, whose inode number is fixed
/// (`PROC_PID_INIT_INO` of `include/linux/proc_ns.h`). Where that can't be read, it is assumed.
fn in_host_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").map_or(true, |name| name.as_os_str() == "pid:[4026531836]")
}

fn missing(part: Part) -> &'static str {
    match part {
        Part::Ended => "no hooks on the end of processes, and so no network bytes",
        Part::Network => "no hooks on sockets, and so no network bytes",
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
        match collector {
            Collector::Process(process) => {
                for rung in process.sources() {
                    info!(
                        "collector process is on: {} from {}",
                        rung.signal, rung.source
                    );
                }
            }
            other => info!("collector {} is on", other.name()),
        }
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
