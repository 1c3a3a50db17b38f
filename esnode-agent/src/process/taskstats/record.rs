//! The record of an ended thread: `struct taskstats` of `include/uapi/linux/taskstats.h`.

use crate::process::{
    Disk, Usage,
    netlink::{attributes, field, u32_at, u64_at},
};
use esnode_ebpf::{NAME_LEN, Name};

const TASKSTATS_TYPE_PID: u16 = 1;
const TASKSTATS_TYPE_TGID: u16 = 2;
const TASKSTATS_TYPE_STATS: u16 = 3;
const TASKSTATS_TYPE_AGGR_PID: u16 = 4;
const TASKSTATS_TYPE_AGGR_TGID: u16 = 5;

/// The first version with `ac_tgid` and `AGROUP`.
pub(super) const WITH_PROCESS: u16 = 12;

/// Process id of kthreadd, whose children are the kernel's threads.
const KTHREADD: u32 = 2;

/// What a thread used in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Thread id.
    pub tid: u32,
    /// Process id; `None` before Linux 5.19, except with the last thread of several.
    pub pid: Option<u32>,
    /// Whether its process ended with it; `None` where that isn't said.
    pub ends_process: Option<bool>,
    /// Process id of the parent.
    pub parent: u32,
    /// Command name.
    pub name: Name,
    /// How long it lived, without times of suspension.
    pub lived_nanoseconds: u64,
    /// CPU time, and disk bytes, which the kernel rounds down to 1,024.
    pub usage: Usage,
}

impl Record {
    /// The group that a process with this record goes by.
    #[must_use]
    pub fn group(&self) -> Name {
        self.name.group(self.parent == KTHREADD)
    }
}

/// The attribute of this type inside the one of that type.
fn nested(payload: &[u8], outer: u16, inner: u16) -> Option<&[u8]> {
    let (_, outer) = attributes(payload.get(4..)?).find(|(kind, _)| *kind == outer)?;
    let (_, inner) = attributes(outer).find(|(kind, _)| *kind == inner)?;
    Some(inner)
}

/// The version of the layout, which the kernel raises when it adds to it.
pub(super) fn version_of(payload: &[u8]) -> Option<u16> {
    let stats = nested(payload, TASKSTATS_TYPE_AGGR_PID, TASKSTATS_TYPE_STATS)?;
    field(stats, 0).map(u16::from_ne_bytes)
}

/// Reads a message about one thread; `None` if it isn't one, or has another layout.
pub(super) fn parse(payload: &[u8], disk: bool) -> Option<Record> {
    /// The version that had moved everything.
    const MOVED: u16 = 15;
    const AGROUP: u8 = 0x20;
    let tid = nested(payload, TASKSTATS_TYPE_AGGR_PID, TASKSTATS_TYPE_PID)?;
    let tid = u32_at(tid, 0)?;
    let stats = nested(payload, TASKSTATS_TYPE_AGGR_PID, TASKSTATS_TYPE_STATS)?;
    let version = u16::from_ne_bytes(field(stats, 0)?);
    if version == MOVED || u32_at(stats, 128)? != tid {
        return None;
    }
    // The last thread of several brings the sum of all; of single ones there is none.
    let last = nested(payload, TASKSTATS_TYPE_AGGR_TGID, TASKSTATS_TYPE_TGID)
        .and_then(|pid| u32_at(pid, 0));
    let [flags] = field::<1>(stats, 8)?;
    let (pid, ends_process) = if version >= WITH_PROCESS {
        (Some(u32_at(stats, 368)?), Some(flags & AGROUP != 0))
    } else {
        (last, last.map(|_| true))
    };
    let microseconds = |offset| Some(u64_at(stats, offset)?.saturating_mul(1_000));
    let lived_nanoseconds = microseconds(144)?;
    let bytes = Disk {
        read_bytes: u64_at(stats, 248)?,
        write_bytes: u64_at(stats, 256)?,
        cancelled_write_bytes: u64_at(stats, 264)?,
    };
    Some(Record {
        tid,
        pid,
        ends_process,
        parent: u32_at(stats, 132)?,
        name: Name::from_bytes(field::<NAME_LEN>(stats, 80)?),
        lived_nanoseconds,
        usage: Usage {
            cpu_nanoseconds: cpu_nanoseconds(stats, lived_nanoseconds)?,
            disk: disk.then_some(bytes),
            network: None,
        },
    })
}

