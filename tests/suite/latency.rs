//! How long block devices take (`--disk-latency`): each request counts once.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::page::Page;
use esnode_tests::skip;
use esnode_tests::workload::{self, Name, Workload};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{major, minor};

use crate::check::{check_gone, ensure_eq};
use crate::ladder::Run;
use crate::{Case, readers};

const PROCESS: &str = "esnode_process_disk_io_seconds";
const GROUP: &str = "esnode_group_disk_io_seconds";

/// Requests of each kind.
const COUNT: u64 = 200;
/// Bytes of each.
const REQUEST: u64 = 4096;
/// Bytes of a file that has room for them, and for as many between.
const BYTES: usize = 200 * 2 * 4096;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // Beside others, a few requests in a hundred were in no histogram on Linux 6.18: see the
        // README's limits.
        Case::alone("latency::direct_requests_count_once", direct),
        Case::new("latency::buffered_writes_are_somebodys", synced),
        Case::new("latency::cached_reads_are_none", cached),
        Case::new("latency::promtool_takes_the_histograms", promtool),
        Case::new("latency::off_by_default", off),
        Case::new("latency::without_bpf_there_are_none", without_bpf),
    ]
}

/// An agent that measures block devices, and shows every workload.
fn start() -> Result<Agent> {
    let run = Run {
        flags: &["--disk-latency"],
        ..Run::default()
    };
    let report = run.check()?;
    if report.state("disk_latency")? != "ok" {
        let refused = report.refused("disk_latency")?;
        let reason = refused.first().map_or("no reason", |it| it.reason);
        skip!("the agent can't measure block devices: {reason}");
    }
    run.agent()
}

/// Fails as ignored where files are on no block device.
fn need_device() -> Result<()> {
    let folder = workload::directory()?;
    let device = fs::metadata(folder)?.dev();
    let (major, minor) = (major(device), minor(device));
    if !Path::new(&format!("/sys/dev/block/{major}:{minor}")).exists() {
        skip!("{} is on no block device", folder.display());
    }
    Ok(())
}

/// A file that is on the device, and not in the page cache.
fn prepare(name: &Name) -> Result<PathBuf> {
    let path = name.file(".data");
    let mut file = File::create(&path)?;
    file.write_all(&vec![b'x'; BYTES])
        .context("write the test's file")?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(path)
}

/// A histogram on the page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Histogram {
    count: u64,
    sum: f64,
}

/// Reads a histogram, which must be well formed; without its family's samples it's empty.
fn histogram(page: &Page, family: &str, labels: &[(&str, &str)]) -> Result<Histogram> {
    let Some(count) = page.count(&format!("{family}_count"), labels)? else {
        let left = page.select(&format!("{family}_bucket"), labels);
        ensure!(left.is_empty(), "buckets without a count: {left:?}");
        return Ok(Histogram::default());
    };
    let sum = page.value(&format!("{family}_sum"), labels);
    let sum = sum.context("no sum")?;
    let mut buckets = Vec::new();
    for sample in page.select(&format!("{family}_bucket"), labels) {
        let bound = sample.labels.get("le").context("a bucket without le")?;
        let bound = if bound == "+Inf" {
            f64::INFINITY
        } else {
            bound.parse()?
        };
        buckets.push((bound, sample.value));
    }
    ensure!(
        buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
        "bounds that don't rise, or counts that fall: {buckets:?}"
    );
    let all = page.count(
        &format!("{family}_bucket"),
        &[labels, &[("le", "+Inf")]].concat(),
    )?;
    ensure_eq!(all, Some(count), "count of all buckets");
    ensure!(buckets.len() > 10, "few buckets: {buckets:?}");
    // No request took less than its bucket's lower bound, nor more than the upper.
    let (mut least, mut most, mut before) = (0.0, 0.0, (0.0, 0.0));
    for (bound, value) in buckets {
        let requests: f64 = value - before.1;
        if requests > 0.0 {
            least += requests * before.0;
            most += requests * bound;
        }
        before = (bound, value);
    }
    ensure!(
        (least..=most).contains(&sum),
        "a sum of {sum}, though the buckets say {least} to {most}"
    );
    Ok(Histogram { count, sum })
}

