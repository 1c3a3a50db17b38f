use super::*;

fn version(text: &str) -> Arc<Version> {
    Arc::new(Version::new(Script::parse(text).unwrap()))
}

#[test]
fn a_device_keeps_its_version_until_it_was_silent() {
    let (old, new) = (version("{}"), version("{}"));
    let mut memory = Memory::new();
    let start = Instant::now();
    let mut sees = |ms, newest: &Arc<Version>, expected| {
        let now = start + Duration::from_millis(ms);
        let view = memory.view(0, now, || Arc::clone(newest));
        assert!(Arc::ptr_eq(&view, expected), "at {ms} ms");
    };
    sees(0, &old, &old);
    sees(19, &new, &old);
    sees(38, &new, &old);
    sees(57, &new, &old);
    sees(77, &new, &new);
    sees(78, &new, &new);
}

#[test]
fn a_rule_counts_from_the_version_and_by_device() {
    let text =
        r#"{"calls": {"nvmlDeviceGetPowerUsage": {"error": "UNKNOWN", "after": 1, "times": 1}}}"#;
    let version = version(text);
    let hits = |device, function| {
        let rule = version.rule(&version.script.calls, device, function);
        rule.is_some_and(|rule| rule.error == Some(Code::UNKNOWN))
    };
    let power = Function::nvmlDeviceGetPowerUsage;
    assert!(!hits(Some(0), power));
    assert!(hits(Some(0), power));
    assert!(!hits(Some(0), power));
    assert!(!hits(Some(1), power));
    assert!(hits(Some(1), power));
    assert!(!hits(Some(0), Function::nvmlDeviceGetName));
    assert!(!hits(Some(0), Function::nvmlDeviceGetName));
}

#[test]
fn another_gpu_at_the_same_place_has_an_empty_queue() {
    let one = version(
        r#"{"devices": [{"uuid": "A", "sample_period_ms": 1, "processes": [{"pid": 7, "sm": 9}]}]}"#,
    );
    let other = version(r#"{"devices": [{"uuid": "B"}]}"#);
    let mut memory = Memory::new();
    let start = Instant::now();
    memory.view(0, start, || one);
    let later = wall_micros() + 5000;
    assert!(memory.queue.count(0, later) >= 5);
    memory.view(0, start + SILENCE, || other);
    assert_eq!(memory.queue.count(0, later), 0);
}
