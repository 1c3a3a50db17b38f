//! What was put into a column comes out in its family.

use super::{Format, Page, collector};
use crate::collectors::{CollectorName, fixture::Host};
use crate::page::{self, Names};
use proptest::{array, prelude::*};

/// The page of a host that has this file.
fn page(name: CollectorName, file: &str, text: &str) -> Page {
    let host = Host::new(&[(file, text)]);
    let facts = collector(&host, name).sample().facts.expect("valid");
    let page = page::render(vec![facts], Names::Own, 0).expect("written");
    Page::parse(&page, Format::OpenMetrics).expect("valid")
}

/// Numbers that a page gives back whole.
fn exact() -> std::ops::Range<u64> {
    0..1 << 53
}

fn joined(numbers: &[u64]) -> String {
    let words: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    words.join(" ")
}

/// The device, or the like, and the families with what they must say.
#[expect(clippy::cast_precision_loss, reason = "numbers below 2^53")]
fn check(page: &Page, labels: &[(&str, &str)], families: &[(&str, u64, f64)]) {
    for (family, number, unit) in families {
        let seen = page.value(family, labels);
        let expected = *number as f64 * unit;
        let near = seen.is_some_and(|seen| (seen - expected).abs() <= expected * 1e-12);
        assert!(near, "{family} {labels:?} is {seen:?}, not {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_diskstats(
        // Sectors are of 512 bytes; times wrap at 2^32.
        n in array::uniform17(0..1_u64 << 32),
        name in "[a-z]{1,3}[a-z-]{0,20}",
        columns in prop::sample::select(vec![11_usize, 15, 17]),
    ) {
        let text = format!("   8       0 {name} {}\n", joined(&n[..columns]));
        let page = page(CollectorName::Disk, "proc/diskstats", &text);
        let mut families = vec![
            ("esnode_disk_read_ops_total", n[0], 1.0),
            ("esnode_disk_read_bytes_total", n[2], 512.0),
            ("esnode_disk_read_seconds_total", n[3], 0.001),
            ("esnode_disk_write_ops_total", n[4], 1.0),
            ("esnode_disk_written_bytes_total", n[6], 512.0),
            ("esnode_disk_write_seconds_total", n[7], 0.001),
            ("esnode_disk_io_in_progress", n[8], 1.0),
            ("esnode_disk_io_seconds_total", n[9], 0.001),
            ("esnode_disk_io_weighted_seconds_total", n[10], 0.001),
        ];
        let newer = [(15, "esnode_disk_discards_total", n[11]), (17, "esnode_disk_flushes_total", n[15])];
        for (since, family, number) in newer {
            if columns >= since {
                families.push((family, number, 1.0));
            } else {
                assert!(page.select(family, &[]).is_empty(), "{family}");
            }
        }
        check(&page, &[("device", &name)], &families);
    }

    #[test]
    fn of_interfaces(n in array::uniform16(exact()), name in "[a-z]{1,4}[a-z0-9.:]{0,8}[a-z0-9]") {
        let text = format!("Inter-| Receive | Transmit\n face |bytes |bytes\n{name:>6}: {}\n", joined(&n));
        let page = page(CollectorName::Network, "proc/1/net/dev", &text);
        let families = [
            ("esnode_network_rx_bytes_total", n[0], 1.0),
            ("esnode_network_rx_packets_total", n[1], 1.0),
            ("esnode_network_rx_errors_total", n[2], 1.0),
            ("esnode_network_rx_dropped_total", n[3], 1.0),
            ("esnode_network_tx_bytes_total", n[8], 1.0),
            ("esnode_network_tx_packets_total", n[9], 1.0),
            ("esnode_network_tx_errors_total", n[10], 1.0),
            ("esnode_network_tx_dropped_total", n[11], 1.0),
        ];
        check(&page, &[("iface", &name)], &families);
    }

    #[test]
    fn of_cores(n in array::uniform10(exact()), core in 0_u16..9999) {
        let text = format!("cpu  {0}\ncpu{core} {0}\nctxt {1}\nprocesses {2}\n", joined(&n), n[3], n[4]);
        let page = page(CollectorName::Cpu, "proc/stat", &text);
        let core = core.to_string();
        let states = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
        for (state, ticks) in states.iter().zip(n) {
            let labels = [("core", core.as_str()), ("state", *state)];
            check(&page, &labels, &[("esnode_cpu_time_seconds_total", ticks, 0.01)]);
        }
        let families = [
            ("esnode_cpu_context_switches_total", n[3], 1.0),
            ("esnode_cpu_forks_total", n[4], 1.0),
        ];
        check(&page, &[], &families);
    }

    #[test]
    fn of_memory(n in array::uniform9(0..1_u64 << 43)) {
        let names = [
            "MemTotal", "MemFree", "Buffers", "Cached", "Dirty", "Writeback", "Slab", "Shmem", "SwapTotal",
        ];
        let lines = names.iter().zip(n).map(|(name, kib)| format!("{name}: {kib} kB\n"));
        let page = page(CollectorName::Memory, "proc/meminfo", &lines.collect::<String>());
        let families = [
            ("esnode_memory_total_bytes", n[0], 1024.0),
            ("esnode_memory_free_bytes", n[1], 1024.0),
            ("esnode_memory_buffers_bytes", n[2], 1024.0),
            ("esnode_memory_cached_bytes", n[3], 1024.0),
            ("esnode_memory_dirty_bytes", n[4], 1024.0),
            ("esnode_memory_writeback_bytes", n[5], 1024.0),
            ("esnode_memory_slab_bytes", n[6], 1024.0),
            ("esnode_memory_shared_bytes", n[7], 1024.0),
            ("esnode_swap_total_bytes", n[8], 1024.0),
        ];
        check(&page, &[], &families);
    }
}
