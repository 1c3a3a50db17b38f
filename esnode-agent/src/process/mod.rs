//! Processes and groups: facts, where they come from, and which of them are shown.
//!
//! `table` reads all processes, from BPF where it can and from `/proc` where not; `ledger` keeps
//! the groups, which outlive their processes, `membership` says who is in which; `named` and
//! `selection` bound the page, `select` are the rules of `--select` for it. `fallback` opens what
//! stands in for BPF: `sock_diag` for network bytes, `taskstats` for processes that end; `listener`
//! takes in what these tell at any time, and `ends` leads the ledger of the ended.

pub mod collector;
pub mod ends;
pub mod energy;
pub mod fallback;
pub mod gpu;
pub mod ledger;
pub mod listener;
pub mod membership;
pub mod named;
pub mod netlink;
pub mod procfs;
pub mod select;
pub mod selection;
pub mod sock_diag;
pub mod table;
pub mod taskstats;

use esnode_ebpf::{NAME_LEN, Name, Network};
use std::{borrow::Cow, fmt::Write};

/// Identity of a process: a process id is used again, together with its start time it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Process id (thread group id).
    pub pid: u32,
    /// Start time since boot; from `/proc`, which counts in ticks of 10 ms, rounded down.
    pub start_nanoseconds: u64,
}

impl Key {
    /// When the process started, in seconds since 1970, on a host that booted at that time.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a century are below 2^62"
    )]
    pub fn start_time_seconds(&self, boot_time_seconds: f64) -> f64 {
        boot_time_seconds + self.start_nanoseconds as f64 / 1e9
    }
}

/// Disk bytes, as `/proc/PID/io` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// `read_bytes`: fetched from storage.
    pub read_bytes: u64,
    /// `write_bytes`: dirtied, or written directly.
    pub write_bytes: u64,
    /// `cancelled_write_bytes`: of those, truncated before they reached storage.
    pub cancelled_write_bytes: u64,
}

impl Disk {
    /// Adds `part`.
    pub fn add(&mut self, part: &Self) {
        self.combine(part, |sum, part| sum + part);
    }

    fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        let apply = |a: &mut u64, b: u64| *a = with(*a, b);
        apply(&mut self.read_bytes, other.read_bytes);
        apply(&mut self.write_bytes, other.write_bytes);
        apply(&mut self.cancelled_write_bytes, other.cancelled_write_bytes);
    }
}

/// What a process or a group used, since it began. `None` is unknown, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a CPU, user and system, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Disk bytes.
    pub disk: Option<Disk>,
    /// Traffic by protocol.
    pub network: Option<Network>,
}

impl Usage {
    /// Adds `part`. What either side does not know, the sum does not know.
    pub fn add(&mut self, part: &Self) {
        self.combine(part, |sum, part| sum + part);
    }

    /// Raises every number to that of `floor`: a reading that lags never makes a counter fall.
    pub fn raise_to(&mut self, floor: &Self) {
        self.combine(floor, u64::max);
    }

    /// What was used since `earlier`; numbers that fell count from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rest = *self;
        rest.combine(earlier, |now, then| now.checked_sub(then).unwrap_or(now));
        rest
    }

    /// Adds `part`; what that does not know counts as nothing.
    pub fn add_known(&mut self, part: &Self) {
        self.add(&part.or_nothing(self));
    }

    /// What is in here and not in `part`; what that does not know counts as nothing.
    #[must_use]
    pub fn beyond_known(&self, part: &Self) -> Self {
        self.beyond(&part.or_nothing(self))
    }

    /// This, and nothing of what is known of `other` alone.
    fn or_nothing(&self, other: &Self) -> Self {
        let nothing = other.nothing();
        Self {
            cpu_nanoseconds: self.cpu_nanoseconds,
            disk: self.disk.or(nothing.disk),
            network: self.network.or(nothing.network),
        }
    }

    /// Zero of everything that is known here.
    #[must_use]
    pub fn nothing(&self) -> Self {
        Self {
            cpu_nanoseconds: 0,
            disk: self.disk.map(|_| Disk::default()),
            network: self.network.map(|_| Network::default()),
        }
    }

    /// What is in here and not in `part`; at least nothing.
    #[must_use]
    pub fn beyond(&self, part: &Self) -> Self {
        let mut rest = *self;
        rest.combine(part, u64::saturating_sub);
        rest
    }

    /// Disk bytes, as far as `total` had them too: what was read later than that may belong to
    /// another name already.
    #[must_use]
    pub fn disk_within(&self, total: &Self) -> Option<Disk> {
        self.disk.zip(total.disk).map(|(mut mine, total)| {
            mine.combine(&total, u64::min);
            mine
        })
    }

    fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        let apply = |a: &mut u64, b: u64| *a = with(*a, b);
        apply(&mut self.cpu_nanoseconds, other.cpu_nanoseconds);
        self.disk = self.disk.zip(other.disk).map(|(mut mine, theirs)| {
            mine.combine(&theirs, with);
            mine
        });
        self.network = self.network.zip(other.network).map(|(mut mine, theirs)| {
            for (mine, theirs) in mine.iter_mut().zip(&theirs) {
                apply(&mut mine.receive_bytes, theirs.receive_bytes);
                apply(&mut mine.transmit_bytes, theirs.transmit_bytes);
                apply(&mut mine.receives, theirs.receives);
                apply(&mut mine.transmits, theirs.transmits);
            }
            mine
        });
    }

    /// Bytes moved, on disk and network.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let disk = self
            .disk
            .map_or(0, |disk| disk.read_bytes + disk.write_bytes);
        let network = self.network.iter().flatten();
        disk + network
            .map(|traffic| traffic.receive_bytes + traffic.transmit_bytes)
            .sum::<u64>()
    }
}

