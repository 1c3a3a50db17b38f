//! Families of how long block devices take.

use super::Page;
use crate::{
    bpf::DiskLatency,
    process::{
        Process, label,
        named::{NamedGroup, OTHER},
    },
};
use esnode_ebpf::{LATENCY_BUCKETS, Latency, Name, Operation};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// Writes the histograms of the processes that are shown and of all groups.
pub(super) fn encode(
    page: &mut Page<'_>,
    latency: &DiskLatency,
    shown: &[Process],
    groups: &[NamedGroup],
) -> fmt::Result {
    let of_process = |process: &Process| {
        latency
            .processes
            .iter()
            .filter(|(of, _)| {
                of.tgid == process.key.pid
                    && of.start_boottime_nanoseconds == process.key.start_nanoseconds
            })
            .filter_map(|(of, latency)| {
                let labels = [
                    ("pid", process.key.pid.to_string()),
                    ("comm", label(process.name)),
                    ("operation", operation(of.operation.into())?.to_owned()),
                ];
                Some((labels, Histogram::of(latency)))
            })
            .collect::<Vec<_>>()
    };
    page.histogram(
        "esnode_process_disk_io_seconds",
        "Time from a request's issue to the block device to its completion, of requests that the \
         process made itself; what the page cache writes later is the kernel's own",
        shown.iter().flat_map(of_process),
    )?;
    page.histogram(
        "esnode_group_disk_io_seconds",
        "Time from a request's issue to the block device to its completion, of requests that all \
         processes of the group made themselves, ended ones too",
        by_label(latency, groups)
            .into_iter()
            .map(|((group, operation), latency)| {
                let labels = [("group", group), ("operation", operation.to_owned())];
                (labels, Histogram::of(&latency))
            }),
    )?;
    page.single_counter(
        "esnode_unattributed_disk_requests",
        "Requests to block devices that were completed and whose issue no program saw: they are in \
         no histogram",
        Some(latency.unknown),
    )
}

/// Adds up the histograms of groups by the label that each has on the page.
fn by_label(
    latency: &DiskLatency,
    groups: &[NamedGroup],
) -> BTreeMap<(String, &'static str), Latency> {
    let labels: HashMap<Name, &str> = groups
        .iter()
        .flat_map(|named| named.names.iter().map(|name| (*name, named.label.as_str())))
        .collect();
    let mut sums = BTreeMap::<_, Latency>::new();
    for (group, number, latency) in &latency.groups {
        let Some(operation) = operation(*number) else {
            continue;
        };
        let label = labels.get(group).copied().unwrap_or(OTHER);
        let sum = sums.entry((label.to_owned(), operation)).or_default();
        for (sum, part) in sum.buckets.iter_mut().zip(&latency.buckets) {
            *sum += part;
        }
        sum.nanoseconds += latency.nanoseconds;
    }
    sums
}

fn operation(number: u64) -> Option<&'static str> {
    let operation = *Operation::ALL.get(usize::try_from(number).ok()?)?;
    Some(match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Flush => "flush",
        Operation::Discard => "discard",
    })
}

/// A histogram as the page has it: times in seconds.
pub(super) struct Histogram {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bound and number of times in each bucket alone.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a century are below 2^62"
    )]
    fn of(latency: &Latency) -> Self {
        let bound =
            |bucket| Latency::bound(bucket).map_or(f64::INFINITY, |bound| bound as f64 / 1e9);
        Self {
            sum: latency.nanoseconds as f64 / 1e9,
            count: latency.buckets.iter().sum(),
            buckets: (0..LATENCY_BUCKETS)
                .map(bound)
                .zip(latency.buckets)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Group;

    fn name(text: &[u8; 16]) -> Name {
        Name::from_bytes(*text)
    }

    fn latency(bucket: usize) -> Latency {
        let mut latency = Latency::default();
        latency.buckets[bucket] = 1;
        latency.nanoseconds = 10;
        latency
    }

    #[test]
    fn groups_beyond_the_limit_add_up() {
        let shown = name(b"shown\0\0\0\0\0\0\0\0\0\0\0");
        let groups = [NamedGroup {
            label: "shown".to_owned(),
            group: Group {
                name: shown,
                ..Group::default()
            },
            names: vec![shown],
        }];
        let all = DiskLatency {
            unknown: 0,
            processes: Vec::new(),
            groups: vec![
                (shown, 0, latency(1)),
                (name(b"a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), 1, latency(2)),
                (name(b"b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), 1, latency(2)),
                (shown, 99, latency(1)),
            ],
        };
        let sums = by_label(&all, &groups);
        assert_eq!(sums.len(), 2);
        assert_eq!(sums[&("shown".to_owned(), "read")].buckets[1], 1);
        let other = &sums[&(OTHER.to_owned(), "write")];
        assert_eq!((other.buckets[2], other.nanoseconds), (2, 20));
    }

    #[test]
    fn the_last_bucket_has_no_bound() {
        let histogram = Histogram::of(&latency(LATENCY_BUCKETS - 1));
        assert_eq!(histogram.count, 1);
        assert_eq!(histogram.buckets.last(), Some(&(f64::INFINITY, 1)));
    }
}
