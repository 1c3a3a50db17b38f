//! Neighbours in IPv4, from `/proc/net/arp` (proc_pid_net(5)). Only node_exporter has families of
//! them.

use crate::{
    error::ParseError,
    page::{Encode, Page},
};
use std::fmt;

/// The device is in this column of the table.
const DEVICE: usize = 5;

/// How many entries each device has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arp(pub(super) Vec<(String, u64)>);

pub(super) fn parse(text: &str) -> Result<Arp, ParseError> {
    let mut devices: Vec<(String, u64)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()).skip(1) {
        let device = line.split_ascii_whitespace().nth(DEVICE);
        let device = device.ok_or_else(|| ParseError::new(number, "six columns, a device last"))?;
        match devices.iter_mut().find(|(name, _)| name == device) {
            Some((_, entries)) => *entries += 1,
            None => devices.push((device.to_owned(), 1)),
        }
    }
    Ok(Arp(devices))
}

impl Encode for Arp {
    fn encode(&self, _page: &mut Page<'_>) -> fmt::Result {
        Ok(())
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        let devices = self.0.iter();
        page.gauge(
            "node_arp_entries",
            "Neighbours in IPv4, incomplete ones included, lines of /proc/net/arp",
            devices.map(|(device, entries)| ([("device", device.as_str())], *entries)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{node_exporter_samples, samples};

    const ARP: &str = "IP address       HW type     Flags       HW address            Mask     Device\n\
        192.0.2.1        0x1         0x2         02:fc:00:00:00:05     *        eth0\n\
        198.51.100.9     0x1         0x0         00:00:00:00:00:00     *        docker0\n\
        192.0.2.7        0x1         0x2         02:fc:00:00:00:09     *        eth0\n";

    #[test]
    fn entries_by_device() {
        let arp = parse(ARP).expect("valid");
        assert!(samples(arp.clone()).is_empty());
        assert_eq!(
            node_exporter_samples(arp),
            [
                r#"node_arp_entries{device="eth0"} 2"#,
                r#"node_arp_entries{device="docker0"} 1"#,
            ]
        );
        assert_eq!(parse(""), Ok(Arp::default()));
    }

    #[test]
    fn says_where_it_breaks() {
        let cut = ARP.replace("     *        docker0", "");
        let error = ParseError::new(3, "six columns, a device last");
        assert_eq!(parse(&cut), Err(error));
    }
}
