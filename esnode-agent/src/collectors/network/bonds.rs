//! Bonds, and which of their links are up, from `/sys/class/net/`
//! (Documentation/networking/bonding.rst).

use super::interfaces::{Interface, values};
use crate::{
    collectors::sysfs::{attribute, text},
    error::{ParseError, ReadError},
    page::Page,
};
use std::{fmt, path::PathBuf};

/// States of a link, as the bond watches it; the last two last as long as it was told to wait.
const STATES: [&str; 4] = ["up", "down", "going down", "going back"];

/// The links of a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bond {
    slaves: u64,
    /// Those that are up. Unknown if it is of one of them, as before Linux 3.13.
    active: Option<u64>,
}

/// Reads what bonds there are when the interfaces change: a bond is one of them.
pub(super) struct Bonds {
    folder: PathBuf,
    /// The interfaces of the last pass.
    seen: Vec<String>,
    masters: Vec<String>,
}

impl Bonds {
    /// Of this folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            seen: Vec::new(),
            masters: Vec::new(),
        }
    }

    /// Reads the links of those of these interfaces that are bonds.
    pub(super) fn look_up(&mut self, interfaces: &mut [Interface]) -> Result<(), ReadError> {
        let names = || interfaces.iter().map(|interface| &interface.name);
        if !names().eq(self.seen.iter()) {
            // Without the module, it is not there.
            let masters = text(&self.folder.join("bonding_masters")).unwrap_or_default();
            let masters = masters.split_ascii_whitespace().map(str::to_owned);
            self.masters = masters.collect();
            self.seen = names().cloned().collect();
        }
        for interface in interfaces {
            if self.masters.contains(&interface.name) {
                interface.bond = self.bond(&interface.name)?;
            }
        }
        Ok(())
    }

    fn bond(&self, name: &str) -> Result<Option<Bond>, ReadError> {
        let Ok(slaves) = text(&self.folder.join(name).join("bonding/slaves")) else {
            return Ok(None);
        };
        let mut bond = Bond {
            slaves: 0,
            active: Some(0),
        };
        for slave in slaves.split_ascii_whitespace() {
            let status = self.folder.join(slave).join("bonding_slave/mii_status");
            let up = attribute(&status, parse_status)?;
            bond.slaves += 1;
            bond.active = bond
                .active
                .zip(up)
                .map(|(active, up)| active + u64::from(up));
        }
        Ok(Some(bond))
    }
}

fn parse_status(text: &str) -> Result<bool, ParseError> {
    match STATES.into_iter().find(|state| *state == text.trim_end()) {
        Some(state) => Ok(state == "up"),
        None => Err(ParseError::new(1, "the state of a link, such as up")),
    }
}

pub(super) fn encode(interfaces: &[Interface], page: &mut Page<'_>) -> fmt::Result {
    page.gauge(
        "esnode_network_bond_slaves",
        "Interfaces that the bond is made of, bonding/slaves of /sys/class/net",
        values("iface", interfaces, |it| Some(it.bond?.slaves)),
    )?;
    page.gauge(
        "esnode_network_bond_slaves_active",
        "Of them, those whose link is up, bonding_slave/mii_status of /sys/class/net",
        values("iface", interfaces, |it| it.bond?.active),
    )
}

