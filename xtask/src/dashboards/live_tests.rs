use super::*;
use serde_json::json;

fn asked(text: &str, repeated: Option<&str>) -> Result<Vec<String>> {
    let list = json!([
        {"name": "gpu", "type": "query", "query": "label_values(a, gpu)", "multi": true},
        {"name": "pid", "type": "query", "query": "label_values(a, pid)"},
        {"name": "none", "type": "query", "query": "label_values(b, x)"},
    ]);
    let board = json!({"templating": {"list": list}}).to_string();
    let board = Board::parse("a.json", &board)?;
    let values = [
        ("gpu", &["0", "1"][..]),
        ("pid", &["7", "8"]),
        ("none", &[]),
    ];
    let values = values.map(|(name, values)| {
        let values = values.iter().map(ToString::to_string).collect();
        (name.to_owned(), values)
    });
    let values = Values::from(values);
    Ok(combinations(
        text,
        &board,
        &values,
        repeated,
        Times::NEUTRAL,
    ))
}

#[test]
fn values_of_variables_are_tried_one_after_the_other() -> Result<()> {
    let text = r#"rate(a{gpu=~"$gpu", pid="$pid"}[$__rate_interval])"#;
    let expected = [
        r#"rate(a{gpu=~"(0|1)", pid="7"}[60s])"#,
        r#"rate(a{gpu=~"(0|1)", pid="8"}[60s])"#,
    ];
    assert_eq!(asked(text, None)?, expected);
    assert_eq!(asked("a{x=\"$none\"}", None)?, Vec::<String>::new());
    assert_eq!(asked("a", None)?, ["a"]);
    Ok(())
}

#[test]
fn a_repeated_panel_has_one_value_at_a_time() -> Result<()> {
    let expected = [r#"a{gpu="0"}"#, r#"a{gpu="1"}"#];
    assert_eq!(asked(r#"a{gpu="$gpu"}"#, Some("gpu"))?, expected);
    Ok(())
}

#[test]
fn what_a_host_lacks_is_told_and_no_failure() {
    let mut report = Report {
        missing: vec!["esnode_hwmon_fan_rpm".to_owned()],
        ..Report::default()
    };
    assert!(report.is_complete());
    report.undocumented.push("esnode_new".to_owned());
    assert!(!report.is_complete());
}
