//! Processes that end: what the kernel tells of them.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::tally::Io;
use esnode_tests::workload::{Name, Workload};

use super::{Run, Setting};
use crate::check::{ensure_eq, group, process, unattributed};

/// They run in every setting.
pub(super) const TESTS: &[(&str, Run)] = &[
    ("five_thousand_between_two_scrapes", short_lived),
    ("end_gives_the_rest", rest_at_the_end),
    ("cpu_of_the_ended", cpu_of_the_ended),
    ("reaped_child_counts_once", reaped_child),
    ("ignored_children_are_not_inherited", ignored_children),
    ("nothing_falls_or_counts_twice", under_scrapes),
    ("first_scrape_counts_nothing_twice", before_the_first_scrape),
    ("threads_belong_to_their_process", threads),
    ("fork_storm_never_fails", storm),
];

/// Starts a workload with these words and a folder for its files.
fn with_folder(stem: &str, words: &[&str]) -> Result<(Name, PathBuf, Workload)> {
    let name = Name::new(stem)?;
    let directory = name.file(".d");
    fs::create_dir(&directory)?;
    let path = directory.to_string_lossy().into_owned();
    let words: Vec<_> = words.iter().copied().chain([path.as_str()]).collect();
    let workload = Workload::start(&name, &words)?;
    Ok((name, directory, workload))
}

/// Processes that nobody saw: their disk bytes and their number.
fn short_lived(setting: Setting) -> Result<()> {
    const COUNT: u64 = 5_000;
    const WRITTEN: u64 = 64 * 1024;
    let agent = setting.start(&[])?;
    let (count, written) = (COUNT.to_string(), WRITTEN.to_string());
    let words = ["short-lived", &count, "100", &written];
    let (name, directory, mut workload) = with_folder("short", &words)?;
    workload.wait_for("at start")?;
    let before = agent.page()?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let after = agent.page()?;
    let labels = [("group", name.comm.as_str())];
    let (before, after) = (group(&before, &labels), group(&after, &labels));
    for counter in ["_started_total", "_exited_total"] {
        let moved = after.number(counter)? - before.number(counter)?;
        ensure_eq!(moved, COUNT, "{counter} moved by");
    }
    ensure_eq!(after.number("_processes")?, 1, "processes alive");
    let children = workload.report.io_at("children")?;
    ensure!(
        children.write_bytes >= COUNT * WRITTEN,
        "the children wrote {children:?}"
    );
    // The kernel adds a child's account to the one that reaps it: what the parent has is the sum.
    after.check_io(Io::of(workload.pid())?)?;
    fs::remove_dir_all(&directory)?;
    Ok(())
}

/// What a process does after the last scrape, and in one that nobody saw.
fn rest_at_the_end(setting: Setting) -> Result<()> {
    let agent = setting.start(&[])?;
    for (case, scraped) in [
        ("write", true),
        ("write", false),
        ("direct-write", true),
        ("truncate", false),
        ("overwrite", true),
    ] {
        let name = Name::new("disk")?;
        let file = name.file(".data").to_string_lossy().into_owned();
        let words = ["disk-exec", &file, "1048576", &name.path.to_string_lossy()];
        let rest = ["--hold", "disk", case, &file, "2097152"];
        let words: Vec<_> = words.into_iter().chain(rest).collect();
        let mut workload = Workload::start(&name, &words)?;
        if scraped {
            agent.page()?;
        }
        workload.wait_for("done")?;
        let last = workload.release()?.io()?;
        let page = agent.page()?;
        let labels = [("group", name.comm.as_str())];
        let seen = group(&page, &labels);
        seen.check_io(last)
            .with_context(|| format!("{case}, seen before its end: {scraped}"))?;
        ensure_eq!(
            (
                seen.number("_started_total")?,
                seen.number("_exited_total")?
            ),
            (1, 1),
            "{case}: started, exited"
        );
        fs::remove_file(&file)?;
    }
    Ok(())
}

