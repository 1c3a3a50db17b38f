//! The files of a process and of a thread: proc_pid_stat(5), proc_pid_io(5), proc_pid_status(5),
//! proc_pid_statm(5), and for schedstat `Documentation/scheduler/sched-stats.rst`.

use crate::process::Disk;
use esnode_ebpf::{NAME_LEN, Name};

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Command name.
    pub(super) name: Name,
    /// One letter; `Z` and `X` are dead.
    pub(super) state: u8,
    /// Process id of the parent.
    pub(super) parent: u32,
    /// `PF_…`.
    pub(super) flags: u64,
    /// User and system time in ticks, all threads.
    pub(super) cpu_ticks: u64,
    /// Number of threads.
    pub(super) threads: u32,
    /// Start time in ticks since boot.
    pub(super) start_ticks: u64,
    /// Resident memory in pages.
    pub(super) resident_pages: u64,
}

/// Parses `/proc/PID/stat`. The name, in parentheses, is any bytes, parentheses included.
///
/// # Errors
/// What was expected and missing.
pub(super) fn parse_stat(bytes: &[u8]) -> Result<Stat, &'static str> {
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
pub(super) fn parse_io(text: &str) -> Result<Disk, &'static str> {
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
pub(super) fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Parses `/proc/TID/status`; gives the process of the thread, and how many threads that has.
pub(super) fn parse_status(text: &str) -> Option<(u32, u32)> {
    let field = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().parse().ok()
    };
    Some((field("Tgid")?, field("Threads")?))
}

/// Parses `/proc/PID/statm`; gives the resident pages.
pub(super) fn parse_statm(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::process::procfs::PF_KTHREAD;

    pub(in crate::process::procfs) const STAT: &[u8] =
        b"4242 (odd) (na\xffme) S 1 4242 4242 0 -1 4194560 100 200 3 4 500 250 \
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
