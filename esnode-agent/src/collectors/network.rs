//! The network of the node: interfaces, TCP, UDP and what is below them, sockets, connections that
//! are tracked, from `/proc/net/` (proc_pid_net(5)) and `/sys/class/net/`
//! (Documentation/ABI/testing/sysfs-class-net).

mod arp;
mod bonds;
mod class;
mod conntrack;
mod interfaces;
mod node_exporter;
mod protocols;
mod sockets;
mod softnet;

use super::{CollectError, filter::DeviceFilter, keep_first, parse_optional};
use crate::{
    api::Snapshot,
    error::{ParseError, ReadError, read_file},
    page::{Encode, Names, Page},
};
use arp::Arp;
use bonds::Bonds;
use class::Classes;
use conntrack::Conntrack;
use interfaces::Interface;
use protocols::{Protocols, parse_netstat, parse_snmp, parse_snmp6};
use sockets::Sockets;
use softnet::Softnet;
use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
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
    sockets: Sockets,
    softnet: Softnet,
    conntrack: Conntrack,
    arp: Arp,
}

/// Reads the files anew in each pass.
pub struct NetworkCollector {
    /// The best view first.
    folders: [PathBuf; 2],
    /// Connection tracking as the reader's own network namespace has it.
    sysctl: PathBuf,
    classes: Classes,
    bonds: Bonds,
    softnet: softnet::Carried,
    filter: DeviceFilter,
    names: Names,
}

