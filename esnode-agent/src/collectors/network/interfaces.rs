//! Interfaces, from `/proc/net/dev` and `/sys/class/net/`.

use crate::{
    collectors::{next_number, sysfs::attribute},
    error::{ParseError, ReadError},
    page::Page,
};
use std::{fmt, path::Path};

/// Families by the columns of `/proc/net/dev`: four of what was received and, after four more that
/// are not shown, four of what was sent.
const FAMILIES: [(&str, &str); 8] = [
    (
        "esnode_network_rx_bytes",
        "Bytes that the interface received, from /proc/net/dev",
    ),
    (
        "esnode_network_rx_packets",
        "Packets that the interface received, from /proc/net/dev",
    ),
    (
        "esnode_network_rx_errors",
        "Packets that were received with errors, from /proc/net/dev",
    ),
    (
        "esnode_network_rx_dropped",
        "Packets that were received and dropped or missed for want of room, from /proc/net/dev",
    ),
    (
        "esnode_network_tx_bytes",
        "Bytes that the interface sent, from /proc/net/dev",
    ),
    (
        "esnode_network_tx_packets",
        "Packets that the interface sent, from /proc/net/dev",
    ),
    (
        "esnode_network_tx_errors",
        "Packets that could not be sent, from /proc/net/dev",
    ),
    (
        "esnode_network_tx_dropped",
        "Packets that were dropped instead of being sent, from /proc/net/dev",
    ),
];

/// How many columns stand between the two fours.
const BETWEEN: usize = 4;

/// Lines above the table.
const HEADER: usize = 2;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    /// In the order of [`FAMILIES`], since the interface was made.
    counts: [u64; FAMILIES.len()],
    /// Unknown where neither driver nor user say so (`lo`, tunnels), or where sysfs does not have
    /// the interface.
    up: Option<bool>,
    /// Bytes per second.
    speed: Option<u64>,
}

pub(super) fn parse(text: &str) -> Result<Vec<Interface>, ParseError> {
    let lines = (1..).zip(text.lines());
    let mut interfaces = Vec::new();
    for (number, line) in lines.skip(HEADER) {
        let (name, counts) = line
            .rsplit_once(':')
            .ok_or_else(|| ParseError::new(number, "the name of an interface and a colon"))?;
        interfaces.push(Interface {
            name: name.trim().to_owned(),
            counts: parse_counts(number, counts)?,
            up: None,
            speed: None,
        });
    }
    Ok(interfaces)
}

fn parse_counts(number: usize, text: &str) -> Result<[u64; FAMILIES.len()], ParseError> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = |what: &str| next_number(&mut fields, number, what);
    let received = [
        next("bytes received")?,
        next("packets received")?,
        next("errors of receiving")?,
        next("packets dropped on receiving")?,
    ];
    for _ in 0..BETWEEN {
        next("more counts of receiving")?;
    }
    let [rx_bytes, rx_packets, rx_errors, rx_dropped] = received;
    Ok([
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        next("bytes sent")?,
        next("packets sent")?,
        next("errors of sending")?,
        next("packets dropped on sending")?,
    ])
}

/// RFC 2863 operational status, as sysfs writes it.
fn parse_state(text: &str) -> Result<Option<bool>, ParseError> {
    match text.trim_end() {
        "up" => Ok(Some(true)),
        "down" | "lowerlayerdown" | "dormant" | "testing" | "notpresent" => Ok(Some(false)),
        "unknown" => Ok(None),
        _ => Err(ParseError::new(1, "the state of an interface, such as up")),
    }
}

/// Mbit/s, to bytes per second. What the driver does not know is -1, once unsigned.
fn parse_speed(text: &str) -> Result<Option<u64>, ParseError> {
    let speed: i64 = text
        .trim_end()
        .parse()
        .map_err(|_| ParseError::new(1, "a speed in Mbit/s"))?;
    let known = (1..i64::from(u32::MAX)).contains(&speed);
    let megabits = u64::try_from(speed).ok().filter(|_| known);
    Ok(megabits.map(|megabits| megabits * (1_000_000 / 8)))
}

impl Interface {
    /// Reads its state and speed below `/sys/class/net`.
    pub(super) fn look_up(&mut self, class: &Path) -> Result<(), ReadError> {
        let folder = class.join(&self.name);
        self.up = attribute(&folder.join("operstate"), parse_state)?.flatten();
        // Asking takes the lock of all interfaces, and who is down has none.
        if self.up != Some(false) {
            self.speed = attribute(&folder.join("speed"), parse_speed)?.flatten();
        }
        Ok(())
    }
}

pub(super) fn encode(interfaces: &[Interface], page: &mut Page<'_>) -> fmt::Result {
    fn label(interface: &Interface) -> [(&str, &str); 1] {
        [("iface", interface.name.as_str())]
    }
    for (place, (name, help)) in FAMILIES.iter().enumerate() {
        let samples = interfaces.iter().filter_map(|interface| {
            let count = interface.counts.get(place)?;
            Some((label(interface), *count))
        });
        page.counter(name, help, samples)?;
    }
    page.gauge(
        "esnode_network_up",
        "Whether the interface is up, operstate of /sys/class/net; absent where nobody tells the \
         kernel, as of lo",
        interfaces
            .iter()
            .filter_map(|it| Some((label(it), u32::from(it.up?)))),
    )?;
    page.gauge(
        "esnode_network_speed_bytes",
        "Speed of the link in bytes per second, speed of /sys/class/net",
        interfaces
            .iter()
            .filter_map(|it| Some((label(it), it.speed?))),
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
        assert_eq!(interfaces[0].counts, [1, 2, 3, 4, 9, 10, 11, 12]);
        assert_eq!(interfaces[1].counts[0], u64::MAX);
        assert_eq!(parse(HEAD), Ok(Vec::new()));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn says_where_it_breaks() {
        for (line, expected) in [
            ("", "the name of an interface and a colon"),
            ("eth0 1 2 3", "the name of an interface and a colon"),
            ("eth0:", "bytes received"),
            ("eth0: 1 2 3", "packets dropped on receiving"),
            ("eth0: 18446744073709551616 2 3 4", "bytes received"),
            ("eth0: 1 2 3 4 5 6", "more counts of receiving"),
            ("eth0: 1 2 3 4 5 6 7 8 9 -10 11 12", "packets sent"),
        ] {
            let error = ParseError::new(3, expected);
            assert_eq!(parse(&format!("{HEAD}{line}\n")), Err(error), "{line}");
        }
    }

    #[test]
    fn states_and_speeds() {
        assert_eq!(parse_state("up\n"), Ok(Some(true)));
        assert_eq!(parse_state("lowerlayerdown\n"), Ok(Some(false)));
        assert_eq!(parse_state("unknown\n"), Ok(None));
        assert!(parse_state("sideways").is_err());
        assert_eq!(parse_speed("25000\n"), Ok(Some(3_125_000_000)));
        for unknown in ["-1\n", "0", "4294967295"] {
            assert_eq!(parse_speed(unknown), Ok(None), "{unknown}");
        }
        let error = ParseError::new(1, "a speed in Mbit/s");
        assert_eq!(parse_speed("fast"), Err(error.clone()));
        assert_eq!(parse_speed("99999999999999999999"), Err(error));
    }
}
