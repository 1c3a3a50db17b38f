//! Critical errors (XID), as they come.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::gpu::{FakeNvml, device, host, uuid};
use esnode_tests::page::Page;
use serde_json::{Value, json};

use super::support::{Rig, check_value};
use super::watch::{FLAGS, busy, check_fresh, check_lines};
use crate::Case;
use crate::check::ensure_eq;

const ERRORS: &str = "esnode_gpu_xid_errors_total";
const LAST: &str = "esnode_gpu_xid_last_time_seconds";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::xids::counted_by_code_and_gpu", counted),
        Case::new("gpu::xids::survive_a_reload", survive),
        Case::new("gpu::xids::a_gpu_that_reports_none", not_reported),
        Case::new("gpu::xids::a_library_without_events", no_symbol),
        Case::new("gpu::xids::a_driver_without_events", refused),
    ]
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Errors with ids that no other has.
fn errors(codes: &[u64], first: usize) -> Value {
    let events = codes.iter().zip(first..);
    events
        .map(|(xid, id)| json!({ "xid": xid, "id": id }))
        .collect()
}

/// Fails where the errors of a GPU aren't these.
fn check_errors(page: &Page, index: u8, expected: &[(&str, f64)]) -> Result<()> {
    let uuid = uuid(index);
    let of_gpu = [("uuid", uuid.as_str())];
    let codes = page.label_values(ERRORS, &of_gpu, "xid");
    let mut sorted: Vec<_> = expected.iter().map(|(code, _)| *code).collect();
    sorted.sort_unstable();
    ensure_eq!(
        codes.into_iter().collect::<Vec<_>>(),
        sorted,
        "codes of {uuid}"
    );
    for (code, count) in expected {
        let labels = [("uuid", uuid.as_str()), ("xid", code)];
        check_value(page, ERRORS, &labels, Some(*count))?;
    }
    Ok(())
}

fn last(page: &Page, index: &str, code: &str) -> Result<f64> {
    let labels = [("gpu", index), ("xid", code)];
    page.value(LAST, &labels)
        .with_context(|| format!("no {LAST} {labels:?}"))
}

/// Each with the number of times that it came, and the time of the last.
fn counted() -> Result<()> {
    let rig = Rig::start_with(&[device(0), device(1), device(2)], &FLAGS)?;
    let page = rig.next_sample()?;
    check_value(&page, ERRORS, &[], None)?;
    let before = now()?;
    rig.put(1, json!({ "events": errors(&[79, 31, 31], 1) }))?;
    let page = rig.until(|page| check_errors(page, 1, &[("79", 1.0), ("31", 2.0)]))?;
    let after = now()?;
    check_errors(&page, 0, &[])?;
    check_errors(&page, 2, &[])?;
    for code in ["79", "31"] {
        let last = last(&page, "1", code)?;
        ensure!(
            (before..=after).contains(&last),
            "{last} isn't in {before} to {after}"
        );
    }
    let first = last(&page, "1", "79")?;
    thread::sleep(Duration::from_millis(100));
    let before = now()?;
    rig.change(|script| {
        script["devices"][0]["events"] = errors(&[94], 1);
        script["devices"][1]["events"] = errors(&[31], 10);
    })?;
    let page = rig.until(|page| {
        check_errors(page, 0, &[("94", 1.0)])?;
        check_errors(page, 1, &[("79", 1.0), ("31", 3.0)])
    })?;
    let after = now()?;
    let second = last(&page, "1", "31")?;
    ensure!(
        (before..=after).contains(&second),
        "{second} isn't in {before} to {after}"
    );
    check_value(&page, LAST, &[("gpu", "1"), ("xid", "79")], Some(first))?;
    // However many of a code there are, the log has one for a minute.
    for (index, code, count) in [(0, 94, 1), (1, 79, 1), (1, 31, 1), (2, 79, 0)] {
        let line = format!("GPU {} reports XID {code}", uuid(index));
        check_lines(&rig.agent, &line, count)?;
    }
    Ok(())
}

