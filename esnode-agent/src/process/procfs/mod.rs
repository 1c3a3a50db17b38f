//! Processes from `/proc`: the fallback without BPF, and a second opinion with it.

mod parse;

use super::{Disk, Key, Process, Usage, ledger::Live};
use crate::error::{ReadError, read_file};
use parse::{parse_io, parse_schedstat, parse_stat, parse_statm, parse_status};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const PF_KTHREAD: u64 = 0x0020_0000;

/// Units of the numbers in `/proc`.
#[derive(Clone, Copy, Debug)]
pub struct Units {
    /// Clock ticks per second (`sysconf(_SC_CLK_TCK)`).
    pub ticks_per_second: u64,
    /// Bytes per page.
    pub page_bytes: u64,
}

impl Units {
    /// Those of the running kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        Self {
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            page_bytes: rustix::param::page_size() as u64,
        }
    }

    /// Clock ticks in nanoseconds.
    #[must_use]
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1_000_000_000 / self.ticks_per_second)
    }

    /// A time as `/proc` has it: rounded down to whole ticks.
    #[must_use]
    pub fn round_down(&self, nanoseconds: u64) -> u64 {
        nanoseconds - nanoseconds % self.nanoseconds(1)
    }
}

/// The process of a thread, and how many threads that has; `None` if it does not exist any more.
#[must_use]
pub fn process_of_thread(root: &Path, tid: u32) -> Option<(u32, u32)> {
    parse_status(&read_file(&root.join(format!("{tid}/status"))).ok()?)
}

/// What one look at all processes found.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that live.
    pub processes: Vec<Process>,
    /// Why others were left out.
    pub malformed: Vec<ReadError>,
}

/// Reads processes below a root such as `/proc`.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: PathBuf,
    units: Units,
    /// Whether the kernel counts disk bytes.
    counts_disk: bool,
}

impl Procfs {
    /// A reader of the files below `root`.
    #[must_use]
    pub fn new(root: &Path, units: Units) -> Self {
        Self {
            root: root.to_owned(),
            units,
            counts_disk: root.join("self/io").exists(),
        }
    }

    /// All live processes. Those that vanish while they are read are left out, and so are those
    /// whose `stat` makes no sense.
    ///
    /// # Errors
    /// If the root can't be listed.
    pub fn processes(&self) -> Result<Found, ReadError> {
        let failed = |source| ReadError::Io {
            path: self.root.clone(),
            source,
        };
        let mut found = Found::default();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match self.process(pid) {
                Ok(process) => found.processes.extend(process),
                Err(error) => found.malformed.push(error),
            }
        }
        Ok(found)
    }

    /// What the live threads of a process used, each by its own account.
    #[must_use]
    pub fn live_threads(&self, pid: u32) -> Live {
        let mut sum = Usage {
            disk: Some(Disk::default()),
            ..Usage::default()
        };
        let mut any = false;
        let Ok(threads) = fs::read_dir(self.root.join(format!("{pid}/task"))) else {
            return Live::Gone;
        };
        for thread in threads.map_while(Result::ok) {
            let thread = thread.path();
            let text = read_file(&thread.join("schedstat"));
            let Ok(disk) = self.disk(&thread) else {
                continue;
            };
            let cpu = text.ok().and_then(|text| parse_schedstat(&text));
            match cpu {
                Some(cpu_nanoseconds) => sum.add(&Usage {
                    cpu_nanoseconds,
                    disk,
                    network: None,
                }),
                None if thread.exists() => return Live::Unreadable,
                // It is gone by now.
                None => continue,
            }
            any = true;
        }
        if any { Live::Used(sum) } else { Live::Gone }
    }

    /// One process; `None` if it does not exist (any more) or is dead.
    ///
    /// # Errors
    /// If its `stat` is there but makes no sense.
    pub fn process(&self, pid: u32) -> Result<Option<Process>, ReadError> {
        let directory = self.root.join(pid.to_string());
        let path = directory.join("stat");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if has_vanished(&error) => return Ok(None),
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        let stat = parse_stat(&bytes).map_err(|expected| ReadError::Parse {
            path,
            line: 1,
            expected: expected.to_owned(),
        })?;
        // A first thread that ended before others is a zombie among them.
        if matches!(stat.state, b'Z' | b'X' | b'x') && stat.threads <= 1 {
            return Ok(None);
        }
        let kernel = stat.flags & PF_KTHREAD != 0;
        let Ok(disk) = self.disk(&directory) else {
            return Ok(None);
        };
        Ok(Some(Process {
            key: Key {
                pid,
                start_nanoseconds: self.units.nanoseconds(stat.start_ticks),
            },
            parent: stat.parent,
            name: stat.name,
            group: stat.name.group(kernel),
            kernel,
            threads: stat.threads,
            resident_bytes: Some(stat.resident_pages * self.units.page_bytes),
            usage: Usage {
                cpu_nanoseconds: self.units.nanoseconds(stat.cpu_ticks),
                disk,
                network: None,
            },
            ..Process::default()
        }))
    }

    /// Resident memory of a process, from `statm`; `None` if it does not exist any more.
    #[must_use]
    pub fn resident_bytes(&self, pid: u32) -> Option<u64> {
        let text = read_file(&self.root.join(format!("{pid}/statm"))).ok()?;
        parse_statm(&text).map(|pages| pages * self.units.page_bytes)
    }

    /// Disk bytes of a process or a thread by its directory; `None` without the right to read
    /// them (another user's process, no `CAP_SYS_PTRACE`), or of a kernel that does not count them.
    ///
    /// # Errors
    /// That it does not exist any more.
    fn disk(&self, directory: &Path) -> Result<Option<Disk>, Vanished> {
        if !self.counts_disk {
            return Ok(None);
        }
        match fs::read_to_string(directory.join("io")) {
            Ok(text) => Ok(parse_io(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            Err(error) if has_vanished(&error) => Err(Vanished),
            Err(_) => Ok(None),
        }
    }
}

/// Something that was there when its directory was read, and is not any more.
struct Vanished;

fn has_vanished(error: &io::Error) -> bool {
    // Hidden by the mount option hidepid, gone before it was opened, or gone since.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    ) || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::{parse::tests::STAT, *};

    #[test]
    fn own_threads_add_up() {
        let procfs = Procfs::new(Path::new("/proc"), Units::of_this_kernel());
        let live = procfs.live_threads(std::process::id());
        assert!(matches!(live, Live::Used(usage) if usage.cpu_nanoseconds > 0));
        assert_eq!(procfs.live_threads(0), Live::Gone);
    }

    #[test]
    fn one_malformed_process_does_not_hide_the_others() {
        let root = std::env::temp_dir().join(format!("esnode-procfs-{}", std::process::id()));
        for (pid, stat) in [("1", STAT), ("2", &b"2 (cut) S 1"[..])] {
            fs::create_dir_all(root.join(pid)).expect("folder");
            fs::write(root.join(pid).join("stat"), stat).expect("file");
        }
        let found = Procfs::new(&root, Units::of_this_kernel()).processes();
        fs::remove_dir_all(&root).expect("removed");
        let found = found.expect("listed");
        assert_eq!((found.processes.len(), found.malformed.len()), (1, 1));
        assert_eq!(found.processes[0].usage.disk, None);
    }
}
