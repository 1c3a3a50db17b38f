//! Processes from `/proc`: the fallback without BPF, and a second opinion with it.
//!
//! Formats: proc_pid_stat(5), proc_pid_io(5).

use super::{Disk, Key, Process, Usage};
use crate::error::{ReadError, read_file};
use esnode_ebpf::{NAME_LEN, Name};
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
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Command name.
    pub name: Name,
    /// One letter; `Z` and `X` are dead.
    pub state: u8,
    /// Process id of the parent.
    pub parent: u32,
    /// `PF_…`.
    pub flags: u64,
    /// User and system time in ticks, all threads.
    pub cpu_ticks: u64,
    /// Number of threads.
    pub threads: u32,
    /// Start time in ticks since boot.
    pub start_ticks: u64,
    /// Resident memory in pages.
    pub resident_pages: u64,
}

/// Parses `/proc/PID/stat`. The name, in parentheses, is any bytes, parentheses included.
///
/// # Errors
/// What was expected and missing.
pub fn parse_stat(bytes: &[u8]) -> Result<Stat, &'static str> {
    let open = bytes
        .iter()
        .position(|byte| *byte == b'(')
        .ok_or("a command name in parentheses")?;
    let close = bytes
        .iter()
        .rposition(|byte| *byte == b')')
        .ok_or("a parenthesis after the command name")?;
    let text = bytes
        .get(open + 1..close)
        .ok_or("a command name in parentheses")?;
    let mut name = [0; NAME_LEN];
    for (to, from) in name.iter_mut().zip(text.iter().take(NAME_LEN - 1)) {
        *to = *from;
    }
    let rest = bytes
        .get(close + 1..)
        .and_then(|rest| str::from_utf8(rest).ok());
    let mut fields = rest
        .ok_or("fields after the command name")?
        .split_ascii_whitespace();
    let state = *fields
        .next()
        .and_then(|state| state.as_bytes().first())
        .ok_or("a state")?;
    let numbers: Vec<i64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    // Numbered as in the manual page, where ppid is field 4.
    let field = |number: usize| {
        numbers
            .get(number - 4)
            .map(|value| value.max(&0).unsigned_abs())
    };
    let small = |number| field(number).and_then(|value| u32::try_from(value).ok());
    Ok(Stat {
        name: Name::from_bytes(name),
        state,
        parent: small(4).ok_or("ppid (field 4)")?,
        flags: field(9).ok_or("flags (field 9)")?,
        cpu_ticks: field(14).ok_or("utime (field 14)")? + field(15).ok_or("stime (field 15)")?,
        threads: small(20).ok_or("num_threads (field 20)")?,
        start_ticks: field(22).ok_or("starttime (field 22)")?,
        resident_pages: field(24).ok_or("rss (field 24)")?,
    })
}

/// Parses `/proc/PID/io`.
///
/// # Errors
/// Which line is missing.
pub fn parse_io(text: &str) -> Result<Disk, &'static str> {
    let field = |name: &'static str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .parse()
                    .ok()
            })
            .ok_or(name)
    };
    Ok(Disk {
        read_bytes: field("read_bytes")?,
        write_bytes: field("write_bytes")?,
        cancelled_write_bytes: field("cancelled_write_bytes")?,
    })
}

/// Parses `/proc/PID/task/TID/schedstat`; gives the time on a CPU in nanoseconds.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Parses `/proc/TID/status`; gives the process of the thread, and how many threads that has.
fn parse_status(text: &str) -> Option<(u32, u32)> {
    let field = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().parse().ok()
    };
    Some((field("Tgid")?, field("Threads")?))
}

/// The process of a thread, and how many threads that has; `None` if it does not exist any more.
#[must_use]
pub fn process_of_thread(root: &Path, tid: u32) -> Option<(u32, u32)> {
    parse_status(&read_file(&root.join(format!("{tid}/status"))).ok()?)
}

/// Parses `/proc/PID/statm`; gives the resident pages.
fn parse_statm(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
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

    /// What the live threads of a process used, each by its own account; `None` if it can't be
    /// read, or there is no such process any more.
    #[must_use]
    pub fn live_threads(&self, pid: u32) -> Option<Usage> {
        let mut sum = Usage {
            disk: Some(Disk::default()),
            ..Usage::default()
        };
        let mut any = false;
        for thread in fs::read_dir(self.root.join(format!("{pid}/task"))).ok()? {
            let thread = thread.ok()?.path();
            // It may be gone by now.
            let (Ok(text), Ok(disk)) = (read_file(&thread.join("schedstat")), self.disk(&thread))
            else {
                continue;
            };
            any = true;
            sum.add(&Usage {
                cpu_nanoseconds: parse_schedstat(&text)?,
                disk,
                network: None,
            });
        }
        any.then_some(sum)
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
    use super::*;

    const STAT: &[u8] = b"4242 (odd) (na\xffme) S 1 4242 4242 0 -1 4194560 100 200 3 4 500 250 \
        10 20 20 0 7 0 12345 1000000 321 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0\n";

    #[test]
    fn stat_with_an_odd_name() {
        let stat = parse_stat(STAT).expect("valid");
        assert_eq!(&stat.name.to_bytes(), b"odd) (na\xffme\0\0\0\0\0");
        assert_eq!((stat.state, stat.parent, stat.threads), (b'S', 1, 7));
        assert_eq!(
            (stat.cpu_ticks, stat.start_ticks, stat.resident_pages),
            (750, 12345, 321)
        );
        assert_eq!(stat.flags & PF_KTHREAD, 0);
    }

    #[test]
    fn stat_says_what_is_missing() {
        assert_eq!(
            parse_stat(b"1 no name"),
            Err("a command name in parentheses")
        );
        assert_eq!(parse_stat(b"1 (sh) S 1 2"), Err("flags (field 9)"));
        assert_eq!(
            parse_stat(b"1 )sh( S 1 2"),
            Err("a command name in parentheses")
        );
        assert_eq!(parse_stat(b""), Err("a command name in parentheses"));
    }

    #[test]
    fn resident_pages_stand_second() {
        assert_eq!(parse_statm("5000 321 100 1 0 200 0\n"), Some(321));
        assert_eq!(parse_statm("5000"), None);
    }

    #[test]
    fn a_thread_belongs_to_a_process() {
        let text = "Name:\tx\nTgid:\t40\nNgid:\t0\nPid:\t42\nThreads:\t3\n";
        assert_eq!(parse_status(text), Some((40, 3)));
        assert_eq!(parse_status("Tgid:\t40\n"), None);
        assert_eq!(parse_schedstat("1500 20 3\n"), Some(1500));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn own_threads_add_up() {
        let procfs = Procfs::new(Path::new("/proc"), Units::of_this_kernel());
        let usage = procfs.live_threads(std::process::id()).expect("this lives");
        assert!(usage.cpu_nanoseconds > 0);
        assert_eq!(procfs.live_threads(0), None);
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

    #[test]
    fn io_by_name() {
        let text = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\n\
            cancelled_write_bytes: 7\n";
        let disk = Disk {
            read_bytes: 5,
            write_bytes: 6,
            cancelled_write_bytes: 7,
        };
        assert_eq!(parse_io(text), Ok(disk));
        assert_eq!(parse_io("rchar: 1\n"), Err("read_bytes"));
    }
}
