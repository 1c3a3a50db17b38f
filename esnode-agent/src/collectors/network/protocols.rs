//! TCP and UDP, from `/proc/net/{snmp,netstat,snmp6}` (Documentation/networking/snmp_counter.rst).

use crate::{
    error::ParseError,
    page::{Encode, Page},
};
use std::fmt;

/// What `/proc/net/snmp` says. Its TCP is that of IPv6 as well, its UDP is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Snmp {
    tcp_retransmits: Option<u64>,
    tcp_resets: Option<u64>,
    /// Of both families, while `/proc/net/sockstat` counts those of IPv4.
    tcp_connections: Option<u64>,
    udp4_errors: Option<u64>,
}

/// All three files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Protocols {
    pub(super) snmp: Snmp,
    pub(super) listen_overflows: Option<u64>,
    pub(super) udp6_errors: Option<u64>,
}

pub(super) fn parse_snmp(text: &str) -> Result<Snmp, ParseError> {
    Ok(Snmp {
        tcp_retransmits: find(text, "Tcp", "RetransSegs")?,
        tcp_resets: find(text, "Tcp", "OutRsts")?,
        tcp_connections: find(text, "Tcp", "CurrEstab")?,
        udp4_errors: find(text, "Udp", "InErrors")?,
    })
}

pub(super) fn parse_netstat(text: &str) -> Result<Option<u64>, ParseError> {
    find(text, "TcpExt", "ListenOverflows")
}

pub(super) fn parse_snmp6(text: &str) -> Result<Option<u64>, ParseError> {
    for (number, line) in (1..).zip(text.lines()) {
        let mut fields = line.split_ascii_whitespace();
        if fields.next() == Some("Udp6InErrors") {
            let value = fields.next().and_then(|field| field.parse().ok());
            let value = value.ok_or_else(|| ParseError::new(number, "Udp6InErrors"))?;
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A value of a table of two lines, names above values; `None` if this kernel does not have it.
fn find(text: &str, table: &str, column: &str) -> Result<Option<u64>, ParseError> {
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let Some(names) = row(table, line) else {
            continue;
        };
        let mut names = names.split_ascii_whitespace();
        let Some(place) = names.position(|name| name == column) else {
            return Ok(None);
        };
        let value = lines
            .next()
            .and_then(|(_, line)| row(table, line)?.split_ascii_whitespace().nth(place))
            .and_then(|value| value.parse().ok());
        let value =
            value.ok_or_else(|| ParseError::new(number + 1, format!("{column} of {table}")))?;
        return Ok(Some(value));
    }
    Ok(None)
}

fn row<'a>(table: &str, line: &'a str) -> Option<&'a str> {
    line.strip_prefix(table)?.strip_prefix(':')
}

impl Protocols {
    fn udp_errors(&self) -> Option<u64> {
        match (self.snmp.udp4_errors, self.udp6_errors) {
            (Some(v4), Some(v6)) => Some(v4.saturating_add(v6)),
            (v4, v6) => v4.or(v6),
        }
    }
}

impl Encode for Protocols {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_counter(
            "esnode_network_tcp_retransmits",
            "TCP segments that were sent again, Tcp RetransSegs of /proc/net/snmp",
            self.snmp.tcp_retransmits,
        )?;
        page.single_counter(
            "esnode_network_tcp_resets",
            "TCP resets that were sent, Tcp OutRsts of /proc/net/snmp",
            self.snmp.tcp_resets,
        )?;
        page.single_gauge(
            "esnode_network_tcp_connections",
            "TCP connections that are established or half closed by the peer, Tcp CurrEstab of \
             /proc/net/snmp",
            self.snmp.tcp_connections,
        )?;
        page.single_counter(
            "esnode_network_listen_overflows",
            "Connections that came to a listener whose queue was full, TcpExt ListenOverflows of \
             /proc/net/netstat",
            self.listen_overflows,
        )?;
        page.single_counter(
            "esnode_network_udp_errors",
            "UDP datagrams that were received and not delivered, for want of room or with a wrong \
             checksum, InErrors of /proc/net/snmp and snmp6",
            self.udp_errors(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 2 64\n\
        Tcp: RtoAlgorithm MaxConn CurrEstab RetransSegs InErrs OutRsts\nTcp: 1 -1 4 12528 0 92416\n\
        Udp: InDatagrams NoPorts InErrors\nUdp: 6043911 90 77\n\
        UdpLite: InDatagrams NoPorts InErrors\nUdpLite: 1 2 3\n";

    #[test]
    fn values_below_their_names() {
        let snmp = parse_snmp(SNMP).expect("valid");
        assert_eq!(snmp.tcp_retransmits, Some(12_528));
        assert_eq!(snmp.tcp_resets, Some(92_416));
        assert_eq!(snmp.tcp_connections, Some(4));
        assert_eq!(snmp.udp4_errors, Some(77));
        let netstat = "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 5 6\nIpExt: InNoRoutes\n";
        assert_eq!(parse_netstat(netstat), Ok(Some(6)));
        let snmp6 = "Ip6InReceives\t3\nUdp6InErrors                    \t8\n";
        assert_eq!(parse_snmp6(snmp6), Ok(Some(8)));
    }

    #[test]
    fn what_a_kernel_does_not_count_is_absent() {
        assert_eq!(parse_snmp(""), Ok(Snmp::default()));
        assert_eq!(parse_netstat("TcpExt: Other\nTcpExt: 5\n"), Ok(None));
        assert_eq!(parse_snmp6("Ip6InReceives 3\n"), Ok(None));
        let of = |udp4_errors, udp6_errors| {
            let snmp = Snmp {
                udp4_errors,
                ..Snmp::default()
            };
            let protocols = Protocols {
                snmp,
                udp6_errors,
                ..Protocols::default()
            };
            protocols.udp_errors()
        };
        assert_eq!(of(Some(1), Some(2)), Some(3));
        assert_eq!(of(Some(1), None), Some(1));
        assert_eq!(of(None, None), None);
    }

    #[test]
    fn says_where_it_breaks() {
        let error = |line, expected| Err(ParseError::new(line, expected));
        for text in [
            "TcpExt: A ListenOverflows\nTcpExt: 5\n",
            "TcpExt: A ListenOverflows\nTcpExt: 5 x\n",
            "TcpExt: A ListenOverflows\nTcpExt: 5 99999999999999999999\n",
            "TcpExt: A ListenOverflows\nIpExt: 5 6\n",
            "TcpExt: A ListenOverflows",
        ] {
            assert_eq!(
                parse_netstat(text),
                error(2, "ListenOverflows of TcpExt"),
                "{text}"
            );
        }
        let cut = SNMP.replace("0 92416", "0");
        assert_eq!(
            parse_snmp(&cut).map(|_| None::<u64>),
            error(4, "OutRsts of Tcp")
        );
        assert_eq!(parse_snmp6("A 1\nUdp6InErrors\n"), error(2, "Udp6InErrors"));
    }
}
