//! Pressure stall information: how long tasks waited for a resource, from `/proc/pressure/`
//! (Linux 4.20; Documentation/accounting/psi.rst).

use super::{CollectError, parse_optional};
use crate::{
    error::ParseError,
    page::{Encode, Page},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The files, which are the values of the label. `irq` is there from Linux 6.1 on, where the
/// kernel accounts for the time of interrupts.
const RESOURCES: [&str; 4] = ["cpu", "memory", "io", "irq"];

/// Time for which tasks lacked one resource, since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pressure {
    /// At least one task waited.
    some: Option<Duration>,
    /// All tasks that had something to do waited.
    full: Option<Duration>,
}

/// Pressure by resource, of those that the kernel tells about.
#[derive(Clone, Debug)]
pub struct PressureFacts {
    resources: Vec<(&'static str, Pressure)>,
}

/// Reads the files anew in each pass.
pub struct PressureCollector {
    folder: PathBuf,
}

impl PressureCollector {
    /// Reads below `procfs`.
    #[must_use]
    pub fn new(procfs: &Path) -> Self {
        Self {
            folder: procfs.join("pressure"),
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed; [`CollectError::Off`] if there is none.
    pub fn sample(&mut self) -> Result<PressureFacts, CollectError> {
        let mut resources = Vec::new();
        for name in RESOURCES {
            let pressure = parse_optional(&self.folder.join(name), parse)?;
            resources.extend(pressure.map(|pressure| (name, defined(name, pressure))));
        }
        if resources.is_empty() {
            let reason = "this kernel keeps no pressure stall information (CONFIG_PSI, psi=1)";
            return Err(CollectError::Off(reason.to_owned()));
        }
        Ok(PressureFacts { resources })
    }
}

/// Of the whole system, some task always has the CPU: the kernel writes zeros that mean nothing.
fn defined(resource: &str, pressure: Pressure) -> Pressure {
    match resource {
        "cpu" => Pressure {
            full: None,
            ..pressure
        },
        _ => pressure,
    }
}

fn parse(text: &str) -> Result<Pressure, ParseError> {
    let mut pressure = Pressure::default();
    for (number, line) in (1..).zip(text.lines()) {
        let mut fields = line.split_ascii_whitespace();
        let slot = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => return Err(ParseError::new(number, "some or full")),
        };
        let total = fields
            .find_map(|field| field.strip_prefix("total="))
            .and_then(|total| total.parse().ok())
            .map(Duration::from_micros);
        *slot = Some(total.ok_or_else(|| ParseError::new(number, "total= and microseconds"))?);
    }
    if pressure == Pressure::default() {
        return Err(ParseError::new(0, "a line some or full"));
    }
    Ok(pressure)
}

impl Encode for PressureFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let seconds = |of: fn(&Pressure) -> Option<Duration>| {
            self.resources.iter().filter_map(move |(name, pressure)| {
                Some(([("resource", *name)], of(pressure)?.as_secs_f64()))
            })
        };
        page.counter(
            "esnode_pressure_waiting_seconds",
            "Time in which at least one task waited for the resource, \"some\" of /proc/pressure",
            seconds(|pressure| pressure.some),
        )?;
        page.counter(
            "esnode_pressure_stalled_seconds",
            "Time in which all tasks that had something to do waited for the resource, \"full\" of \
             /proc/pressure; the kernel defines none for the CPU",
            seconds(|pressure| pressure.full),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        for (resource, pressure) in &self.resources {
            // It does not know of the pressure of interrupts.
            if *resource == "irq" {
                continue;
            }
            // It divides microseconds twice, which shows in the last digit.
            #[expect(clippy::cast_precision_loss, reason = "centuries are below 2^52")]
            let seconds = |time: Option<Duration>| Some(time?.as_micros() as f64 / 1000.0 / 1000.0);
            page.single_counter(
                &format!("node_pressure_{resource}_waiting_seconds"),
                "Time in which at least one task waited for the resource, \"some\" of \
                 /proc/pressure",
                seconds(pressure.some),
            )?;
            page.single_counter(
                &format!("node_pressure_{resource}_stalled_seconds"),
                "Time in which all tasks that had something to do waited for the resource, \
                 \"full\" of /proc/pressure",
                seconds(pressure.full),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, node_exporter_samples, samples};

    const MEMORY: &str = "some avg10=21.99 avg60=15.65 avg300=23.89 total=8725358577\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n";

    #[test]
    fn totals_are_microseconds() {
        let pressure = parse(MEMORY).expect("valid");
        assert_eq!(pressure.some, Some(Duration::from_micros(8_725_358_577)));
        assert_eq!(pressure.full, Some(Duration::from_millis(250)));
        let irq = parse("full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n").expect("valid");
        assert_eq!((irq.some, irq.full), (None, Some(Duration::from_micros(7))));
    }

    #[test]
    fn says_where_it_breaks() {
        for text in [
            "some avg10=0.00 total=1\nfull avg10=0.00\n",
            "some avg10=0.00 total=1\nfull total=-1\n",
            "some total=1\nfull total=99999999999999999999\n",
            "some total=1\nfull",
        ] {
            let error = ParseError::new(2, "total= and microseconds");
            assert_eq!(parse(text), Err(error), "{text}");
        }
        let nothing = Err(ParseError::new(0, "a line some or full"));
        assert_eq!(parse(""), nothing);
        for line in ["half total=1", "\0\0some total=1", ""] {
            let text = format!("full total=1\n{line}\n");
            assert_eq!(
                parse(&text),
                Err(ParseError::new(2, "some or full")),
                "{text}"
            );
        }
    }

    #[test]
    fn the_cpu_is_never_said_to_stall() {
        let resources = ["cpu", "memory"].map(|name| {
            let pressure = parse(MEMORY).expect("valid");
            (name, defined(name, pressure))
        });
        let facts = PressureFacts {
            resources: resources.to_vec(),
        };
        assert_eq!(
            samples(facts),
            [
                r#"esnode_pressure_waiting_seconds_total{resource="cpu"} 8725.358577"#,
                r#"esnode_pressure_waiting_seconds_total{resource="memory"} 8725.358577"#,
                r#"esnode_pressure_stalled_seconds_total{resource="memory"} 0.25"#,
            ]
        );
    }

    #[test]
    fn node_exporter_knows_three_resources() {
        let irq = "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let cpu = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2621519\nfull total=0\n";
        let host = Host::new(&[
            ("proc/pressure/cpu", cpu),
            ("proc/pressure/memory", MEMORY),
            ("proc/pressure/irq", irq),
        ]);
        let facts = PressureCollector::new(&host.procfs()).sample();
        assert_eq!(
            node_exporter_samples(facts.expect("readable")),
            [
                "node_pressure_cpu_waiting_seconds_total 2.6215189999999999",
                "node_pressure_memory_waiting_seconds_total 8725.358576999999",
                "node_pressure_memory_stalled_seconds_total 0.25",
            ]
        );
    }

    #[test]
    fn a_kernel_without_is_no_failure() {
        let outcome = PressureCollector::new(Path::new("/nonexistent")).sample();
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
    }
}
