//! What nvidia-smi prints.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

/// What nvidia-smi says of one thing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// A number; of two states (`Active`, `Yes`, `Enabled`) 1 or 0.
    Number(f64),
    /// Something else.
    Text(String),
    /// The device does not have it.
    Missing,
    /// It could not be found out just now.
    Unclear,
}

impl Told {
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare {
            "N/A" | "Not Supported" | "-" => return Self::Missing,
            "Active" | "Yes" | "Enabled" => return Self::Number(1.0),
            "Not Active" | "No" | "Disabled" => return Self::Number(0.0),
            // `[Unknown Error]`, `[GPU is lost]`, `[Insufficient Permissions]`, …
            _ if bare != text => return Self::Unclear,
            _ => {}
        }
        // With units, in case it is a version that minds no `nounits`.
        let number = text.split_ascii_whitespace().next().unwrap_or_default();
        let unit = text.strip_prefix(number).unwrap_or_default().trim();
        let state = number.strip_prefix('P').unwrap_or(number);
        match state.parse() {
            Ok(number) if ["", "%", "MiB", "W", "MHz", "us", "C"].contains(&unit) => {
                Self::Number(number)
            }
            _ => Self::Text(text.to_owned()),
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// The answers for a GPU, by field.
#[derive(Clone, Debug, Default)]
pub(super) struct Gpu {
    pub(super) index: String,
    pub(super) uuid: String,
    fields: BTreeMap<&'static str, String>,
}

impl Gpu {
    /// `None` if that was not asked.
    pub(super) fn told(&self, field: &str) -> Option<Told> {
        self.text(field).map(Told::parse)
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }
}

/// A process that computes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProcessRow {
    pub(super) uuid: String,
    pub(super) pid: u32,
    /// MiB.
    pub(super) memory: Told,
}

/// A process as `pmon` shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PmonRow {
    pub(super) gpu: String,
    pub(super) pid: u32,
    /// Percent, by the names of columns.
    columns: BTreeMap<String, Told>,
}

impl PmonRow {
    /// `None` if there is no such column.
    pub(super) fn told(&self, column: &str) -> Option<&Told> {
        self.columns.get(column)
    }
}

/// The field of `Field "…" is not a valid field to query.`
pub(super) fn refused_field(text: &str) -> Option<&str> {
    let line = text
        .lines()
        .find(|line| line.contains("not a valid field"))?;
    line.split('"').nth(1)
}

/// What a program that failed says first.
pub(super) fn first_line(text: &str) -> &str {
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| !line.is_empty())
        .unwrap_or("it says nothing")
}

