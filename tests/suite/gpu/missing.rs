//! What a device or a library doesn't have is absent, alone; it's told once, and not asked for
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::gpu::{FakeNvml, host};
use esnode_tests::page::Page;
use serde_json::{Value, json};

use super::sources::{SOURCES, Source};
use super::support::{Rig, check_value};
use super::watch::{FLAGS, busy, check_lines};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::missing::functions_one_by_one", one_by_one),
        Case::new("gpu::missing::not_asked_for_again", not_again),
        Case::new("gpu::missing::symbols", symbols),
        Case::new("gpu::missing::symbols_with_a_predecessor", predecessors),
        Case::new("gpu::missing::one_of_several", one_of_several),
    ]
}

/// A GPU that has everything but MIG.
fn complete(index: u8) -> Value {
    let mut gpu = busy(index, 40);
    gpu["nvlinks"] = json!([{ "up": true, "replay": 1, "recovery": 2, "crc": 3 }]);
    gpu["gpm"] = json!({ "2": 50.0 });
    for (field, value) in [
        ("198", 2),
        ("74", 3),
        ("202@0", 4),
        ("204@0", 5),
        ("82", 40),
    ] {
        gpu["fields"][field] = json!({ "u64": value });
    }
    gpu
}

/// A series without the GPU that it is of.
type Series = (String, BTreeMap<String, String>);

/// What the page has of a GPU.
fn series(page: &Page, index: usize) -> BTreeSet<Series> {
    let index = index.to_string();
    let samples = page.samples();
    let of_gpu = samples.filter(|sample| sample.has(&[("gpu", &index)]));
    of_gpu
        .map(|sample| {
            let mut labels = sample.labels.clone();
            labels.retain(|name, _| !["gpu", "uuid", "pci_bus_id"].contains(&name.as_str()));
            (sample.name.clone(), labels)
        })
        .collect()
}

/// Whether one of these sources gives a series.
fn is_of(sources: &[&Source], (name, labels): &Series) -> bool {
    let families = sources.iter().flat_map(|(_, _, families)| *families);
    families.into_iter().any(|(family, label)| {
        family == name
            && label.is_none_or(|(key, value)| labels.get(key).is_some_and(|it| it == value))
    })
}

/// Fails where a GPU has not exactly what a complete one has, less what these sources give.
fn check_absent(
    complete: &BTreeSet<Series>,
    seen: &BTreeSet<Series>,
    sources: &[&Source],
) -> Result<()> {
    let expected = complete.iter().filter(|series| !is_of(sources, series));
    let expected: BTreeSet<_> = expected.cloned().collect();
    let names: Vec<_> = sources.iter().map(|(_, name, _)| *name).collect();
    let more: Vec<_> = seen.difference(&expected).collect();
    let less: Vec<_> = expected.difference(seen).collect();
    ensure!(
        more.is_empty() && less.is_empty(),
        "without {names:?}: there are {more:?}, there aren't {less:?}"
    );
    for family in sources.iter().flat_map(|(_, _, families)| *families) {
        let one = BTreeSet::from([family.0]);
        let had = complete.iter().any(|(name, _)| one.contains(name.as_str()));
        ensure!(had, "a complete GPU has no {}", family.0);
    }
    Ok(())
}

/// What a GPU has that lacks nothing.
fn of_complete() -> Result<BTreeSet<Series>> {
    let rig = Rig::start_with(&[complete(0)], &FLAGS)?;
    rig.next_sample()?;
    rig.put(0, json!({ "energy_millijoules": 5_100_000 }))?;
    let page = rig.until(|page| {
        let labels = [("gpu", "0")];
        check_value(page, "esnode_gpu_sm_active_percent", &labels, Some(50.0))?;
        check_value(
            page,
            "esnode_gpu_energy_joules_total",
            &labels,
            Some(5100.0),
        )
    })?;
    Ok(series(&page, 0))
}

