//! What the page must say about what a workload moved.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use esnode_tests::page::{Page, Sample};
use esnode_tests::tally::{Io, Moved, Protocol, Tally};

/// Fails where two values differ, and says both.
macro_rules! ensure_eq {
    ($seen:expr, $expected:expr, $($what:tt)*) => {{
        let (seen, expected) = (&$seen, &$expected);
        anyhow::ensure!(
            seen == expected,
            "{}: expected {expected:?}, seen {seen:?}", format_args!($($what)*)
        );
    }};
}
pub(crate) use ensure_eq;

/// Whether the numbers of calls are compared as well. The kernel cuts some calls into several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    Exact,
    Any,
}

/// What one process or group has on the page.
#[derive(Clone, Copy)]
pub(crate) struct Series<'a> {
    page: &'a Page,
    prefix: &'static str,
    labels: &'a [(&'a str, &'a str)],
}

impl Series<'_> {
    /// The sum over the samples of a family, by what follows the prefix.
    fn count(self, family: &str, extra: &[(&str, &str)]) -> Result<Option<u64>> {
        let labels: Vec<_> = self.labels.iter().chain(extra).copied().collect();
        self.page
            .count(&format!("{}{family}", self.prefix), &labels)
    }

    /// The socket bytes and calls of one protocol; absent is 0.
    pub(crate) fn moved(self, protocol: Protocol) -> Result<Moved> {
        let labels = [("protocol", protocol.label())];
        let count = |family: &str| -> Result<u64> { Ok(self.count(family, &labels)?.unwrap_or(0)) };
        Ok(Moved {
            transmit_bytes: count("_network_transmit_bytes_total")?,
            transmits: count("_network_transmits_total")?,
            receive_bytes: count("_network_receive_bytes_total")?,
            receives: count("_network_receives_total")?,
        })
    }

    /// Fails where the socket bytes aren't these, of any protocol. Calls may be missing, with their
    /// bytes, as far as the page says that programs missed events; a return whose entry was missed
    /// can be taken for one of another protocol.
    pub(crate) fn check_moved(self, expected: &Tally, calls: Calls) -> Result<()> {
        let missed = missed_events(self.page)?;
        let mut sum = Moved::default();
        let mut first = Ok(());
        for protocol in Protocol::ALL {
            let seen = self.moved(protocol)?;
            sum += seen;
            let compared = self.compare(protocol, seen, expected.of(protocol), calls);
            first = first.and(compared);
        }
        let fewer = fewer_calls(sum, expected.total());
        if first.is_err() && missed > 0 && fewer.is_some_and(|fewer| fewer <= missed) {
            return Ok(());
        }
        first
    }

    fn compare(
        self,
        protocol: Protocol,
        mut seen: Moved,
        expected: Moved,
        calls: Calls,
    ) -> Result<()> {
        if calls == Calls::Any {
            (seen.transmits, seen.receives) = (expected.transmits, expected.receives);
        }
        ensure_eq!(
            seen,
            expected,
            "{}{:?} {}",
            self.prefix,
            self.labels,
            protocol.label()
        );
        Ok(())
    }

    /// The disk account, whose values must be there.
    pub(crate) fn io(self) -> Result<Io> {
        let count = |family: &str| {
            let value = self.count(family, &[])?;
            value.ok_or_else(|| {
                anyhow::anyhow!("no {}{family}{:?} on the page", self.prefix, self.labels)
            })
        };
        Ok(Io {
            read_bytes: count("_disk_read_bytes_total")?,
            write_bytes: count("_disk_write_bytes_total")?,
            cancelled_write_bytes: count("_disk_cancelled_write_bytes_total")?,
        })
    }

    /// Fails where the disk account isn't this.
    pub(crate) fn check_io(self, expected: Io) -> Result<()> {
        ensure_eq!(self.io()?, expected, "{}{:?}", self.prefix, self.labels);
        Ok(())
    }

    /// A counter or gauge without labels of its own, which must be there.
    pub(crate) fn number(self, family: &str) -> Result<u64> {
        let value = self.count(family, &[])?;
        value.ok_or_else(|| {
            anyhow::anyhow!("no {}{family}{:?} on the page", self.prefix, self.labels)
        })
    }

    /// Any sample of it.
    pub(crate) fn any(self) -> Option<Sample> {
        let mut samples = self.page.samples();
        samples
            .find(|sample| sample.name.starts_with(self.prefix) && sample.has(self.labels))
            .cloned()
    }
}

/// How many events BPF programs missed since the agent started, on kernels that preempt them.
pub(crate) fn missed_events(page: &Page) -> Result<u64> {
    Ok(page
        .count("esnode_bpf_program_misses_total", &[])?
        .unwrap_or(0))
}

/// By how many calls less was seen than expected, where it is less in nothing else than what
/// these may have moved.
fn fewer_calls(seen: Moved, expected: Moved) -> Option<u64> {
    let sends = expected.transmits.checked_sub(seen.transmits)?;
    let receives = expected.receives.checked_sub(seen.receives)?;
    let explained = |seen, expected, calls| match calls {
        0 => seen == expected,
        _ => seen <= expected,
    };
    let fewer = sends + receives;
    (explained(seen.transmit_bytes, expected.transmit_bytes, sends)
        && explained(seen.receive_bytes, expected.receive_bytes, receives))
    .then_some(fewer)
}

/// What the page says of a process.
pub(crate) fn process<'a>(page: &'a Page, labels: &'a [(&'a str, &'a str)]) -> Series<'a> {
    Series {
        page,
        prefix: "esnode_process",
        labels,
    }
}

/// What the page says of a group.
pub(crate) fn group<'a>(page: &'a Page, labels: &'a [(&'a str, &'a str)]) -> Series<'a> {
    Series {
        page,
        prefix: "esnode_group",
        labels,
    }
}

/// Fails where a process that is gone still has a series.
pub(crate) fn check_gone(page: &Page, pid: &str, comm: &str) -> Result<()> {
    let left = process(page, &[("pid", pid), ("comm", comm)]).any();
    ensure!(
        left.is_none(),
        "the process is gone, its series isn't: {left:?}"
    );
    Ok(())
}

/// The sum over the bytes of this signal that were given to nobody.
pub(crate) fn unattributed(page: &Page, signal: &str) -> Result<u64> {
    Ok(page
        .count("esnode_unattributed_bytes_total", &[("signal", signal)])?
        .unwrap_or(0))
}

/// Tries until it succeeds, for what the kernel does some time after the event itself; fails as
/// the last try did.
pub(crate) fn within_grace<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let result = attempt();
        if result.is_ok() || Instant::now() > deadline {
            return result;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
