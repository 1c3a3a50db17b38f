//! Running average power limit (RAPL): energy counters of Intel's and AMD's processors, from
//! `/sys/class/powercap/` (Documentation/power/powercap/powercap.rst).

use crate::{
    collectors::sysfs::{self, entries, number},
    error::{ReadError, read_file},
};
use std::path::{Path, PathBuf};

/// What a zone measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    /// A processor package, with all that is in it.
    Package,
    /// The memory of a package.
    Dram,
    /// The platform, as far as its maker wired it to the processor.
    Platform,
    /// A part of a package.
    Part,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) domain: Domain,
    /// `0`, `1`, or `0-die-1`: of this package it is (part of), empty where it is of none.
    pub(super) package: String,
    /// Name as the kernel has it, such as `package-0` or `dram`.
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// Where the counter begins anew, in microjoules.
    pub(super) range: Option<u64>,
}

/// What is there of RAPL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rapl {
    pub(super) zones: Vec<Zone>,
    /// Whether zones are listed that nothing can be read of.
    pub(super) hidden: bool,
}

impl Rapl {
    /// Looks for zones below `sysfs`.
    ///
    /// # Errors
    /// If the folder can't be listed.
    pub(super) fn find(sysfs: &Path) -> Result<Self, ReadError> {
        let class = sysfs.join("class/powercap");
        let mut rapl = Self::default();
        // Zones of a package, `intel-rapl:0:1`, come after it, `intel-rapl:0`.
        for entry in entries(&class)?.unwrap_or_default() {
            let Some(place) = entry.strip_prefix("intel-rapl") else {
                continue;
            };
            // The same counters once more, by memory-mapped registers.
            let mapped = place.starts_with("-mmio");
            if mapped || !place.contains(':') {
                continue;
            }
            match zone(&class.join(&entry), &rapl.zones) {
                // No two are the same; a page must not have them twice if they are.
                Some(zone) if rapl.zones.iter().any(|known| known.is(&zone)) => {}
                Some(zone) => rapl.zones.push(zone),
                None => rapl.hidden = true,
            }
        }
        Ok(rapl)
    }
}

/// The zone in a folder, if it has one; `before` are those that were found before.
fn zone(folder: &Path, before: &[Zone]) -> Option<Zone> {
    let name = sysfs::text(&folder.join("name")).ok()?;
    let parent = folder.to_str().and_then(|path| path.rsplit_once(':'));
    let parent = parent.and_then(|(parent, _)| {
        let parent = Path::new(parent);
        before.iter().find(|zone| zone.folder == parent)
    });
    let (domain, package) = match (name.split_once('-'), name.as_str()) {
        (Some(("package", package)), _) => (Domain::Package, package.to_owned()),
        // The package that has it can be another one than the first: `psys-1`.
        (Some(("psys", _)), _) | (_, "psys") => (Domain::Platform, String::new()),
        (_, of_package) => {
            let package = parent.map(|zone| zone.package.clone());
            let domain = match of_package {
                "dram" => Domain::Dram,
                _ => Domain::Part,
            };
            (domain, package.unwrap_or_default())
        }
    };
    Some(Zone {
        domain,
        package,
        name,
        // A kernel without it does not say where the counter begins anew.
        range: number(&folder.join("max_energy_range_uj")).ok().flatten(),
        folder: folder.to_owned(),
    })
}

impl Zone {
    /// Whether both have the same name on the page.
    pub(super) fn is(&self, other: &Self) -> bool {
        let key = |zone: &Self| (zone.domain, zone.package.clone(), zone.name.clone());
        key(self) == key(other)
    }

    /// What the counter says, in microjoules.
    ///
    /// # Errors
    /// If it can't be read (since 2020, root alone may) or is no number.
    pub(super) fn read(&self) -> Result<u64, ReadError> {
        let path = self.folder.join("energy_uj");
        let text = read_file(&path)?;
        let number = text.trim_end().parse();
        number.map_err(|_| crate::error::ParseError::new(1, "microjoules").at(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    #[test]
    fn zones_of_a_server_with_two_packages() {
        let host = Host::new(&[
            ("sys/class/powercap/intel-rapl/enabled", "1\n"),
            ("sys/class/powercap/intel-rapl:0/name", "package-0\n"),
            ("sys/class/powercap/intel-rapl:0/energy_uj", "12\n"),
            (
                "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
                "262143328850\n",
            ),
            ("sys/class/powercap/intel-rapl:0:0/name", "dram\n"),
            ("sys/class/powercap/intel-rapl:1/name", "package-1-die-3\n"),
            ("sys/class/powercap/intel-rapl:1/energy_uj", "much\n"),
            ("sys/class/powercap/intel-rapl:1:0/name", "core\n"),
            ("sys/class/powercap/intel-rapl:1:1/name", "dram\n"),
            ("sys/class/powercap/intel-rapl:2/name", "psys\n"),
            ("sys/class/powercap/intel-rapl-mmio:0/name", "package-0\n"),
            ("sys/class/powercap/dtpm:0/name", "soc\n"),
        ]);
        let rapl = Rapl::find(&host.sysfs()).expect("listed");
        assert!(!rapl.hidden);
        let seen: Vec<_> = rapl
            .zones
            .iter()
            .map(|zone| (zone.domain, zone.package.as_str(), zone.name.as_str()))
            .collect();
        let expected = [
            (Domain::Package, "0", "package-0"),
            (Domain::Dram, "0", "dram"),
            (Domain::Package, "1-die-3", "package-1-die-3"),
            (Domain::Part, "1-die-3", "core"),
            (Domain::Dram, "1-die-3", "dram"),
            (Domain::Platform, "", "psys"),
        ];
        assert_eq!(seen, expected);
        assert_eq!(rapl.zones[0].range, Some(262_143_328_850));
        assert_eq!(rapl.zones[0].read().expect("a number"), 12);
        let error = rapl.zones[2].read().expect_err("no number").to_string();
        assert!(
            error.ends_with("energy_uj, line 1: expected microjoules"),
            "{error}"
        );
    }

    #[test]
    fn the_platform_may_hang_on_any_package() {
        let host = Host::new(&[
            ("sys/class/powercap/intel-rapl:1/name", "package-1\n"),
            ("sys/class/powercap/intel-rapl:1:1/name", "psys-1\n"),
        ]);
        let rapl = Rapl::find(&host.sysfs()).expect("listed");
        assert_eq!(rapl.zones[1].domain, Domain::Platform);
    }

    #[test]
    fn a_package_counts_once() {
        let host = Host::new(&[
            ("sys/class/powercap/intel-rapl:0/name", "package-0\n"),
            ("sys/class/powercap/intel-rapl:1/name", "package-0\n"),
        ]);
        let rapl = Rapl::find(&host.sysfs()).expect("listed");
        assert_eq!(rapl.zones.len(), 1);
    }

    #[test]
    fn what_a_container_may_not_see_is_hidden() {
        let host = Host::new(&[]);
        assert_eq!(Rapl::find(&host.sysfs()).expect("absent"), Rapl::default());
        // Container engines cover the folder that the links lead to.
        host.link(
            "sys/class/powercap/intel-rapl:0",
            "../../devices/virtual/powercap/intel-rapl/intel-rapl:0",
        );
        let rapl = Rapl::find(&host.sysfs()).expect("listed");
        assert!(rapl.zones.is_empty() && rapl.hidden);
    }
}
