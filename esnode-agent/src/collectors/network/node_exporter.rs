//! Interfaces by the names of node_exporter: its collectors `netdev`, which makes the columns of
//! `/proc/net/dev` out of what netlink says, and `netclass`.

use super::{
    class::{Class, More, NUMBERS},
    interfaces::{Interface, values},
};
use crate::page::Page;
use std::fmt;

/// What follows `node_network_`, by the columns of `/proc/net/dev`.
const COLUMNS: [&str; 16] = [
    "receive_bytes",
    "receive_packets",
    "receive_errs",
    "receive_drop",
    "receive_fifo",
    "receive_frame",
    "receive_compressed",
    "receive_multicast",
    "transmit_bytes",
    "transmit_packets",
    "transmit_errs",
    "transmit_drop",
    "transmit_fifo",
    "transmit_colls",
    "transmit_carrier",
    "transmit_compressed",
];

/// A counter of sysfs: what follows `node_network_`, the file, and the value.
type Counter = (&'static str, &'static str, fn(&Class) -> Option<u64>);

const COUNTERS: [Counter; 4] = [
    (
        "receive_nohandler",
        "statistics/rx_nohandler",
        |class: &Class| class.without_handler,
    ),
    ("carrier_changes", "carrier_changes", |class: &Class| {
        class.carrier_changes
    }),
    ("carrier_up_changes", "carrier_up_count", |class: &Class| {
        more(class)?.carrier_up
    }),
    (
        "carrier_down_changes",
        "carrier_down_count",
        |class: &Class| more(class)?.carrier_down,
    ),
];

fn more(class: &Class) -> Option<&More> {
    class.properties.more.as_ref()
}

pub(super) fn encode(interfaces: &[Interface], page: &mut Page<'_>) -> fmt::Result {
    for (column, name) in COLUMNS.iter().enumerate() {
        page.counter(
            &format!("node_network_{name}"),
            &format!("{name} of the interface, from /proc/net/dev"),
            values("device", interfaces, |it| it.count(column)),
        )?;
    }
    for (name, file, count) in COUNTERS {
        page.counter(
            &format!("node_network_{name}"),
            &format!("{file} of /sys/class/net"),
            values("device", interfaces, |it| count(it.class.as_ref()?)),
        )?;
    }
    for (place, (file, name)) in NUMBERS.iter().enumerate() {
        let number = |it: &Interface| *more(it.class.as_ref()?)?.numbers.get(place)?;
        page.gauge(
            &format!("node_network_{name}"),
            &format!("{file} of /sys/class/net"),
            values("device", interfaces, number),
        )?;
    }
    page.gauge(
        "node_network_speed_bytes",
        "Speed of the link in bytes per second, speed of /sys/class/net; negative is unknown",
        values("device", interfaces, |it| {
            let megabits = it.class.as_ref()?.properties.speed?;
            Some(megabits.saturating_mul(1_000_000) / 8)
        }),
    )?;
    page.gauge(
        "node_network_up",
        "Whether operstate of /sys/class/net is up",
        values("device", interfaces, |it| {
            Some(u32::from(it.class.as_ref()?.state? == "up"))
        }),
    )?;
    page.gauge(
        "node_network_info",
        "Texts of /sys/class/net; empty is unknown",
        interfaces.iter().filter_map(|it| Some((info(it)?, 1_u32))),
    )
}

