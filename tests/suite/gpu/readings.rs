//! What a GPU shows: every family has the number of its source, in its unit; and what has no
//! source is absent.

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::gpu::{FakeNvml, device, host, uuid};
use esnode_tests::http;
use esnode_tests::page::{Format, Page};
use esnode_tests::skip::Skip;
use serde_json::{Value, json};

use super::support::{QUICK, Rig, check_value, put};
use super::table::{check_rows, expected, full, seen, sources};
use crate::check::ensure_eq;
use crate::{Case, readers};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::readings::every_family", every_family),
        Case::new("gpu::readings::absent_without_source", absent),
        Case::new("gpu::readings::renumbered_fields", renumbered),
        Case::new("gpu::readings::throttle_reasons", throttle_reasons),
        Case::new("gpu::readings::identity", identity),
        Case::new("gpu::readings::sample_age", sample_age),
        Case::new("gpu::readings::both_text_formats", formats),
    ]
}

/// Two GPUs without a number in common.
fn every_family() -> Result<()> {
    let rig = Rig::start(&[full(0), full(1)], &[])?;
    // What the chip samples needs two samples of a GPU.
    let page = rig.until(|page| {
        [0, 1].into_iter().try_for_each(|index| {
            let rows = expected(index, None)?;
            check_rows(&seen(page, &index.to_string()), &rows, &uuid(index))
        })
    })?;
    for sample in page
        .samples()
        .filter(|sample| sample.labels.contains_key("gpu"))
    {
        let index = sample.labels.get("gpu").map(String::as_str);
        let expected = index.and_then(|index| Some(uuid(index.parse().ok()?)));
        ensure_eq!(
            sample.labels.get("uuid"),
            expected.as_ref(),
            "UUID of {sample:?}"
        );
    }
    check_value(&page, "esnode_gpu_driver_up", &[], Some(1.0))?;
    check_value(&page, "esnode_gpu_reinitializations_total", &[], Some(0.0))
}

/// What the chip samples needs two samples.
fn activity_is_there(page: &Page) -> Result<()> {
    let missing = page.value("esnode_gpu_int_active_percent", &[]).is_none();
    ensure!(!missing, "nothing that the chip sampled");
    Ok(())
}

/// GPUs that lack one thing each: that's absent, and all else is there.
fn absent() -> Result<()> {
    let sources: Vec<_> = sources().into_iter().collect();
    ensure!(sources.len() > 50, "{sources:?}");
    // No more than a script may have at once.
    for some in sources.chunks(30) {
        let devices: Vec<_> = some
            .iter()
            .map(|source| full_without(source))
            .collect::<Result<_>>()?;
        let devices = numbered(devices);
        let rig = Rig::start(&devices, &[])?;
        let page = rig.until(activity_is_there)?;
        // GPUs begin one after the other.
        rig.next_sample()?;
        let page = rig.next_sample().unwrap_or(page);
        for (index, source) in some.iter().enumerate() {
            let what = format!("a GPU without {source}");
            check_rows(
                &seen(&page, &index.to_string()),
                &expected(0, Some(source))?,
                &what,
            )?;
        }
    }
    Ok(())
}

fn numbered(devices: Vec<Value>) -> Vec<Value> {
    let with_index = devices.into_iter().zip(0..);
    with_index
        .map(|(mut device, index)| {
            put(&mut device, json!({ "uuid": uuid(index) }));
            device
        })
        .collect()
}

/// The first GPU, without a field that a JSON pointer names; `*` is every entry of a list.
fn full_without(pointer: &str) -> Result<Value> {
    let mut gpu = full(0);
    if let Some((list, field)) = pointer.split_once("/*/") {
        let entries = gpu.pointer_mut(list).and_then(Value::as_array_mut);
        for entry in entries.with_context(|| pointer.to_owned())? {
            remove(entry, field)?;
        }
        return Ok(gpu);
    }
    let (parent, field) = pointer.rsplit_once('/').context("no pointer")?;
    let parent = gpu.pointer_mut(parent);
    remove(parent.with_context(|| pointer.to_owned())?, field)?;
    Ok(gpu)
}

