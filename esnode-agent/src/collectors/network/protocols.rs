//! TCP, UDP and what is below them, from `/proc/net/{snmp,netstat,snmp6}`
//! (Documentation/networking/snmp_counter.rst).

use crate::{
    error::ParseError,
    page::{Encode, Page},
};
use std::fmt;

/// The name of a table, and the columns of it that are read: what families of the agent need, and
/// what node_exporter shows if nobody says otherwise.
type Table = (&'static str, &'static [&'static str]);

/// Of `/proc/net/snmp`. Its TCP is that of IPv6 as well, its UDP is not.
const SNMP: [Table; 5] = [
    ("Ip", &["Forwarding"]),
    ("Icmp", &["InMsgs", "InErrors", "OutMsgs"]),
    (
        "Tcp",
        &[
            "ActiveOpens",
            "PassiveOpens",
            "CurrEstab",
            "InSegs",
            "OutSegs",
            "RetransSegs",
            "InErrs",
            "OutRsts",
        ],
    ),
    ("Udp", &UDP),
    ("UdpLite", &["InErrors"]),
];

/// Of `/proc/net/netstat`.
const NETSTAT: [Table; 2] = [
    (
        "TcpExt",
        &[
            "SyncookiesSent",
            "SyncookiesRecv",
            "SyncookiesFailed",
            "ListenOverflows",
            "ListenDrops",
            "TCPTimeouts",
            "TCPSynRetrans",
        ],
    ),
    ("IpExt", &["InOctets", "OutOctets"]),
];

/// Of `/proc/net/snmp6`.
const SNMP6: [Table; 4] = [
    ("Ip6", &["InOctets", "OutOctets"]),
    ("Icmp6", &["InMsgs", "InErrors", "OutMsgs"]),
    ("Udp6", &UDP),
    ("UdpLite6", &["InErrors"]),
];

const UDP: [&str; 6] = [
    "InDatagrams",
    "NoPorts",
    "InErrors",
    "OutDatagrams",
    "RcvbufErrors",
    "SndbufErrors",
];

/// A value, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    file: &'static str,
    table: &'static str,
    column: &'static str,
    value: u64,
}

/// The values of all three files that this kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Protocols(pub(super) Vec<Cell>);

pub(super) fn parse_snmp(text: &str) -> Result<Vec<Cell>, ParseError> {
    parse_tables(text, "snmp", &SNMP, "Tcp")
}

pub(super) fn parse_netstat(text: &str) -> Result<Vec<Cell>, ParseError> {
    parse_tables(text, "netstat", &NETSTAT, "TcpExt")
}

/// A value per line, with the names of table and column in one.
pub(super) fn parse_snmp6(text: &str) -> Result<Vec<Cell>, ParseError> {
    let mut values = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default();
        let wanted = SNMP6.iter().find_map(|(table, columns)| {
            let rest = name.strip_prefix(table)?;
            Some((*table, *columns.iter().find(|column| **column == rest)?))
        });
        let Some((table, column)) = wanted else {
            continue;
        };
        let value = fields.next().and_then(|field| field.parse().ok());
        let cell = Cell {
            file: "snmp6",
            table,
            column,
            value: value.ok_or_else(|| ParseError::new(number, name))?,
        };
        keep(&mut values, cell);
    }
    Ok(values)
}

/// Tables of two lines, names above values. Every kernel that has the file has the table `needed`.
fn parse_tables(
    text: &str,
    file: &'static str,
    tables: &[Table],
    needed: &str,
) -> Result<Vec<Cell>, ParseError> {
    let mut values = Vec::new();
    let mut has_needed = false;
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let mut wanted = tables.iter();
        let Some((table, columns, names)) =
            wanted.find_map(|(table, columns)| Some((*table, *columns, row(table, line)?)))
        else {
            continue;
        };
        let mut all = names.split_ascii_whitespace();
        if !all.all(|name| name.starts_with(|first: char| first.is_ascii_alphabetic())) {
            return Err(ParseError::new(number, format!("names of {table}")));
        }
        let below = lines.next().and_then(|(_, line)| row(table, line));
        let below = below.unwrap_or_default();
        let count = |row: &str| row.split_ascii_whitespace().count();
        if count(names) != count(below) {
            let expected = format!("as many values as names of {table}");
            return Err(ParseError::new(number + 1, expected));
        }
        has_needed |= table == needed;
        let fields = below.split_ascii_whitespace();
        for (name, field) in names.split_ascii_whitespace().zip(fields) {
            let Some(column) = columns.iter().find(|column| **column == name) else {
                continue;
            };
            let expected = |_| ParseError::new(number + 1, format!("{column} of {table}"));
            let cell = Cell {
                file,
                table,
                column,
                value: field.parse().map_err(expected)?,
            };
            keep(&mut values, cell);
        }
    }
    if !has_needed {
        return Err(ParseError::new(0, format!("a table {needed}")));
    }
    Ok(values)
}

