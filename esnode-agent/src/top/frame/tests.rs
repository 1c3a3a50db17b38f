use super::*;
use crate::api::{Disk, Interface, ProcessGpu};

/// A process which has moved and burnt `n` of everything.
fn process(n: u32) -> Process {
    let bytes = Some(u64::from(n) * 1000);
    let traffic = |factor: u64| Traffic {
        receive_bytes_total: u64::from(n) * factor,
        transmit_bytes_total: u64::from(n) * factor * 2,
    };
    let gpu = |gpu, factor: f64| ProcessGpu {
        gpu,
        uuid: format!("GPU-{gpu}"),
        memory_used_bytes: Some(1 << 30),
        utilization_sm_percent: Some(40.0),
        energy_joules_total: Some(f64::from(n) * factor),
        ..ProcessGpu::default()
    };
    Process {
        pid: 7,
        start_time_seconds: Some(100.0),
        cpu_seconds_total: f64::from(n),
        disk_read_bytes_total: bytes,
        disk_write_bytes_total: bytes,
        network: Some(
            [("tcp", 10), ("udp", 5), ("unix", 999)]
                .map(|(protocol, factor)| (protocol.to_owned(), traffic(factor)))
                .into(),
        ),
        cpu_energy_joules_total: Some(f64::from(n) * 3.0),
        gpus: vec![gpu(0, 100.0), gpu(1, 50.0)],
        ..Process::default()
    }
}

fn snapshot(time_seconds: f64, process: Process) -> Snapshot {
    Snapshot {
        time_seconds,
        processes: vec![process],
        ..Snapshot::default()
    }
}

/// What it uses two seconds after `before`.
fn usage(before: Process, now: Process) -> Usage {
    let first = Frame::first(snapshot(1000.0, before));
    Frame::after(&first, snapshot(1002.0, now)).workers[0].usage
}

#[test]
fn rates_are_per_second_between_two_snapshots() {
    let usage = usage(process(10), process(14));
    let expected = Usage {
        cpu_percent: Some(200.0),
        gpu_percent: Some(80.0),
        gpu_memory_used_bytes: Some(2 << 30),
        gpu_watts: Some(300.0),
        cpu_watts: Some(6.0),
        watts: Some(306.0),
        disk_read_bytes_per_second: Some(2000.0),
        disk_write_bytes_per_second: Some(2000.0),
        network_receive_bytes_per_second: Some(30.0),
        network_transmit_bytes_per_second: Some(60.0),
    };
    assert_eq!(usage, expected);
    assert_eq!((usage.disk(), usage.network()), (Some(4000.0), Some(90.0)));
}

#[test]
fn what_is_seen_first_has_no_rates() {
    let first = Frame::first(snapshot(1000.0, process(10)));
    let usage = first.workers[0].usage;
    assert_eq!(usage.cpu_percent, None);
    assert_eq!(
        (usage.watts, usage.disk(), usage.network()),
        (None, None, None)
    );
    assert_eq!(
        usage.gpu_percent,
        Some(80.0),
        "the driver has measured that"
    );
    assert_eq!(first.interval_seconds, None);
}

#[test]
fn another_process_of_the_same_id_has_no_rates() {
    let mut other = process(14);
    other.start_time_seconds = Some(1001.0);
    assert_eq!(usage(process(10), other).cpu_percent, None);
}

#[test]
fn counters_that_fall_have_no_rates() {
    let usage = usage(process(10), process(4));
    assert_eq!(usage.cpu_percent, None);
    assert_eq!(
        (usage.watts, usage.disk(), usage.network()),
        (None, None, None)
    );
}

#[test]
fn time_that_does_not_pass_gives_no_rates() {
    for time in [1000.0, 999.0, f64::NAN] {
        let first = Frame::first(snapshot(1000.0, process(10)));
        let frame = Frame::after(&first, snapshot(time, process(14)));
        assert_eq!(frame.workers[0].usage.cpu_percent, None, "{time}");
    }
}

#[test]
fn what_is_not_known_stays_so() {
    let mut blind = process(14);
    blind.network = None;
    blind.disk_read_bytes_total = None;
    blind.cpu_energy_joules_total = None;
    let usage = usage(process(10), blind);
    assert_eq!(usage.network(), None);
    assert_eq!(usage.disk_read_bytes_per_second, None);
    assert_eq!(usage.disk(), Some(2000.0), "writes are known");
    assert_eq!(usage.watts, Some(300.0), "GPUs are known");
}

#[test]
fn a_protocol_that_was_not_used_before_counts_from_zero() {
    let mut before = process(10);
    before.network = Some(BTreeMap::new());
    let usage = usage(before, process(10));
    assert_eq!(usage.network_receive_bytes_per_second, Some(75.0));
}

#[test]
fn node_rates_count_each_byte_once() {
    let node = |n: u64| Node {
        disks: ["nvme0n1", "nvme1n1", "dm-0", "md0"]
            .map(|device| Disk {
                device: device.to_owned(),
                read_bytes_total: n * 100,
                written_bytes_total: n * 10,
            })
            .into(),
        interfaces: ["lo", "eth0", "bond0", "eth0.7", "ib0"]
            .map(|iface| Interface {
                iface: iface.to_owned(),
                rx_bytes_total: n * 6,
                tx_bytes_total: n * 4,
            })
            .into(),
        ..Node::default()
    };
    let at = |time_seconds, node| Snapshot {
        time_seconds,
        node,
        ..Snapshot::default()
    };
    let first = Frame::first(at(1.0, node(10)));
    let rates = Frame::after(&first, at(3.0, node(20))).rates;
    let expected = NodeRates {
        disk_read_bytes_per_second: Some(1000.0),
        disk_written_bytes_per_second: Some(100.0),
        network_rx_bytes_per_second: Some(60.0),
        network_tx_bytes_per_second: Some(40.0),
    };
    assert_eq!(rates, expected);
    // A device that came meanwhile, alone or beside others, has no rate yet.
    let first = Frame::first(at(1.0, Node::default()));
    let rates = Frame::after(&first, at(3.0, node(20))).rates;
    assert_eq!(rates, NodeRates::default());
}

#[test]
fn a_host_of_stacked_devices_alone_has_rates() {
    let node = |bytes| Node {
        disks: vec![Disk {
            device: "dm-0".to_owned(),
            read_bytes_total: bytes,
            written_bytes_total: 0,
        }],
        ..Node::default()
    };
    let at = |time_seconds, node| Snapshot {
        time_seconds,
        node,
        ..Snapshot::default()
    };
    let first = Frame::first(at(1.0, node(0)));
    let rates = Frame::after(&first, at(2.0, node(50))).rates;
    assert_eq!(rates.disk_read_bytes_per_second, Some(50.0));
}