/// The same by the names of node_exporter: its collector bonding.
pub(super) fn encode_node_exporter(interfaces: &[Interface], page: &mut Page<'_>) -> fmt::Result {
    page.gauge(
        "node_bonding_slaves",
        "Interfaces that the bond is made of, bonding/slaves of /sys/class/net",
        values("master", interfaces, |it| Some(it.bond?.slaves)),
    )?;
    page.gauge(
        "node_bonding_active",
        "Of them, those whose link is up, bonding_slave/mii_status of /sys/class/net",
        values("master", interfaces, |it| it.bond?.active),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collectors::{
            CollectError,
            filter::DeviceFilter,
            fixture::{Host, node_exporter_samples, samples},
            network::{NetworkCollector, NetworkFacts},
        },
        page::Names,
    };

    const DEV: &str = "head\nhead\n bond0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n \
        eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";

    fn host(slaves: &str, states: &[(&str, &str)]) -> Host {
        let host = Host::new(&[
            ("proc/net/dev", DEV),
            ("sys/class/net/bonding_masters", "bond0\n"),
            ("sys/class/net/bond0/operstate", "up\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
        ]);
        host.write("sys/class/net/bond0/bonding/slaves", slaves);
        for (slave, state) in states {
            let file = format!("sys/class/net/{slave}/bonding_slave/mii_status");
            host.write(&file, format!("{state}\n"));
        }
        host
    }

    fn sample(host: &Host) -> Result<NetworkFacts, CollectError> {
        let (procfs, sysfs) = (host.procfs(), host.sysfs());
        NetworkCollector::new(&procfs, &sysfs, DeviceFilter::default(), Names::Own).sample()
    }

    /// Lines on bonds, by both names.
    fn bonds(host: &Host) -> [Vec<String>; 2] {
        let facts = sample(host).expect("valid");
        let pages = [samples(facts.clone()), node_exporter_samples(facts)];
        pages.map(|mut page| {
            page.retain(|line| line.contains("_bond_") || line.contains("_bonding_"));
            page
        })
    }

    #[test]
    fn links_that_are_up() {
        let states = [("eth0", "up"), ("eth1", "going back"), ("eth2", "up")];
        let [own, theirs] = bonds(&host("eth0 eth1 eth2\n", &states));
        assert_eq!(
            own,
            [
                r#"esnode_network_bond_slaves{iface="bond0"} 3"#,
                r#"esnode_network_bond_slaves_active{iface="bond0"} 2"#,
            ]
        );
        assert_eq!(
            theirs,
            [
                r#"node_bonding_slaves{master="bond0"} 3"#,
                r#"node_bonding_active{master="bond0"} 2"#,
            ]
        );
    }

    #[test]
    fn a_bond_without_links_and_links_of_no_known_state() {
        let [own, _] = bonds(&host("", &[]));
        assert_eq!(
            own,
            [
                r#"esnode_network_bond_slaves{iface="bond0"} 0"#,
                r#"esnode_network_bond_slaves_active{iface="bond0"} 0"#,
            ]
        );
        let [own, _] = bonds(&host("eth0 eth1\n", &[("eth0", "up")]));
        assert_eq!(own, [r#"esnode_network_bond_slaves{iface="bond0"} 2"#]);
    }

    #[test]
    fn bonds_are_looked_for_when_the_interfaces_change() {
        let host = host("eth0\n", &[("eth0", "up")]);
        let mut bonds = Bonds::new(host.sysfs().join("class/net"));
        let mut slaves = |names: &[&str]| {
            let named = names.iter().map(|name| Interface::named(name));
            let mut interfaces: Vec<_> = named.collect();
            bonds.look_up(&mut interfaces).expect("valid");
            let slaves = interfaces.iter().map(|it| Some(it.bond?.slaves));
            slaves.collect::<Vec<_>>()
        };
        assert_eq!(slaves(&["bond0", "eth0"]), [Some(1), None]);
        // The list is not read again, but the links are.
        host.write("sys/class/net/bonding_masters", "bond1\n");
        host.write("sys/class/net/bond0/bonding/slaves", "eth0 eth1\n");
        host.write("sys/class/net/bond1/bonding/slaves", "eth0 eth1 eth2\n");
        assert_eq!(slaves(&["bond0", "eth0"]), [Some(2), None]);
        assert_eq!(slaves(&["bond1", "eth0"]), [Some(3), None]);
        host.remove("sys/class/net/bond1");
        assert_eq!(slaves(&["bond1", "eth0"]), [None, None]);
    }

    #[test]
    fn an_error_names_the_file() {
        for state in ["", "sideways"] {
            let host = host("eth0\n", &[("eth0", state)]);
            let error = sample(&host).expect_err("malformed").to_string();
            let expected = "eth0/bonding_slave/mii_status, line 1: expected the state of a link, \
                such as up";
            assert!(error.ends_with(expected), "{error}");
        }
    }
}