/// One live process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Identity.
    pub key: Key,
    /// Process id of the parent.
    pub parent: u32,
    /// Command name.
    pub name: Name,
    /// The group that it is in.
    pub group: Name,
    /// Number of its control group, in the tree that tells containers apart.
    pub cgroup: Option<u64>,
    /// What BPF programs know it by; 0 without them.
    pub signal: u64,
    /// Another one after each exec; 0 where that is not known.
    pub memory: u64,
    /// Whether it is a kernel thread.
    pub kernel: bool,
    /// Number of threads.
    pub threads: u32,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// What it used since it started (its network bytes: since the agent started).
    pub usage: Usage,
    /// The part of it that hooks will give to the group that it is then in; `None` where nobody
    /// asked for it.
    pub unsettled: Option<Box<Usage>>,
}

/// A group of processes, the ended ones included.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Its name.
    pub name: Name,
    /// Processes alive.
    pub processes: u64,
    /// Their threads.
    pub threads: u64,
    /// Their resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// What its processes used, alive or not. Never falls.
    pub usage: Usage,
    /// Processes that were born under this name or took it.
    pub started: u64,
    /// Processes that ended under this name.
    pub exited: u64,
}

impl Group {
    /// A group of nobody.
    #[must_use]
    pub fn of(name: Name) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Adds what another group used, and who began and ended in it.
    pub fn absorb(&mut self, other: &Self) {
        self.usage.add_known(&other.usage);
        self.started += other.started;
        self.exited += other.exited;
    }
}

/// A command name as text for a label. Different names have different labels: bytes that are no
/// UTF-8, and control characters, become `\xNN`, and so a backslash becomes two.
#[must_use]
pub fn label(name: Name) -> String {
    let bytes = name.to_bytes();
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let mut label = String::with_capacity(NAME_LEN);
    for chunk in bytes.get(..end).unwrap_or_default().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => label.push_str(r"\\"),
                _ if character.is_control() => {
                    push_escaped(&mut label, character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => label.push(character),
            }
        }
        push_escaped(&mut label, chunk.invalid());
    }
    label
}

/// A text that processes chose, for a label: control characters become `\xNN`, and those that turn
/// the direction of writing `\u{NNNN}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    let turns = |char: char| matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.chars().any(|char| char.is_control() || turns(char)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if char.is_control() {
            push_escaped(&mut escaped, char.encode_utf8(&mut [0; 4]).as_bytes());
        } else if turns(char) {
            escaped.extend(char.escape_unicode());
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

fn push_escaped(label: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(label, r"\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu: u64, read: u64) -> Usage {
        Usage {
            cpu_nanoseconds: cpu,
            disk: Some(Disk {
                read_bytes: read,
                ..Disk::default()
            }),
            network: None,
        }
    }

    #[test]
    fn unknown_stays_unknown() {
        let mut sum = usage(1, 2);
        sum.add(&Usage {
            cpu_nanoseconds: 3,
            ..Usage::default()
        });
        assert_eq!(
            sum,
            Usage {
                cpu_nanoseconds: 4,
                ..Usage::default()
            }
        );
    }

    #[test]
    fn what_a_part_does_not_know_changes_nothing() {
        let mut sum = usage(1, 2);
        let part = Usage {
            cpu_nanoseconds: 3,
            ..Usage::default()
        };
        sum.add_known(&part);
        assert_eq!(sum, usage(4, 2));
        assert_eq!(sum.beyond_known(&part), usage(1, 2));
    }

    #[test]
    fn a_lagging_reading_does_not_fall() {
        let mut now = usage(5, 1);
        now.raise_to(&usage(4, 9));
        assert_eq!(now, usage(5, 9));
    }

    #[test]
    fn labels_are_text() {
        let of = |bytes: &[u8; NAME_LEN]| label(Name::from_bytes(*bytes));
        assert_eq!(of(b"a \"b\"\0\0\0\0\0\0\0\0\0\0\0"), "a \"b\"");
        assert_eq!(of(b"caf\xe9\0\0\0\0\0\0\0\0\0\0\0\0"), r"caf\xe9");
        assert_eq!(of(b"caf\\xe9\0\0\0\0\0\0\0\0\0"), r"caf\\xe9");
        assert_eq!(of(b"a\nb\xc3\xa9\0\0\0\0\0\0\0\0\0\0\0"), "a\\x0ab\u{e9}");
    }
}
