//! Files that no kernel writes, made at random of those of the fixtures: no collector panics, each
//! page is valid, and nothing is left of it when the file is as it was. `PROPTEST_CASES` says how
//! many are tried on each collector.

mod columns;
mod edits;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the strict reader of the black-box tests, of which these need a part"
)]
#[path = "../../../tests/src/page.rs"]
mod reader;

use super::{CollectError, Collector, CollectorName, fixture::Host};
use crate::{
    agent,
    cli::Cli,
    page::{self, Facts, Names},
};
use clap::{Parser as _, ValueEnum as _};
use edits::Edits;
use proptest::{
    prelude::{ProptestConfig, any},
    sample::Index,
    test_runner::{TestCaseError, TestRunner},
};
use reader::{Format, Page};
use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Tried on each collector if nobody says otherwise, so that all take some ten seconds.
const CASES: u32 = 96;

/// The folders of the hosts.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// What a collector reads, by how the paths below its host begin.
fn sources(collector: &str) -> &'static [&'static str] {
    match collector {
        "cpu" => &["proc/stat", "proc/cpuinfo", "sys/devices/system/cpu"],
        "load" => &["proc/loadavg"],
        "memory" => &["proc/meminfo", "proc/vmstat"],
        "pressure" => &["proc/pressure"],
        "disk" => &["proc/diskstats"],
        "md" => &["proc/mdstat"],
        "network" => &[
            "proc/1/net",
            "proc/self/net",
            "proc/sys/net",
            "sys/class/net",
            "sys/devices/virtual/net",
            "sys/devices/pci",
        ],
        "node" => &[
            "proc/stat",
            "proc/uptime",
            "proc/sys/kernel",
            "proc/sys/fs",
            "proc/1/root/etc",
        ],
        "numa" => &["sys/devices/system/node"],
        "filesystem" => &["proc/1/mounts", "proc/self/mounts"],
        "edac" => &["sys/devices/system/edac"],
        "power" => &[
            "sys/devices/virtual/powercap",
            "sys/devices/platform",
            "sys/devices/LNXSYSTM",
        ],
        "thermal" => &["sys/devices/virtual/thermal", "sys/class/thermal"],
        "infiniband" | "hwmon" => &["sys/devices"],
        // One that nobody told this table about.
        _ => &["proc", "sys"],
    }
}

/// A copy of a fixture, with the files that one collector reads.
struct Copy {
    host: Host,
    files: Vec<(PathBuf, Vec<u8>)>,
    collector: CollectorName,
    /// What the page of the host as it is has, without the values.
    series: BTreeSet<String>,
}

/// The page of one collector.
struct Pass {
    success: Option<bool>,
    series: BTreeSet<String>,
}

impl Copy {
    fn of(fixture: &Path, collector: CollectorName) -> Self {
        let host = Host::new(&[]);
        let mut files = Vec::new();
        let wanted = |path: &Path| {
            let path = path.strip_prefix(fixture).expect("below").to_string_lossy();
            let mut sources = sources(&collector.to_string()).iter();
            sources.any(|source| path.starts_with(source))
        };
        for root in ["proc", "sys"] {
            let to = host.procfs().with_file_name(root);
            copy(&fixture.join(root), &to, &wanted, &mut files);
        }
        files.sort();
        let mut copy = Self {
            host,
            files,
            collector,
            series: BTreeSet::new(),
        };
        let pass = pass(&mut copy.collector()).expect("valid");
        assert_ne!(
            pass.success,
            Some(false),
            "{collector} fails on {fixture:?}"
        );
        copy.series = pass.series;
        copy
    }

    fn collector(&self) -> Collector {
        collector(&self.host, self.collector)
    }

    /// Whether all is there that the host as it is has.
    fn is_whole(&self, pass: &Pass) -> bool {
        pass.success != Some(false) && self.series.is_subset(&pass.series)
    }

    /// A collector sees the host as it is, then one file damaged, then as it is again.
    fn try_edits(&self, file: Index, edits: &Edits) -> Result<(), TestCaseError> {
        let (path, whole) = file.get(&self.files);
        let mut collector = self.collector();
        pass(&mut collector)?;
        edits.apply(path, whole);
        let damaged = pass(&mut collector);
        let started_so = pass(&mut self.collector());
        let bytes = fs::read(path).unwrap_or_default();
        edits::mend(path, whole);
        let mut mended = pass(&mut collector)?;
        // Some are read in the background, and told of by the next pass.
        let begun = Instant::now();
        while !self.is_whole(&mended) && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
            mended = pass(&mut collector)?;
        }
        for outcome in [damaged, started_so] {
            let shown = String::from_utf8_lossy(&bytes);
            outcome.map_err(|error| TestCaseError::fail(format!("{path:?} {shown:?}: {error}")))?;
        }
        if !self.is_whole(&mended) {
            let left: Vec<_> = self.series.difference(&mended.series).collect();
            let reason = format!("{path:?} is as it was, but these stay away: {left:?}");
            return Err(TestCaseError::fail(reason));
        }
        Ok(())
    }
}

