use super::*;
use anyhow::{Context as _, Result};
use serde_json::json;

/// A dashboard that nothing is wrong with.
fn good() -> Value {
    let datasource = json!({"type": "prometheus", "uid": "${datasource}"});
    json!({
        "id": null,
        "uid": "good",
        "title": "Good",
        "schemaVersion": SCHEMA,
        "annotations": {"list": [
            {"builtIn": 1, "name": "Annotations", "datasource": {"uid": "-- Grafana --"}},
            {"name": "Alerts", "datasource": datasource, "expr": "ALERTS"},
        ]},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            {"name": "instance", "type": "query", "datasource": datasource,
             "query": "label_values(up, instance)"},
        ]},
        "panels": [
            {
                "id": 1, "title": "One", "type": "stat", "description": "What.",
                "gridPos": {"x": 0, "y": 0, "w": 12, "h": 4}, "datasource": datasource,
                "targets": [{"refId": "A", "datasource": datasource, "expr": "up{instance=~\"$instance\"}"}],
                "fieldConfig": {"defaults": {"unit": "bytes"}, "overrides": [
                    {"properties": [{"id": "unit", "value": "suffix:/s"}]}]},
            },
            {
                "id": 2, "title": "Row", "type": "row", "collapsed": true,
                "gridPos": {"x": 0, "y": 4, "w": 24, "h": 1},
                "panels": [{"id": 3, "type": "text", "gridPos": {"x": 0, "y": 5, "w": 24, "h": 4}}],
            },
            {"id": 4, "type": "text", "gridPos": {"x": 0, "y": 5, "w": 24, "h": 4}},
        ],
    })
}

/// What is found wrong with it once it's changed.
fn found(change: impl FnOnce(&mut Value)) -> Result<Vec<String>> {
    let mut board = good();
    change(&mut board);
    let mut findings = Findings::default();
    check(
        &[Board::parse("a.json", &board.to_string())?],
        &mut findings,
    );
    Ok(findings.iter().map(str::to_owned).collect())
}

