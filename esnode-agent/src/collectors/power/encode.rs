//! Families of power and energy.

use super::{Domain, PowerFacts, Taken, ZoneFacts};
use crate::{
    api::Snapshot,
    page::{Encode, Page, joules},
};
use std::{collections::HashMap, fmt};

/// Names, without what they count, and what they are of.
const DOMAINS: [(Domain, &str, &str); 2] = [
    (
        Domain::Package,
        "esnode_cpu_package",
        "the processor package, all that is in it included",
    ),
    (
        Domain::Dram,
        "esnode_dram",
        "the memory at the processor package",
    ),
];

impl Encode for PowerFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        for (domain, name, what) in DOMAINS {
            page.gauge(
                &format!("{name}_power_watts"),
                &format!(
                    "Power of {what}, over the last interval of the agent (--node-interval), from \
                     energy_uj of /sys/class/powercap"
                ),
                self.of(domain, |taken| taken.watts),
            )?;
            let joules = |taken: &Taken| taken.microjoules.map(joules);
            page.counter(
                &format!("{name}_energy_joules"),
                &format!(
                    "Energy of {what} since the agent started, from energy_uj of \
                     /sys/class/powercap"
                ),
                self.of(domain, joules),
            )?;
        }
        page.gauge(
            "esnode_node_power_watts",
            "Power of the machine: of a meter of its supply (in /sys/class/hwmon), or else of what \
             its maker wired to the processor (psys), or else the sum of the parts that the source \
             names: cpu and dram by RAPL, gpu by NVML",
            self.watts
                .iter()
                .map(|power| ([("source", power.source.as_str())], power.value)),
        )?;
        page.counter(
            "esnode_node_energy_joules",
            "Energy of the machine since the agent started, from the best of the same sources that \
             has a counter of energy",
            self.microjoules
                .iter()
                .map(|energy| ([("source", energy.source.as_str())], joules(energy.value))),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        for (name, zones) in self.by_name() {
            page.counter(
                &format!("node_rapl_{name}_joules"),
                "Energy counter of the zone, in joules, which begins anew when the hardware's does",
                zones.iter().filter_map(|(index, it)| {
                    let path = it.zone.folder.to_string_lossy().into_owned();
                    let labels = [("index", index.to_string()), ("path", path)];
                    Some((labels, joules(it.raw_microjoules?)))
                }),
            )?;
        }
        Ok(())
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.node.power_watts = self.watts.as_ref().map(|power| power.value);
    }
}

impl PowerFacts {
    fn of<T>(
        &self,
        domain: Domain,
        value: impl Fn(&Taken) -> Option<T>,
    ) -> impl Iterator<Item = ([(&str, &str); 1], T)> {
        let zones = self.zones.iter();
        zones.filter_map(move |it| {
            let value = value(&it.taken).filter(|_| it.zone.domain == domain)?;
            Some(([("package", it.zone.package.as_str())], value))
        })
    }

    /// Zones as node_exporter names and numbers them: `package-1` is number 1 of `package`, and the
    /// second that is called `dram` number 1 of `dram`.
    fn by_name(&self) -> Vec<(String, Vec<(u64, &ZoneFacts)>)> {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        let mut families: Vec<(String, Vec<_>)> = Vec::new();
        for it in &self.zones {
            let numbered = it.zone.name.split_once('-');
            let numbered = numbered.and_then(|(name, number)| Some((name, number.parse().ok()?)));
            let (name, index) = numbered.unwrap_or_else(|| {
                let count = counts.entry(&it.zone.name).or_default();
                *count += 1;
                (&it.zone.name, *count - 1)
            });
            let name = name.replace(|char: char| !char.is_ascii_alphanumeric(), "_");
            match families.iter_mut().find(|(family, _)| *family == name) {
                Some((_, zones)) => zones.push((index, it)),
                None => families.push((name, vec![(index, it)])),
            }
        }
        families
    }
}