/// How long a collector may take to see that a file is whole again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A collector as the agent makes it, but for what is left out of what is shown.
fn collector(host: &Host, name: CollectorName) -> Collector {
    let (procfs, sysfs) = (host.procfs(), host.sysfs());
    let name = name.to_string();
    let cli = Cli::parse_from([
        "esnode-core".as_ref(),
        "--procfs".as_ref(),
        procfs.as_os_str(),
        "--sysfs".as_ref(),
        sysfs.as_os_str(),
        "--collectors".as_ref(),
        name.as_ref(),
        "--node-exporter-names".as_ref(),
        "--disk-device-exclude=".as_ref(),
        "--network-device-exclude=".as_ref(),
    ]);
    let agent = cli.agent;
    let nothing = agent::Found::nothing(&agent.identity).expect("no files");
    let collectors = agent::collectors(&agent.sources, &agent.page, nothing, &[]);
    collectors.expect("made").pop().expect("one")
}

/// Copies the folders and links in a folder, and those of the files that are wanted, and notes these.
fn copy(
    from: &Path,
    to: &Path,
    wanted: &impl Fn(&Path) -> bool,
    files: &mut Vec<(PathBuf, Vec<u8>)>,
) {
    fs::create_dir_all(to).expect("folder");
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    for entry in entries {
        let entry = entry.expect("entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("kind");
        if kind.is_dir() {
            copy(&from, &to, wanted, files);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from).expect("link"), to).expect("link");
        } else if wanted(&from) {
            let bytes = fs::read(&from).expect("file");
            fs::write(&to, &bytes).expect("file");
            files.push((to, bytes));
        }
    }
}

/// Samples and writes the page by both sets of names, which must be valid.
fn pass(collector: &mut Collector) -> Result<Pass, TestCaseError> {
    let sample = collector.sample();
    let success = sample.success();
    let facts: Vec<Facts> = match sample.facts {
        Err(CollectError::Panicked) => return Err(TestCaseError::fail("it panicked")),
        Err(error) if error.to_string().is_empty() => {
            return Err(TestCaseError::fail("an error that says nothing"));
        }
        Err(_) => Vec::new(),
        Ok(facts) => vec![facts],
    };
    let page = page::render(facts, Names::AndNodeExporter, 0).expect("written");
    let read = Page::parse(&page, Format::OpenMetrics);
    read.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let series = samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()));
    Ok(Pass {
        success,
        series: series.collect(),
    })
}

/// Tries a collector on every host where it reads something.
fn fuzz(collector: CollectorName) -> Result<(), String> {
    let entries = fs::read_dir(fixtures()).expect("fixtures");
    let mut hosts: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    hosts.sort();
    let mut copies: Vec<_> = hosts.iter().map(|host| Copy::of(host, collector)).collect();
    copies.retain(|copy| !copy.files.is_empty() && !copy.series.is_empty());
    assert!(!copies.is_empty(), "no host has anything for {collector}");
    let cases = match env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default().cases,
        None => CASES,
    };
    let config = ProptestConfig {
        cases,
        // Nothing is written into the tree: a failure names the file and the edits.
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let case = (any::<Index>(), any::<Index>(), edits::any_edits());
    let outcome = TestRunner::new(config).run(&case, |(copy, file, edits)| {
        copy.get(&copies).try_edits(file, &edits)
    });
    outcome.map_err(|error| format!("{collector}: {error}"))
}

#[test]
fn no_file_makes_a_collector_panic_or_a_page_invalid() {
    let skipped = [CollectorName::Gpu, CollectorName::Process];
    let names = CollectorName::value_variants().iter();
    let names = names.filter(|name| !skipped.contains(name));
    // All at once: much of the time goes by in system calls.
    let failures: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = names.map(|name| scope.spawn(|| fuzz(*name))).collect();
        let outcomes = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic here"));
        outcomes.filter_map(Result::err).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
