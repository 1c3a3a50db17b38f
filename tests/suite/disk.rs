//! Disk bytes: the page says what `/proc/PID/io` says, also of what has ended.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::skip;
use esnode_tests::tally::Io;
use esnode_tests::workload::{self, Name, Workload};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use crate::Case;
use crate::check::{group, process, within_grace};

/// Bytes of a test's file.
const BYTES: u64 = 16 * 1024 * 1024;

/// Where the file's bytes are before the workload runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// There is no file.
    Nothing,
    /// On the disk only.
    Cold,
    /// In the page cache.
    Cached,
}

/// What a workload must have done by its own account, from its start to its end.
type Expected = fn(Io) -> bool;

const CASES: &[(&str, &str, Before, Expected)] = &[
    ("direct_read", "direct-read", Before::Cold, |io| {
        io.read_bytes == BYTES
    }),
    ("direct_write", "direct-write", Before::Nothing, |io| {
        io.write_bytes >= BYTES
    }),
    ("cold_read", "read", Before::Cold, |io| {
        io.read_bytes >= BYTES
    }),
    ("mmap_read", "mmap-read", Before::Cold, |io| {
        io.read_bytes >= BYTES
    }),
    ("cached_read_is_nothing", "read", Before::Cached, |io| {
        io.read_bytes == 0
    }),
    ("write_before_writeback", "write", Before::Nothing, |io| {
        io.write_bytes >= BYTES
    }),
    (
        "overwrite_of_dirty_pages",
        "overwrite",
        Before::Nothing,
        |io| io.write_bytes >= BYTES,
    ),
    ("truncate_cancels", "truncate", Before::Nothing, |io| {
        io.cancelled_write_bytes > 0
    }),
    ("remove_cancels", "remove", Before::Nothing, |io| {
        io.cancelled_write_bytes > 0
    }),
    ("threads_that_ended", "thread-read", Before::Cold, |io| {
        io.read_bytes == BYTES
    }),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = CASES
        .iter()
        .map(|&(name, command, before, expected)| {
            Case::new(format!("disk::{name}"), move || {
                run(command, before, expected)
            })
        })
        .collect();
    cases.push(Case::new(
        "disk::unlinked_file_cancels_at_the_end",
        unlinked,
    ));
    cases.push(Case::new("disk::reaped_child_counts_once", || {
        reaped_child(&*Agent::shared_with_bpf()?, |seen, truth| seen == truth)
    }));
    cases.push(Case::new("disk::exec_leaves_bytes_with_the_old_name", exec));
    cases
}

/// Fails as ignored where files aren't on a disk.
pub(crate) fn need_disk() -> Result<()> {
    let kind = statfs(workload::directory()?)?.filesystem_type();
    if kind == TMPFS_MAGIC {
        skip!("the target folder is on tmpfs, which has no disk behind it");
    }
    if kind == OVERLAYFS_SUPER_MAGIC {
        skip!("the target folder is on overlayfs, which hides its page cache");
    }
    Ok(())
}

