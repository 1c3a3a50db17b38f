use super::*;

#[test]
fn everything_is_optional_but_a_uuid() {
    let script = Script::parse("{}").unwrap();
    assert_eq!((script.init, script.system), (Code::SUCCESS, Code::SUCCESS));
    assert!(script.devices.is_empty());

    let script = Script::parse(r#"{"devices": [{"uuid": "GPU-1"}]}"#).unwrap();
    let device = &script.devices[0];
    assert_eq!(device.uuid, "GPU-1");
    assert_eq!(device.sample_period_ms, 166);
    assert_eq!(device.event_types, 8);
    assert!(device.processes.is_none() && device.mig.is_none() && device.gpm.is_none());

    assert!(Script::parse(r#"{"devices": [{"name": "H100"}]}"#).is_err());
}

#[test]
fn a_slip_is_an_error() {
    for text in [
        r#"{"driver": "570"}"#,
        r#"{"init": "DRIVER_NOT_LOADD"}"#,
        r#"{"calls": {"nvmlDeviceGetPower": {}}}"#,
        r#"{"devices": [{"uuid": "GPU-1", "powr": 1}]}"#,
        r#"{"devices": [{"uuid": "GPU-1", "fields": {"x@1": {"u32": 1}}}]}"#,
        r#"{"devices": [{"uuid": "GPU-1", "fields": {"1": {"u8": 1}}}]}"#,
        r#"{"devices": [{"uuid": "GPU-1", "pci_bus_id": "0:1"}]}"#,
        r#"{"devices": [{"uuid": "GPU-1", "sample_period_ms": 0}]}"#,
        r#"{"devices": ["#,
    ] {
        assert!(Script::parse(text).is_err(), "{text}");
    }
}

#[test]
fn fields_gpm_processes_and_mig_are_read() {
    let text = r#"{"system": "DRIVER_NOT_LOADED", "devices": [{
        "uuid": "GPU-1",
        "pci_bus_id": "00000000:1A:00.0",
        "fields": {"197": {"u32": 5}, "138@2": {"u64": 9}, "99": {"error": "NOT_SUPPORTED"}},
        "gpm": {"2": 55.5},
        "processes": [{"pid": 7, "memory": null, "sm": 40}, {"pid": 8, "memory": 5}],
        "mig": [null, {"gpu_instance": 3, "uuid": "MIG-1"}]
    }]}"#;
    let script = Script::parse(text).unwrap();
    assert_eq!(script.system, Code::DRIVER_NOT_LOADED);
    let device = &script.devices[0];
    let address = device.pci_bus_id.as_ref().unwrap();
    assert_eq!((address.domain, address.bus, address.device), (0, 26, 0));
    let key = FieldKey { id: 138, scope: 2 };
    assert!(matches!(device.fields[&key], FieldValue::U64(9)));
    let key = FieldKey { id: 99, scope: 0 };
    assert!(matches!(
        device.fields[&key],
        FieldValue::Error(Code::NOT_SUPPORTED)
    ));
    assert_eq!(
        device.gpm.as_ref().unwrap()[&2].to_bits(),
        55.5_f64.to_bits()
    );
    let processes = device.processes.as_ref().unwrap();
    assert_eq!((processes[0].memory, processes[1].memory), (None, Some(5)));
    assert_eq!(processes[0].utilization().sm, 40);
    let slots = device.mig.as_ref().unwrap();
    assert!(slots[0].is_none());
    assert_eq!(slots[1].as_ref().unwrap().gpu_instance, 3);
}

#[test]
fn a_rule_is_for_some_calls_after_some_others() {
    let affected = |text: &str| -> Vec<u64> {
        let rule: Rule = serde_json::from_str(text).unwrap();
        (0..8).filter(|&before| rule.is_for(before)).collect()
    };
    assert_eq!(
        affected(r#"{"error": "UNKNOWN", "after": 5, "times": 2}"#),
        [5, 6]
    );
    assert_eq!(affected(r#"{"error": "UNKNOWN", "after": 6}"#), [6, 7]);
    assert_eq!(affected(r#"{"error": "UNKNOWN", "times": 1}"#), [0]);
    assert_eq!(affected(r#"{"hang_ms": 5}"#).len(), 8);
}