/// Operations, in the order in which the workload does them, and its times.
const OPERATIONS: [(&str, &str); 2] = [
    ("read", "read_microseconds"),
    ("write", "write_microseconds"),
];

/// The histograms of each operation: of the process and of its group.
type Histograms = [[Histogram; 2]; 2];

fn histograms(page: &Page, pid: &str, comm: &str) -> Result<Histograms> {
    let mut all = Histograms::default();
    for (of_operation, (operation, _)) in all.iter_mut().zip(OPERATIONS) {
        let operation = ("operation", operation);
        *of_operation = [
            histogram(page, PROCESS, &[("pid", pid), ("comm", comm), operation])?,
            histogram(page, GROUP, &[("group", comm), operation])?,
        ];
    }
    Ok(all)
}

/// Does something that counts what this process asks the device for; again where the kernel had to
/// fetch other pages of it as well.
fn undisturbed(attempt: impl Fn() -> Result<bool>) -> Result<()> {
    for _ in 0..5 {
        if attempt()? {
            return Ok(());
        }
    }
    skip!("the page cache is emptied all the time");
}

/// One read, one request; one overwrite, one request. The group keeps them.
fn direct() -> Result<()> {
    let agent = start()?;
    need_device()?;
    undisturbed(|| try_direct(&agent))
}

/// False where it read more than it was asked to.
fn try_direct(agent: &Agent) -> Result<bool> {
    let name = Name::new("lat")?;
    let file = prepare(&name)?;
    let words = ["direct-io", &file.to_string_lossy(), &COUNT.to_string()];
    let mut workload = Workload::start(&name, &words)?;
    let pid = workload.pid().to_string();
    let mut seen = Vec::new();
    for stage in ["at open", "at read", "done"] {
        workload.wait_for(stage)?;
        seen.push(histograms(&agent.page()?, &pid, &name.comm)?);
        if stage != "done" {
            workload.go_on()?;
        }
    }
    let [open, read, end] = ["open", "read", "end"].map(|stage| workload.report.io_at(stage));
    let (open, read, end) = (open?, read?, end?);
    if end.read_bytes - open.read_bytes != COUNT * REQUEST || end.read_bytes != read.read_bytes {
        return Ok(false);
    }
    ensure_eq!(
        end.write_bytes - read.write_bytes,
        COUNT * REQUEST,
        "bytes written"
    );
    for (index, (pages, (operation, time))) in seen.windows(2).zip(OPERATIONS).enumerate() {
        let [before, after] = pages else { continue };
        for (other, (before, after)) in before.iter().zip(after).enumerate() {
            if other == index {
                check_rise(before, after, workload.report.fact(time)?)
                    .with_context(|| operation.to_owned())?;
            } else {
                // Neither operation counts as the other.
                ensure_eq!(after, before, "the other operation during {operation}");
            }
        }
    }
    workload.release()?;
    let gone = agent.page()?;
    check_gone(&gone, &pid, &name.comm)?;
    let left = histograms(&gone, &pid, &name.comm)?;
    let last = seen.last().context("no page")?;
    for ([of_process, of_group], [_, kept]) in left.iter().zip(last) {
        ensure_eq!(of_process.count, 0, "requests of a process that is gone");
        ensure_eq!(of_group, kept, "the group after the end");
    }
    fs::remove_file(file)?;
    Ok(true)
}

/// Process and group have got all requests, which took no longer than the calls.
fn check_rise(before: &[Histogram], after: &[Histogram], microseconds: u64) -> Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "less than a day")]
    let longest = microseconds as f64 / 1e6;
    for (before, after) in before.iter().zip(after) {
        ensure_eq!(after.count - before.count, COUNT, "requests");
        // One at a time.
        let took = after.sum - before.sum;
        ensure!(
            0.0 < took && took < longest,
            "{took} s in requests, {longest} s in calls"
        );
    }
    Ok(())
}

/// Requests that write, of a group and of the kernel's flusher threads.
fn writes(page: &Page, comm: &str) -> Result<u64> {
    let name = format!("{GROUP}_count");
    let mut sum = 0;
    for group in page.label_values(&name, &[("operation", "write")], "group") {
        if group == comm || group.starts_with("kworker") {
            let labels = [("group", group), ("operation", "write")];
            sum += page.count(&name, &labels)?.unwrap_or_default();
        }
    }
    Ok(sum)
}

