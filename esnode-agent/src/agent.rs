//! Putting the parts together: from the command line to the collectors.

mod found;

pub use found::{Found, Who};

use crate::{
    bpf::{self, Bpf, BpfError, GroupsBy, layout::Hierarchy, sys},
    cli::{DEFAULT_SYSFS, GpuFlags, PageOptions, Serving, Sources},
    collectors::{
        CollectError, Collector, CollectorName,
        cpu::CpuCollector,
        disk::DiskCollector,
        edac::EdacCollector,
        filesystem::FilesystemCollector,
        guard::Guarded,
        hwmon::HwmonCollector,
        infiniband::InfinibandCollector,
        load::LoadCollector,
        md::MdCollector,
        memory::MemoryCollector,
        network::NetworkCollector,
        node::{self, NodeCollector},
        numa::NumaCollector,
        power::PowerCollector,
        pressure::PressureCollector,
        thermal::ThermalCollector,
    },
    error::read_file,
    gpu::{GpuOptions, Gpus, book::GroupBook, collector::GpuCollector, filter::Filter},
    identity::{
        census::{Census, Rules},
        container::Directory,
        engine::Engines,
    },
    ladder::{Refusal, Signal, Standing},
    page::Encode,
    process::{
        collector::{Below, Choice, Devices, ProcessCollector},
        ends::Ends,
        energy::EnergyLedger,
        fallback::Fallback,
        membership::{GroupBy, Membership},
        named::GroupSelection,
        procfs::Units,
        select::Selector,
        selection::ProcessSelection,
        table::{Source, TableReader},
    },
};
use anyhow::{Context, Result, bail};
use std::{fs, net::TcpListener, path::Path, time::Duration};
use tracing::{info, warn};

/// Binds every address, before anything is loaded: a port that is taken ends the start.
///
/// # Errors
/// The first address that can't be bound, and what to do.
pub fn bind(serving: &Serving) -> Result<Vec<TcpListener>> {
    let bind = |address| {
        TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address} (choose another address with --listen-address)")
        })
    };
    serving.listen_address.iter().map(bind).collect()
}

/// Checks that the roots can be read. A container may have no `/sys`, which only BPF needs; one
/// that was asked for has to be there.
///
/// # Errors
/// The first that can't.
pub fn check_roots(sources: &Sources) -> Result<()> {
    for (flag, root) in [("--procfs", &sources.procfs), ("--sysfs", &sources.sysfs)] {
        let read = fs::read_dir(root);
        if flag == "--sysfs" && read.is_err() && root == Path::new(DEFAULT_SYSFS) {
            continue;
        }
        read.with_context(|| format!("cannot read {flag} {}", root.display()))?;
    }
    Ok(())
}

/// Loads BPF if it is wanted and possible. Also gives the rungs of the ladder that BPF has, with
/// what refused those that are not in use.
#[must_use]
fn load_bpf(sources: &Sources, by: GroupBy) -> (Option<Bpf>, Vec<Standing>) {
    if !sources.enabled().contains(&CollectorName::Process) {
        return (None, Vec::new());
    }
    let loaded = if sources.no_bpf {
        Err(BpfError::Off)
    } else {
        let options = sources.bpf(groups_by(by), hierarchy(&sources.procfs));
        Bpf::load(&sources.sysfs, options)
    };
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
        Err(error) => {
            let mut standings = bpf::all_refused(&error);
            standings.retain(|it| it.signal != Signal::DiskLatency || sources.disk_latency);
            (None, standings)
        }
    }
}

/// Starts the threads that sample GPUs, if these are wanted. They give up their rights themselves.
///
/// # Errors
/// If the system refuses a thread.
fn find_gpus(sources: &Sources, flags: &GpuFlags, groups: GroupBook) -> Result<Option<Gpus>> {
    if !sources.enabled().contains(&CollectorName::Gpu) {
        return Ok(None);
    }
    let (filter, complaint) = Filter::of(&flags.gpu_devices);
    if let Some(complaint) = complaint {
        warn!("{complaint}");
    }
    let gpus = Gpus::start(GpuOptions {
        library: flags.nvml_library.clone(),
        intervals: flags.intervals(),
        filter,
        procfs: sources.procfs.clone(),
        sysfs: sources.sysfs.clone(),
        groups,
    });
    Ok(Some(gpus.context("cannot start the GPU thread")?))
}

