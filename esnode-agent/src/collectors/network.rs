//! Network interfaces, TCP and UDP of the node, from `/proc/net/` (proc_pid_net(5)) and
//! `/sys/class/net/` (Documentation/ABI/testing/sysfs-class-net).

mod interfaces;
mod protocols;

use super::{CollectError, filter::DeviceFilter, parse_optional};
use crate::{
    error::{ReadError, read_file},
    page::{Encode, Page},
};
use interfaces::Interface;
use protocols::{Protocols, parse_netstat, parse_snmp, parse_snmp6};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Not shown if nobody says otherwise: the host's ends of the links to containers (Docker,
/// containerd, flannel; Calico; Cilium), which come and go with these.
pub const DEFAULT_EXCLUDE: &str = "^(veth[0-9a-f]+|cali[0-9a-f]{11}|lxc[0-9a-f]{12})$";

/// The interfaces that are shown, and what all sockets of the node have in common.
#[derive(Clone, Debug)]
pub struct NetworkFacts {
    interfaces: Vec<Interface>,
    protocols: Protocols,
}

/// Reads the files anew in each pass.
pub struct NetworkCollector {
    /// The best view first.
    folders: [PathBuf; 2],
    class: PathBuf,
    filter: DeviceFilter,
}

impl NetworkCollector {
    /// Reads below `procfs` and `sysfs`.
    #[must_use]
    pub fn new(procfs: &Path, sysfs: &Path, filter: DeviceFilter) -> Self {
        Self {
            // `net` is a link to `self/net`: the network namespace of whoever reads, which in a
            // container with a network of its own is a virtual link and nothing of the node, even
            // if it was given the host's /proc. Process 1 of the host is in the host's network
            // namespace, and asking for that takes no rights. Where process 1 is the container's
            // own (no `--pid=host`), both are the same; where it is hidden (`hidepid`), our own
            // view is what is left.
            folders: [procfs.join("1/net"), procfs.join("net")],
            class: sysfs.join("class/net"),
            filter,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed; [`CollectError::Off`] if there is none.
    pub fn sample(&mut self) -> Result<NetworkFacts, CollectError> {
        let [host, own] = &self.folders;
        let of = |folder| -> Result<_, ReadError> {
            let path = Path::new(folder).join("dev");
            let text = read_file(&path)?;
            Ok((
                folder,
                interfaces::parse(&text).map_err(|error| error.at(&path))?,
            ))
        };
        let found = match of(host) {
            Err(ReadError::Io { .. }) => of(own),
            outcome => outcome,
        };
        let (folder, mut interfaces) = match found {
            Err(error) if error.is_absent() => {
                let reason = "this kernel has no network (no /proc/net/dev)";
                return Err(CollectError::Off(reason.to_owned()));
            }
            outcome => outcome?,
        };
        // sysfs belongs to the network namespace of whoever mounted it, perhaps another one whose
        // `eth0` is not this `eth0`: it lacks interfaces that are here.
        let same_view = interfaces
            .iter()
            .all(|interface| self.class.join(&interface.name).exists());
        interfaces.retain(|interface| self.filter.shows(&interface.name));
        if same_view {
            for interface in &mut interfaces {
                interface.look_up(&self.class)?;
            }
        }
        let snmp = parse_optional(&folder.join("snmp"), parse_snmp)?;
        let netstat = parse_optional(&folder.join("netstat"), parse_netstat)?;
        let snmp6 = parse_optional(&folder.join("snmp6"), parse_snmp6)?;
        Ok(NetworkFacts {
            interfaces,
            protocols: Protocols {
                snmp: snmp.unwrap_or_default(),
                listen_overflows: netstat.flatten(),
                udp6_errors: snmp6.flatten(),
            },
        })
    }
}

impl Encode for NetworkFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        interfaces::encode(&self.interfaces, page)?;
        self.protocols.encode(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{self, Host};

    /// What the page says of the network of a host with these files.
    fn samples(files: &[(&str, &str)]) -> Result<Vec<String>, CollectError> {
        let host = Host::new(files);
        let filter = DeviceFilter::default();
        let facts = NetworkCollector::new(&host.procfs(), &host.sysfs(), filter).sample()?;
        Ok(fixture::samples(facts))
    }

    const HOST: &str = "head\nhead\n eth0: 10 0 0 0 0 0 0 0 20 0 0 0 0 0 0 0\n \
        docker0: 30 0 0 0 0 0 0 0 40 0 0 0 0 0 0 0\n";
    const CONTAINER: &str = "head\nhead\n eth0: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n";

    #[test]
    fn the_host_is_where_process_1_is() {
        let files = [
            ("proc/1/net/dev", HOST),
            ("proc/1/net/snmp", "Tcp: CurrEstab\nTcp: 5\n"),
            ("proc/net/dev", CONTAINER),
            ("proc/net/snmp", "Tcp: CurrEstab\nTcp: 1\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/speed", "1000\n"),
        ];
        let seen = samples(&files).expect("valid");
        let has = |line: &str| seen.iter().any(|it| it == line);
        assert!(has(r#"esnode_network_rx_bytes_total{iface="eth0"} 10"#));
        assert!(has(r#"esnode_network_tx_bytes_total{iface="docker0"} 40"#));
        assert!(has("esnode_network_tcp_connections 5"));
        // That sysfs knows no docker0: its eth0 is another one.
        assert!(
            !seen
                .iter()
                .any(|line| line.starts_with("esnode_network_up"))
        );
    }

    #[test]
    fn the_own_view_is_what_is_left() {
        let files = [
            ("proc/net/dev", CONTAINER),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/speed", "1000\n"),
        ];
        let seen = samples(&files).expect("valid");
        let has = |line: &str| seen.iter().any(|it| it == line);
        assert!(has(r#"esnode_network_rx_bytes_total{iface="eth0"} 1"#));
        assert!(has(r#"esnode_network_up{iface="eth0"} 1"#));
        assert!(has(r#"esnode_network_speed_bytes{iface="eth0"} 125000000"#));
        assert!(!seen.iter().any(|line| line.contains("tcp")));
    }

    #[test]
    fn an_error_names_the_file() {
        let files = [
            ("proc/1/net/dev", "a\nb\neth0: 1\n"),
            ("proc/net/dev", CONTAINER),
        ];
        let error = samples(&files).expect_err("malformed");
        let expected = "proc/1/net/dev, line 3: expected packets received";
        assert!(error.to_string().ends_with(expected), "{error}");
    }

    #[test]
    fn links_to_containers_are_left_out() {
        let filter = DeviceFilter::new(None, None, DEFAULT_EXCLUDE);
        for name in [
            "lo",
            "eth0",
            "docker0",
            "cni0",
            "bond0.7",
            "vethernet",
            "lxcbr0",
        ] {
            assert!(filter.shows(name), "{name}");
        }
        for name in ["veth8f00b4a", "cali1234567890a", "lxc0123456789ab"] {
            assert!(!filter.shows(name), "{name}");
        }
    }

    #[test]
    fn a_kernel_without_is_no_failure() {
        let nowhere = Path::new("/nonexistent");
        let outcome = NetworkCollector::new(nowhere, nowhere, DeviceFilter::default()).sample();
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
    }
}
