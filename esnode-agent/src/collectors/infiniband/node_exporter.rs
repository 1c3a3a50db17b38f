//! InfiniBand by the names of node_exporter.

use super::Port;
use crate::page::Page;
use std::fmt;

/// What follows `node_infiniband_`, without `_total`, and the file.
const COUNTS: [(&str, &str); 30] = [
    ("legacy_data_received_bytes", "port_rcv_data_64"),
    ("legacy_data_transmitted_bytes", "port_xmit_data_64"),
    ("legacy_packets_received", "port_rcv_packets_64"),
    ("legacy_packets_transmitted", "port_xmit_packets_64"),
    (
        "legacy_unicast_packets_received",
        "port_unicast_rcv_packets",
    ),
    (
        "legacy_unicast_packets_transmitted",
        "port_unicast_xmit_packets",
    ),
    (
        "legacy_multicast_packets_received",
        "port_multicast_rcv_packets",
    ),
    (
        "legacy_multicast_packets_transmitted",
        "port_multicast_xmit_packets",
    ),
    (
        "excessive_buffer_overrun_errors",
        "excessive_buffer_overrun_errors",
    ),
    ("link_downed", "link_downed"),
    ("link_error_recovery", "link_error_recovery"),
    ("local_link_integrity_errors", "local_link_integrity_errors"),
    ("multicast_packets_received", "multicast_rcv_packets"),
    ("multicast_packets_transmitted", "multicast_xmit_packets"),
    (
        "port_constraint_errors_received",
        "port_rcv_constraint_errors",
    ),
    (
        "port_constraint_errors_transmitted",
        "port_xmit_constraint_errors",
    ),
    ("port_data_received_bytes", "port_rcv_data"),
    ("port_data_transmitted_bytes", "port_xmit_data"),
    ("port_discards_received", "port_rcv_discards"),
    ("port_discards_transmitted", "port_xmit_discards"),
    ("port_errors_received", "port_rcv_errors"),
    ("port_packets_received", "port_rcv_packets"),
    ("port_packets_transmitted", "port_xmit_packets"),
    (
        "port_receive_remote_physical_errors",
        "port_rcv_remote_physical_errors",
    ),
    (
        "port_receive_switch_relay_errors",
        "port_rcv_switch_relay_errors",
    ),
    ("port_transmit_wait", "port_xmit_wait"),
    ("symbol_error", "symbol_error"),
    ("unicast_packets_received", "unicast_rcv_packets"),
    ("unicast_packets_transmitted", "unicast_xmit_packets"),
    ("vl15_dropped", "VL15_dropped"),
];

pub(super) fn encode(ports: &[Port], page: &mut Page<'_>) -> fmt::Result {
    for (name, file) in COUNTS {
        let count = |port: &Port| {
            let mut counts = port.counts.iter();
            let (_, count) = counts.find(|(name, _)| *name == file)?;
            // It takes words for 4 bytes on every device.
            let unit = if file.contains("_data") { 4 } else { 1 };
            Some(count.saturating_mul(unit))
        };
        let samples = ports.iter();
        page.counter(
            &format!("node_infiniband_{name}"),
            &format!("{file} of /sys/class/infiniband"),
            samples.filter_map(|port| Some((port.labels(), count(port)?))),
        )?;
    }
    encode_states(ports, page)?;
    // Ports of a device stand together, and it has one series.
    let devices = ports.chunk_by(|a, b| a.device.name == b.device.name);
    page.gauge(
        "node_infiniband_info",
        "Texts of /sys/class/infiniband; empty is unknown",
        devices.filter_map(|ports| Some((info(ports.first()?), 1_u32))),
    )
}

