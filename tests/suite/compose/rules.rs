//! Prometheus rules, and their tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::tools;
use serde_json::Value;

use super::config::{at, folder, read, yaml};
use crate::Case;

const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("compose::rules::promtool_takes_the_configurations", || {
            let files = ["prometheus.yml", "scrape.yml"];
            promtool(&["check", "config"], &files)
        }),
        Case::new("compose::rules::promtool_takes_the_rules", || {
            let files = ["rules/alerts.yml", "rules/recording.yml"];
            promtool(&["check", "rules", "--lint-fatal"], &files)
        }),
        Case::new("compose::rules::rules_pass_their_tests", || {
            let tests = tests()?;
            let files: Vec<_> = tests.iter().map(|name| format!("tests/{name}")).collect();
            promtool(&["test", "rules"], &files)
        }),
        Case::new("compose::rules::every_alert_has_a_test", every_alert),
        Case::new("compose::rules::every_record_has_a_test", every_record),
        Case::new("compose::rules::every_alert_says_what_to_do", annotations),
    ]
}

/// Has promtool look at these files of the folder `prometheus`.
fn promtool<S: AsRef<str>>(words: &[&str], files: &[S]) -> Result<()> {
    let folder = folder().join("prometheus");
    let mut command = Command::new(tools::find("promtool")?);
    command
        .args(words)
        .args(files.iter().map(AsRef::as_ref))
        .current_dir(folder);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    // What it has nothing to do for, it is content with.
    ensure!(said.contains("SUCCESS"), "{command:?}: {said}");
    Ok(())
}

/// The files with tests.
fn tests() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder().join("prometheus/tests"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// All alert or record rules of a file, by name.
fn rules(file: &str, kind: &str) -> Result<BTreeMap<String, Value>> {
    let document = yaml(&format!("prometheus/rules/{file}"))?;
    let groups = at(&document, &["groups"]).as_array().context("no groups")?;
    let mut rules = BTreeMap::new();
    for rule in groups
        .iter()
        .filter_map(|group| at(group, &["rules"]).as_array())
    {
        for rule in rule {
            let name = at(rule, &[kind])
                .as_str()
                .with_context(|| rule.to_string())?;
            let before = rules.insert(name.to_owned(), rule.clone());
            ensure!(before.is_none(), "{name} is there twice");
        }
    }
    Ok(rules)
}

/// What all tests say under this key, of all their cases.
fn checks(key: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for name in tests()? {
        let document = yaml(&format!("prometheus/tests/{name}"))?;
        let cases = at(&document, &["tests"]).as_array().context("no tests")?;
        let checks = cases.iter().filter_map(|case| at(case, &[key]).as_array());
        all.extend(checks.flatten().cloned());
    }
    Ok(all)
}

/// Of each alert a test sees it fire, with the texts that it brings, and one sees that it does not.
fn every_alert() -> Result<()> {
    let alerts = rules("alerts.yml", "alert")?;
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for check in checks("alert_rule_test")? {
        let name = at(&check, &["alertname"])
            .as_str()
            .context("no alertname")?;
        ensure!(alerts.contains_key(name), "there is no {name} to be tested");
        let expected = at(&check, &["exp_alerts"])
            .as_array()
            .context("no exp_alerts")?;
        for alert in expected {
            ensure!(
                at(alert, &["exp_annotations"]).is_object(),
                "a test of {name} does not say what its texts are"
            );
        }
        let seen = if expected.is_empty() {
            &mut silent
        } else {
            &mut fires
        };
        seen.insert(name.to_owned());
    }
    for name in alerts.keys() {
        ensure!(fires.contains(name), "no test sees {name} fire");
        ensure!(silent.contains(name), "no test sees {name} silent");
    }
    Ok(())
}

fn every_record() -> Result<()> {
    let tested = checks("promql_expr_test")?;
    for name in rules("recording.yml", "record")?.keys() {
        let parts: Vec<_> = name.split(':').collect();
        ensure!(
            parts.len() == 3 && parts.iter().all(|part| !part.is_empty()),
            "{name} is not LEVEL:METRIC:OPERATIONS"
        );
        let mut expressions = tested
            .iter()
            .filter_map(|check| at(check, &["expr"]).as_str());
        ensure!(
            expressions.any(|expression| expression.contains(name.as_str())),
            "no test has a value of {name}"
        );
    }
    Ok(())
}

fn annotations() -> Result<()> {
    for (name, rule) in rules("alerts.yml", "alert")? {
        let text = |key: &str| {
            let text = at(&rule, &["annotations", key]).as_str();
            text.with_context(|| format!("{name} has no {key}"))
        };
        let severity = at(&rule, &["labels", "severity"])
            .as_str()
            .unwrap_or_default();
        ensure!(
            SEVERITIES.contains(&severity),
            "{name} has the severity {severity:?}"
        );
        text("summary")?;
        ensure!(
            text("description")?.contains(". "),
            "{name} says what is, and not what to do"
        );
        let dashboard = text("dashboard")?;
        let uid = dashboard.strip_prefix("/d/").unwrap_or_default();
        let uid = uid.split('?').next().unwrap_or_default();
        let file = uid.strip_prefix("esnode-").unwrap_or_default();
        let dashboard = read(&format!("grafana/dashboards/{file}.json"))
            .with_context(|| format!("{name} links to {dashboard}"))?;
        let dashboard: Value = serde_json::from_str(&dashboard)?;
        ensure!(
            at(&dashboard, &["uid"]) == uid,
            "{name}: {uid} is {}",
            at(&dashboard, &["uid"])
        );
    }
    Ok(())
}
