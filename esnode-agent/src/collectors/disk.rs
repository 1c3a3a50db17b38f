//! Block devices: what was read, written and waited for, from `/proc/diskstats`
//! (Documentation/admin-guide/iostats.rst).

mod node_exporter;
mod times;

use super::{CollectError, filter::DeviceFilter, keep_first, next_number, parse_optional};
use crate::{
    api::{self, Snapshot},
    error::ParseError,
    page::{Encode, Page},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};
use times::Times;

/// Not shown if nobody says otherwise, as by node_exporter: memory, loops, floppy disks and
/// partitions, whose traffic is in that of their disk.
pub const DEFAULT_EXCLUDE: &str = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";

/// The kernel counts in sectors of this many bytes, whatever those of the device are.
const SECTOR: u64 = 512;

/// Requests of one kind since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Requests {
    completed: u64,
    merged: u64,
    /// No more than there can be bytes of them.
    sectors: u64,
    milliseconds: u64,
}

/// Flushes since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flushes {
    completed: u64,
    milliseconds: u64,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    major: u64,
    minor: u64,
    name: String,
    read: Requests,
    written: Requests,
    in_progress: u64,
    io_milliseconds: u64,
    weighted_milliseconds: u64,
    /// Linux 4.18.
    discarded: Option<Requests>,
    /// Linux 5.5.
    flushed: Option<Flushes>,
}

impl Requests {
    fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }
}

/// The devices that are shown.
#[derive(Clone, Debug)]
pub struct DiskFacts {
    disks: Vec<Disk>,
}

/// Reads the file anew in each pass, and carries on the times in it.
pub struct DiskCollector {
    path: PathBuf,
    filter: DeviceFilter,
    times: Times,
}