/// Puts a file where the workload is to find it.
fn prepare(path: &Path, before: Before) -> Result<()> {
    if before == Before::Nothing {
        return Ok(());
    }
    let length = usize::try_from(BYTES)?;
    let mut file = File::create(path)?;
    file.write_all(&vec![b'x'; length])
        .context("write the test's file")?;
    file.sync_all()?;
    if before == Before::Cold {
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

/// Runs a workload on a file; compares its own account with the page, while it lives and after.
fn run(command: &str, before: Before, expected: Expected) -> Result<()> {
    need_disk()?;
    let agent = Agent::shared()?;
    let name = Name::new("disk")?;
    let path = name.file(".data");
    prepare(&path, before)?;
    let file = path.to_string_lossy().into_owned();
    let workload = Workload::run(&name, &["disk", command, &file, &BYTES.to_string()])?;
    let end = workload.report.io_at("end")?;
    let own = end - workload.report.io_at("start")?;
    ensure!(
        expected(own),
        "the workload's own account is not as it should be: {own:?}"
    );
    let pid = workload.pid().to_string();
    let page = agent.page()?;
    process(&page, &[("pid", &pid), ("comm", &name.comm)]).check_io(end)?;
    // Whoever waits for a thread goes on while that still ends: a pass may miss it in between.
    let settled =
        |io| within_grace(|| group(&agent.page()?, &[("group", &name.comm)]).check_io(io));
    settled(end)?;
    let ended = workload.release()?;
    // Only the hook at a process' end sees what it did after the last scrape.
    let last = if need_bpf().is_ok() { ended.io()? } else { end };
    settled(last)?;
    remove(&path)
}

/// Removes a test's file, if there's one.
fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// A file that has no name any more is dropped when the process ends, after its exit has begun.
fn unlinked() -> Result<()> {
    need_disk()?;
    let agent = Agent::shared_with_bpf()?;
    let name = Name::new("disk")?;
    let file = name.file(".data").to_string_lossy().into_owned();
    let workload = Workload::run(&name, &["disk", "unlinked", &file, &BYTES.to_string()])?;
    let end = workload.report.io_at("end")?;
    group(&agent.page()?, &[("group", &name.comm)]).check_io(end)?;
    let last = workload.release()?.io()?;
    ensure!(
        last.cancelled_write_bytes >= BYTES,
        "the kernel cancelled nothing: {last:?}"
    );
    // The kernel frees the last of a process after a grace period, and tells its hook then.
    within_grace(|| group(&agent.page()?, &[("group", &name.comm)]).check_io(last))
}

/// The kernel's account runs on through an exec; the page's splits there.
fn exec() -> Result<()> {
    need_disk()?;
    let agent = Agent::shared_with_bpf()?;
    let (old, new) = (Name::new("old")?, Name::new("new")?);
    let (first, second) = (old.file(".data"), new.file(".data"));
    let words = [
        "disk-exec",
        &first.to_string_lossy(),
        "1048576",
        &new.path.to_string_lossy(),
        "--hold",
        "disk",
        "write",
        &second.to_string_lossy(),
        "2097152",
    ];
    let workload = Workload::run(&old, &words)?;
    let before = workload.report.io_at("exec")?;
    let after = workload.report.io_at("end")? - before;
    ensure!(
        before.write_bytes >= 1_048_576 && after.write_bytes >= 2_097_152,
        "{before:?} {after:?}"
    );
    let check = || -> Result<()> {
        let page = agent.page()?;
        group(&page, &[("group", &old.comm)]).check_io(before)?;
        group(&page, &[("group", &new.comm)]).check_io(after)
    };
    check()?;
    workload.release()?;
    check()?;
    remove(&first)?;
    remove(&second)
}

/// A child is seen alive and then reaped, which adds its account to its parent's in the kernel. A
/// group that both are in has it once; what it has must agree with the sum of both as asked.
pub(crate) fn reaped_child(agent: &Agent, agrees: fn(Io, Io) -> bool) -> Result<()> {
    need_disk()?;
    let name = Name::new("reap")?;
    let path = name.file(".data");
    let file = path.to_string_lossy().into_owned();
    let mut workload = Workload::start(&name, &["child-writes", &file, "1048576"])?;
    workload.wait_for("at alive")?;
    let child = workload.report.io_at("child")?;
    ensure!(child.write_bytes >= 1_048_576, "the child wrote {child:?}");
    let mut truth = workload.report.io_at("parent")?;
    truth += child;
    let labels = [("group", name.comm.as_str())];
    for last in [false, true] {
        let seen = group(&agent.page()?, &labels).io()?;
        ensure!(
            agrees(seen, truth),
            "reaped: {last}, both have used {truth:?}, the page says {seen:?}"
        );
        if !last {
            workload.go_on()?;
            workload.wait_for("done")?;
        }
    }
    let pid = workload.pid().to_string();
    process(&agent.page()?, &[("pid", &pid), ("comm", &name.comm)]).check_io(Io::of(&pid)?)?;
    workload.release()?;
    remove(&path)
}
