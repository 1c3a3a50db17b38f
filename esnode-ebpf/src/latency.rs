//! Histograms of how long block devices take.

use crate::Name;

/// Number of buckets of a [`Latency`].
pub const LATENCY_BUCKETS: usize = 20;

/// What a request asks a device for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// `REQ_OP_READ`.
    Read,
    /// `REQ_OP_WRITE`, `REQ_OP_WRITE_ZEROES`, and `REQ_OP_WRITE_SAME` or what has its number since
    /// Linux 5.18, `REQ_OP_ZONE_APPEND`.
    Write,
    /// `REQ_OP_FLUSH`.
    Flush,
    /// `REQ_OP_DISCARD` and `REQ_OP_SECURE_ERASE`.
    Discard,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Discard];

    /// By `REQ_OP_…` of `include/linux/blk_types.h`, whose numbers of these have stood since
    /// Linux 4.10; `None` for what moves no data of a file system.
    #[inline(always)]
    #[must_use]
    pub const fn of(request_operation: u32) -> Option<Self> {
        match request_operation {
            0 => Some(Self::Read),
            1 | 7 | 9 => Some(Self::Write),
            2 => Some(Self::Flush),
            3 | 5 => Some(Self::Discard),
            _ => None,
        }
    }
}

/// Key of [`maps::PROCESS_LATENCY`](crate::maps::PROCESS_LATENCY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct LatencyProcess {
    /// Start time of the process, nanoseconds on the boot clock.
    pub start_boottime_nanoseconds: u64,
    /// Process id.
    pub tgid: u32,
    /// An [`Operation`].
    pub operation: u32,
}

/// Key of [`maps::GROUP_LATENCY`](crate::maps::GROUP_LATENCY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LatencyGroup {
    /// The group.
    pub group: Name,
    /// An [`Operation`].
    pub operation: u64,
}

/// Value of [`maps::REQUESTS`](crate::maps::REQUESTS): a request that a device has, or will get.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Request {
    /// When the device got it, nanoseconds on the monotonic clock; 0 while it waits.
    pub issued_nanoseconds: u64,
    /// Whose it is.
    pub owner: LatencyProcess,
    /// The owner's group.
    pub group: Name,
}

/// A histogram of times from issue to completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Latency {
    /// Number of requests by time: see [`Latency::bucket`].
    pub buckets: [u64; LATENCY_BUCKETS],
    /// Sum of the times.
    pub nanoseconds: u64,
}

impl Latency {
    /// Bits of the upper bound of the first bucket, some 16 µs.
    const FIRST_BITS: usize = 14;

    /// The bucket that a time belongs to: bucket `i` holds times below `2^(14 + i)` ns that the
    /// buckets before it do not, the last all others.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(nanoseconds: u64) -> usize {
        let mut bucket = 0;
        while bucket < LATENCY_BUCKETS - 1 {
            if nanoseconds >> (Self::FIRST_BITS + bucket) == 0 {
                break;
            }
            bucket += 1;
        }
        bucket
    }

    /// Upper bound of a bucket in nanoseconds; `None` for the last, which has none.
    #[must_use]
    pub const fn bound(bucket: usize) -> Option<u64> {
        if bucket + 1 < LATENCY_BUCKETS {
            Some(1 << (Self::FIRST_BITS + bucket))
        } else {
            None
        }
    }
}

const _: () = {
    assert!(size_of::<Request>() == 40);
    assert!(size_of::<LatencyProcess>() == 16);
    assert!(size_of::<LatencyGroup>() == 24);
    assert!(size_of::<Latency>() == 168);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_their_bounds_agree() {
        for bucket in 0..LATENCY_BUCKETS {
            let Some(bound) = Latency::bound(bucket) else {
                assert_eq!(Latency::bucket(u64::MAX), bucket);
                continue;
            };
            assert_eq!(Latency::bucket(bound - 1), bucket);
            assert_eq!(Latency::bucket(bound), bucket + 1);
        }
        assert_eq!(Latency::bucket(0), 0);
    }

    #[test]
    fn operations_by_their_number() {
        assert_eq!(Operation::of(0), Some(Operation::Read));
        assert_eq!(Operation::of(9), Some(Operation::Write));
        assert_eq!(Operation::of(34), None);
    }
}