/// Lines of CSV, one for each GPU.
pub(super) fn gpus(names: &[&'static str], text: &str) -> Result<Vec<Gpu>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let lines = lines.filter(|line| !line.starts_with("No devices"));
    let gpus = lines.map(|line| {
        let values: Vec<&str> = line.split(',').map(str::trim).collect();
        ensure!(
            values.len() == names.len(),
            "nvidia-smi was asked for {} fields and answers: {line}",
            names.len()
        );
        let fields: BTreeMap<_, _> = names
            .iter()
            .zip(values)
            .map(|(name, value)| (*name, value.to_owned()))
            .collect();
        let of = |name| {
            fields
                .get(name)
                .cloned()
                .with_context(|| format!("no {name}"))
        };
        Ok(Gpu {
            index: of("index")?,
            uuid: of("uuid")?,
            fields,
        })
    });
    gpus.collect()
}

/// Lines of CSV: UUID, process id, memory. Other lines say that there are none.
pub(super) fn processes(text: &str) -> Vec<ProcessRow> {
    let row = |line: &str| {
        let mut values = line.split(',').map(str::trim);
        Some(ProcessRow {
            uuid: values.next()?.to_owned(),
            pid: values.next()?.parse().ok()?,
            memory: Told::parse(values.next()?),
        })
    };
    text.lines().filter_map(row).collect()
}

/// A table whose first line, after `#`, names the columns. A process that is on several MIG
/// instances has several rows; GPUs without one have a row of dashes.
pub(super) fn pmon(text: &str) -> Vec<PmonRow> {
    let header = text.lines().find_map(|line| line.trim().strip_prefix('#'));
    let names: Vec<&str> = header.unwrap_or_default().split_whitespace().collect();
    let row = |line: &str| {
        // The last column, the command, may have blanks in it, and is not needed.
        let values = line.split_whitespace();
        let mut columns: BTreeMap<_, _> = names.iter().copied().zip(values).collect();
        let gpu = columns.remove("gpu")?.to_owned();
        gpu.parse::<u32>().ok()?;
        let pid = columns.remove("pid")?.parse().ok()?;
        let columns = columns.into_iter();
        Some(PmonRow {
            gpu,
            pid,
            columns: columns
                .map(|(name, value)| (name.to_owned(), Told::parse(value)))
                .collect(),
        })
    };
    text.lines()
        .filter(|line| !line.trim().starts_with('#'))
        .filter_map(row)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_states_and_what_is_not_there() {
        for (text, number) in [
            ("81559", 81559.0),
            (" 122.04", 122.04),
            ("122.04 W", 122.04),
            ("97 %", 97.0),
            ("1980 MHz", 1980.0),
            ("P0", 0.0),
            ("P8", 8.0),
            ("Active", 1.0),
            ("Not Active", 0.0),
            ("Yes", 1.0),
            ("No", 0.0),
        ] {
            assert_eq!(Told::parse(text), Told::Number(number), "{text}");
        }
        for text in ["[N/A]", "N/A", "[Not Supported]", "-"] {
            assert_eq!(Told::parse(text), Told::Missing, "{text}");
        }
        for text in [
            "[Unknown Error]",
            "[GPU is lost]",
            "[Insufficient Permissions]",
        ] {
            assert_eq!(Told::parse(text), Told::Unclear, "{text}");
        }
        for text in [
            "NVIDIA H100 80GB HBM3",
            "570.86.10",
            "96.00.74.00.01",
            "80 GiB",
        ] {
            assert_eq!(Told::parse(text), Told::Text(text.to_owned()));
        }
    }

    #[test]
    fn a_line_for_each_gpu() {
        let names = ["index", "uuid", "name", "memory.total", "fan.speed"];
        let text = "0, GPU-8e137fa6-c3d9-6980-7733-0d8df296756e, NVIDIA H100 80GB HBM3, 81559, [N/A]\n\
                    1, GPU-d9337494-6060-1440-039f-4654245b5764, Tesla T4, 15360, 33\n\n";
        let gpus = gpus(&names, text).unwrap();
        assert_eq!(gpus.len(), 2);
        assert_eq!(gpus[0].uuid, "GPU-8e137fa6-c3d9-6980-7733-0d8df296756e");
        assert_eq!(gpus[0].told("memory.total"), Some(Told::Number(81559.0)));
        assert_eq!(gpus[0].told("fan.speed"), Some(Told::Missing));
        assert_eq!(gpus[1].index, "1");
        assert_eq!(gpus[1].text("name"), Some("Tesla T4"));
        assert_eq!(gpus[1].told("pstate"), None);
    }

    #[test]
    fn lines_that_are_no_gpu() {
        let names = ["index", "uuid"];
        assert!(gpus(&names, "No devices were found\n").unwrap().is_empty());
        gpus(&names, "0, GPU-1, more\n").unwrap_err();
    }

    #[test]
    fn a_field_that_is_not_known() {
        let text = "Field \"power.draw.instant\" is not a valid field to query.\n\n";
        assert_eq!(refused_field(text), Some("power.draw.instant"));
        assert_eq!(refused_field("0, GPU-1\n"), None);
        let failed = "\nNVIDIA-SMI has failed because it couldn't communicate with the driver.\n";
        assert!(first_line(failed).starts_with("NVIDIA-SMI has failed"));
    }

    #[test]
    fn processes_with_and_without_memory() {
        let text = "GPU-a44622e3, 1328667, 130004\nGPU-a44622e3, 1328668, [N/A]\n\
                    GPU-28780eb0, 1758887, 58060 MiB\n";
        let expected = [
            ("GPU-a44622e3", 1_328_667, Told::Number(130_004.0)),
            ("GPU-a44622e3", 1_328_668, Told::Missing),
            ("GPU-28780eb0", 1_758_887, Told::Number(58_060.0)),
        ];
        let expected = expected.map(|(uuid, pid, memory)| ProcessRow {
            uuid: uuid.to_owned(),
            pid,
            memory,
        });
        assert_eq!(processes(text), expected);
        assert!(processes("No running processes found\n").is_empty());
    }

    #[test]
    fn pmon_of_several_gpus() {
        let text = "\
# gpu         pid   type     sm    mem    enc    dec    jpg    ofa     fb   ccpm    command
# Idx           #    C/G      %      %      %      %      %      %     MB     MB    name
    0       7175     C     84     26      -      -      -      -    638      0    ray::TorchGPUWo
    0       2355   C+G      -      -      -      -      -      -      4      0    gnome remote de
    1          -     -      -      -      -      -      -      -      -      -    -
";
        let rows = pmon(text);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].gpu.as_str(), rows[0].pid), ("0", 7175));
        assert_eq!(rows[0].told("sm"), Some(&Told::Number(84.0)));
        assert_eq!(rows[0].told("fb"), Some(&Told::Number(638.0)));
        assert_eq!(rows[0].told("enc"), Some(&Told::Missing));
        assert_eq!(rows[1].told("sm"), Some(&Told::Missing));
        assert_eq!(rows[1].told("gi"), None);
    }

    #[test]
    fn pmon_of_an_older_driver_and_under_mig() {
        let older = "\
# gpu        pid  type    sm   mem   enc   dec   command
# Idx          #   C/G     %     %     %     %   name
    2      88420     C    31    11     0     0   python
";
        assert_eq!(pmon(older)[0].told("dec"), Some(&Told::Number(0.0)));
        let mig = "\
# gpu   gi   ci         pid   type     sm    mem     fb    command
# Idx   ID   ID           #    C/G      %      %     MB    name
    0    1    0        7175      C      -      -    638    python
    0    2    0        7175      C      -      -    128    python
";
        let rows = pmon(mig);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].told("gi"), Some(&Told::Number(2.0)));
        assert_eq!(rows[1].told("sm"), Some(&Told::Missing));
    }
}