/// While there is no driver nobody reports; what was counted stays, and goes on.
fn survive() -> Result<()> {
    let rig = Rig::start_with(&[device(0), device(1)], &FLAGS)?;
    rig.put(0, json!({ "events": errors(&[79, 79], 1) }))?;
    let page = rig.until(|page| check_errors(page, 0, &[("79", 2.0)]))?;
    let time = last(&page, "0", "79")?;
    rig.change(|script| {
        script["system"] = json!("UNINITIALIZED");
        script["init"] = json!("DRIVER_NOT_LOADED");
    })?;
    let page = rig.until_value("esnode_gpu_driver_up", &[], 0.0)?;
    check_errors(&page, 0, &[("79", 2.0)])?;
    check_value(&page, LAST, &[("gpu", "0"), ("xid", "79")], Some(time))?;
    rig.change(|script| {
        script["system"] = json!("SUCCESS");
        script["init"] = json!("SUCCESS");
        script["devices"][0]["events"] = errors(&[79, 48], 10);
        script["devices"][1]["events"] = errors(&[48], 10);
    })?;
    let page = rig.until(|page| {
        check_errors(page, 0, &[("79", 3.0), ("48", 1.0)])?;
        check_errors(page, 1, &[("48", 1.0)])
    })?;
    ensure!(last(&page, "0", "79")? > time, "the last is the one before");
    // A GPU that is lost reports nothing, and forgets nothing.
    rig.put(0, json!({ "status": "GPU_IS_LOST" }))?;
    let page = rig.until_value("esnode_gpu_up", &[("gpu", "0")], 0.0)?;
    check_errors(&page, 0, &[("79", 3.0), ("48", 1.0)])?;
    rig.put(1, json!({ "events": errors(&[13], 20) }))?;
    rig.until(|page| check_errors(page, 1, &[("48", 1.0), ("13", 1.0)]))?;
    Ok(())
}

/// Errors of others are counted, and it's sampled as any.
fn not_reported() -> Result<()> {
    let mut silent = busy(0, 40);
    silent["event_types"] = json!(0);
    let rig = Rig::start_with(&[silent, device(1)], &FLAGS)?;
    rig.next_sample()?;
    rig.change(|script| {
        script["devices"][0]["events"] = errors(&[79], 1);
        script["devices"][1]["events"] = errors(&[79], 1);
    })?;
    let page = rig.until(|page| check_errors(page, 1, &[("79", 1.0)]))?;
    check_errors(&page, 0, &[])?;
    check_fresh(&page, 0, 40.0)?;
    let told = format!("XIDs of GPU {} are not known", uuid(0));
    check_lines(&rig.agent, &told, 1)?;
    Ok(())
}

/// All else works, and the log says once what is missing.
fn check_without_events(rig: &Rig) -> Result<()> {
    let page = rig.next_sample()?;
    check_fresh(&page, 0, 40.0)?;
    rig.put(0, json!({ "events": errors(&[79], 1) }))?;
    let calls = || -> Result<u64> {
        let calls = rig.fake.calls()?;
        Ok(calls.get("nvmlEventSetCreate").copied().unwrap_or(0))
    };
    thread::sleep(Duration::from_millis(300));
    let before = calls()?;
    thread::sleep(Duration::from_secs(1));
    let page = rig.next_sample()?;
    check_errors(&page, 0, &[])?;
    check_fresh(&page, 0, 40.0)?;
    ensure_eq!(calls()?, before, "calls of what was refused");
    let told = rig.agent.log.lines();
    let told = told.iter().filter(|line| line.contains("XIDs"));
    ensure_eq!(told.count(), 1, "lines about XIDs");
    Ok(())
}

fn no_symbol() -> Result<()> {
    let script = host(&[busy(0, 40)]);
    let fake = FakeNvml::new(&script)?.without_symbols(&["nvmlEventSetCreate"])?;
    check_without_events(&Rig::of(fake, script, &FLAGS)?)
}

fn refused() -> Result<()> {
    let mut script = host(&[busy(0, 40)]);
    script["calls"] = json!({ "nvmlEventSetCreate": { "error": "NOT_SUPPORTED" } });
    let fake = FakeNvml::new(&script)?;
    check_without_events(&Rig::of(fake, script, &FLAGS)?)
}