/// What the page cache writes is the process' or the kernel's.
fn synced() -> Result<()> {
    let agent = start()?;
    need_device()?;
    let name = Name::new("lat")?;
    let file = prepare(&name)?;
    let words = ["synced-io", &file.to_string_lossy(), "50"];
    let mut workload = Workload::start(&name, &words)?;
    workload.wait_for("at open")?;
    let before = writes(&agent.page()?, &name.comm)?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let after = writes(&agent.page()?, &name.comm)?;
    ensure!(after > before, "{before} writes before, {after} after");
    workload.release()?;
    fs::remove_file(file)?;
    Ok(())
}

/// What is in the page cache asks no device.
fn cached() -> Result<()> {
    let agent = start()?;
    need_device()?;
    undisturbed(|| try_cached(&agent))
}

/// False where the kernel had to read after all.
fn try_cached(agent: &Agent) -> Result<bool> {
    let name = Name::new("lat")?;
    let file = prepare(&name)?;
    let words = ["cached-io", &file.to_string_lossy()];
    let mut workload = Workload::start(&name, &words)?;
    let pid = workload.pid().to_string();
    workload.wait_for("at open")?;
    let before = histograms(&agent.page()?, &pid, &name.comm)?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let after = histograms(&agent.page()?, &pid, &name.comm)?;
    if workload.report.io_at("open")? != workload.report.io_at("end")? {
        return Ok(false);
    }
    let [[first, _], _] = before;
    ensure!(first.count > 0, "the first read asked no device");
    ensure_eq!(after, before, "requests for what is in the page cache");
    workload.release()?;
    fs::remove_file(file)?;
    Ok(true)
}

fn promtool() -> Result<()> {
    let agent = start()?;
    need_device()?;
    let name = Name::new("lat")?;
    let file = prepare(&name)?;
    let words = ["disk", "direct-read", &file.to_string_lossy(), "1048576"];
    let workload = Workload::run(&name, &words)?;
    let page = agent.page()?;
    for family in [PROCESS, GROUP] {
        let found = page.families.iter().find(|found| found.name == family);
        let found = found.with_context(|| format!("no {family}"))?;
        ensure_eq!(found.kind, "histogram", "type of {family}");
    }
    readers::check_by_promtool(&agent)?;
    workload.release()?;
    fs::remove_file(file)?;
    Ok(())
}

/// Fails where the page says how long block devices took for anyone.
fn check_absent(page: &Page) -> Result<()> {
    let family = page
        .families
        .iter()
        .find(|family| [PROCESS, GROUP].contains(&family.name.as_str()));
    ensure!(family.is_none(), "nobody asked for {family:?}");
    for (family, label) in [
        ("esnode_bpf_program_info", "program"),
        ("esnode_bpf_map_capacity", "map"),
    ] {
        for name in page.label_values(family, &[], label) {
            let lower = name.to_lowercase();
            ensure!(
                !lower.starts_with("block_rq") && !lower.contains("latency"),
                "nobody asked for {name}"
            );
        }
    }
    Ok(())
}

/// Nobody pays for what nobody asked for.
fn off() -> Result<()> {
    let report = Run::default().check()?;
    ensure_eq!(report.state("disk_latency")?, "off", "disk_latency");
    let agent = Agent::shared()?;
    let name = Name::new("lat")?;
    let file = prepare(&name)?;
    let words = ["disk", "direct-read", &file.to_string_lossy(), "1048576"];
    let workload = Workload::run(&name, &words)?;
    check_absent(&agent.page()?)?;
    workload.release()?;
    fs::remove_file(file)?;
    Ok(())
}

/// It has no other source.
fn without_bpf() -> Result<()> {
    let run = Run {
        flags: &["--disk-latency", "--no-bpf"],
        ..Run::default()
    };
    let report = run.check()?;
    ensure_eq!(report.state("disk_latency")?, "missing", "disk_latency");
    ensure_eq!(report.code, 3, "exit code of check");
    check_absent(&run.agent()?.page()?)
}
