//! Block devices by the names of node_exporter (its collector `diskstats`).

use super::{Disk, times, values};
use crate::page::Page;
use std::fmt;

/// Name after `node_disk_`, without `_total`, meaning, and the value.
type Family = (&'static str, &'static str, fn(&Disk) -> Option<u64>);

const COUNTS: [Family; 10] = [
    ("reads_completed", "Reads completed", |disk| {
        Some(disk.read.completed)
    }),
    ("reads_merged", "Reads merged", |disk| {
        Some(disk.read.merged)
    }),
    ("read_bytes", "Bytes read", |disk| Some(disk.read.bytes())),
    ("writes_completed", "Writes completed", |disk| {
        Some(disk.written.completed)
    }),
    ("writes_merged", "Writes merged", |disk| {
        Some(disk.written.merged)
    }),
    ("written_bytes", "Bytes written", |disk| {
        Some(disk.written.bytes())
    }),
    ("discards_completed", "Discards completed", |disk| {
        Some(disk.discarded?.completed)
    }),
    ("discards_merged", "Discards merged", |disk| {
        Some(disk.discarded?.merged)
    }),
    (
        "discarded_sectors",
        "Sectors of 512 bytes discarded",
        |disk| Some(disk.discarded?.sectors),
    ),
    ("flush_requests", "Flushes completed", |disk| {
        Some(disk.flushed?.completed)
    }),
];

/// The value in milliseconds.
const TIMES: [Family; 6] = [
    ("read_time_seconds", "Time that reads took", |disk| {
        Some(disk.read.milliseconds)
    }),
    ("write_time_seconds", "Time that writes took", |disk| {
        Some(disk.written.milliseconds)
    }),
    (
        "io_time_seconds",
        "Time in which the device had something to do",
        |disk| Some(disk.io_milliseconds),
    ),
    (
        "io_time_weighted_seconds",
        "Time of all requests, waiting in the queue included",
        |disk| Some(disk.weighted_milliseconds),
    ),
    ("discard_time_seconds", "Time that discards took", |disk| {
        Some(disk.discarded?.milliseconds)
    }),
    (
        "flush_requests_time_seconds",
        "Time that flushes took",
        |disk| Some(disk.flushed?.milliseconds),
    ),
];

pub(super) fn encode(disks: &[Disk], page: &mut Page<'_>) -> fmt::Result {
    for (name, meaning, count) in COUNTS {
        let (name, help) = named(name, meaning);
        page.counter(&name, &help, values(disks, count))?;
    }
    for (name, meaning, time) in TIMES {
        let (name, help) = named(name, meaning);
        page.counter(&name, &help, times(disks, time))?;
    }
    let (name, help) = named("io_now", "Requests in progress");
    page.gauge(&name, &help, values(disks, |disk| Some(disk.in_progress)))?;
    let (name, help) = named("info", "Numbers of the device; empty is unknown");
    page.gauge(&name, &help, disks.iter().map(|disk| (identity(disk), 1)))
}

fn named(name: &str, meaning: &str) -> (String, String) {
    (
        format!("node_disk_{name}"),
        format!("{meaning}, from /proc/diskstats"),
    )
}

/// Who the device is. The rest, node_exporter reads from udev's database; without it, as here, its
/// labels are empty too.
fn identity(disk: &Disk) -> [(&'static str, String); 8] {
    let unknown = ["path", "wwn", "model", "serial", "revision"].map(|name| (name, String::new()));
    let [path, wwn, model, serial, revision] = unknown;
    [
        ("device", disk.name.clone()),
        ("major", disk.major.to_string()),
        ("minor", disk.minor.to_string()),
        path,
        wwn,
        model,
        serial,
        revision,
    ]
}

#[cfg(test)]
mod tests {
    use crate::collectors::{
        disk::{DiskFacts, parse},
        fixture::node_exporter_samples,
    };

    #[test]
    fn every_column_has_its_family() {
        let text = "259 1 nvme0n1 10 1 16 250 20 2 32 1500 3 1250 1750 7 6 8 9 4 5\n";
        let disks = parse(text).expect("valid");
        let info = r#"node_disk_info{device="nvme0n1",major="259",minor="1",path="",wwn="",model="",serial="",revision=""} 1"#;
        let mut expected = [
            "reads_completed_total 10",
            "reads_merged_total 1",
            "read_bytes_total 8192",
            "writes_completed_total 20",
            "writes_merged_total 2",
            "written_bytes_total 16384",
            "discards_completed_total 7",
            "discards_merged_total 6",
            "discarded_sectors_total 8",
            "flush_requests_total 4",
            "read_time_seconds_total 0.25",
            "write_time_seconds_total 1.5",
            "io_time_seconds_total 1.25",
            "io_time_weighted_seconds_total 1.75",
            "discard_time_seconds_total 0.009",
            "flush_requests_time_seconds_total 0.005",
            "io_now 3",
        ]
        .map(|line| {
            let (name, value) = line.split_once(' ').expect("two");
            format!("node_disk_{name}{{device=\"nvme0n1\"}} {value}")
        })
        .to_vec();
        expected.push(info.to_owned());
        assert_eq!(node_exporter_samples(DiskFacts { disks }), expected);
    }

    #[test]
    fn what_a_kernel_does_not_count_is_absent() {
        let disks = parse("8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n").expect("valid");
        let page = node_exporter_samples(DiskFacts { disks });
        let absent = |line: &&String| line.contains("discard") || line.contains("flush");
        assert_eq!(page.iter().filter(absent).count(), 0, "{page:?}");
        assert_eq!(page.len(), 12, "{page:?}");
    }
}
