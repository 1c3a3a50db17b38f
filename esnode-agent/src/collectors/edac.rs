//! Errors of memory that ECC corrected, or could not, from `/sys/devices/system/edac/mc`
//! (Documentation/ABI/testing/sysfs-devices-edac; the older `csrowN` in
//! Documentation/admin-guide/RAS/main.rst).

use super::{
    CollectError,
    sysfs::{entries, number, text},
};
use crate::{
    error::ReadError,
    page::{Encode, Names, Page},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// What a controller has, and labels, are looked up again after this time.
const LOOKED_UP: Duration = Duration::from_mins(1);

/// Errors since the driver was loaded, or somebody wrote to `reset_counters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    corrected: Option<u64>,
    uncorrected: Option<u64>,
}

impl Counts {
    fn read(folder: &Path, corrected: &str, uncorrected: &str) -> Result<Self, ReadError> {
        Ok(Self {
            corrected: number(&folder.join(corrected))?,
            uncorrected: number(&folder.join(uncorrected))?,
        })
    }

    /// Of a controller or a row.
    fn of(folder: &Path) -> Result<Self, ReadError> {
        Self::read(folder, "ce_count", "ue_count")
    }

    fn by_kind(self) -> impl Iterator<Item = (&'static str, u64)> {
        let corrected = self.corrected.map(|count| ("corrected", count));
        let uncorrected = self.uncorrected.map(|count| ("uncorrected", count));
        corrected.into_iter().chain(uncorrected)
    }
}

/// A module, or a rank where the controller does not tell modules apart.
#[derive(Debug, PartialEq, Eq)]
struct Dimm {
    /// Such as `dimm0` or `rank3`.
    name: String,
    /// Where it sits on the board, as the driver or a tool like `ras-mc-ctl` says; empty is unknown.
    label: String,
    counts: Counts,
}

/// What is below a controller.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    /// The driver's name of the controller.
    name: Option<String>,
    dimms: Vec<Dimm>,
    /// Rows by their numbers, and errors of which no row is known: for node_exporter's families.
    rows: Vec<(String, Counts)>,
    elsewhere: Counts,
}

/// One memory controller.
#[derive(Clone, Debug)]
struct Controller {
    number: String,
    counts: Counts,
    parts: Arc<Parts>,
    looked_up: Instant,
}

/// All memory controllers.
#[derive(Clone, Debug)]
pub struct EdacFacts {
    controllers: Vec<Controller>,
}

/// Reads the sums of controllers in each pass, and their parts when a sum has changed: no part counts
/// what its controller does not, and errors are rare.
pub struct EdacCollector {
    folder: PathBuf,
    names: Names,
    controllers: Vec<Controller>,
}

impl EdacCollector {
    /// Reads below `sysfs` what `names` need.
    #[must_use]
    pub fn new(sysfs: &Path, names: Names) -> Self {
        Self {
            folder: sysfs.join("devices/system/edac/mc"),
            names,
            controllers: Vec::new(),
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be parsed; [`CollectError::Off`] if there is no memory controller.
    pub fn sample(&mut self) -> Result<EdacFacts, CollectError> {
        let names = entries(&self.folder)?.unwrap_or_default();
        let before = std::mem::take(&mut self.controllers);
        for name in &names {
            if let Some(number) = numbered(name, "mc") {
                let before = before.iter().find(|it| it.number == number);
                let controller = self.controller(&self.folder.join(name), number, before)?;
                self.controllers.push(controller);
            }
        }
        if self.controllers.is_empty() {
            let reason =
                "no driver tells of memory errors (nothing in /sys/devices/system/edac/mc)";
            return Err(CollectError::Off(reason.to_owned()));
        }
        Ok(EdacFacts {
            controllers: self.controllers.clone(),
        })
    }

    fn controller(
        &self,
        folder: &Path,
        number: &str,
        before: Option<&Controller>,
    ) -> Result<Controller, ReadError> {
        let counts = Counts::of(folder)?;
        let before = before
            .filter(|before| before.counts == counts && before.looked_up.elapsed() < LOOKED_UP);
        if let Some(before) = before {
            return Ok(before.clone());
        }
        Ok(Controller {
            number: number.to_owned(),
            counts,
            parts: Arc::new(parts(folder, self.names)?),
            looked_up: Instant::now(),
        })
    }
}

/// The number after a prefix, and nothing else.
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let number = name.strip_prefix(prefix)?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(number)
}

fn parts(folder: &Path, names: Names) -> Result<Parts, ReadError> {
    let mut parts = Parts {
        name: text(&folder.join("mc_name")).ok(),
        ..Parts::default()
    };
    let rows = names == Names::AndNodeExporter;
    if rows {
        parts.elsewhere = Counts::read(folder, "ce_noinfo_count", "ue_noinfo_count")?;
    }
    for name in entries(folder)?.unwrap_or_default() {
        let folder = folder.join(&name);
        if numbered(&name, "dimm")
            .or(numbered(&name, "rank"))
            .is_some()
        {
            parts.dimms.push(Dimm {
                counts: Counts::read(&folder, "dimm_ce_count", "dimm_ue_count")?,
                label: text(&folder.join("dimm_label")).unwrap_or_default(),
                name,
            });
        } else if let Some(number) = numbered(&name, "csrow").filter(|_| rows) {
            parts.rows.push((number.to_owned(), Counts::of(&folder)?));
        }
    }
    Ok(parts)
}

impl EdacFacts {
    fn dimms(&self) -> impl Iterator<Item = (&Controller, &Dimm)> {
        let controllers = self.controllers.iter();
        controllers.flat_map(|it| it.parts.dimms.iter().map(move |dimm| (it, dimm)))
    }

