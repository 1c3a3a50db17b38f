//! What the page says of filesystems, in a mount namespace that a workload has to itself. The agent
//! gets there as from a container: by the root of process 1, which here is the workload.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::page::Page;
use esnode_tests::skip;
use esnode_tests::workload::{Name, Workload};
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use crate::Case;
use crate::check::ensure_eq;

/// Every byte that the kernel escapes in its list of mounts, and those that the page escapes.
const ODD: &str = "o d\td\nn\\a\"m'e#é";

/// How long the first scrape may take: the agent waits for what doesn't answer.
const FIRST: Duration = Duration::from_secs(1);

/// How long others may take: less than the agent waits.
const NEXT: Duration = Duration::from_millis(250);

/// How long an agent may take to end.
const END: Duration = Duration::from_secs(2);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("filesystem::space_is_the_kernels", space),
        Case::new("filesystem::mounts_are_chosen", chosen),
        Case::new("filesystem::silent_filesystem_is_stuck", silent),
        Case::new("filesystem::name_that_is_not_utf8", not_utf8),
    ]
}

/// A workload with mounts of its own.
struct Mounts {
    workload: Workload,
    /// What the mounts are in.
    folder: PathBuf,
    /// Where the agent finds the workload as process 1.
    procfs: PathBuf,
}

impl Mounts {
    /// Starts the workload for this case, and waits for a line from it.
    fn start(case: &str, words: &[&str], line: &str) -> Result<Self> {
        if !geteuid().is_root() {
            skip!("needs root to mount");
        }
        let name = Name::new("mounts")?;
        let (folder, procfs) = (name.file(".mounts"), name.file(".proc"));
        fs::create_dir_all(&procfs)?;
        let place = folder.to_string_lossy().into_owned();
        let words = [&["filesystems", case, &place], words].concat();
        let mut workload = Workload::start(&name, &words)?;
        workload.wait_for(line)?;
        symlink(format!("/proc/{}", workload.pid()), procfs.join("1"))?;
        Ok(Self {
            workload,
            folder,
            procfs,
        })
    }

    /// Lets the workload go on, and waits for a line from it.
    fn go_on(&mut self, line: &str) -> Result<()> {
        self.workload.go_on()?;
        self.workload.wait_for(line)
    }

    /// An agent that sees these mounts.
    fn agent(&self, flags: &[&str]) -> Result<Agent> {
        let procfs = self.procfs.to_string_lossy();
        let own = [
            "--no-bpf",
            "--collectors",
            "filesystem",
            "--procfs",
            &procfs,
        ];
        Agent::start(&[&own, flags].concat())
    }