/// CPU time of a thread and of a child that nobody saw.
fn cpu_of_the_ended(setting: Setting) -> Result<()> {
    let agent = setting.start(&[])?;
    agent.page()?;
    let name = Name::new("cpu")?;
    let workload = Workload::run(&name, &["cpu", "400"])?;
    let used = workload.report.fact("cpu_microseconds")?;
    workload.release()?;
    let page = agent.page()?;
    let labels = [("group", name.comm.as_str())];
    let seen = page
        .value("esnode_group_cpu_seconds_total", &labels)
        .context("no CPU time")?;
    #[expect(clippy::cast_precision_loss, reason = "less than a second")]
    let used = used as f64 / 1e6;
    // The record leaves out what each of the three threads used since its last tick.
    ensure!(
        (used - 0.03..used + 0.1).contains(&seen),
        "used {used} s, on the page {seen} s"
    );
    ensure_eq!(group(&page, &labels).number("_exited_total")?, 2, "exited");
    Ok(())
}

/// A child's bytes are its own, and the kernel adds them to the account of the parent that waits.
fn reaped_child(setting: Setting) -> Result<()> {
    let landed = setting.start(&[])?;
    crate::disk::reaped_child(&landed.agent, |seen, truth| seen == truth)
}

/// A parent that ignores the ends of its children gets nothing of theirs: one that was seen, and
/// many that nobody saw.
fn ignored_children(setting: Setting) -> Result<()> {
    const COUNT: u64 = 100;
    const WRITTEN: u64 = 256 * 1024;
    let agent = setting.start(&[])?;
    let words = ["ignored-children", &COUNT.to_string(), &WRITTEN.to_string()];
    let (name, directory, mut workload) = with_folder("ignore", &words)?;
    let labels = [("group", name.comm.as_str())];
    let pid = workload.pid().to_string();
    let check = |workload: &Workload, moment: &str, ended: u64| -> Result<()> {
        let page = agent.page()?;
        // Said by the children only.
        let mut truth = Io::of(&pid)?;
        process(&page, &[("pid", &pid)]).check_io(truth)?;
        for own in workload.report.io.values() {
            truth += *own;
        }
        let seen = group(&page, &labels);
        seen.check_io(truth).with_context(|| moment.to_owned())?;
        ensure_eq!(seen.number("_exited_total")?, ended, "exited, {moment}");
        Ok(())
    };
    workload.wait_for("at alive")?;
    check(&workload, "alive", 0)?;
    workload.go_on()?;
    workload.wait_for("at gone")?;
    check(&workload, "gone", 1)?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let children = workload.report.io.values();
    let written: u64 = children.map(|child| child.write_bytes).sum();
    ensure!(
        written >= (COUNT + 1) * WRITTEN && Io::of(&pid)?.write_bytes < 4 * WRITTEN,
        "the children wrote {written}, and their parent has {:?}",
        Io::of(&pid)?
    );
    check(&workload, "done", COUNT + 1)?;
    let last = workload.release()?;
    let mut truth = last.io()?;
    for own in last.report.io.values() {
        truth += *own;
    }
    group(&agent.page()?, &labels).check_io(truth)?;
    Ok(fs::remove_dir_all(&directory)?)
}