/// A GPU for each source that answers nothing but that.
fn one_by_one() -> Result<()> {
    let complete_one = of_complete()?;
    let mut devices = Vec::new();
    for (index, (functions, ..)) in (0..).zip(SOURCES) {
        let mut gpu = complete(index);
        let rules = functions
            .iter()
            .map(|function| ((*function).to_owned(), json!({ "error": "NOT_SUPPORTED" })));
        gpu["calls"] = rules.collect();
        devices.push(gpu);
    }
    let rig = Rig::start_with(&devices, &FLAGS)?;
    rig.next_sample()?;
    rig.change(|script| {
        for index in 0..SOURCES.len() {
            script["devices"][index]["energy_millijoules"] = json!(5_100_000);
        }
    })?;
    for (index, source) in SOURCES.iter().enumerate() {
        rig.until(|page| check_absent(&complete_one, &series(page, index), &[source]))?;
    }
    let page = rig.next_sample()?;
    for (index, source) in SOURCES.iter().enumerate() {
        check_absent(&complete_one, &series(&page, index), &[source])?;
        let words = format!("GPU {index}: without ");
        check_lines(&rig.agent, &words, 1)?;
        let told = rig.agent.log.lines();
        let told = told.iter().find(|line| line.contains(&words));
        let told = told.context("it's gone")?;
        ensure!(
            told.contains(source.1),
            "{told:?} doesn't name {}",
            source.1
        );
    }
    Ok(())
}

/// Whatever the error is that says so.
fn not_again() -> Result<()> {
    let errors = [
        "NOT_SUPPORTED",
        "NO_PERMISSION",
        "INVALID_ARGUMENT",
        "FUNCTION_NOT_FOUND",
    ];
    let functions = SOURCES.iter().flat_map(|(functions, ..)| *functions);
    let functions: Vec<_> = functions
        .chain(&["nvmlGpmQueryDeviceSupport", "nvmlDeviceGetMigMode"])
        .filter(|function| **function != "nvmlDeviceGetTemperature")
        .collect();
    let mut gpu = complete(0);
    let rules = functions.iter().zip(errors.into_iter().cycle());
    let rules = rules.map(|(function, error)| ((**function).to_owned(), json!({ "error": error })));
    gpu["calls"] = rules.collect();
    let rig = Rig::start_with(&[gpu], &FLAGS)?;
    rig.next_sample()?;
    thread::sleep(Duration::from_millis(300));
    let (before, told) = (rig.fake.calls()?, rig.agent.log.lines().len());
    thread::sleep(Duration::from_millis(1200));
    let after = rig.fake.calls()?;
    let count =
        |calls: &BTreeMap<String, u64>, function: &str| calls.get(function).copied().unwrap_or(0);
    for function in functions {
        let (before, after) = (count(&before, function), count(&after, function));
        ensure_eq!(after, before, "calls of {function}, which was refused");
    }
    let temperature = "nvmlDeviceGetTemperature";
    let more = count(&after, temperature) - count(&before, temperature);
    ensure!(more >= 3, "{more} calls of what wasn't refused, not 6");
    ensure_eq!(rig.agent.log.lines().len(), told, "lines of the log");
    let page = rig.page()?;
    check_value(&page, "esnode_gpu_up", &[], Some(1.0))?;
    check_value(&page, "esnode_gpu_temperature_celsius", &[], Some(30.0))
}

/// A library without all these functions and what they replaced.
fn symbols() -> Result<()> {
    let complete_one = of_complete()?;
    let lacks = |source: &&Source| source.1 != "temperature";
    let sources: Vec<_> = SOURCES.iter().filter(lacks).collect();
    let names: Vec<_> = sources
        .iter()
        .flat_map(|(functions, ..)| *functions)
        .copied()
        .collect();
    let script = host(&[complete(0)]);
    let fake = FakeNvml::new(&script)?.without_symbols(&names)?;
    let rig = Rig::of(fake, script, &FLAGS)?;
    rig.until(|page| check_absent(&complete_one, &series(page, 0), &sources))?;
    thread::sleep(Duration::from_millis(700));
    let page = rig.next_sample()?;
    check_absent(&complete_one, &series(&page, 0), &sources)?;
    let told = rig.agent.log.lines();
    for (functions, name, _) in sources {
        let of_source = told.iter().filter(|line| {
            // The log has the oldest of the names that were tried.
            let mut names = functions.iter().map(|name| name.trim_end_matches("_v3"));
            line.contains("GPU 0: without ") && names.any(|name| line.contains(name))
        });
        ensure_eq!(
            of_source.count(),
            1,
            "lines that say why there is no {name}"
        );
    }
    Ok(())
}

