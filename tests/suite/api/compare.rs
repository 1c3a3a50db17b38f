//! The table between two pages: each value is the page's, or in between; what neither page has, the
//! table hasn't either.

use anyhow::{Context as _, Result, ensure};
use esnode_tests::page::Page;
use serde_json::Value;

use crate::check::ensure_eq;

/// A table, and the page that was read before and the one after.
pub(super) struct Between {
    pub(super) before: Page,
    pub(super) table: Value,
    pub(super) after: Page,
}

/// Labels of a series.
type Labels<'a> = [(&'a str, &'a str)];

/// A field of a row, and its family.
const OF_PROCESS: [(&str, &str); 5] = [
    ("cpu_seconds_total", "esnode_process_cpu_seconds_total"),
    (
        "disk_read_bytes_total",
        "esnode_process_disk_read_bytes_total",
    ),
    (
        "disk_write_bytes_total",
        "esnode_process_disk_write_bytes_total",
    ),
    (
        "disk_cancelled_write_bytes_total",
        "esnode_process_disk_cancelled_write_bytes_total",
    ),
    (
        "cpu_energy_joules_total",
        "esnode_process_cpu_energy_joules_total",
    ),
];

const OF_GPU: [(&str, &str); 5] = [
    ("utilization_percent", "esnode_gpu_utilization_percent"),
    ("memory_used_bytes", "esnode_gpu_memory_used_bytes"),
    ("memory_total_bytes", "esnode_gpu_memory_total_bytes"),
    ("power_watts", "esnode_gpu_power_watts"),
    ("power_limit_watts", "esnode_gpu_power_limit_watts"),
];

/// A member of an object, which must be there.
pub(super) fn member<'a>(object: &'a Value, name: &str) -> Result<&'a Value> {
    object
        .get(name)
        .with_context(|| format!("no {name} in {object}"))
}

fn list<'a>(object: &'a Value, name: &str) -> Result<&'a [Value]> {
    let list = member(object, name)?.as_array();
    Ok(list.with_context(|| format!("{name} isn't a list"))?)
}

fn text(object: &Value, name: &str) -> Result<String> {
    let value = member(object, name)?;
    Ok(value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned))
}

impl Between {
    /// Fails where a value that may only grow isn't between those of the pages.
    fn check(&self, value: Option<&Value>, name: &str, labels: &Labels<'_>) -> Result<()> {
        let place = || format!("{name} {labels:?}");
        let value = value.map(|value| value.as_f64().with_context(place));
        let value = value.transpose()?;
        let (before, after) = (
            self.before.value(name, labels),
            self.after.value(name, labels),
        );
        match (value, before, after) {
            // A series may come or go in between, with who it is of.
            (_, None, Some(_)) | (_, Some(_), None) | (None, None, None) => {}
            (Some(value), Some(before), Some(after)) => {
                // The page has fewer digits.
                let slack = 1e-9 * value.abs();
                ensure!(
                    (before - slack..=after + slack).contains(&value),
                    "{}: {value} isn't between {before} and {after}",
                    place()
                );
            }
            other => anyhow::bail!("{} is known on one side only: {other:?}", place()),
        }
        Ok(())
    }

    /// The node: what it has, and what its devices moved.
    pub(super) fn check_node(&self) -> Result<()> {
        let node = member(&self.table, "node")?;
        for (field, name) in [
            ("memory_total_bytes", "esnode_memory_total_bytes"),
            ("swap_total_bytes", "esnode_swap_total_bytes"),
            ("uptime_seconds", "esnode_node_uptime_seconds"),
        ] {
            self.check(node.get(field), name, &[])?;
        }
        let time = "esnode_node_time_seconds";
        self.check(self.table.get("time_seconds"), time, &[])?;
        let names = self
            .before
            .label_values("esnode_node_info", &[], "hostname");
        let hostname = text(node, "hostname")?;
        ensure!(
            names.contains(hostname.as_str()),
            "{hostname} isn't {names:?}"
        );
        let cores = "esnode_cpu_time_seconds_total";
        let cores = self.before.select(cores, &[("state", "idle")]).len();
        ensure_eq!(member(node, "cores")?.as_u64(), Some(cores as u64), "cores");
        let percent = node.get("cpu_usage_percent").and_then(Value::as_f64);
        ensure!(
            percent.is_none_or(|percent| (0.0..=100.0).contains(&percent)),
            "usage of {percent:?}"
        );
        ensure_eq!(list(node, "cpu_load_avg")?.len(), 3, "load averages");
        for (devices, label, fields) in [
            (
                "disks",
                "device",
                [
                    ("read_bytes_total", "esnode_disk_read_bytes_total"),
                    ("written_bytes_total", "esnode_disk_written_bytes_total"),
                ],
            ),
            (
                "interfaces",
                "iface",
                [
                    ("rx_bytes_total", "esnode_network_rx_bytes_total"),
                    ("tx_bytes_total", "esnode_network_tx_bytes_total"),
                ],
            ),
        ] {
            let rows = list(node, devices)?;
            for row in rows {
                let device = text(row, label)?;
                for (field, name) in fields {
                    self.check(row.get(field), name, &[(label, &device)])?;
                }
            }
            let there = self.before.select(fields[0].1, &[]).len();
            ensure_eq!(rows.len(), there, "{devices}");
        }
        Ok(())
    }