/// Time on a CPU. The scheduler's number is as old as its last tick or switch, which for a short
/// life may be most of it; but a thread that never slept was on a CPU whenever it did not wait for
/// one.
fn cpu_nanoseconds(stats: &[u8], lived_nanoseconds: u64) -> Option<u64> {
    let (waited, accounted) = (u64_at(stats, 24)?, u64_at(stats, 72)?);
    let (runs, sleeps) = (u64_at(stats, 16)?, u64_at(stats, 272)?);
    if runs > 0 && sleeps == 0 {
        return Some(accounted.max(lived_nanoseconds.saturating_sub(waited)));
    }
    Some(accounted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{netlink::push_attribute, taskstats::command};

    fn stats(version: u16, tid: u32, length: usize) -> Vec<u8> {
        let mut stats = vec![0; 400];
        let mut put = |offset: usize, bytes: &[u8]| {
            stats[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &version.to_ne_bytes());
        put(8, &[0x20]);
        put(16, &3_u64.to_ne_bytes());
        put(24, &500_000_u64.to_ne_bytes());
        put(72, &5_000_000_u64.to_ne_bytes());
        put(80, b"worker");
        put(128, &tid.to_ne_bytes());
        put(132, &7_u32.to_ne_bytes());
        put(144, &1_500_u64.to_ne_bytes());
        put(248, &4096_u64.to_ne_bytes());
        put(256, &8192_u64.to_ne_bytes());
        put(264, &1024_u64.to_ne_bytes());
        put(272, &1_u64.to_ne_bytes());
        put(368, &40_u32.to_ne_bytes());
        stats.truncate(length);
        stats
    }

    fn message(tid: u32, stats: &[u8], last: Option<u32>) -> Vec<u8> {
        let mut message = command(2);
        let mut inner = Vec::new();
        push_attribute(&mut inner, TASKSTATS_TYPE_PID, &tid.to_ne_bytes());
        push_attribute(&mut inner, TASKSTATS_TYPE_STATS, stats);
        push_attribute(&mut message, TASKSTATS_TYPE_AGGR_PID, &inner);
        if let Some(pid) = last {
            let mut inner = Vec::new();
            push_attribute(&mut inner, TASKSTATS_TYPE_TGID, &pid.to_ne_bytes());
            push_attribute(&mut message, TASKSTATS_TYPE_AGGR_TGID, &inner);
        }
        message
    }

    #[test]
    fn a_record_of_today() {
        let record = parse(&message(42, &stats(14, 42, 400), None), true).expect("valid");
        assert_eq!(
            (record.tid, record.pid, record.ends_process, record.parent),
            (42, Some(40), Some(true), 7)
        );
        assert_eq!(&record.group().to_bytes(), b"worker\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(record.lived_nanoseconds, 1_500_000);
        assert_eq!(record.usage.cpu_nanoseconds, 5_000_000);
        let disk = record.usage.disk.expect("known");
        assert_eq!(
            (
                disk.read_bytes,
                disk.write_bytes,
                disk.cancelled_write_bytes
            ),
            (4096, 8192, 1024)
        );
    }

    #[test]
    fn one_that_never_slept_ran_when_it_did_not_wait() {
        let mut sleepless = stats(14, 42, 400);
        sleepless[72..80].copy_from_slice(&100_000_u64.to_ne_bytes());
        sleepless[272..280].fill(0);
        let record = parse(&message(42, &sleepless, None), true).expect("valid");
        assert_eq!(record.usage.cpu_nanoseconds, 1_500_000 - 500_000);
        // A kernel that doesn't say how long it waited.
        sleepless[16..32].fill(0);
        let record = parse(&message(42, &sleepless, None), true).expect("valid");
        assert_eq!(record.usage.cpu_nanoseconds, 100_000);
    }

    #[test]
    fn an_old_record_names_its_process_only_with_the_last_thread() {
        let old = stats(10, 42, 352);
        let alone = parse(&message(42, &old, None), true).expect("valid");
        assert_eq!((alone.pid, alone.ends_process), (None, None));
        let last = parse(&message(42, &old, Some(40)), true).expect("valid");
        assert_eq!((last.pid, last.ends_process), (Some(40), Some(true)));
    }

    #[test]
    fn what_the_kernel_does_not_count_is_unknown() {
        let record = parse(&message(42, &stats(14, 42, 400), None), false).expect("valid");
        assert_eq!(record.usage.disk, None);
    }

    #[test]
    fn another_layout_is_refused() {
        // Version 15 had put new fields in the middle.
        assert_eq!(parse(&message(42, &stats(15, 42, 400), None), true), None);
        assert_eq!(parse(&message(42, &stats(14, 43, 400), None), true), None);
        assert_eq!(parse(&message(42, &stats(14, 42, 368), None), true), None);
        let whole = message(42, &stats(14, 42, 400), None);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], true), None);
        }
    }
}