fn remove(object: &mut Value, field: &str) -> Result<()> {
    let removed = object
        .as_object_mut()
        .and_then(|object| object.remove(field));
    removed
        .map(drop)
        .with_context(|| format!("a GPU has no {field}"))
}

/// From driver 580.82 on, three fields have other numbers, and their old ones mean something else.
fn renumbered() -> Result<()> {
    let mut gpu = full(0);
    let fields = gpu["fields"].as_object_mut().context("no fields")?;
    for (old, new) in [("251", "269"), ("252", "270"), ("253", "271")] {
        let value = fields.insert(old.to_owned(), json!({ "u64": 42 }));
        fields.insert(new.to_owned(), value.context("no such field")?);
    }
    let mut script = host(&[gpu]);
    put(&mut script, json!({ "driver_version": "580.95.05" }));
    let rig = Rig::of(FakeNvml::new(&script)?, script, &QUICK)?;
    let page = rig.until(activity_is_there)?;
    check_rows(&seen(&page, "0"), &expected(0, None)?, "580.95.05")
}

/// The reasons that the driver knows have series, and those that are active though it doesn't;
/// also such that have no name yet.
fn throttle_reasons() -> Result<()> {
    let with = |index, known: Option<u64>, active: u64| {
        let mut gpu = device(index);
        put(
            &mut gpu,
            json!({ "throttle_supported": known, "throttle": active }),
        );
        gpu
    };
    let devices = [
        with(0, Some(0x05), 0x04),
        with(1, Some(0x05), 0x18),
        with(2, Some(0x1001), 0x00),
        with(3, Some(0x01), 0x4001),
        with(4, None, 0x100),
    ];
    let rig = Rig::start(&devices, &[])?;
    let page = rig.next_sample()?;
    let expected: [&[(&str, f64)]; 4] = [
        &[("gpu_idle", 0.0), ("sw_power_cap", 1.0)],
        &[
            ("gpu_idle", 0.0),
            ("hw_slowdown", 1.0),
            ("sw_power_cap", 0.0),
            ("sync_boost", 1.0),
        ],
        &[("gpu_idle", 0.0), ("other", 0.0)],
        &[("gpu_idle", 1.0), ("other", 1.0)],
    ];
    let reasons = |index: usize| -> BTreeMap<String, f64> {
        let samples = page.select("esnode_gpu_throttle_reason", &[("gpu", &index.to_string())]);
        let samples = samples.into_iter();
        samples
            .filter_map(|sample| Some((sample.labels.get("reason")?.clone(), sample.value)))
            .collect()
    };
    for (index, expected) in expected.iter().enumerate() {
        let expected = expected
            .iter()
            .map(|(reason, value)| ((*reason).to_owned(), *value));
        ensure_eq!(reasons(index), expected.collect(), "reasons of GPU {index}");
    }
    // One that doesn't say which it knows, is asked for all that there are.
    let active: Vec<_> = reasons(4)
        .into_iter()
        .filter(|(_, value)| *value > 0.0)
        .collect();
    ensure_eq!(
        active,
        [("display_clock_setting".to_owned(), 1.0)],
        "active reasons"
    );
    ensure_eq!(
        reasons(4).len(),
        9,
        "reasons of a GPU that doesn't say which it knows"
    );
    // They change with every sample.
    rig.put(0, json!({ "throttle": 1 }))?;
    let labels = [("gpu", "0"), ("reason", "gpu_idle")];
    let page = rig.until_value("esnode_gpu_throttle_reason", &labels, 1.0)?;
    let labels = [("gpu", "0"), ("reason", "sw_power_cap")];
    check_value(&page, "esnode_gpu_throttle_reason", &labels, Some(0.0))
}