/// What newer drivers have is read as older ones have it.
fn predecessors() -> Result<()> {
    let mut gpu = complete(0);
    gpu["throttle"] = json!(0x4);
    gpu["throttle_supported"] = json!(0x24);
    let script = host(&[gpu]);
    let fake = FakeNvml::new(&script)?.without_symbols(&[
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetSupportedClocksEventReasons",
        "nvmlDeviceGetProcessUtilization",
    ])?;
    let rig = Rig::of(fake, script, &FLAGS)?;
    rig.next_sample()?;
    rig.until(|page| {
        const GIB: f64 = 1_073_741_824.0;
        for (family, value) in [
            ("memory_total_bytes", Some(80.0 * GIB)),
            ("memory_free_bytes", Some(79.0 * GIB)),
            // The older structure has no other place for what is reserved.
            ("memory_used_bytes", Some(GIB)),
            ("memory_reserved_bytes", None),
        ] {
            check_value(page, &format!("esnode_gpu_{family}"), &[], value)?;
        }
        for (reason, value) in [("sw_power_cap", 1.0), ("sw_thermal_slowdown", 0.0)] {
            let labels = [("reason", reason)];
            check_value(page, "esnode_gpu_throttle_reason", &labels, Some(value))?;
        }
        let reasons = page.select("esnode_gpu_throttle_reason", &[]).len();
        ensure_eq!(reasons, 2, "reasons that the driver knows");
        let labels = [("engine_type", "sm")];
        check_value(
            page,
            "esnode_process_gpu_utilization_percent",
            &labels,
            Some(50.0),
        )
    })?;
    check_lines(&rig.agent, "symbol", 0)?;
    Ok(())
}

/// One of several readings of a family takes none of the others with it.
fn one_of_several() -> Result<()> {
    let mut gpu = complete(0);
    gpu["clocks_max"] = json!({ "graphics": 1980, "sm": 1981, "memory": 2619 });
    gpu["clocks"] = json!({ "sm": 345, "memory": 2619, "video": 765 });
    gpu["ecc"] = json!({ "corrected_volatile": 7, "uncorrected_aggregate": 8 });
    gpu["nvlinks"] = json!([{ "up": true, "replay": 1, "crc": 3 }, { "up": false }]);
    gpu["pcie"] = json!({ "generation": 5, "width_max": 16 });
    let rig = Rig::start_with(&[gpu], &FLAGS)?;
    let expected = [
        ("clock_max_mhz", vec![1980.0, 1981.0, 2619.0]),
        ("clock_sm_mhz", vec![345.0]),
        ("clock_video_mhz", vec![765.0]),
        ("clock_graphics_mhz", vec![]),
        ("ecc_errors_total", vec![7.0, 8.0]),
        ("nvlink_errors_total", vec![1.0, 3.0]),
        ("nvlink_up", vec![0.0, 1.0]),
        ("pcie_link_generation", vec![5.0]),
        ("pcie_link_width", vec![16.0]),
        ("pcie_replays_total", vec![]),
    ];
    // What is read every interval, and what is read slowly, were asked for several times by then.
    for _ in 0..8 {
        let page = rig.next_sample()?;
        for (family, expected) in &expected {
            let samples = page
                .select(&format!("esnode_gpu_{family}"), &[])
                .into_iter();
            let mut values: Vec<_> = samples.map(|sample| sample.value).collect();
            values.sort_by(f64::total_cmp);
            ensure_eq!(values, *expected, "values of {family}");
        }
    }
    Ok(())
}