fn info(interface: &Interface) -> Option<[(&'static str, &str); 6]> {
    let class = interface.class.as_ref()?;
    let more = more(class)?;
    Some([
        ("address", more.address.as_str()),
        ("broadcast", &more.broadcast),
        ("device", &interface.name),
        ("duplex", &more.duplex),
        ("ifalias", &more.ifalias),
        ("operstate", class.state.unwrap_or_default()),
    ])
}

#[cfg(test)]
mod tests {
    use crate::{
        collectors::{
            filter::DeviceFilter,
            fixture::{Host, node_exporter_samples},
            network::NetworkCollector,
        },
        page::Names,
    };

    const DEV: &str = "head\nhead\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
    const ATTRIBUTES: [(&str, &str); 22] = [
        ("addr_assign_type", "0"),
        ("address", "02:fc:00:00:00:01"),
        ("broadcast", "ff:ff:ff:ff:ff:ff"),
        ("carrier", "1"),
        ("carrier_changes", "2"),
        ("carrier_down_count", "1"),
        ("carrier_up_count", "3"),
        ("dev_id", "0x0"),
        ("dormant", "0"),
        ("duplex", "full"),
        ("flags", "0x1003"),
        ("ifalias", ""),
        ("ifindex", "4"),
        ("iflink", "5"),
        ("link_mode", "0"),
        ("mtu", "1500"),
        ("name_assign_type", "2"),
        ("netdev_group", "0"),
        ("operstate", "up"),
        ("speed", "-1"),
        ("statistics/rx_nohandler", "17"),
        ("tx_queue_len", "1000"),
    ];

    fn page(host: &Host) -> Vec<String> {
        let (procfs, sysfs) = (host.procfs(), host.sysfs());
        let filter = DeviceFilter::default();
        let mut collector = NetworkCollector::new(&procfs, &sysfs, filter, Names::AndNodeExporter);
        node_exporter_samples(collector.sample().expect("valid"))
    }

    fn lines(samples: &[&str]) -> Vec<String> {
        let of = |sample: &&str| {
            let (name, value) = sample.split_once(' ').expect("two");
            format!("node_network_{name}{{device=\"eth0\"}} {value}")
        };
        samples.iter().map(of).collect()
    }

    const COLUMNS: [&str; 16] = [
        "receive_bytes_total 1",
        "receive_packets_total 2",
        "receive_errs_total 3",
        "receive_drop_total 4",
        "receive_fifo_total 5",
        "receive_frame_total 6",
        "receive_compressed_total 7",
        "receive_multicast_total 8",
        "transmit_bytes_total 9",
        "transmit_packets_total 10",
        "transmit_errs_total 11",
        "transmit_drop_total 12",
        "transmit_fifo_total 13",
        "transmit_colls_total 14",
        "transmit_carrier_total 15",
        "transmit_compressed_total 16",
    ];

    #[test]
    fn every_attribute_has_its_family() {
        let host = Host::new(&[("proc/net/dev", DEV), ("sys/class/net/eth0/type", "772\n")]);
        for (file, text) in ATTRIBUTES {
            host.write(&format!("sys/class/net/eth0/{file}"), format!("{text}\n"));
        }
        let mut expected = lines(&COLUMNS);
        expected.extend(lines(&[
            "receive_nohandler_total 17",
            "carrier_changes_total 2",
            "carrier_up_changes_total 3",
            "carrier_down_changes_total 1",
            "address_assign_type 0",
            "carrier 1",
            "device_id 0",
            "dormant 0",
            "flags 4099",
            "iface_id 4",
            "iface_link 5",
            "iface_link_mode 0",
            "mtu_bytes 1500",
            "name_assign_type 2",
            "net_dev_group 0",
            "transmit_queue_length 1000",
            "protocol_type 772",
            "speed_bytes -125000",
            "up 1",
        ]));
        expected.push(
            r#"node_network_info{address="02:fc:00:00:00:01",broadcast="ff:ff:ff:ff:ff:ff",device="eth0",duplex="full",ifalias="",operstate="up"} 1"#
                .to_owned(),
        );
        assert_eq!(page(&host), expected);
    }

    #[test]
    fn what_a_device_does_not_have_is_absent() {
        let host = Host::new(&[
            ("proc/net/dev", DEV),
            ("sys/class/net/eth0/operstate", "down\n"),
        ]);
        let mut expected = lines(&COLUMNS);
        expected.extend(lines(&["up 0"]));
        expected.push(
            r#"node_network_info{address="",broadcast="",device="eth0",duplex="",ifalias="",operstate="down"} 1"#
                .to_owned(),
        );
        assert_eq!(page(&host), expected);
        let elsewhere = Host::new(&[("proc/net/dev", DEV)]);
        assert_eq!(page(&elsewhere), lines(&COLUMNS));
    }
}
