//! A host with tens of thousands of short-lived processes a minute: neither the page, nor the agent,
//! nor the time that a scrape takes grows. `cargo xtask flood` does the same for minutes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::page::Page;
use esnode_tests::puppet::{Programs, Puppet};

use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("flood::flat_by_command", || flat(Mode::Command)),
        Case::alone("flood::flat_by_engine", || flat(Mode::Engine)),
    ]
}

/// Processes per second: 50,000 a minute.
const RATE: u64 = 834;
/// Names that these have.
const NAMES: &str = "20000";
/// Room for fewer names, so that the agent has all that it can have after the warm-up.
const GROUPS: &str = "4096";
const WARM_UP: Duration = Duration::from_secs(7);
const MEASURED: Duration = Duration::from_secs(18);
const PAUSE: Duration = Duration::from_millis(300);

/// By what processes are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Command,
    Engine,
}

/// What is not to grow.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    series: usize,
    page_bytes: usize,
    resident_kib: u64,
    scrape: Duration,
}

/// The largest of a third of the time, and CPU time per scrape.
#[derive(Debug, Default)]
struct Third {
    most: Size,
    cpu_per_scrape: f64,
}

fn flat(mode: Mode) -> Result<()> {
    need_bpf()?;
    let programs = Programs::new(&format!("flood-{mode:?}"))?;
    let by = if mode == Mode::Engine {
        "engine"
    } else {
        "command"
    };
    let few = [
        "--bpf-groups",
        GROUPS,
        "--group-by",
        by,
        "--group-limit",
        "24",
    ];
    let agent = Agent::start(&[&few[..], &["--process-limit", "8"]].concat())?;
    // Of those names that the other one has no room for, too.
    let wide = [
        "--bpf-groups",
        "65536",
        "--group-limit",
        "100000",
        "--group-by",
        by,
    ];
    let counting = Agent::start(&wide)?;
    let title = programs.get("vllm")?.to_string_lossy().into_owned();
    let mut source = match mode {
        Mode::Command => Puppet::start(&programs, "flood-source", "flood-source", &[])?,
        Mode::Engine => Puppet::start(&programs, "vllm", &title, &["serve", "org/flood"])?,
    };
    agent.page()?;
    let before = ends(&counting.page()?, mode);
    let seconds = (WARM_UP + MEASURED).as_secs() + 1;
    source
        .root
        .tell(&format!("flood {RATE} {seconds} {NAMES}"))?;
    thread::sleep(WARM_UP);
    let thirds = [measure(&agent)?, measure(&agent)?, measure(&agent)?];
    source.root.wait_for("ok")?;
    let forks = source.root.report.fact("made")?;
    // A tenth of what was asked for is enough on a slow machine to see what grows.
    ensure!(
        forks >= RATE * seconds / 10,
        "{forks} processes in {seconds} s"
    );
    let ended = ends(&counting.page()?, mode) - before;
    // Both are whole, and far below 2^53.
    ensure_eq!(ended.to_string(), forks.to_string(), "processes that ended");
    check(&thirds).with_context(|| format!("{forks} processes, {thirds:?}"))
}

/// Processes of the flood that ended.
fn ends(page: &Page, mode: Mode) -> f64 {
    let is_ours = |group: &str| match mode {
        Mode::Command => group.starts_with("flood-"),
        Mode::Engine => group == "vllm/org/flood",
    };
    let samples = page.select("esnode_group_exited_total", &[]).into_iter();
    let ours = samples.filter(|sample| sample.labels.get("group").is_some_and(|it| is_ours(it)));
    ours.map(|sample| sample.value).sum()
}

/// Scrapes for a third of the time.
fn measure(agent: &Agent) -> Result<Third> {
    let begin = Instant::now();
    let mut third = Third::default();
    let (mut scrapes, mut first_cpu, mut last_cpu) = (0_u32, None, 0.0);
    while begin.elapsed() < MEASURED / 3 {
        let start = Instant::now();
        let (page, response) = agent.scrape()?;
        let most = &mut third.most;
        most.scrape = most.scrape.max(start.elapsed());
        most.series = most.series.max(page.samples().count());
        most.page_bytes = most.page_bytes.max(response.body.len());
        most.resident_kib = most.resident_kib.max(resident_kib(agent.pid())?);
        last_cpu = page
            .value("process_cpu_seconds_total", &[])
            .context("no CPU time")?;
        first_cpu.get_or_insert(last_cpu);
        scrapes += 1;
        thread::sleep(PAUSE);
    }
    let cpu = last_cpu - first_cpu.unwrap_or(last_cpu);
    third.cpu_per_scrape = cpu / f64::from(scrapes.max(2) - 1);
    Ok(third)
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kib.parse()?)
}

/// Fails where the last third is larger than the first by more than what comes and goes.
fn check([first, _, last]: &[Third; 3]) -> Result<()> {
    let (before, after) = (first.most, last.most);
    // Both limits are met from the beginning on, but not each that is shown has every series.
    ensure!(
        after.series <= before.series + before.series / 10,
        "series grew"
    );
    ensure!(
        after.page_bytes <= before.page_bytes + before.page_bytes / 10,
        "the page grew"
    );
    ensure!(
        after.resident_kib <= before.resident_kib + before.resident_kib / 20,
        "the agent grew"
    );
    let longer = before.scrape * 3 + Duration::from_millis(100);
    ensure!(after.scrape <= longer, "a scrape took longer");
    ensure!(
        last.cpu_per_scrape <= first.cpu_per_scrape * 1.5 + 0.005,
        "scrapes cost more"
    );
    Ok(())
}