#[test]
fn a_good_dashboard_is_left_alone() -> Result<()> {
    assert_eq!(found(|_| ())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_graph_takes_a_range_and_every_query_the_chosen_nodes() -> Result<()> {
    let changed = found(|board| {
        if let Some(panel) = board
            .pointer_mut("/panels/0")
            .and_then(Value::as_object_mut)
        {
            panel.insert("type".into(), json!("timeseries"));
        }
        if let Some(target) = board
            .pointer_mut("/panels/0/targets/0")
            .and_then(Value::as_object_mut)
        {
            target.insert("instant".into(), json!(true));
            target.insert("expr".into(), json!("up"));
        }
        if let Some(variable) = board.pointer_mut("/templating/list/1/query") {
            *variable = json!("label_values(up{job=\"$instance\"}, instance)");
        }
    })?;
    let place = "a.json: panel 1 \"One\": target A";
    assert_eq!(
        changed,
        [
            format!("{place} is asked for one time only: a timeseries takes a range"),
            format!("{place} shows all nodes, whichever are chosen: take `$instance`"),
        ]
    );
    Ok(())
}

#[test]
fn two_files_with_one_uid() -> Result<()> {
    let board = good().to_string();
    let boards = [
        Board::parse("a.json", &board)?,
        Board::parse("b.json", &board)?,
    ];
    let mut findings = Findings::default();
    check(&boards, &mut findings);
    findings.check(&["b.json: uid \"good\" is that of a.json too: take another"]);
    Ok(())
}

/// Fails unless each of these values, put where it says, is complained about like this.
fn check_slips(slips: &[(&str, Value, &str)]) -> Result<()> {
    for (pointer, value, expected) in slips {
        let mut missing = false;
        let lines = found(|board| match board.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => missing = true,
        })?;
        assert!(!missing, "{pointer}");
        let expected = format!("a.json: {expected}");
        assert!(
            lines.contains(&expected),
            "{expected:?} is not in {lines:#?}"
        );
    }
    Ok(())
}

#[test]
fn slips_in_the_head() -> Result<()> {
    let long = "x".repeat(41);
    let too_long = format!("uid \"{long}\" is longer than Grafana's 40 characters");
    check_slips(&[
        ("/title", json!(""), "no title: add one"),
        ("/uid", json!(""), "no uid: add one, for links to it"),
        ("/uid", json!(long), &too_long),
        (
            "/schemaVersion",
            json!(16),
            "schemaVersion is below 39: write it as Grafana 11 does",
        ),
        (
            "/id",
            json!(7),
            "id is that of someone's database: make it null",
        ),
    ])
}

#[test]
fn slips_in_variables() -> Result<()> {
    check_slips(&[
        (
            "/templating/list/0/query",
            json!("loki"),
            "no variable `datasource` of type datasource for prometheus: add it",
        ),
        (
            "/templating/list/1/name",
            json!("datasource"),
            "variable `datasource` is there twice",
        ),
        (
            "/panels/0/targets/0/expr",
            json!("up"),
            "variable `instance` is used nowhere: leave it out",
        ),
        (
            "/panels/0/title",
            json!("On $host"),
            "`$host` at /panels/0/title is no variable: add it, or mend the name",
        ),
    ])
}

#[test]
fn other_datasources() -> Result<()> {
    let other = json!({"type": "prometheus", "uid": "PBFA97CFB590B2093"});
    for (pointer, place) in [
        ("/panels/0/datasource", "panel 1 \"One\""),
        (
            "/panels/0/targets/0/datasource",
            "panel 1 \"One\": target A",
        ),
        ("/templating/list/1/datasource", "variable `instance`"),
        ("/annotations/list/1/datasource", "annotation \"Alerts\""),
    ] {
        let expected = format!(
            "{place}: the datasource is not {{\"type\": \"prometheus\", \"uid\": \"${{datasource}}\"}}"
        );
        check_slips(&[(pointer, other.clone(), &expected)])?;
    }
    Ok(())
}

#[test]
fn slips_in_a_panel() -> Result<()> {
    check_slips(&[
        (
            "/panels/0/id",
            json!(4),
            "panel 4 \"\": another panel has this id: take a new one",
        ),
        (
            "/panels/0/id",
            json!(3),
            "panel 3 \"\": another panel has this id: take a new one",
        ),
        (
            "/panels/0/id",
            Value::Null,
            "panel null \"One\": no id: number it",
        ),
        (
            "/panels/0/title",
            json!(""),
            "panel 1 \"\": no title: add one",
        ),
        (
            "/panels/0/type",
            json!("graph"),
            "panel 1 \"One\": \"graph\" is no panel that comes with Grafana",
        ),
        (
            "/panels/0/description",
            json!(" "),
            "panel 1 \"One\": no description: say what it shows and what to do about it",
        ),
        (
            "/panels/0/targets/0/refId",
            json!(""),
            "panel 1 \"One\": a target without refId: give it a letter",
        ),
        (
            "/panels/0/targets/0/expr",
            json!(""),
            "panel 1 \"One\": target A has no expr",
        ),
        (
            "/panels/0/targets",
            json!([]),
            "panel 1 \"One\": nothing is queried: add a target, or leave it out",
        ),
        (
            "/panels/1/collapsed",
            json!(false),
            "panel 2 \"Row\": panels inside a row that is open: Grafana has them behind it",
        ),
    ])
}

#[test]
fn units_that_grafana_does_not_know() -> Result<()> {
    for pointer in [
        "/panels/0/fieldConfig/defaults/unit",
        "/panels/0/fieldConfig/overrides/0/properties/0/value",
    ] {
        let expected = "panel 1 \"One\": unit \"watts\" is not in the list of \
            xtask/src/dashboards/units.rs: take an id of Grafana's, or `suffix:…`";
        check_slips(&[(pointer, json!("watts"), expected)])?;
    }
    Ok(())
}

#[test]
fn panels_that_do_not_fit() -> Result<()> {
    check_slips(&[
        (
            "/panels/0/gridPos/x",
            json!(13),
            "panel 1 \"One\": x 13 and w 12 are not within 24 columns",
        ),
        (
            "/panels/0/gridPos/h",
            json!(5),
            "panel 2 \"Row\": lies on \"One\": move it",
        ),
        (
            "/panels/0/gridPos",
            json!({}),
            "panel 1 \"One\": no gridPos of x, y, w, h: Grafana would choose one",
        ),
    ])
}

#[test]
fn two_targets_with_one_id() -> Result<()> {
    let mut done = None;
    let lines = found(|board| {
        done = board
            .pointer_mut("/panels/0/targets")
            .and_then(Value::as_array_mut)
            .map(|targets| {
                targets.extend(targets.first().cloned());
            });
    })?;
    done.context("no targets")?;
    assert_eq!(
        lines,
        ["a.json: panel 1 \"One\": two targets have the refId A"]
    );
    Ok(())
}
