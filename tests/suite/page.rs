//! What is on the page: families, sources, limits, names that are hard to print.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::page::Page;
use esnode_tests::skip;
use esnode_tests::workload::{self, Name, Workload};

use crate::check::{Calls, ensure_eq, group};
use crate::{Case, readers};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("page::families_of_the_contract", families),
        Case::new("page::sources_are_said", sources),
        Case::new("page::bpf_wherever_it_can_be", bpf_wherever),
        Case::new("page::memory_is_the_kernels", memory),
        Case::new("page::process_limit", process_limit),
        Case::new("page::group_limit", group_limit),
    ]
}

/// Tests that leave odd groups behind in every agent; they run when the rest is done.
pub(crate) fn last_cases() -> Vec<Case> {
    vec![
        Case::alone("page::program_called_other", named_other),
        Case::alone("page::odd_command_names", odd_names),
    ]
}

/// The families that this page must have everywhere; with BPF, those that need it too.
fn families() -> Result<()> {
    let agent = Agent::shared()?;
    let name = Name::new("family")?;
    let _workload = Workload::run(&name, &["move", "send", "udp4", "1000", "1000"])?;
    let page = agent.page()?;
    let common = [
        "esnode_process_info",
        "esnode_process_cpu_seconds_total",
        "esnode_process_resident_memory_bytes",
        "esnode_process_threads",
        "esnode_process_disk_read_bytes_total",
        "esnode_process_disk_write_bytes_total",
        "esnode_process_disk_cancelled_write_bytes_total",
        "esnode_group_cpu_seconds_total",
        "esnode_group_disk_read_bytes_total",
        "esnode_group_disk_write_bytes_total",
        "esnode_group_disk_cancelled_write_bytes_total",
        "esnode_group_processes",
        "esnode_attribution_source",
        "esnode_cpu_usage_percent",
        "esnode_cpu_time_seconds_total",
        "esnode_cpu_load_avg_1m",
        "esnode_cpu_load_avg_5m",
        "esnode_cpu_load_avg_15m",
        "esnode_cpu_context_switches_total",
        "esnode_cpu_interrupts_total",
        "esnode_cpu_forks_total",
        "esnode_memory_total_bytes",
        "esnode_memory_free_bytes",
        "esnode_memory_available_bytes",
        "esnode_memory_used_bytes",
        "esnode_memory_page_in_bytes_total",
        "esnode_memory_page_faults_total",
        "esnode_network_rx_bytes_total",
        "esnode_network_tx_bytes_total",
        "esnode_network_tcp_connections",
        "esnode_node_info",
        "esnode_node_boot_time_seconds",
        "esnode_node_time_seconds",
        "esnode_agent_build_info",
        "esnode_collector_success",
        "esnode_collector_duration_seconds",
        "esnode_scrapes_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "process_threads",
    ];
    let of_bpf = [
        "esnode_process_network_receive_bytes_total",
        "esnode_process_network_transmit_bytes_total",
        "esnode_process_network_receives_total",
        "esnode_process_network_transmits_total",
        "esnode_group_network_receive_bytes_total",
        "esnode_group_network_transmit_bytes_total",
        "esnode_group_network_receives_total",
        "esnode_group_network_transmits_total",
        "esnode_group_started_total",
        "esnode_group_exited_total",
        "esnode_unattributed_bytes_total",
        "esnode_bpf_program_info",
        "esnode_bpf_map_entries",
        "esnode_bpf_map_capacity",
    ];
    let present: BTreeSet<&str> = page.samples().map(|sample| sample.name.as_str()).collect();
    let mut wanted = common.to_vec();
    if need_bpf().is_ok() {
        wanted.extend(of_bpf);
    }
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|name| !present.contains(name))
        .collect();
    ensure!(missing.is_empty(), "not on the page: {missing:?}");
    let failed: Vec<_> = page
        .select("esnode_collector_success", &[])
        .into_iter()
        .filter(|sample| sample.value < 1.0)
        .collect();
    ensure!(failed.is_empty(), "collectors that failed: {failed:?}");
    Ok(())
}

/// Every signal has exactly one source, of value 1.
fn sources() -> Result<()> {
    let page = Agent::shared()?.page()?;
    let signals = page.label_values("esnode_attribution_source", &[], "signal");
    for signal in ["process_table", "ended_processes", "network"] {
        ensure!(signals.contains(signal), "no source for {signal}");
    }
    for signal in signals {
        let found = page.select("esnode_attribution_source", &[("signal", signal)]);
        ensure!(
            found.len() == 1
                && found
                    .iter()
                    .all(|sample| sample.value.to_bits() == 1_f64.to_bits()),
            "{found:?}"
        );
    }
    Ok(())
}