/// Parents that wait for a child and end at once, while the page is read over and over: nothing
/// falls, and nothing counts twice.
fn under_scrapes(setting: Setting) -> Result<()> {
    const COUNT: u64 = 1_500;
    const WRITTEN: u64 = 64 * 1024;
    let agent = setting.start(&[])?;
    let words = ["generations", &COUNT.to_string(), &WRITTEN.to_string()];
    let (name, directory, mut workload) = with_folder("family", &words)?;
    workload.wait_for("at start")?;
    let labels = [("group", name.comm.as_str())];
    let mut last = agent.page()?;
    let started = Instant::now();
    workload.go_on()?;
    // All of them, and the children that they waited for.
    while group(&last, &labels).number("_exited_total")? < 2 * COUNT {
        ensure!(
            started.elapsed() < Duration::from_mins(1),
            "not all have ended"
        );
        let page = agent.page()?;
        page.check_monotonic(&last, "esnode_group_")?;
        page.check_monotonic(&last, "esnode_unattributed_")?;
        last = page;
    }
    workload.wait_for("done")?;
    let page = agent.page()?;
    let seen = group(&page, &labels);
    let truth = Io::of(workload.pid())?;
    ensure!(truth.write_bytes >= COUNT * WRITTEN, "they wrote {truth:?}");
    // Each waited for the next one: what the first one has is the sum.
    seen.check_io(truth)?;
    ensure_eq!(
        (
            seen.number("_started_total")?,
            seen.number("_exited_total")?
        ),
        (2 * COUNT + 1, 2 * COUNT),
        "started, exited"
    );
    workload.release()?;
    Ok(fs::remove_dir_all(&directory)?)
}

/// A parent that is older than the agent waits for children before anyone scrapes.
fn before_the_first_scrape(setting: Setting) -> Result<()> {
    const COUNT: u64 = 200;
    let words = ["generations", &COUNT.to_string(), "65536"];
    let (name, directory, mut workload) = with_folder("elder", &words)?;
    workload.wait_for("at start")?;
    let agent = setting.start(&[])?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let page = agent.page()?;
    let labels = [("group", name.comm.as_str())];
    let seen = group(&page, &labels);
    seen.check_io(Io::of(workload.pid())?)?;
    ensure_eq!(seen.number("_exited_total")?, 2 * COUNT, "exited");
    workload.release()?;
    Ok(fs::remove_dir_all(&directory)?)
}

/// Threads with names of their own, that ended, in a process that nobody saw.
fn threads(setting: Setting) -> Result<()> {
    let agent = setting.start(&[])?;
    let before = agent.page()?;
    let name = Name::new("thr")?;
    let file = name.file(".data");
    let length = 16 * 1024 * 1024;
    fs::write(&file, vec![b'x'; length])?;
    let words = ["disk", "thread-read", &file.to_string_lossy(), "16777216"];
    let workload = Workload::run(&name, &words)?;
    let last = workload.release()?.io()?;
    let page = agent.page()?;
    let labels = [("group", name.comm.as_str())];
    group(&page, &labels).check_io(last)?;
    ensure_eq!(group(&page, &labels).number("_exited_total")?, 1, "exited");
    let nobody = unattributed(&page, "disk_read")? - unattributed(&before, "disk_read")?;
    ensure_eq!(nobody, 0, "disk bytes of nobody");
    fs::remove_file(&file)?;
    Ok(())
}

/// Processes vanish while they are read.
fn storm(setting: Setting) -> Result<()> {
    let agent = setting.start(&[])?;
    let name = Name::new("storm")?;
    let mut workload = Workload::start(&name, &["storm"])?;
    workload.wait_for("at storm")?;
    let mut last = agent.page()?;
    for _ in 0..40 {
        let page = agent.page()?;
        ensure_eq!(
            page.value("esnode_collector_success", &[("collector", "process")]),
            Some(1.0),
            "the process collector"
        );
        // The iterator leaves out none.
        let malformed = page.value("esnode_processes_malformed", &[]);
        ensure!(
            malformed.is_none_or(|count| count == 0.0),
            "malformed: {malformed:?}"
        );
        page.check_monotonic(&last, "esnode_group_")?;
        last = page;
    }
    let forks = workload.release()?.report.fact("forks")?;
    let page = agent.page()?;
    let labels = [("group", name.comm.as_str())];
    // The storm itself began after the agent did.
    ensure_eq!(
        group(&page, &labels).number("_started_total")?,
        forks + 1,
        "started"
    );
    ensure_eq!(
        group(&page, &labels).number("_exited_total")?,
        forks + 1,
        "exited"
    );
    Ok(())
}