    /// A mount point as the workload sees it.
    fn point(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// A path of the workload as the test reaches it.
    fn reach(&self, path: &str) -> PathBuf {
        let root = format!("/proc/{}/root", self.workload.pid());
        Path::new(&root).join(path.trim_start_matches('/'))
    }

    /// Fails where filesystems don't have on the page what the kernel says; gives their number.
    /// Sizes don't change while the test runs, other values may.
    fn check_sizes(&self, page: &Page) -> Result<usize> {
        let samples = page.select("esnode_disk_total_bytes", &[]);
        for sample in &samples {
            let point = sample.labels.get("mount").context("no mount")?;
            let truth = statvfs(&self.reach(point)).with_context(|| point.clone())?;
            ensure_eq!(
                page.count("esnode_disk_total_bytes", &[("mount", point)])?,
                Some(truth.blocks() * truth.fragment_size()),
                "size of {point:?}"
            );
        }
        Ok(samples.len())
    }
}

/// What a family of the agent says of a mount point.
fn value(page: &Page, family: &str, point: &str) -> Result<Option<u64>> {
    page.count(&format!("esnode_disk_{family}"), &[("mount", point)])
}

/// Bytes and inodes of a filesystem that was made for it, under a name that has to be escaped.
fn space() -> Result<()> {
    const BYTES: usize = 100 * 1024;
    let mut mounts = Mounts::start("sized", &[ODD, "size=1m,nr_inodes=128"], "at writable")?;
    let agent = mounts.agent(&["--node-exporter-names"])?;
    let point = mounts.point(ODD);
    let check = |page: &Page, used: u64, files: u64, read_only: u64| -> Result<()> {
        for (family, expected) in [
            ("total_bytes", 1 << 20),
            ("used_bytes", used),
            ("free_bytes", (1 << 20) - used),
            ("available_bytes", (1 << 20) - used),
            ("inodes", 128),
            // One is the folder itself.
            ("inodes_free", 127 - files),
            ("readonly", read_only),
            ("stuck", 0),
            ("error", 0),
        ] {
            ensure_eq!(value(page, family, &point)?, Some(expected), "{family}");
        }
        let labels = [
            ("mountpoint", &*point),
            ("device", "tmpfs"),
            ("fstype", "tmpfs"),
        ];
        let free = page.count("node_filesystem_free_bytes", &labels)?;
        ensure_eq!(free, Some((1 << 20) - used), "node_filesystem_free_bytes");
        Ok(())
    };
    check(&agent.page()?, 0, 0, 0)?;
    fs::write(mounts.reach(&point).join("file"), vec![1; BYTES])?;
    check(&agent.page()?, BYTES as u64, 1, 0)?;
    mounts.go_on("at read-only")?;
    let page = agent.page()?;
    check(&page, BYTES as u64, 1, 1)?;
    // What covers another is there once, with its own size.
    let twice = mounts.point("twice");
    ensure_eq!(value(&page, "total_bytes", &twice)?, Some(8192), "{twice}");
    ensure!(
        mounts.check_sizes(&page)? >= 2,
        "what was mounted is not there"
    );
    Ok(())
}

/// Filesystems of the kernel are left out; flags say otherwise.
fn chosen() -> Result<()> {
    let mounts = Mounts::start("sized", &["sized", ""], "at writable")?;
    let shown = |flags: &[&str]| -> Result<Vec<String>> {
        let page = mounts.agent(flags)?.page()?;
        let points = page.label_values("esnode_disk_stuck", &[], "mount");
        let names = points.into_iter().filter_map(|point| {
            let name = Path::new(point).strip_prefix(&mounts.folder).ok()?;
            Some(name.to_string_lossy().into_owned())
        });
        Ok(names.collect())
    };
    for (flags, expected) in [
        (&[][..], &["sized", "twice"][..]),
        (&["--mount-exclude", "twice$"], &["sized"]),
        (&["--mount-include", "/twice$"], &["twice"]),
        (&["--fstype-include", "^(proc|sysfs)$"], &["proc", "sysfs"]),
        (
            &["--fstype-exclude", "^sysfs$"],
            &["proc", "sized", "twice"],
        ),
        (
            &["--fstype-exclude", ""],
            &["proc", "sized", "sysfs", "twice"],
        ),
    ] {
        ensure_eq!(shown(flags)?, expected, "{flags:?}");
    }
    Ok(())
}

/// Fails where a scrape takes longer than it may.
fn timed(agent: &Agent, limit: Duration) -> Result<Page> {
    let begun = Instant::now();
    let page = agent.page()?;
    let took = begun.elapsed();
    ensure!(took < limit, "a scrape took {took:?}");
    Ok(page)
}

/// A daemon that never answers holds up neither scrapes nor the end, and takes away nothing but its
/// own values, until it's gone.
fn silent() -> Result<()> {
    let mut mounts = Mounts::start("silent", &[], "at silent")?;
    let (silent, beside) = (mounts.point("silent"), mounts.point("beside"));
    let check_stuck = |page: &Page| -> Result<()> {
        ensure_eq!(value(page, "stuck", &silent)?, Some(1), "{silent} is stuck");
        for family in ["total_bytes", "used_bytes", "inodes"] {
            ensure_eq!(value(page, family, &silent)?, None, "{family} of {silent}");
        }
        let error = page.count("node_filesystem_device_error", &[("mountpoint", &silent)])?;
        ensure_eq!(error, Some(1), "node_filesystem_device_error");
        ensure_eq!(value(page, "stuck", &beside)?, Some(0), "{beside} is stuck");
        ensure_eq!(
            value(page, "total_bytes", &beside)?,
            Some(65_536),
            "{beside}"
        );
        let success = [("collector", "filesystem")];
        let success = page.count("esnode_collector_success", &success)?;
        ensure_eq!(success, Some(1), "success");
        mounts.check_sizes(page)?;
        Ok(())
    };
    let agent = mounts.agent(&["--node-exporter-names"])?;
    check_stuck(&timed(&agent, FIRST)?)?;
    let threads = agent.page()?.value("process_threads", &[]);
    for _ in 0..20 {
        let page = timed(&agent, NEXT)?;
        check_stuck(&page)?;
        ensure_eq!(page.value("process_threads", &[]), threads, "threads");
    }
    let ended = agent.stop()?;
    ensure_eq!(ended.status.code(), Some(0), "exit code");
    ensure!(ended.took < END, "the end took {:?}", ended.took);

    let agent = mounts.agent(&["--node-exporter-names"])?;
    check_stuck(&timed(&agent, FIRST)?)?;
    mounts.go_on("at gone")?;
    let begun = Instant::now();
    while value(&agent.page()?, "stuck", &silent)? == Some(1) {
        ensure!(begun.elapsed() < END, "{silent} is stuck for ever");
    }
    let page = timed(&agent, NEXT)?;
    ensure_eq!(
        value(&page, "error", &silent)?,
        Some(1),
        "error of {silent}"
    );
    ensure_eq!(value(&page, "total_bytes", &silent)?, None, "{silent}");
    let log = agent.log.lines();
    for words in ["does not answer", "answers again"] {
        let lines = log.iter();
        let told = lines.filter(|line| line.contains(&silent) && line.contains(words));
        ensure_eq!(told.count(), 1, "lines of the log with {words:?}");
    }
    Ok(())
}

/// A name that no label can have fails the collector, which names the line, and hides nothing else.
fn not_utf8() -> Result<()> {
    let mounts = Mounts::start("not-utf8", &[], "done")?;
    let agent = mounts.agent(&[])?;
    for _ in 0..3 {
        let page = agent.page()?;
        for name in ["before", "behind"] {
            let size = value(&page, "total_bytes", &mounts.point(name))?;
            ensure!(size.is_some(), "{name} is not on the page");
        }
        mounts.check_sizes(&page)?;
        let success = [("collector", "filesystem")];
        let success = page.count("esnode_collector_success", &success)?;
        ensure_eq!(success, Some(0), "success");
    }
    let list = mounts.procfs.join("1/mounts");
    let text = fs::read(&list)?;
    let lines = text.split(|byte| *byte == b'\n');
    let odd = |line: &[u8]| std::str::from_utf8(line).is_err();
    let number = lines.clone().position(odd).context("no such line")? + 1;
    let words = format!(
        "{}, line {number}: expected a mount point in UTF-8",
        list.display()
    );
    let log = agent.log.lines();
    let told = log.iter().filter(|line| line.contains(&words));
    ensure_eq!(told.count(), 1, "lines of the log with {words:?}");
    Ok(())
}
