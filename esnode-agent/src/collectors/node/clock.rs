//! How well the clock of the node is kept, from adjtimex(2), which changes nothing here.

mod node_exporter;

use crate::{
    collectors::sys,
    page::{Encode, Page},
};
use std::fmt;

/// What is in microseconds, whatever the status says.
const MICROSECONDS: f64 = 1e6;
const NANOSECONDS: f64 = 1e9;

/// How the kernel's clock is disciplined, in the units of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// `TIME_ERROR`, or something better.
    state: i32,
    /// Bits `STA_*`.
    status: i32,
    /// In nanoseconds or microseconds, by the status.
    offset: i64,
    /// In microseconds.
    max_error: i64,
    /// In microseconds.
    estimated_error: i64,
    /// In parts per million, by 2^16.
    frequency: i64,
    time_constant: i64,
    /// In microseconds.
    tick: i64,
    /// In seconds.
    tai_offset: i32,
    pps: Pps,
}

/// A signal of one pulse per second that the kernel follows, if it has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pps {
    /// In parts per million, by 2^16.
    frequency: i64,
    /// In parts per million, by 2^16.
    stability: i64,
    /// In nanoseconds or microseconds, by the status.
    jitter: i64,
    /// Logarithm to base 2 of the length of an interval in seconds.
    shift: i32,
    calibrations: i64,
    errors: i64,
    jitter_exceeded: i64,
    stability_exceeded: i64,
}

impl Clock {
    /// As it is now. `None` if asking is refused, as by a filter of system calls.
    pub(super) fn read() -> Option<Self> {
        let (state, timex) = sys::adjtimex().ok()?;
        Some(Self {
            state,
            status: timex.status,
            offset: timex.offset,
            max_error: timex.maxerror,
            estimated_error: timex.esterror,
            frequency: timex.freq,
            time_constant: timex.constant,
            tick: timex.tick,
            tai_offset: timex.tai,
            pps: Pps {
                frequency: timex.ppsfreq,
                stability: timex.stabil,
                jitter: timex.jitter,
                shift: timex.shift,
                calibrations: timex.calcnt,
                errors: timex.errcnt,
                jitter_exceeded: timex.jitcnt,
                stability_exceeded: timex.stbcnt,
            },
        })
    }

    fn is_synchronized(&self) -> bool {
        self.state != libc::TIME_ERROR
    }

    /// How many units of the offset a second has.
    fn resolution(&self) -> f64 {
        if self.status & libc::STA_NANO == 0 {
            MICROSECONDS
        } else {
            NANOSECONDS
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of months are below 2^53"
)]
fn divided(count: i64, by: f64) -> f64 {
    count as f64 / by
}

impl Encode for Clock {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_gauge(
            "esnode_node_clock_synchronized",
            "Whether the kernel holds the clock for synchronized, from adjtimex(2); if not, times of \
             this node can't be compared with those of others, as in traces",
            Some(u32::from(self.is_synchronized())),
        )?;
        page.single_gauge(
            "esnode_node_clock_offset_seconds",
            "What the kernel has yet to move the clock by, from adjtimex(2); about 0 under programs \
             that move it themselves, as chrony does",
            Some(divided(self.offset, self.resolution())),
        )?;
        page.single_gauge(
            "esnode_node_clock_max_error_seconds",
            "By how much the clock can be off at most, from adjtimex(2): it grows until the clock is \
             compared with its source again, to 16 if it never is",
            Some(divided(self.max_error, MICROSECONDS)),
        )?;
        page.single_gauge(
            "esnode_node_clock_estimated_error_seconds",
            "By how much the clock is off by the estimate of what disciplines it, from adjtimex(2)",
            Some(divided(self.estimated_error, MICROSECONDS)),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.encode_by_node_exporter(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::samples;

    #[test]
    fn a_clock_that_is_kept() {
        let clock = Clock {
            status: libc::STA_PLL | libc::STA_NANO,
            offset: -1_500_000,
            max_error: 250_000,
            estimated_error: 125,
            ..Clock::default()
        };
        assert_eq!(
            samples(clock),
            [
                "esnode_node_clock_synchronized 1",
                "esnode_node_clock_offset_seconds -0.0015",
                "esnode_node_clock_max_error_seconds 0.25",
                "esnode_node_clock_estimated_error_seconds 0.000125",
            ]
        );
    }

    #[test]
    fn a_clock_that_nobody_keeps() {
        let clock = Clock {
            state: libc::TIME_ERROR,
            status: libc::STA_UNSYNC,
            offset: 1_500_000,
            max_error: 16_000_000,
            estimated_error: 16_000_000,
            ..Clock::default()
        };
        assert_eq!(
            samples(clock),
            [
                "esnode_node_clock_synchronized 0",
                "esnode_node_clock_offset_seconds 1.5",
                "esnode_node_clock_max_error_seconds 16.0",
                "esnode_node_clock_estimated_error_seconds 16.0",
            ]
        );
    }

    #[test]
    fn reading_is_the_kernels_or_nothing() {
        // A filter of system calls may refuse it here.
        if let Some(clock) = Clock::read() {
            assert!((0..=libc::TIME_ERROR).contains(&clock.state), "{clock:?}");
            // At most a tenth off a hundredth of a second, says adjtimex(2).
            assert!((9_000..=11_000).contains(&clock.tick), "{clock:?}");
            assert!(clock.max_error >= 0, "{clock:?}");
        }
    }
}