    /// Rows by number, and `unknown`.
    fn rows(&self) -> impl Iterator<Item = ([(&'static str, &str); 2], Counts)> {
        self.controllers.iter().flat_map(|controller| {
            let rows = controller.parts.rows.iter();
            let rows = rows.map(|(number, counts)| (number.as_str(), *counts));
            let rows = rows.chain([("unknown", controller.parts.elsewhere)]);
            let number = controller.number.as_str();
            rows.map(move |(row, counts)| ([("controller", number), ("csrow", row)], counts))
        })
    }
}

impl Encode for EdacFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let controllers = || self.controllers.iter();
        page.gauge(
            "esnode_memory_controller_info",
            "The memory controller by its driver, mcN/mc_name of /sys/devices/system/edac/mc",
            controllers().filter_map(|it| {
                let name = it.parts.name.as_deref()?;
                Some(([("controller", it.number.as_str()), ("name", name)], 1_u32))
            }),
        )?;
        page.counter(
            "esnode_memory_ecc_errors",
            "Errors of memory that were corrected or could not be, ce_count and ue_count of \
             /sys/devices/system/edac/mc, since the driver was loaded or the counters were reset",
            controllers().flat_map(|it| {
                let label = |kind| [("controller", it.number.as_str()), ("kind", kind)];
                it.counts
                    .by_kind()
                    .map(move |(kind, count)| (label(kind), count))
            }),
        )?;
        page.counter(
            "esnode_memory_dimm_ecc_errors",
            "Those of them whose module, or rank, is known, dimm_ce_count and dimm_ue_count of \
             /sys/devices/system/edac/mc",
            self.dimms().flat_map(|(controller, dimm)| {
                dimm.counts.by_kind().map(move |(kind, count)| {
                    let labels = [
                        ("controller", controller.number.as_str()),
                        ("dimm", &dimm.name),
                        ("label", &dimm.label),
                        ("kind", kind),
                    ];
                    (labels, count)
                })
            }),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        type Kind = fn(Counts) -> Option<u64>;
        let kinds: [(&str, Kind); 2] = [
            ("correctable", |counts| counts.corrected),
            ("uncorrectable", |counts| counts.uncorrected),
        ];
        for (name, of) in kinds {
            page.counter(
                &format!("node_edac_{name}_errors"),
                "Errors of memory by controller, ce_count and ue_count of \
                 /sys/devices/system/edac/mc",
                self.controllers
                    .iter()
                    .filter_map(|it| Some(([("controller", it.number.as_str())], of(it.counts)?))),
            )?;
        }
        for (name, of) in kinds {
            page.counter(
                &format!("node_edac_csrow_{name}_errors"),
                "Errors of memory by row, csrowN/ce_count and csrowN/ue_count of \
                 /sys/devices/system/edac/mc; those of no known row from ce_noinfo_count and \
                 ue_noinfo_count",
                self.rows()
                    .filter_map(|(labels, counts)| Some((labels, of(counts)?))),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, node_exporter_samples, samples};

    fn write(host: &Host, file: &str, text: &str) {
        let file = format!("sys/devices/system/edac/mc/{file}");
        host.write(&file, format!("{text}\n"));
    }

    /// Two controllers of a server, of which one tells modules apart.
    fn host() -> Host {
        let host = Host::new(&[]);
        for (file, text) in [
            ("power/control", "auto"),
            ("mc0/mc_name", "Skylake Socket#0 IMC#0"),
            ("mc0/ce_count", "7"),
            ("mc0/ue_count", "1"),
            ("mc0/ce_noinfo_count", "2"),
            ("mc0/ue_noinfo_count", "0"),
            ("mc0/csrow0/ce_count", "5"),
            ("mc0/csrow0/ue_count", "1"),
            ("mc0/dimm0/dimm_ce_count", "5"),
            ("mc0/dimm0/dimm_ue_count", "1"),
            ("mc0/dimm0/dimm_label", "CPU_SrcID#0_MC#0_Chan#0_DIMM#0"),
            ("mc0/dimm2/dimm_ce_count", "0"),
            ("mc10/ce_count", "0"),
            ("mc10/rank4/dimm_ce_count", "3"),
        ] {
            write(&host, file, text);
        }
        host
    }

    #[test]
    fn controllers_and_modules() {
        let facts = EdacCollector::new(&host().sysfs(), Names::Own).sample();
        let dimm = r#"controller="0",dimm="dimm0",label="CPU_SrcID#0_MC#0_Chan#0_DIMM#0""#;
        let expected = [
            r#"esnode_memory_controller_info{controller="0",name="Skylake Socket#0 IMC#0"} 1"#,
            r#"esnode_memory_ecc_errors_total{controller="0",kind="corrected"} 7"#,
            r#"esnode_memory_ecc_errors_total{controller="0",kind="uncorrected"} 1"#,
            r#"esnode_memory_ecc_errors_total{controller="10",kind="corrected"} 0"#,
            &format!(r#"esnode_memory_dimm_ecc_errors_total{{{dimm},kind="corrected"}} 5"#),
            &format!(r#"esnode_memory_dimm_ecc_errors_total{{{dimm},kind="uncorrected"}} 1"#),
            r#"esnode_memory_dimm_ecc_errors_total{controller="0",dimm="dimm2",label="",kind="corrected"} 0"#,
            r#"esnode_memory_dimm_ecc_errors_total{controller="10",dimm="rank4",label="",kind="corrected"} 3"#,
        ];
        assert_eq!(samples(facts.expect("read")), expected);
    }

    #[test]
    fn by_the_names_of_node_exporter() {
        let facts = EdacCollector::new(&host().sysfs(), Names::AndNodeExporter).sample();
        assert_eq!(
            node_exporter_samples(facts.expect("read")),
            [
                r#"node_edac_correctable_errors_total{controller="0"} 7"#,
                r#"node_edac_correctable_errors_total{controller="10"} 0"#,
                r#"node_edac_uncorrectable_errors_total{controller="0"} 1"#,
                r#"node_edac_csrow_correctable_errors_total{controller="0",csrow="0"} 5"#,
                r#"node_edac_csrow_correctable_errors_total{controller="0",csrow="unknown"} 2"#,
                r#"node_edac_csrow_uncorrectable_errors_total{controller="0",csrow="0"} 1"#,
                r#"node_edac_csrow_uncorrectable_errors_total{controller="0",csrow="unknown"} 0"#,
            ]
        );
    }

    #[test]
    fn parts_are_read_when_their_sum_changes() {
        let host = host();
        let mut collector = EdacCollector::new(&host.sysfs(), Names::Own);
        let mut count = || {
            let page = samples(collector.sample().expect("read"));
            let line = page.iter().find(|line| line.contains("dimm2"));
            line.and_then(|line| line.split(' ').next_back().map(str::to_owned))
        };
        assert_eq!(count().as_deref(), Some("0"));
        write(&host, "mc0/dimm2/dimm_ce_count", "4");
        assert_eq!(count().as_deref(), Some("0"));
        write(&host, "mc0/ce_count", "11");
        assert_eq!(count().as_deref(), Some("4"));
    }

    #[test]
    fn says_which_file_is_malformed() {
        for (file, text) in [
            ("mc0/ce_count", "-1"),
            ("mc10/ce_count", ""),
            ("mc0/dimm0/dimm_ue_count", "18446744073709551616"),
            ("mc0/csrow0/ce_count", "1 2"),
            ("mc0/ce_noinfo_count", "many"),
        ] {
            let host = host();
            write(&host, file, text);
            let outcome = EdacCollector::new(&host.sysfs(), Names::AndNodeExporter).sample();
            let error = outcome.expect_err("malformed").to_string();
            let expected = format!("/edac/mc/{file}, line 1: expected a whole number");
            assert!(error.ends_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_host_without_is_no_failure() {
        let host = Host::new(&[("sys/devices/system/edac/mc/power/control", "auto\n")]);
        for sysfs in [host.sysfs(), PathBuf::from("/nonexistent")] {
            let outcome = EdacCollector::new(&sysfs, Names::Own).sample();
            assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
        }
    }
}