    /// All rows that are on both pages.
    pub(super) fn check_processes(&self) -> Result<()> {
        let rows = list(&self.table, "processes")?;
        ensure!(!rows.is_empty(), "no processes");
        let mut checked = 0;
        for row in rows {
            let (pid, comm) = (text(row, "pid")?, text(row, "comm")?);
            let labels = [("pid", pid.as_str()), ("comm", comm.as_str())];
            let info = "esnode_process_info";
            let starts = self.before.label_values(info, &labels, "start_time");
            let stays = self.after.label_values(info, &labels, "start_time") == starts;
            let Some(start) = starts.first().filter(|_| stays) else {
                continue;
            };
            checked += 1;
            let started = row.get("start_time_seconds").and_then(Value::as_f64);
            let started = started.context("no start")?;
            // The page has microseconds, and reading JSON may take away one bit.
            let start: f64 = start.parse()?;
            ensure!(
                (started - start).abs() < 2e-6,
                "start of {labels:?}: {started} and {start}"
            );
            let groups = self.before.label_values(info, &labels, "group");
            ensure!(
                groups.contains(text(row, "group")?.as_str()),
                "group of {row}"
            );
            for (field, name) in OF_PROCESS {
                self.check(row.get(field), name, &labels)?;
            }
            self.check_traffic(row, &labels)?;
            for gpu in list(row, "gpus")? {
                self.check_use(gpu, &labels)?;
            }
        }
        ensure!(checked > 0, "no process is on both pages");
        ensure!(
            member(&self.table, "processes_not_selected")?.is_u64(),
            "processes beyond"
        );
        Ok(())
    }

    fn check_traffic(&self, row: &Value, labels: &Labels<'_>) -> Result<()> {
        for protocol in ["tcp", "udp", "unix", "other"] {
            let labels = [labels, &[("protocol", protocol)]].concat();
            for direction in ["receive", "transmit"] {
                let pointer = format!("/network/{protocol}/{direction}_bytes_total");
                let name = format!("esnode_process_network_{direction}_bytes_total");
                self.check(row.pointer(&pointer), &name, &labels)?;
            }
        }
        Ok(())
    }

    fn check_use(&self, row: &Value, labels: &Labels<'_>) -> Result<()> {
        let (gpu, uuid) = (text(row, "gpu")?, text(row, "uuid")?);
        let labels = [labels, &[("gpu", &gpu), ("uuid", &uuid)]].concat();
        for (field, name) in [
            ("memory_used_bytes", "esnode_process_gpu_memory_used_bytes"),
            (
                "energy_joules_total",
                "esnode_process_gpu_energy_joules_total",
            ),
        ] {
            self.check(row.get(field), name, &labels)?;
        }
        for engine in ["sm", "memory"] {
            let labels = [&labels[..], &[("engine_type", engine)]].concat();
            let field = format!("utilization_{engine}_percent");
            let name = "esnode_process_gpu_utilization_percent";
            self.check(row.get(field), name, &labels)?;
        }
        Ok(())
    }

    /// GPUs whose readings stay as they are.
    pub(super) fn check_gpus(&self) -> Result<()> {
        let rows = list(&self.table, "gpus")?;
        for row in rows {
            let (gpu, uuid) = (text(row, "gpu")?, text(row, "uuid")?);
            let labels = [("gpu", gpu.as_str()), ("uuid", uuid.as_str())];
            for (field, name) in OF_GPU {
                self.check(row.get(field), name, &labels)?;
            }
        }
        let there = self.before.select("esnode_gpu_info", &[]).len();
        ensure_eq!(rows.len(), there, "GPUs");
        Ok(())
    }
}
