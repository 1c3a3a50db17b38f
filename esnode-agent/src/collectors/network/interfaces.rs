//! Interfaces and what they moved, from `/proc/net/dev` (proc_pid_net(5)).

use super::{bonds::Bond, class::Class};
use crate::{api, collectors::next_number, error::ParseError, page::Page};
use std::fmt;

/// What stands in the columns: eight of what was received, then eight of what was sent.
const COLUMNS: [&str; 16] = [
    "bytes received",
    "packets received",
    "errors of receiving",
    "packets dropped on receiving",
    "overruns of receiving",
    "frame errors of receiving",
    "compressed packets received",
    "multicast packets received",
    "bytes sent",
    "packets sent",
    "errors of sending",
    "packets dropped on sending",
    "overruns of sending",
    "collisions",
    "carrier losses",
    "compressed packets sent",
];

/// Columns of bytes.
const RX_BYTES: usize = 0;
const TX_BYTES: usize = 8;

/// Families by the columns.
const FAMILIES: [(usize, &str, &str); 8] = [
    (
        RX_BYTES,
        "esnode_network_rx_bytes",
        "Bytes that the interface received, from /proc/net/dev",
    ),
    (
        1,
        "esnode_network_rx_packets",
        "Packets that the interface received, from /proc/net/dev",
    ),
    (
        2,
        "esnode_network_rx_errors",
        "Packets that were received with errors, from /proc/net/dev",
    ),
    (
        3,
        "esnode_network_rx_dropped",
        "Packets that were received and dropped or missed for want of room, from /proc/net/dev",
    ),
    (
        TX_BYTES,
        "esnode_network_tx_bytes",
        "Bytes that the interface sent, from /proc/net/dev",
    ),
    (
        9,
        "esnode_network_tx_packets",
        "Packets that the interface sent, from /proc/net/dev",
    ),
    (
        10,
        "esnode_network_tx_errors",
        "Packets that could not be sent, from /proc/net/dev",
    ),
    (
        11,
        "esnode_network_tx_dropped",
        "Packets that were dropped instead of being sent, from /proc/net/dev",
    ),
];

/// Lines above the table.
const HEADER: usize = 2;

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    /// In the order of [`COLUMNS`], since the interface was made.
    counts: [u64; COLUMNS.len()],
    /// Unknown where sysfs does not have the interface.
    pub(super) class: Option<Class>,
    /// If it is one.
    pub(super) bond: Option<Bond>,
}

pub(super) fn parse(text: &str) -> Result<Vec<Interface>, ParseError> {
    let mut lines = (1..).zip(text.lines());
    for line in 1..=HEADER {
        let heading = lines.next();
        heading.ok_or_else(|| ParseError::new(line, "a heading of the table"))?;
    }
    let mut interfaces = Vec::new();
    for (number, line) in lines {
        let (name, fields) = line
            .rsplit_once(':')
            .ok_or_else(|| ParseError::new(number, "the name of an interface and a colon"))?;
        let mut fields = fields.split_ascii_whitespace();
        let mut counts = [0; COLUMNS.len()];
        for (count, what) in counts.iter_mut().zip(COLUMNS) {
            *count = next_number(&mut fields, number, what)?;
        }
        interfaces.push(Interface {
            name: name.trim().to_owned(),
            counts,
            class: None,
            bond: None,
        });
    }
    Ok(interfaces)
}

impl Interface {
    pub(super) fn count(&self, column: usize) -> Option<u64> {
        self.counts.get(column).copied()
    }

    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            counts: [0; COLUMNS.len()],
            class: None,
            bond: None,
        }
    }
}

/// Of each interface the value that it has, by this label.
pub(super) fn values<'a, V>(
    label: &'static str,
    interfaces: &'a [Interface],
    value: impl Fn(&'a Interface) -> Option<V> + 'a,
) -> impl Iterator<Item = ([(&'static str, &'a str); 1], V)> {
    let samples = interfaces.iter();
    samples.filter_map(move |it| Some(([(label, it.name.as_str())], value(it)?)))
}

/// As the table for tools has them.
pub(super) fn describe(interfaces: &[Interface]) -> Vec<api::Interface> {
    let of = |it: &Interface| {
        Some(api::Interface {
            iface: it.name.clone(),
            rx_bytes_total: it.count(RX_BYTES)?,
            tx_bytes_total: it.count(TX_BYTES)?,
        })
    };
    interfaces.iter().filter_map(of).collect()
}

pub(super) fn encode(interfaces: &[Interface], page: &mut Page<'_>) -> fmt::Result {
    for (column, name, help) in FAMILIES {
        let samples = values("iface", interfaces, |it| it.count(column));
        page.counter(name, help, samples)?;
    }
    page.gauge(
        "esnode_network_up",
        "Whether the interface is up, operstate of /sys/class/net; absent where nobody tells the \
         kernel, as of lo",
        values("iface", interfaces, |it| {
            Some(u32::from(it.class.as_ref()?.up()?))
        }),
    )?;
    page.gauge(
        "esnode_network_speed_bytes",
        "Speed of the link in bytes per second, speed of /sys/class/net, looked at every minute and \
         when the link changes",
        values("iface", interfaces, |it| it.class.as_ref()?.speed()),
    )?;
    page.counter(
        "esnode_network_carrier_changes",
        "Times that the link came or went, carrier_changes of /sys/class/net",
        values("iface", interfaces, |it| it.class.as_ref()?.carrier_changes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Inter-|   Receive           |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n";

    #[test]
    fn columns_of_both_directions() {
        let text = format!(
            "{HEAD}    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
             eth0:18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        let interfaces = parse(&text).expect("valid");
        assert_eq!(interfaces.len(), 2);
        assert_eq!(interfaces[0].name, "lo");
        let expected: Vec<u64> = (1..=16).collect();
        assert_eq!(interfaces[0].counts.as_slice(), expected);
        assert_eq!(interfaces[1].count(0), Some(u64::MAX));
        assert!(parse(HEAD).expect("valid").is_empty());
        let heading = ParseError::new(1, "a heading of the table");
        assert_eq!(parse("").expect_err("cut"), heading);
    }

    #[test]
    fn says_where_it_breaks() {
        for (line, expected) in [
            ("", "the name of an interface and a colon"),
            ("eth0 1 2 3", "the name of an interface and a colon"),
            ("eth0:", "bytes received"),
            ("eth0: 1 2 3", "packets dropped on receiving"),
            ("eth0: 18446744073709551616 2 3 4", "bytes received"),
            ("eth0: 1 2 3 4 5 6", "compressed packets received"),
            ("eth0: 1 2 3 4 5 6 7 8 9 -10 11 12", "packets sent"),
            (
                "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
                "compressed packets sent",
            ),
        ] {
            let error = ParseError::new(3, expected);
            let outcome = parse(&format!("{HEAD}{line}\n"));
            assert_eq!(outcome.expect_err(line), error, "{line}");
        }
    }
}
