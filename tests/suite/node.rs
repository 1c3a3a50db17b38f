//! What the page says of the node, next to what the kernel says just before and just after.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::page::Page;

use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("node::counters_are_the_kernels", counters),
        Case::new("node::loopback_carries_what_was_sent", loopback),
        Case::new("node::devices_are_chosen", devices),
        Case::new("node::boot_time_is_the_kernels", boot_time),
        Case::new("node::usage_is_of_the_agents_own_interval", usage),
    ]
}

/// The number behind a word that begins a line.
fn number(path: &str, word: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(word)?.split_ascii_whitespace().next());
    let value = value.with_context(|| format!("no {word} in {path}"))?;
    Ok(value.parse()?)
}

/// No counter is below what it was before the scrape, nor above what it is afterwards.
fn counters() -> Result<()> {
    let known: [(&str, &str, u64, &str); 6] = [
        (
            "/proc/stat",
            "ctxt ",
            1,
            "esnode_cpu_context_switches_total",
        ),
        ("/proc/stat", "intr ", 1, "esnode_cpu_interrupts_total"),
        ("/proc/stat", "processes ", 1, "esnode_cpu_forks_total"),
        (
            "/proc/vmstat",
            "pgpgin ",
            1024,
            "esnode_memory_page_in_bytes_total",
        ),
        (
            "/proc/vmstat",
            "pgpgout ",
            1024,
            "esnode_memory_page_out_bytes_total",
        ),
        (
            "/proc/vmstat",
            "pgfault ",
            1,
            "esnode_memory_page_faults_total",
        ),
    ];
    let read = || -> Result<Vec<u64>> {
        let numbers = known.iter();
        numbers
            .map(|(path, word, unit, _)| Ok(number(path, word)? * unit))
            .collect()
    };
    let agent = Agent::shared()?;
    let before = read()?;
    let page = agent.page()?;
    let after = read()?;
    for ((.., family), bounds) in known.iter().zip(before.iter().zip(&after)) {
        let seen = page
            .count(family, &[])?
            .with_context(|| format!("no {family}"))?;
        ensure!(
            (*bounds.0..=*bounds.1).contains(&seen),
            "{family} is {seen}, the kernel said {bounds:?}"
        );
    }
    Ok(())
}

/// What goes over `lo` is received as it was sent.
fn loopback() -> Result<()> {
    const BYTES: usize = 1_000_000;
    let agent = Agent::start(&["--collectors", "network"])?;
    let before = agent.page()?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let sending = thread::spawn(move || sender.write_all(&vec![1; BYTES]));
    ensure_eq!(
        receiver.read_to_end(&mut Vec::new())?,
        BYTES,
        "bytes received"
    );
    sending
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let after = agent.page()?;
    let labels = [("iface", "lo")];
    let moved = |family: &str| -> Result<u64> {
        let of = |page: &Page| page.count(family, &labels)?.context("no lo on the page");
        Ok(of(&after)? - of(&before)?)
    };
    for family in [
        "esnode_network_rx_bytes_total",
        "esnode_network_tx_bytes_total",
    ] {
        let bytes = moved(family)?;
        ensure!(bytes >= BYTES as u64, "{family} grew by {bytes}");
    }
    after.check_monotonic(&before, "esnode_network_")
}

/// Flags take away devices, and bring back those that are left out otherwise.
fn devices() -> Result<()> {
    let interfaces = |flags: &[&str]| -> Result<Vec<String>> {
        let flags = [&["--collectors", "network"], flags].concat();
        let page = Agent::start(&flags)?.page()?;
        let names = page.label_values("esnode_network_rx_bytes_total", &[], "iface");
        Ok(names.into_iter().map(str::to_owned).collect())
    };
    ensure_eq!(
        interfaces(&["--network-device-include", "^lo$"])?,
        ["lo"],
        "with lo alone"
    );
    let others = interfaces(&["--network-device-exclude", "^lo$"])?;
    ensure!(!others.contains(&"lo".to_owned()), "lo is among {others:?}");
    Ok(())
}

fn boot_time() -> Result<()> {
    let page = Agent::shared()?.page()?;
    let truth = number("/proc/stat", "btime ")?;
    let seen = page.count("esnode_node_boot_time_seconds", &[])?;
    // It follows the clock when that is set.
    ensure!(
        seen.is_some_and(|seen| seen.abs_diff(truth) <= 1),
        "booted at {seen:?}, the kernel says {truth}"
    );
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let labels = [("kernel", release.trim())];
    ensure_eq!(
        page.count("esnode_node_info", &labels)?,
        Some(1),
        "{labels:?}"
    );
    Ok(())
}

/// Whoever scrapes, and how often, sees the usage of the last whole interval: it changes when an
/// interval is over, not from scrape to scrape.
fn usage() -> Result<()> {
    const INTERVAL: Duration = Duration::from_secs(1);
    let agent = Agent::start(&["--collectors", "cpu", "--node-interval", "1s"])?;
    thread::sleep(INTERVAL + INTERVAL / 2);
    let begun = Instant::now();
    let mut seen: Vec<Vec<f64>> = Vec::new();
    let mut scrapes = 0;
    while begun.elapsed() < INTERVAL * 2 {
        let page = agent.page()?;
        let cores = page.select("esnode_cpu_usage_percent", &[]).into_iter();
        let usage: Vec<_> = cores.map(|sample| sample.value).collect();
        ensure!(!usage.is_empty(), "no usage");
        let possible = usage.iter().all(|percent| (0.0..=100.0).contains(percent));
        ensure!(possible, "usage is {usage:?}");
        if seen.last() != Some(&usage) {
            seen.push(usage);
        }
        scrapes += 1;
        thread::sleep(Duration::from_millis(10));
    }
    // Intervals of at least a second, of which the first and the last were seen in part.
    let intervals = usize::try_from(begun.elapsed().as_secs())? + 2;
    ensure!(
        seen.len() <= intervals && scrapes > 2 * intervals,
        "{} values in {scrapes} scrapes over {intervals} intervals: {seen:?}",
        seen.len()
    );
    Ok(())
}