/// Who a GPU is; what it doesn't tell is empty.
fn identity() -> Result<()> {
    let nameless = json!({ "uuid": uuid(1), "temperature": 40 });
    let rig = Rig::start(&[full(0), nameless], &[])?;
    let page = rig.next_sample()?;
    let known = [
        ("gpu", "0"),
        ("uuid", "GPU-00000000-0000-0000-0000-000000000000"),
        ("name", "NVIDIA H100 number 0"),
        ("driver_version", "570.86.10"),
        ("cuda_version", "12.8"),
        ("pci_bus_id", "00000000:10:00.0"),
        ("vbios", "96.00.74.00.00"),
        ("architecture", "Hopper"),
    ];
    check_value(&page, "esnode_gpu_info", &known, Some(1.0))?;
    let unknown = [
        ("gpu", "1"),
        ("uuid", "GPU-00000000-0000-0000-0000-000000000001"),
        ("name", ""),
        ("driver_version", "570.86.10"),
        ("pci_bus_id", ""),
        ("vbios", ""),
        ("architecture", ""),
    ];
    check_value(&page, "esnode_gpu_info", &unknown, Some(1.0))?;
    let rows: Vec<_> = seen(&page, "1").into_iter().collect();
    let rest = [
        ("esnode_gpu_info", 1.0),
        ("esnode_gpu_temperature_celsius,sensor=gpu", 40.0),
        ("esnode_gpu_up", 1.0),
    ];
    let rest = rest.map(|(name, value)| (name.to_owned(), value));
    ensure_eq!(
        rows,
        rest,
        "what there is of a GPU that has a thermometer alone"
    );
    Ok(())
}

/// The age grows between samples, and is never more than an interval and the time of a sample.
fn sample_age() -> Result<()> {
    const AGE: &str = "esnode_gpu_sample_age_seconds";
    let flags = ["--no-bpf", "--collectors", "gpu", "--gpu-interval", "1s"];
    let rig = Rig::start_with(&[device(0)], &flags)?;
    let first = rig.next_sample()?.value(AGE, &[]).context("no age")?;
    let page = rig.page()?;
    let second = page.value(AGE, &[]).context("no age")?;
    ensure!(first < second && second < 1.0, "{first} s, then {second} s");
    let took = page.value("esnode_gpu_sample_duration_seconds", &[]);
    let took = took.context("no duration")?;
    ensure!(took > 0.0 && took < 1.0, "a sample took {took} s");
    // It grows from page to page, until there is a new one.
    let last = Cell::new(second);
    rig.until(|page| {
        let age = page.value(AGE, &[]).context("no age")?;
        ensure!(age < last.replace(age), "{age} s: no new sample");
        Ok(())
    })?;
    Ok(())
}

/// Pages with everything on them are valid, for Prometheus' own checker as well.
fn formats() -> Result<()> {
    let cut = super::mig::cut(2);
    let rig = Rig::start(&[full(0), full(1), cut], &["--dcgm-names"])?;
    rig.until(activity_is_there)?;
    let text = http::request(
        rig.agent.address()?,
        "GET",
        "/metrics",
        &["Accept: text/plain"],
    )?;
    let text = Page::parse(text.text()?, Format::Text)?;
    check_value(
        &text,
        "esnode_gpu_power_watts",
        &[("gpu", "1")],
        Some(345.679),
    )?;
    check_value(
        &text,
        "esnode_gpu_energy_joules_total",
        &[("gpu", "1")],
        Some(1234.568),
    )?;
    check_value(
        &text,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        &[("gpu", "1")],
        Some(1_234_568.0),
    )?;
    let Err(error) = readers::check_by_promtool(&rig.agent) else {
        return Ok(());
    };
    if error.is::<Skip>() {
        return Err(error);
    }
    // The exporter's labels are as they are.
    let complaints = error.to_string();
    let complaints = complaints.trim_start_matches("promtool: ").lines();
    let ours: Vec<_> = complaints
        .filter(|line| !line.is_empty() && !line.starts_with("DCGM_FI_"))
        .collect();
    ensure!(ours.is_empty(), "promtool: {ours:#?}");
    Ok(())
}