/// Of values with the same name, keeps the first.
fn keep(values: &mut Vec<Cell>, cell: Cell) {
    let name = |cell: &Cell| (cell.table, cell.column);
    if !values.iter().any(|known| name(known) == name(&cell)) {
        values.push(cell);
    }
}

fn row<'a>(table: &str, line: &'a str) -> Option<&'a str> {
    line.strip_prefix(table)?.strip_prefix(':')
}

impl Protocols {
    /// A value; `None` if this kernel does not have it.
    fn get(&self, table: &str, column: &str) -> Option<u64> {
        let mut values = self.0.iter();
        let found = values.find(|value| (value.table, value.column) == (table, column))?;
        Some(found.value)
    }

    /// Of IPv4, and of IPv6 where the kernel has it.
    fn udp_errors(&self) -> Option<u64> {
        let errors = self.get("Udp", "InErrors")?;
        Some(errors.saturating_add(self.get("Udp6", "InErrors").unwrap_or_default()))
    }
}

impl Encode for Protocols {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_counter(
            "esnode_network_tcp_retransmits",
            "TCP segments that were sent again, Tcp RetransSegs of /proc/net/snmp",
            self.get("Tcp", "RetransSegs"),
        )?;
        page.single_counter(
            "esnode_network_tcp_resets",
            "TCP resets that were sent, Tcp OutRsts of /proc/net/snmp",
            self.get("Tcp", "OutRsts"),
        )?;
        // Of IPv6 as well, while `/proc/net/sockstat` counts those of IPv4.
        page.single_gauge(
            "esnode_network_tcp_connections",
            "TCP connections that are established or half closed by the peer, Tcp CurrEstab of \
             /proc/net/snmp",
            self.get("Tcp", "CurrEstab"),
        )?;
        page.single_counter(
            "esnode_network_listen_overflows",
            "Connections that came to a listener whose queue was full, TcpExt ListenOverflows of \
             /proc/net/netstat",
            self.get("TcpExt", "ListenOverflows"),
        )?;
        page.single_counter(
            "esnode_network_udp_errors",
            "UDP datagrams that were received and not delivered, for want of room or with a wrong \
             checksum, InErrors of /proc/net/snmp and snmp6",
            self.udp_errors(),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|it| {
            let name = format!("node_netstat_{}_{}", it.table, it.column);
            let help = format!("{} of {}, from /proc/net/{}", it.column, it.table, it.file);
            page.single_unknown(&name, &help, Some(it.value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{node_exporter_samples, samples};

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 2 64\n\
        IcmpMsg: InType3\nIcmpMsg: 1\n\
        Tcp: RtoAlgorithm MaxConn CurrEstab RetransSegs InErrs OutRsts\nTcp: 1 -1 4 12528 0 92416\n\
        Udp: InDatagrams NoPorts InErrors InCsumErrors\nUdp: 6043911 90 77 6\n\
        UdpLite: InDatagrams NoPorts InErrors\nUdpLite: 1 2 3\n";
    const NETSTAT: &str =
        "TcpExt: SyncookiesSent ListenOverflows TW\nTcpExt: 5 6 7\nIpExt: InNoRoutes\nIpExt: 1\n";
    const SNMP6: &str = "Ip6InReceives\t3\nIp6InOctets\t128\nIcmp6InMsgs 2\n\
        Udp6InErrors                    \t8\nUdpLite6InErrors 9\n";

    fn protocols() -> Protocols {
        let mut values = parse_snmp(SNMP).expect("valid");
        values.extend(parse_netstat(NETSTAT).expect("valid"));
        values.extend(parse_snmp6(SNMP6).expect("valid"));
        Protocols(values)
    }

    #[test]
    fn values_below_their_names() {
        assert_eq!(
            samples(protocols()),
            [
                "esnode_network_tcp_retransmits_total 12528",
                "esnode_network_tcp_resets_total 92416",
                "esnode_network_tcp_connections 4",
                "esnode_network_listen_overflows_total 6",
                "esnode_network_udp_errors_total 85",
            ]
        );
    }

    #[test]
    fn names_of_node_exporter() {
        let expected = [
            "Ip_Forwarding 2",
            "Tcp_CurrEstab 4",
            "Tcp_RetransSegs 12528",
            "Tcp_InErrs 0",
            "Tcp_OutRsts 92416",
            "Udp_InDatagrams 6043911",
            "Udp_NoPorts 90",
            "Udp_InErrors 77",
            "UdpLite_InErrors 3",
            "TcpExt_SyncookiesSent 5",
            "TcpExt_ListenOverflows 6",
            "Ip6_InOctets 128",
            "Icmp6_InMsgs 2",
            "Udp6_InErrors 8",
            "UdpLite6_InErrors 9",
        ]
        .map(|line| format!("node_netstat_{line}"));
        assert_eq!(node_exporter_samples(protocols()), expected);
    }

    #[test]
    fn what_a_kernel_does_not_count_is_absent() {
        assert_eq!(parse_netstat("TcpExt: Other\nTcpExt: 5\n"), Ok(Vec::new()));
        assert_eq!(
            parse_snmp6("Ip6InReceives 3\nUdp6InErrorsX 1\n"),
            Ok(Vec::new())
        );
        // Half of the errors would be too few.
        let v6 = Protocols(parse_snmp6(SNMP6).expect("valid"));
        assert_eq!(v6.udp_errors(), None);
        let v4 = Protocols(parse_snmp(SNMP).expect("valid"));
        assert_eq!(v4.udp_errors(), Some(77));
    }

    #[test]
    fn what_is_said_twice_counts_once() {
        let twice = "TcpExt: TCPTimeouts TCPTimeouts\nTcpExt: 1 2\n";
        let values = parse_netstat(&twice.repeat(2)).expect("valid");
        assert_eq!(values.len(), 1);
        assert_eq!(values[0].value, 1);
        let values = parse_snmp6("Udp6InErrors 1\nUdp6InErrors 2\n").expect("valid");
        assert_eq!(values.len(), 1);
    }

    #[test]
    fn says_where_it_breaks() {
        let error = |line, expected| Err(ParseError::new(line, expected));
        for field in ["x", "-1", "99999999999999999999"] {
            let text = format!("TcpExt: A ListenOverflows\nTcpExt: 5 {field}\n");
            assert_eq!(
                parse_netstat(&text),
                error(2, "ListenOverflows of TcpExt"),
                "{text}"
            );
        }
        for text in [
            "TcpExt: A ListenOverflows\nTcpExt: 5\n",
            "TcpExt: A ListenOverflows\nTcpExt: 5 6 7\n",
            "TcpExt: A ListenOverflows\nIpExt: 5 6\n",
            "TcpExt: A ListenOverflows",
        ] {
            assert_eq!(
                parse_netstat(text),
                error(2, "as many values as names of TcpExt"),
                "{text}"
            );
        }
        let cut = SNMP.replace("0 92416", "0");
        assert_eq!(parse_snmp(&cut), error(6, "as many values as names of Tcp"));
        assert_eq!(parse_snmp6("A 1\nUdp6InErrors\n"), error(2, "Udp6InErrors"));
    }

    #[test]
    fn values_need_their_names() {
        let renamed = SNMP.replace("Udp: InDatagrams", "Upd: InDatagrams");
        let error = |line, expected| Err(ParseError::new(line, expected));
        assert_eq!(parse_snmp(&renamed), error(8, "names of Udp"));
        let lost = NETSTAT.replace("IpExt: InNoRoutes\n", "");
        assert_eq!(parse_netstat(&lost), error(3, "names of IpExt"));
        let other = SNMP.replace("Udp: InDatagrams", "UdpLite: InDatagrams");
        assert_eq!(
            parse_snmp(&other),
            error(8, "as many values as names of UdpLite")
        );
    }

    #[test]
    fn every_kernel_counts_what_tcp_does() {
        let error = |expected| Err(ParseError::new(0, expected));
        assert_eq!(parse_snmp(""), error("a table Tcp"));
        assert_eq!(parse_snmp("Ip: Forwarding\nIp: 1\n"), error("a table Tcp"));
        assert_eq!(parse_netstat(""), error("a table TcpExt"));
    }
}