impl NetworkCollector {
    /// Reads below `procfs` and `sysfs` what families of these names need.
    #[must_use]
    pub fn new(procfs: &Path, sysfs: &Path, filter: DeviceFilter, names: Names) -> Self {
        Self {
            // `net` is a link to `self/net`: the network namespace of whoever reads, which in a
            // container with a network of its own is a virtual link and nothing of the node, even
            // if it was given the host's /proc. Process 1 of the host is in the host's network
            // namespace, and asking for that takes no rights. Where process 1 is the container's
            // own (no `--pid=host`), both are the same; where it is hidden (`hidepid`), our own
            // view is what is left.
            folders: [procfs.join("1/net"), procfs.join("net")],
            sysctl: procfs.join("sys/net/netfilter"),
            classes: Classes::new(sysfs.join("class/net"), names),
            bonds: Bonds::new(sysfs.join("class/net")),
            softnet: softnet::Carried::default(),
            filter,
            names,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed; [`CollectError::Off`] if there is none.
    pub fn sample(&mut self) -> Result<NetworkFacts, CollectError> {
        let (folder, mut interfaces) = view(&self.folders)?;
        let known = self.classes.know(&interfaces);
        interfaces.retain(|interface| self.filter.shows(&interface.name));
        keep_first(&mut interfaces, |interface| &interface.name);
        if known {
            self.classes.look_up(&mut interfaces)?;
            self.bonds.look_up(&mut interfaces)?;
        }
        let cores = parse_optional(&folder.join("softnet_stat"), softnet::parse)?;
        Ok(NetworkFacts {
            interfaces,
            protocols: protocols(folder)?,
            sockets: sockets(folder)?,
            softnet: Softnet(self.softnet.carry(cores.unwrap_or_default())),
            conntrack: self.conntrack(folder)?,
            arp: self.arp(folder)?,
        })
    }

    fn conntrack(&self, folder: &Path) -> Result<Conntrack, ReadError> {
        let stat = parse_optional(&folder.join("stat/nf_conntrack"), conntrack::parse)?;
        let mut conntrack = Conntrack::of(stat.unwrap_or_default());
        if is_own(folder, &self.folders) {
            conntrack.look_up(&self.sysctl)?;
        }
        Ok(conntrack)
    }

    fn arp(&self, folder: &Path) -> Result<Arp, ReadError> {
        let mut arp = match self.names {
            Names::Own => Arp::default(),
            Names::AndNodeExporter => {
                parse_optional(&folder.join("arp"), arp::parse)?.unwrap_or_default()
            }
        };
        arp.0.retain(|(device, _)| self.filter.shows(device));
        Ok(arp)
    }
}

/// The folder to read, and the interfaces that it tells of.
fn view(folders: &[PathBuf; 2]) -> Result<(&Path, Vec<Interface>), CollectError> {
    let [host, own] = folders;
    let of = |folder| -> Result<_, ReadError> {
        let folder = Path::new(folder);
        let path = folder.join("dev");
        let interfaces = interfaces::parse(&read_file(&path)?);
        Ok((folder, interfaces.map_err(|error| error.at(&path))?))
    };
    let found = match of(host) {
        Err(ReadError::Io { .. }) => of(own),
        outcome => outcome,
    };
    match found {
        Err(error) if error.is_absent() => {
            let reason = "this kernel has no network (no /proc/net/dev)";
            Err(CollectError::Off(reason.to_owned()))
        }
        outcome => Ok(outcome?),
    }
}

/// Whether the folder is of the network namespace that the agent is in: each has inodes of its own
/// for its files.
fn is_own(folder: &Path, [_, own]: &[PathBuf; 2]) -> bool {
    let file = |folder: &Path| {
        let file = fs::metadata(folder.join("dev")).ok()?;
        Some((file.dev(), file.ino()))
    };
    folder == own || file(folder) == file(own)
}

fn protocols(folder: &Path) -> Result<Protocols, ReadError> {
    let mut values = parse_optional(&folder.join("snmp"), parse_snmp)?.unwrap_or_default();
    values.extend(parse_optional(&folder.join("netstat"), parse_netstat)?.unwrap_or_default());
    values.extend(parse_optional(&folder.join("snmp6"), parse_snmp6)?.unwrap_or_default());
    Ok(Protocols(values))
}

fn sockets(folder: &Path) -> Result<Sockets, ReadError> {
    let of = |file: &str| parse_optional(&folder.join(file), sockets::parse);
    let mut counts = of("sockstat")?.unwrap_or_default();
    counts.extend(of("sockstat6")?.unwrap_or_default());
    Ok(Sockets {
        counts,
        page_size: u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX),
    })
}

/// One of the fields that some files have in hexadecimal; `what` is expected in `line`.
fn hexadecimal(field: Option<&str>, line: usize, what: &str) -> Result<u64, ParseError> {
    let number = field.and_then(|field| u64::from_str_radix(field, 16).ok());
    number.ok_or_else(|| ParseError::new(line, format!("{what} in hexadecimal")))
}

impl NetworkFacts {
    fn parts(&self) -> [&dyn Encode; 5] {
        [
            &self.protocols,
            &self.sockets,
            &self.softnet,
            &self.conntrack,
            &self.arp,
        ]
    }
}

impl Encode for NetworkFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        interfaces::encode(&self.interfaces, page)?;
        bonds::encode(&self.interfaces, page)?;
        let mut parts = self.parts().into_iter();
        parts.try_for_each(|part| part.encode(page))
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        node_exporter::encode(&self.interfaces, page)?;
        bonds::encode_node_exporter(&self.interfaces, page)?;
        let mut parts = self.parts().into_iter();
        parts.try_for_each(|part| part.encode_node_exporter(page))
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.node.interfaces = interfaces::describe(&self.interfaces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{self, Host};

    fn sample(host: &Host, exclude: &str, names: Names) -> Result<NetworkFacts, CollectError> {
        let filter = DeviceFilter::new(None, None, exclude);
        NetworkCollector::new(&host.procfs(), &host.sysfs(), filter, names).sample()
    }

    /// What the page says of the network of a host with these files.
    fn samples(files: &[(&str, &str)]) -> Result<Vec<String>, CollectError> {
        let facts = sample(&Host::new(files), "^$", Names::Own)?;
        Ok(fixture::samples(facts))
    }

    const HOST: &str = "head\nhead\n eth0: 10 0 0 0 0 0 0 0 20 0 0 0 0 0 0 0\n \
        docker0: 30 0 0 0 0 0 0 0 40 0 0 0 0 0 0 0\n";
    const CONTAINER: &str = "head\nhead\n eth0: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n";

    #[test]
    fn an_interface_that_is_listed_twice_is_shown_once() {
        let line = " eth0: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n";
        let text = format!("head\nhead\n{line}{line}");
        let page = samples(&[("proc/net/dev", &text)]).expect("valid");
        let bytes = page.iter().filter(|line| line.contains("rx_bytes"));
        assert_eq!(bytes.count(), 1, "{page:?}");
    }

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
    fn the_limit_of_connections_is_that_of_the_own_namespace() {
        let host = Host::new(&[
            ("proc/1/net/dev", HOST),
            ("proc/1/net/stat/nf_conntrack", "entries drop\n2 1\n2 1\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "100\n"),
            ("proc/own/net/dev", CONTAINER),
        ]);
        let conntrack = || {
            let facts = sample(&host, "^$", Names::Own).expect("valid");
            let mut page = fixture::samples(facts);
            page.retain(|line| line.contains("conntrack"));
            page
        };
        let of_the_host = [
            "esnode_network_conntrack_entries 2",
            "esnode_network_conntrack_drops_total 2",
        ];
        host.link("proc/net", "own/net");
        assert_eq!(conntrack(), of_the_host);
        let host = Host::new(&[
            ("proc/1/net/dev", HOST),
            ("proc/sys/net/netfilter/nf_conntrack_max", "100\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "3\n"),
        ]);
        host.link("proc/net", "1/net");
        let facts = sample(&host, "^$", Names::Own).expect("valid");
        assert_eq!(
            fixture::samples(facts.conntrack),
            [
                "esnode_network_conntrack_entries 3",
                "esnode_network_conntrack_limit 100",
            ]
        );
    }

    #[test]
    fn every_file_has_its_families() {
        let page = samples(&[
            ("proc/1/net/dev", HOST),
            (
                "proc/1/net/sockstat",
                "TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 1\n",
            ),
            ("proc/1/net/sockstat6", "TCP6: inuse 2\n"),
            ("proc/1/net/softnet_stat", "1 2 3 0 0 0 0 0 0\n"),
            ("proc/1/net/netstat", "TcpExt: ListenOverflows\nTcpExt: 6\n"),
            ("proc/1/net/snmp", "Tcp: A\nTcp: 5\nUdp: InErrors\nUdp: 0\n"),
            ("proc/1/net/snmp6", "Udp6InErrors 8\n"),
            ("sys/class/net/eth0/carrier_changes", "2\n"),
            ("sys/class/net/docker0/operstate", "down\n"),
        ]);
        let page = page.expect("valid");
        for line in [
            r#"esnode_network_sockets{protocol="tcp",state="in_use"} 3"#,
            r#"esnode_network_softnet_dropped_total{core="0"} 2"#,
            "esnode_network_listen_overflows_total 6",
            "esnode_network_udp_errors_total 8",
            r#"esnode_network_carrier_changes_total{iface="eth0"} 2"#,
            r#"esnode_network_up{iface="docker0"} 0"#,
        ] {
            assert!(
                page.iter().any(|it| it == line),
                "{line} is not in {page:?}"
            );
        }
    }

    #[test]
    fn neighbours_are_counted_for_node_exporter_only() {
        let arp = "head\n192.0.2.1 0x1 0x2 02:00:00:00:00:05 * eth0\n\
            192.0.2.2 0x1 0x2 02:00:00:00:00:06 * veth0\n";
        let host = Host::new(&[("proc/1/net/dev", HOST), ("proc/1/net/arp", arp)]);
        let of = |names| sample(&host, "^veth", names).expect("valid").arp.0;
        assert_eq!(of(Names::AndNodeExporter), [("eth0".to_owned(), 1)]);
        assert_eq!(of(Names::Own), []);
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
        let filter = DeviceFilter::default();
        let outcome = NetworkCollector::new(nowhere, nowhere, filter, Names::Own).sample();
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
    }
}
