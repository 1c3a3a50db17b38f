//! The clock by the names of node_exporter: its collector timex.

use super::{Clock, MICROSECONDS, divided};
use crate::page::Page;
use std::fmt;

/// Frequencies are in parts per million, by 2^16 (adjtimex(2)).
const FREQUENCY: f64 = 1e6 * 65536.0;

impl Clock {
    /// Writes it, without I/O.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub(super) fn encode_by_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        for (name, help, value) in self.gauges() {
            page.single_gauge(
                &format!("node_timex_{name}"),
                &format!("{help}, from adjtimex(2)"),
                Some(value),
            )?;
        }
        for (name, help, count) in self.counters() {
            page.single_counter(
                &format!("node_timex_{name}"),
                &format!("{help}, from adjtimex(2)"),
                Some(divided(count, 1.0)),
            )?;
        }
        Ok(())
    }

    /// What follows `node_timex_`, what it is, and its value.
    fn gauges(&self) -> [(&'static str, &'static str, f64); 13] {
        let (pps, resolution) = (self.pps, self.resolution());
        [
            (
                "sync_status",
                "Whether the kernel holds the clock for synchronized",
                f64::from(u8::from(self.is_synchronized())),
            ),
            (
                "offset_seconds",
                "What the kernel has yet to move the clock by",
                divided(self.offset, resolution),
            ),
            (
                "frequency_adjustment_ratio",
                "How fast the clock is made to run",
                1.0 + divided(self.frequency, FREQUENCY),
            ),
            (
                "maxerror_seconds",
                "By how much the clock can be off at most",
                divided(self.max_error, MICROSECONDS),
            ),
            (
                "estimated_error_seconds",
                "By how much the clock is off by estimate",
                divided(self.estimated_error, MICROSECONDS),
            ),
            ("status", "Bits of the status", f64::from(self.status)),
            (
                "loop_time_constant",
                "Time constant of the phase-locked loop",
                divided(self.time_constant, 1.0),
            ),
            (
                "tick_seconds",
                "Time between ticks",
                divided(self.tick, MICROSECONDS),
            ),
            (
                "tai_offset_seconds",
                "International Atomic Time less UTC; 0 is unknown",
                f64::from(self.tai_offset),
            ),
            (
                "pps_frequency_hertz",
                "Frequency by the signal of one pulse per second, as a ratio",
                divided(pps.frequency, FREQUENCY),
            ),
            (
                "pps_stability_hertz",
                "Mean change of that frequency, as a ratio",
                divided(pps.stability, FREQUENCY),
            ),
            (
                "pps_jitter_seconds",
                "Jitter of the signal of one pulse per second",
                divided(pps.jitter, resolution),
            ),
            (
                "pps_shift_seconds",
                "Interval between calibrations by that signal, as a logarithm to base 2",
                f64::from(pps.shift),
            ),
        ]
    }

    /// The same, without `_total`.
    fn counters(&self) -> [(&'static str, &'static str, i64); 4] {
        let pps = self.pps;
        [
            (
                "pps_calibration",
                "Calibrations by the signal of one pulse per second",
                pps.calibrations,
            ),
            ("pps_error", "Calibrations by it that failed", pps.errors),
            (
                "pps_jitter",
                "Times that its jitter was too large",
                pps.jitter_exceeded,
            ),
            (
                "pps_stability_exceeded",
                "Times that its frequency changed too much",
                pps.stability_exceeded,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Clock, Pps};
    use crate::collectors::fixture::node_exporter_samples;

    #[test]
    fn every_field_has_its_family() {
        let clock = Clock {
            state: 0,
            status: 0x2001,
            offset: -250_000_000,
            max_error: 500_000,
            estimated_error: 250,
            frequency: 32_768_000_000,
            time_constant: 7,
            tick: 10_000,
            tai_offset: 37,
            pps: Pps {
                frequency: 16_384_000_000,
                stability: 8_192_000_000,
                jitter: 125_000_000,
                shift: 4,
                calibrations: 1,
                errors: 2,
                jitter_exceeded: 3,
                stability_exceeded: 5,
            },
        };
        assert_eq!(
            node_exporter_samples(clock),
            [
                "node_timex_sync_status 1.0",
                "node_timex_offset_seconds -0.25",
                "node_timex_frequency_adjustment_ratio 1.5",
                "node_timex_maxerror_seconds 0.5",
                "node_timex_estimated_error_seconds 0.00025",
                "node_timex_status 8193.0",
                "node_timex_loop_time_constant 7.0",
                "node_timex_tick_seconds 0.01",
                "node_timex_tai_offset_seconds 37.0",
                "node_timex_pps_frequency_hertz 0.25",
                "node_timex_pps_stability_hertz 0.125",
                "node_timex_pps_jitter_seconds 0.125",
                "node_timex_pps_shift_seconds 4.0",
                "node_timex_pps_calibration_total 1.0",
                "node_timex_pps_error_total 2.0",
                "node_timex_pps_jitter_total 3.0",
                "node_timex_pps_stability_exceeded_total 5.0",
            ]
        );
    }

    #[test]
    fn a_clock_of_microseconds() {
        let clock = Clock {
            state: libc::TIME_ERROR,
            offset: 250_000,
            pps: Pps {
                jitter: 125_000,
                ..Pps::default()
            },
            ..Clock::default()
        };
        let page = node_exporter_samples(clock);
        for line in [
            "node_timex_sync_status 0.0",
            "node_timex_offset_seconds 0.25",
            "node_timex_pps_jitter_seconds 0.125",
        ] {
            assert!(page.iter().any(|it| it == line), "{page:?}");
        }
    }
}
