//! The account that the workload keeps of what its system calls returned, and the lines in which
//! it tells the test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::{AddAssign, Sub};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context as _, Result, bail};

/// The exit code of a workload that can't do here what it was asked; a `skip` line has the reason.
pub const EXIT_SKIPPED: i32 = 77;

/// The protocols that the page tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP over IPv4 and IPv6.
    Tcp,
    /// UDP over IPv4 and IPv6.
    Udp,
    /// UNIX sockets of every type.
    Unix,
    /// Every other socket.
    Other,
}

impl Protocol {
    /// Every protocol, in the order of the page.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Unix, Self::Other];

    /// The value of the page's `protocol` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Unix => "unix",
            Self::Other => "other",
        }
    }
}

/// What went through sockets of one protocol: the sums of the positive return values in bytes,
/// and how many calls succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Successful sends.
    pub transmits: u64,
    /// Bytes received.
    pub receive_bytes: u64,
    /// Successful receives.
    pub receives: u64,
}

impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.transmit_bytes += other.transmit_bytes;
        self.transmits += other.transmits;
        self.receive_bytes += other.receive_bytes;
        self.receives += other.receives;
    }
}

/// What went through sockets, by protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Protocol, Moved>);

impl Tally {
    /// Counts a send that returned `bytes`.
    pub fn sent(&mut self, protocol: Protocol, bytes: usize) {
        let moved = self.0.entry(protocol).or_default();
        moved.transmit_bytes += bytes as u64;
        moved.transmits += 1;
    }

    /// Counts a receive that returned `bytes`.
    pub fn received(&mut self, protocol: Protocol, bytes: usize) {
        let moved = self.0.entry(protocol).or_default();
        moved.receive_bytes += bytes as u64;
        moved.receives += 1;
    }

    /// What went through sockets of this protocol.
    #[must_use]
    pub fn of(&self, protocol: Protocol) -> Moved {
        self.0.get(&protocol).copied().unwrap_or_default()
    }

    /// What went through sockets of any protocol.
    #[must_use]
    pub fn total(&self) -> Moved {
        let mut total = Moved::default();
        self.0.values().for_each(|&moved| total += moved);
        total
    }

    /// The lines that tell a test about this tally, for the group `name`.
    #[must_use]
    pub fn lines(&self, name: &str) -> String {
        let mut lines = String::new();
        for (protocol, moved) in &self.0 {
            // Writing to a string can't fail.
            let _ = writeln!(
                lines,
                "moved name={name} protocol={} transmit_bytes={} transmits={} receive_bytes={} receives={}",
                protocol.label(),
                moved.transmit_bytes,
                moved.transmits,
                moved.receive_bytes,
                moved.receives,
            );
        }
        lines
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        for (&protocol, &moved) in &other.0 {
            *self.0.entry(protocol).or_default() += moved;
        }
    }
}

/// The kernel's account of disk bytes, as in `/proc/PID/io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Bytes fetched from the storage layer.
    pub read_bytes: u64,
    /// Bytes in pages that were dirtied, or written directly.
    pub write_bytes: u64,
    /// Bytes in dirtied pages that were dropped before they were written.
    pub cancelled_write_bytes: u64,
}

impl Io {
    /// Reads the account of a process (a PID or `self`). It's final in a zombie.
    pub fn of(process: impl std::fmt::Display) -> Result<Self> {
        let path = format!("/proc/{process}/io");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| -> Result<u64> {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let value = line.with_context(|| format!("{path}: no {name}"))?;
            value
                .parse()
                .with_context(|| format!("{path}: {name}: {value}"))
        };
        Ok(Self {
            read_bytes: field("read_bytes")?,
            write_bytes: field("write_bytes")?,
            cancelled_write_bytes: field("cancelled_write_bytes")?,
        })
    }

    /// The line that tells a test about this account, at the named moment.
    #[must_use]
    pub fn line(&self, moment: &str) -> String {
        format!(
            "io at={moment} read_bytes={} write_bytes={} cancelled_write_bytes={}\n",
            self.read_bytes, self.write_bytes, self.cancelled_write_bytes
        )
    }
}

impl AddAssign for Io {
    fn add_assign(&mut self, other: Self) {
        self.read_bytes += other.read_bytes;
        self.write_bytes += other.write_bytes;
        self.cancelled_write_bytes += other.cancelled_write_bytes;
    }
}

impl Sub for Io {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            read_bytes: self.read_bytes - earlier.read_bytes,
            write_bytes: self.write_bytes - earlier.write_bytes,
            cancelled_write_bytes: self.cancelled_write_bytes - earlier.cancelled_write_bytes,
        }
    }
}

/// All that a workload told.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Socket bytes, by the command name that moved them.
    pub moved: BTreeMap<String, Tally>,
    /// Disk bytes, by moment.
    pub io: BTreeMap<String, Io>,
    /// Other figures.
    pub facts: BTreeMap<String, u64>,
}

impl Report {
    /// Takes in one line; those that aren't part of a report are an error.
    pub fn take(&mut self, line: &str) -> Result<()> {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let pairs = words
            .map(|word| {
                word.split_once('=')
                    .with_context(|| format!("a key without a value: {line}"))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let text = |key: &str| {
            pairs
                .get(key)
                .copied()
                .with_context(|| format!("no {key}: {line}"))
        };
        let number = |key: &str| -> Result<u64> {
            text(key)?
                .parse()
                .with_context(|| format!("{key} isn't a number: {line}"))
        };
        match kind {
            "moved" => {
                let label = text("protocol")?;
                let protocol = Protocol::ALL
                    .into_iter()
                    .find(|protocol| protocol.label() == label);
                let protocol = protocol.with_context(|| format!("unknown protocol: {line}"))?;
                let tally = self.moved.entry(text("name")?.to_owned()).or_default();
                *tally.0.entry(protocol).or_default() += Moved {
                    transmit_bytes: number("transmit_bytes")?,
                    transmits: number("transmits")?,
                    receive_bytes: number("receive_bytes")?,
                    receives: number("receives")?,
                };
            }
            "io" => {
                let io = Io {
                    read_bytes: number("read_bytes")?,
                    write_bytes: number("write_bytes")?,
                    cancelled_write_bytes: number("cancelled_write_bytes")?,
                };
                *self.io.entry(text("at")?.to_owned()).or_default() += io;
            }
            "fact" => {
                for (&key, value) in &pairs {
                    let value: u64 = value
                        .parse()
                        .with_context(|| format!("no number: {line}"))?;
                    *self.facts.entry(key.to_owned()).or_default() += value;
                }
            }
            _ => bail!("the workload said: {line}"),
        }
        Ok(())
    }

    /// What all names together moved.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.moved.values().for_each(|tally| total += tally);
        total
    }

    /// The disk account at the named moment.
    pub fn io_at(&self, moment: &str) -> Result<Io> {
        self.io
            .get(moment)
            .copied()
            .with_context(|| format!("no io at {moment} in the report"))
    }

    /// The figure of this name.
    pub fn fact(&self, name: &str) -> Result<u64> {
        self.facts
            .get(name)
            .copied()
            .with_context(|| format!("no fact {name} in the report"))
    }
}

/// Whether the calling process has so many threads, once those that were joined have left the
/// table, which takes a moment.
pub fn settles_at_threads(count: usize) -> io::Result<bool> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    while fs::read_dir("/proc/self/task")?.count() != count {
        if start.elapsed() > PATIENCE {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}