/// On a kernel that has the hooks, for someone who may load programs, they're in use.
fn bpf_wherever() -> Result<()> {
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .context("no CapEff")?;
    let effective = u64::from_str_radix(effective, 16)?;
    if effective & (1 << CAP_SYS_ADMIN | 1 << CAP_BPF) == 0 {
        skip!("may not load BPF programs");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|word| word.parse::<u32>().ok());
    if numbers.next() < Some(6) || (release.starts_with("6.") && numbers.next() < Some(3)) {
        skip!(
            "Linux {} has no tracepoints of socket lengths",
            release.trim()
        );
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip!("this kernel has no BTF");
    }
    let page = Agent::shared()?.page()?;
    for (signal, source) in [
        ("process_table", "iter_task"),
        ("ended_processes", "sched_process_exit"),
        ("network", "sock_length"),
    ] {
        let seen = page.label_values("esnode_attribution_source", &[("signal", signal)], "source");
        ensure!(
            seen.contains(source),
            "the source of {signal} is {seen:?}, not {source}"
        );
    }
    Ok(())
}

fn memory() -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .context("no MemTotal")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    let page = Agent::shared()?.page()?;
    ensure_eq!(
        page.count("esnode_memory_total_bytes", &[])?,
        Some(kibibytes * 1024),
        "MemTotal"
    );
    Ok(())
}

/// Whatever is in a command name, the page is valid, and different names are different groups.
fn odd_names() -> Result<()> {
    let agent = Agent::start(&["--select", &workload::select_all()])?;
    let stems: &[&[u8]] = &[
        b"\"quotes\"",
        b" {a=b, c} ",
        b"\\",
        b"\\\\",
        b"caf\xc3\xa9",
        b"caf\xe9",
        b"caf\xe8",
        b"caf\\xe9",
        b"two\nlines",
        b"two\\nlines",
        b"\t\r\x1b[1m\x7f",
        b"#",
    ];
    let mut workloads = Vec::new();
    for (index, stem) in stems.iter().enumerate() {
        let name = Name::odd(stem)?;
        let bytes = (1_000 * (index + 1)).to_string();
        let workload = Workload::run(&name, &["move", "send", "udp4", &bytes, "0"])?;
        workloads.push((name, workload));
    }
    let page = agent.page()?;
    for (name, workload) in &workloads {
        let pid = workload.pid().to_string();
        let comms = page.label_values("esnode_process_info", &[("pid", &pid)], "comm");
        ensure_eq!(
            comms,
            BTreeSet::from([name.comm.as_str()]),
            "command names of the process"
        );
        let labels = [("group", name.comm.as_str())];
        ensure_eq!(
            group(&page, &labels).number("_processes")?,
            1,
            "processes of {labels:?}"
        );
        if need_bpf().is_ok() {
            group(&page, &labels).check_moved(&workload.report.total(), Calls::Exact)?;
        }
    }
    readers::check_by_promtool(&agent)
}

/// A program may be called like the group of the rest.
fn named_other() -> Result<()> {
    let name = Name::exact("other".as_ref())?;
    for flags in [&["--group-limit", "3"][..], &["--group-limit", "100000"]] {
        let agent = Agent::start(flags)?;
        let workload = Workload::run(&name, &["move", "send", "udp4", "5000", "2000"])?;
        let alive = agent.page()?;
        let labels = [("group", "other")];
        ensure!(
            group(&alive, &labels).number("_processes")? >= 1,
            "nobody in the group other"
        );
        workload.release()?;
        agent.page()?.check_monotonic(&alive, "esnode_group_")?;
    }
    Ok(())
}

/// The processes that a page has series of.
fn processes(page: &Page) -> BTreeSet<&str> {
    page.label_values("esnode_process_info", &[], "pid")
}

fn process_limit() -> Result<()> {
    let agent = Agent::start(&["--process-limit", "3"])?;
    let workloads = (0..6)
        .map(|_| Workload::run(&Name::new("limit")?, &["idle"]))
        .collect::<Result<Vec<_>>>()?;
    let page = agent.page()?;
    ensure_eq!(processes(&page).len(), 3, "processes on the page");
    let everywhere: BTreeSet<&str> = page
        .samples()
        .filter(|sample| sample.name.starts_with("esnode_process_"))
        .filter_map(|sample| sample.labels.get("pid"))
        .map(String::as_str)
        .collect();
    ensure_eq!(everywhere, processes(&page), "processes with any series");
    drop(workloads);
    Ok(())
}

/// Only so many groups have names; the rest is in `other`, and stays there.
fn group_limit() -> Result<()> {
    const LIMIT: usize = 4;
    let agent = Agent::start(&["--group-limit", &LIMIT.to_string()])?;
    let first = agent.page()?;
    let workloads = (0..6)
        .map(|_| Workload::run(&Name::new("limit")?, &["idle"]))
        .collect::<Result<Vec<_>>>()?;
    let with = agent.page()?;
    with.check_monotonic(&first, "esnode_group_")?;
    let alive = |page: &Page| {
        page.count("esnode_group_processes", &[])
            .map(Option::unwrap_or_default)
    };
    for page in [&first, &with] {
        let groups = page.label_values("esnode_group_processes", &[], "group");
        ensure!(groups.contains("other"), "no group other among {groups:?}");
        ensure!(
            groups.len() <= LIMIT + 1,
            "{} groups on the page: {groups:?}",
            groups.len()
        );
    }
    ensure!(
        alive(&with)? >= 6,
        "{} processes alive in all groups",
        alive(&with)?
    );
    drop(workloads);
    agent.page()?.check_monotonic(&with, "esnode_group_")
}
