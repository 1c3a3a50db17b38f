//! Control groups that look like those of containers, without anything that runs containers.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;

use crate::skip;

/// The folder in which Docker keeps its containers, with the driver cgroupfs.
const PARENT: &str = "docker";

/// How long a control group may take to become empty.
const PATIENCE: Duration = Duration::from_secs(5);

/// A control group in every hierarchy; removed when dropped, once all that were in it have ended.
#[derive(Debug)]
pub struct Container {
    /// 64 digits.
    pub id: String,
    folders: Vec<PathBuf>,
}

impl Container {
    /// A container of Docker's. Skips where no control group can be made.
    pub fn new() -> Result<Self> {
        let id = new_id();
        let mut container = Self {
            id: id.clone(),
            folders: Vec::new(),
        };
        for hierarchy in hierarchies()? {
            let parent = hierarchy.join(PARENT);
            let folder = parent.join(&id);
            // Another test, which had the last container there, may just have removed the parent.
            let made = (0..10).find_map(|_| make(&parent).and_then(|()| make(&folder)).ok());
            if made.is_none() {
                make(&folder)?;
            }
            container.folders.push(folder);
        }
        Ok(container)
    }

    /// The part of the id that is the name of its group.
    #[must_use]
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Its files for processes that enter.
    fn doors(&self) -> Vec<PathBuf> {
        let folders = self.folders.iter();
        folders.map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Takes a process in.
    pub fn take(&self, pid: u32) -> Result<()> {
        for door in self.doors() {
            fs::write(&door, pid.to_string()).with_context(|| door.display().to_string())?;
        }
        Ok(())
    }

    /// Lets a process out, onto the host.
    pub fn release(&self, pid: u32) -> Result<()> {
        for folder in &self.folders {
            let root = folder.ancestors().nth(2).context("no root")?;
            let door = root.join("cgroup.procs");
            fs::write(&door, pid.to_string()).with_context(|| door.display().to_string())?;
        }
        Ok(())
    }

    /// A command that enters and then becomes this program.
    pub fn command<S: AsRef<OsStr>>(&self, program: &Path, words: &[S]) -> Command {
        let doors: Vec<_> = self.doors();
        let doors: Vec<_> = doors.iter().map(|door| door.to_string_lossy()).collect();
        let mut command = Command::new(program);
        command.args(["join", &doors.join(",")]).arg(program);
        command.args(words);
        command
    }

    /// Removes it.
    pub fn remove(&mut self) -> Result<()> {
        while let Some(folder) = self.folders.last() {
            remove(folder).with_context(|| folder.display().to_string())?;
            if let Some(parent) = folder.parent() {
                tidy(parent);
            }
            self.folders.pop();
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("a control group is left: {error:#}");
        }
    }
}

/// Digits that no other test and no other run has.
fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut seed = u64::from(process::id()) << 32 | COUNT.fetch_add(1, Ordering::Relaxed);
    let mut id = String::new();
    for _ in 0..4 {
        // The steps of a xorshift generator spread the seed over all digits.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let _ = write!(id, "{:016x}", seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    }
    id
}

/// Makes a control group into which processes can go.
fn make(folder: &Path) -> Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| folder.display().to_string());
        }
        _ => {}
    }
    // A new group of cpuset has no processors and no memory, and takes nobody in.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let of_parent = folder.parent().map(|parent| parent.join(file));
        let Some(Ok(text)) = of_parent.map(fs::read_to_string) else {
            continue;
        };
        let own = folder.join(file);
        if fs::read_to_string(&own).is_ok_and(|own| own.trim().is_empty())
            && !text.trim().is_empty()
        {
            fs::write(&own, text.trim()).with_context(|| own.display().to_string())?;
        }
    }
    Ok(())
}

/// Removes a control group if there are none in it. While others remove theirs, it may be busy.
fn tidy(parent: &Path) {
    for _ in 0..5 {
        let mut entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let in_use = entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        if in_use || fs::remove_dir(parent).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if start.elapsed() > PATIENCE {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// Where control groups are mounted.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if !geteuid().is_root() {
        skip!("needs root to make control groups");
    }
    let found = mounted()?;
    if found.is_empty() {
        skip!("control groups are mounted nowhere here");
    }
    Ok(found)
}

fn mounted() -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(folder), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let writable = options.split(',').any(|option| option == "rw");
        if writable && (kind == "cgroup" || kind == "cgroup2") {
            found.push(PathBuf::from(folder));
        }
    }
    Ok(found)
}