impl DiskCollector {
    /// Reads below `procfs`.
    #[must_use]
    pub fn new(procfs: &Path, filter: DeviceFilter) -> Self {
        Self {
            path: procfs.join("diskstats"),
            filter,
            times: Times::default(),
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If the file can't be read or parsed; [`CollectError::Off`] if there is none.
    pub fn sample(&mut self) -> Result<DiskFacts, CollectError> {
        let Some(mut disks) = parse_optional(&self.path, parse)? else {
            let reason = "this kernel tells of no block devices (no /proc/diskstats)";
            return Err(CollectError::Off(reason.to_owned()));
        };
        disks.retain(|disk| self.filter.shows(&disk.name));
        keep_first(&mut disks, |disk| &disk.name);
        self.times.carry(&mut disks);
        Ok(DiskFacts { disks })
    }
}

fn parse(text: &str) -> Result<Vec<Disk>, ParseError> {
    (1..)
        .zip(text.lines())
        .map(|(number, line)| parse_line(number, line))
        .collect()
}

fn parse_line(number: usize, line: &str) -> Result<Disk, ParseError> {
    let mut fields = line.split_ascii_whitespace();
    let major = next_number(&mut fields, number, "the major number of a device")?;
    let minor = next_number(&mut fields, number, "the minor number of a device")?;
    let name = fields
        .next()
        .ok_or_else(|| ParseError::new(number, "the name of a device"))?;
    let mut next = |what: fmt::Arguments<'_>| next_number(&mut fields, number, what);
    let mut disk = Disk {
        major,
        minor,
        name: name.to_owned(),
        read: requests(number, &mut next, "read")?,
        written: requests(number, &mut next, "written")?,
        in_progress: next(format_args!("requests in progress"))?,
        io_milliseconds: next(format_args!("milliseconds of I/O"))?,
        weighted_milliseconds: next(format_args!("weighted milliseconds"))?,
        discarded: None,
        flushed: None,
    };
    // Older kernels end here, or after the next four.
    let mut rest = fields.peekable();
    if rest.peek().is_some() {
        let mut next = |what: fmt::Arguments<'_>| next_number(&mut rest, number, what);
        disk.discarded = Some(requests(number, &mut next, "discarded")?);
    }
    if rest.peek().is_some() {
        disk.flushed = Some(Flushes {
            completed: next_number(&mut rest, number, "flushes")?,
            milliseconds: next_number(&mut rest, number, "milliseconds of flushes")?,
        });
    }
    Ok(disk)
}

fn requests(
    line: usize,
    next: &mut impl FnMut(fmt::Arguments<'_>) -> Result<u64, ParseError>,
    done: &str,
) -> Result<Requests, ParseError> {
    let completed = next(format_args!("requests {done}"))?;
    let merged = next(format_args!("requests {done} merged"))?;
    let sectors = next(format_args!("sectors {done}"))?;
    if sectors.checked_mul(SECTOR).is_none() {
        return Err(ParseError::new(line, format!("sectors {done}")));
    }
    Ok(Requests {
        completed,
        merged,
        sectors,
        milliseconds: next(format_args!("milliseconds {done}"))?,
    })
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

/// A family of whole numbers, and one of seconds: name without `_total`, meaning, and the value (of
/// times: in milliseconds).
type Count = (&'static str, &'static str, fn(&Disk) -> Option<u64>);
type Time = (&'static str, &'static str, fn(&Disk) -> Option<u64>);

const COUNTS: [Count; 6] = [
    (
        "esnode_disk_read_bytes",
        "Bytes that the device read, sectors of /proc/diskstats",
        |disk| Some(disk.read.bytes()),
    ),
    (
        "esnode_disk_written_bytes",
        "Bytes that the device wrote, sectors of /proc/diskstats",
        |disk| Some(disk.written.bytes()),
    ),
    (
        "esnode_disk_read_ops",
        "Reads that the device completed, after merging, from /proc/diskstats",
        |disk| Some(disk.read.completed),
    ),
    (
        "esnode_disk_write_ops",
        "Writes that the device completed, after merging, from /proc/diskstats",
        |disk| Some(disk.written.completed),
    ),
    (
        "esnode_disk_discards",
        "Discards that the device completed, after merging, from /proc/diskstats (Linux 4.18)",
        |disk| Some(disk.discarded?.completed),
    ),
    (
        "esnode_disk_flushes",
        "Flushes that the device completed, from /proc/diskstats (Linux 5.5)",
        |disk| Some(disk.flushed?.completed),
    ),
];

const TIMES: [Time; 4] = [
    (
        "esnode_disk_read_seconds",
        "Time that reads took, added up, from /proc/diskstats",
        |disk| Some(disk.read.milliseconds),
    ),
    (
        "esnode_disk_write_seconds",
        "Time that writes took, added up, from /proc/diskstats",
        |disk| Some(disk.written.milliseconds),
    ),
    (
        "esnode_disk_io_seconds",
        "Time in which the device had something to do, from /proc/diskstats",
        |disk| Some(disk.io_milliseconds),
    ),
    (
        "esnode_disk_io_weighted_seconds",
        "Time of all requests, waiting in the queue included, from /proc/diskstats",
        |disk| Some(disk.weighted_milliseconds),
    ),
];

/// Of each disk the value that it has.
fn values<'a>(
    disks: &'a [Disk],
    value: impl Fn(&Disk) -> Option<u64> + 'a,
) -> impl Iterator<Item = ([(&'static str, &'a str); 1], u64)> {
    let samples = disks.iter();
    samples.filter_map(move |disk| Some(([("device", disk.name.as_str())], value(disk)?)))
}

/// The same, of milliseconds, in seconds.
fn times<'a>(
    disks: &'a [Disk],
    value: impl Fn(&Disk) -> Option<u64> + 'a,
) -> impl Iterator<Item = ([(&'static str, &'a str); 1], f64)> {
    values(disks, value).map(|(device, milliseconds)| (device, seconds(milliseconds)))
}

impl Encode for DiskFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        for (name, help, count) in COUNTS {
            page.counter(name, help, values(&self.disks, count))?;
        }
        for (name, help, time) in TIMES {
            page.counter(name, help, times(&self.disks, time))?;
        }
        page.gauge(
            "esnode_disk_io_in_progress",
            "Requests that the device has and has not completed, from /proc/diskstats",
            values(&self.disks, |disk| Some(disk.in_progress)),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        node_exporter::encode(&self.disks, page)
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        let disks = self.disks.iter().map(|disk| api::Disk {
            device: disk.name.clone(),
            read_bytes_total: disk.read.bytes(),
            written_bytes_total: disk.written.bytes(),
        });
        snapshot.node.disks = disks.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, samples};

    const DISKSTATS: &str = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
        \u{20}259       0 nvme0n1 10 1 16 250 20 2 32 1500 3 1250 1750 7 0 8 9 4 5\n\
        \u{20}259       1 nvme0n1p1 1 0 8 2 0 0 0 0 0 2 2\n";

    #[test]
    fn sectors_are_512_bytes_and_times_milliseconds() {
        let disks = parse(DISKSTATS).expect("valid");
        let disk = &disks[1];
        assert_eq!(disk.name, "nvme0n1");
        assert_eq!((disk.major, disk.minor), (259, 0));
        assert_eq!((disk.read.completed, disk.read.bytes()), (10, 8192));
        assert_eq!(disk.written.milliseconds, 1500);
        let (discarded, flushed) = (disk.discarded.expect("told"), disk.flushed.expect("told"));
        assert_eq!((discarded.completed, flushed.completed), (7, 4));
    }

    #[test]
    fn columns_of_older_kernels() {
        let old = "8 0 sda 1 2 3 4 5 6 7 8 9 10 11";
        let of = |line: &str| {
            let disk = parse(line).expect("valid").remove(0);
            let discards = disk.discarded.map(|discarded| discarded.completed);
            (discards, disk.flushed.map(|flushed| flushed.completed))
        };
        assert_eq!(of(old), (None, None));
        assert_eq!(of(&format!("{old} 12 13 14 15")), (Some(12), None));
        assert_eq!(
            of(&format!("{old} 12 13 14 15 16 17")),
            (Some(12), Some(16))
        );
        assert_eq!(
            of(&format!("{old} 12 13 14 15 16 17 18 19")),
            (Some(12), Some(16))
        );
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn a_device_that_is_listed_twice_is_shown_once() {
        let line = "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n";
        let host = Host::new(&[("proc/diskstats", &line.repeat(2))]);
        let facts = DiskCollector::new(&host.procfs(), DeviceFilter::default()).sample();
        assert_eq!(facts.expect("valid").disks.len(), 1);
    }

    #[test]
    fn says_where_it_breaks() {
        let first = "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n";
        for (line, expected) in [
            ("", "the major number of a device"),
            ("x 16 sdb", "the major number of a device"),
            ("8", "the minor number of a device"),
            ("8 16", "the name of a device"),
            ("8 16 sdb", "requests read"),
            ("8 16 sdb 1 2 x", "sectors read"),
            ("8 16 sdb 1 2 36028797018963967", "milliseconds read"),
            ("8 16 sdb 1 2 36028797018963968", "sectors read"),
            ("8 16 sdb 1 2 3 4 5 6 7 8 -1", "requests in progress"),
            ("8 16 sdb 1 2 3 4 5 6 7 8 9 10", "weighted milliseconds"),
            (
                "8 16 sdb 1 2 3 4 5 6 7 8 9 10 11 12",
                "requests discarded merged",
            ),
            (
                "8 16 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 36028797018963968 15",
                "sectors discarded",
            ),
            ("8 16 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 x", "flushes"),
            (
                "8 16 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
                "milliseconds of flushes",
            ),
        ] {
            let error = ParseError::new(2, expected);
            assert_eq!(parse(&format!("{first}{line}\n")), Err(error), "{line}");
        }
    }

    #[test]
    fn disks_without_partitions_and_memory() {
        let filter = DeviceFilter::new(None, None, DEFAULT_EXCLUDE);
        for name in [
            "sda", "sdab", "nvme0n1", "dm-0", "md127", "vda", "sr0", "nbd0",
        ] {
            assert!(filter.shows(name), "{name}");
        }
        for name in [
            "sda1",
            "vda15",
            "xvda1",
            "nvme10n1p2",
            "loop7",
            "ram0",
            "zram0",
            "fd0",
        ] {
            assert!(!filter.shows(name), "{name}");
        }
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let mut disks = parse(DISKSTATS).expect("valid");
        disks.remove(0);
        let page = samples(DiskFacts { disks });
        for line in [
            r#"esnode_disk_written_bytes_total{device="nvme0n1"} 16384"#,
            r#"esnode_disk_read_seconds_total{device="nvme0n1"} 0.25"#,
            r#"esnode_disk_io_weighted_seconds_total{device="nvme0n1"} 1.75"#,
            r#"esnode_disk_io_in_progress{device="nvme0n1"} 3"#,
            r#"esnode_disk_flushes_total{device="nvme0n1"} 4"#,
            r#"esnode_disk_read_bytes_total{device="nvme0n1p1"} 4096"#,
        ] {
            assert!(
                page.iter().any(|it| it == line),
                "{line} is not in {page:?}"
            );
        }
        let flushes = page.iter().filter(|line| line.contains("flushes_total"));
        assert_eq!(flushes.count(), 1, "{page:?}");
    }

    #[test]
    fn a_kernel_without_is_no_failure() {
        let filter = DeviceFilter::default();
        let outcome = DiskCollector::new(Path::new("/nonexistent"), filter).sample();
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
    }
}