fn encode_states(ports: &[Port], page: &mut Page<'_>) -> fmt::Result {
    page.gauge(
        "node_infiniband_state_id",
        "state of /sys/class/infiniband: 1 down, 2 init, 3 armed, 4 active, 5 active and deferred",
        ports.iter().map(|port| (port.labels(), port.state)),
    )?;
    page.gauge(
        "node_infiniband_physical_state_id",
        "phys_state of /sys/class/infiniband: 1 sleep, 2 polling, 3 disabled, 4 training, 5 link up, \
         6 recovery, 7 test",
        ports
            .iter()
            .filter_map(|port| Some((port.labels(), port.physical_state?))),
    )?;
    page.gauge(
        "node_infiniband_rate_bytes_per_second",
        "rate of /sys/class/infiniband",
        ports
            .iter()
            .filter_map(|port| Some((port.labels(), port.rate?))),
    )
}

fn info(port: &Port) -> [(&'static str, &str); 4] {
    [
        ("device", port.device.name.as_str()),
        ("board_id", &port.device.board),
        ("firmware_version", &port.device.firmware),
        ("hca_type", &port.device.adapter),
    ]
}

#[cfg(test)]
mod tests {
    use crate::{
        collectors::{
            fixture::node_exporter_samples,
            infiniband::{InfinibandCollector, fixtures::host},
        },
        page::Names,
    };

    fn page(devices: &[&str]) -> Vec<String> {
        let host = host(devices);
        let mut collector = InfinibandCollector::new(&host.sysfs(), Names::AndNodeExporter);
        node_exporter_samples(collector.sample().expect("valid"))
    }

    #[test]
    fn every_file_has_its_family() {
        let mut expected = [
            "excessive_buffer_overrun_errors_total 2",
            "link_downed_total 3",
            "link_error_recovery_total 4",
            "local_link_integrity_errors_total 5",
            "multicast_packets_received_total 6",
            "multicast_packets_transmitted_total 7",
            "port_constraint_errors_received_total 8",
            "port_constraint_errors_transmitted_total 12",
            "port_data_received_bytes_total 120000000000",
            "port_data_transmitted_bytes_total 160000000000",
            "port_discards_transmitted_total 13",
            "port_errors_received_total 9",
            "port_packets_received_total 110000000",
            "port_packets_transmitted_total 120000000",
            "port_receive_remote_physical_errors_total 10",
            "port_receive_switch_relay_errors_total 11",
            "port_transmit_wait_total 14",
            "symbol_error_total 15",
            "unicast_packets_received_total 16",
            "unicast_packets_transmitted_total 17",
            "vl15_dropped_total 1",
            "state_id 4",
            "physical_state_id 5",
            "rate_bytes_per_second 50000000000.0",
        ]
        .map(|line| {
            let (name, value) = line.split_once(' ').expect("two");
            format!("node_infiniband_{name}{{device=\"mlx5_0\",port=\"1\"}} {value}")
        })
        .to_vec();
        expected.push(
            r#"node_infiniband_info{device="mlx5_0",board_id="MT_0000000838",firmware_version="28.39.1002",hca_type="MT4129"} 1"#
                .to_owned(),
        );
        assert_eq!(page(&["mlx5_0"]), expected);
    }

    #[test]
    fn counts_of_old_kernels_and_ports_of_one_device() {
        let page = page(&["mlx4_0", "hfi1_0"]);
        for line in [
            r#"node_infiniband_legacy_data_received_bytes_total{device="mlx4_0",port="1"} 20000000000"#,
            r#"node_infiniband_legacy_unicast_packets_received_total{device="mlx4_0",port="1"} 9"#,
            r#"node_infiniband_port_data_received_bytes_total{device="mlx4_0",port="1"} 17179869180"#,
            r#"node_infiniband_port_data_received_bytes_total{device="hfi1_0",port="1"} 400"#,
            r#"node_infiniband_physical_state_id{device="mlx4_0",port="2"} 2"#,
        ] {
            assert!(
                page.iter().any(|it| it == line),
                "{line} is not in {page:?}"
            );
        }
        let infos = page.iter().filter(|line| line.contains("_info{"));
        assert_eq!(infos.count(), 2, "{page:?}");
    }
}