/// Says in the log where every signal stands, and why it stands no better.
pub fn log_standings(standings: &[Standing]) {
    for standing in standings {
        let Standing {
            signal,
            rung,
            refused,
        } = standing;
        if let Some(rung) = rung {
            info!("{signal} is read from {rung}");
        } else {
            warn!("{signal} is not known");
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

/// By what BPF programs put processes together.
fn groups_by(by: GroupBy) -> GroupsBy {
    match by {
        GroupBy::Command => GroupsBy::Command,
        GroupBy::Container => GroupsBy::Cgroup,
        GroupBy::Engine | GroupBy::Rules => GroupsBy::Assignment,
    }
}

/// The tree of control groups that tells containers apart: where there are controllers of version
/// 1, one that container engines always use; else that of version 2.
fn hierarchy(procfs: &Path) -> Hierarchy {
    const USED: [&str; 4] = ["pids", "memory", "devices", "cpu"];
    let text = read_file(&procfs.join("self/cgroup")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split(':').nth(1));
    let controllers: Vec<_> = lines.flat_map(|list| list.split(',')).collect();
    let used = USED.into_iter().find(|name| controllers.contains(name));
    used.map_or(Hierarchy::Unified, |name| {
        Hierarchy::Controller(name.to_owned())
    })
}

/// Makes the collectors that are to run.
///
/// # Errors
/// If the patterns of `--select` can't be used together, or the system refuses a thread.
pub fn collectors(
    sources: &Sources,
    page: &PageOptions,
    found: Found,
    standings: &[Standing],
) -> Result<Vec<Collector>> {
    let Found {
        bpf,
        fallback,
        mut gpus,
        book,
        who,
    } = found;
    let mut below = Some((bpf, fallback, who));
    let (mut gpu_facts, mut cpu_energy) = (None, None);
    // Some of the GPUs are no part of a sum over the machine.
    let sees_all_gpus = gpus.as_ref().is_some_and(Gpus::sees_all);
    let mut collectors = Vec::new();
    for name in sources.enabled() {
        collectors.push(match name {
            CollectorName::Gpu => {
                // Threads were started for it where it is enabled, and it is there once.
                let Some(gpus) = gpus.take() else { continue };
                gpus.wait_for_first_samples();
                let hostname = || {
                    rustix::system::uname()
                        .nodename()
                        .to_string_lossy()
                        .into_owned()
                };
                let collector = GpuCollector::new(gpus, page.dcgm_names.then(hostname));
                gpu_facts = Some(collector.shared());
                collector.into()
            }
            CollectorName::Power => {
                let interval = sources.node_interval;
                let all_gpus = gpu_facts.clone().filter(|_| sees_all_gpus);
                let collector = PowerCollector::new(&sources.sysfs, interval, all_gpus)
                    .context("cannot start the thread for power meters")?;
                cpu_energy = Some(collector.cpu_energy());
                collector.into()
            }
            CollectorName::Process => {
                // It is there once.
                let Some(below) = below.take() else { continue };
                let rungs = Source::of_page(standings);
                let devices = Devices {
                    gpus: gpu_facts.take(),
                    book: book.clone(),
                    energy: EnergyLedger::new(cpu_energy.take()),
                };
                processes(sources, page, below, devices, rungs)?.into()
            }
            name => of_node(name, sources, page)?,
        });
    }
    Ok(collectors)
}

/// A collector that needs nothing of the others.
fn of_node(name: CollectorName, sources: &Sources, page: &PageOptions) -> Result<Collector> {
    let (procfs, sysfs, devices) = (&sources.procfs, &sources.sysfs, &sources.devices);
    let names = page.names();
    Ok(match name {
        CollectorName::Cpu => {
            let ticks = Units::of_this_kernel().ticks_per_second;
            CpuCollector::new(procfs, sysfs, ticks, sources.node_interval)
                .context("cannot start the thread for the usage of CPUs")?
                .into()
        }
        CollectorName::Load => LoadCollector::new(procfs).into(),
        CollectorName::Memory => MemoryCollector::new(procfs).into(),
        CollectorName::Numa => NumaCollector::new(sysfs).into(),
        CollectorName::Edac => guarded(
            name,
            EdacCollector::new(sysfs, names),
            EdacCollector::sample,
        )?
        .into(),
        CollectorName::Pressure => PressureCollector::new(procfs).into(),
        CollectorName::Disk => DiskCollector::new(procfs, devices.disks()).into(),
        CollectorName::Md => MdCollector::new(procfs).into(),
        CollectorName::Filesystem => {
            FilesystemCollector::new(procfs, devices.mounts(), devices.fstypes()).into()
        }
        CollectorName::Network => {
            NetworkCollector::new(procfs, sysfs, devices.interfaces(), names).into()
        }
        CollectorName::Infiniband => {
            let collector = InfinibandCollector::new(sysfs, names);
            guarded(name, collector, InfinibandCollector::sample)?.into()
        }
        CollectorName::Hwmon => HwmonCollector::new(sysfs, names).into(),
        CollectorName::Thermal => {
            guarded(name, ThermalCollector::new(sysfs), ThermalCollector::sample)?.into()
        }
        CollectorName::Node => {
            let system = rustix::system::uname();
            let machine = system.machine().to_string_lossy().into_owned();
            NodeCollector::new(procfs, machine).into()
        }
        CollectorName::Gpu | CollectorName::Power | CollectorName::Process => {
            bail!("the collector {name} needs others")
        }
    })
}

/// A collector that firmware may hold up, in a thread of its own.
fn guarded<C, F, E>(
    name: CollectorName,
    collector: C,
    sample: fn(&mut C) -> Result<F, E>,
) -> Result<Guarded<C>>
where
    C: Send + 'static,
    F: Encode + Send + 'static,
    E: Into<CollectError> + 'static,
{
    Guarded::start(&name.to_string(), collector, sample)
        .with_context(|| format!("cannot start the thread of {name}"))
}

/// Says in the log which collectors run.
pub fn log_collectors(sources: &Sources, collectors: &[Collector]) {
    for name in &sources.disable_collector {
        info!("collector {name} is off (--disable-collector)");
    }
    // Whether there are GPUs, their own thread says.
    let names = collectors.iter().map(Collector::name);
    for name in names.filter(|name| *name != CollectorName::Gpu) {
        info!("collector {name} is on");
    }
}

fn processes(
    sources: &Sources,
    page: &PageOptions,
    (bpf, fallback, who): (Option<Bpf>, Fallback, Who),
    devices: Devices,
    rungs: Vec<Source>,
) -> Result<ProcessCollector> {
    let procfs = &sources.procfs;
    let select =
        Selector::new(&page.select).context("cannot use the rules of --select together")?;
    let limit = sources.bpf_groups as usize;
    let boot = boot_time_seconds(procfs);
    let rules = Rules {
        engines: who.engines.unwrap_or_else(Engines::built_in),
        groups: who.rules.clone(),
        select,
    };
    let directory = who.containers.map(Directory::start).transpose();
    let directory = directory.context("cannot start the thread for names of containers")?;
    let mut membership = Membership::new(who.by, who.rules, limit);
    if let Some(lingers) = who.container_linger {
        membership.keep_for(lingers);
    }
    let below = Below {
        reader: TableReader::new(bpf, procfs.clone(), Units::of_this_kernel()),
        ends: Ends::new(limit, fallback.taskstats, procfs.clone()),
        sock_diag: fallback.sock_diag,
        rungs,
    };
    let choice = Choice {
        census: Census::new(procfs, rules, directory, boot),
        processes: ProcessSelection::new(page.process_limit),
        groups: GroupSelection::new(page.group_limit, membership),
    };
    ProcessCollector::new(below, choice, devices, boot).context("cannot start the listener thread")
}

/// Boot time of the kernel, from `btime` of `/proc/stat`.
fn boot_time_seconds(procfs: &Path) -> Option<f64> {
    let stat = read_file(&procfs.join("stat")).ok()?;
    let seconds = node::parse_boot_time(&stat).ok()?;
    Some(Duration::from_secs(seconds).as_secs_f64())
}
