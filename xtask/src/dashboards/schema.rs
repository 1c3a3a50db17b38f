//! What Grafana's schema of a dashboard needs, and what it would put right in silence.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    board::{Board, Grid, Panel, text, texts},
    findings::Findings,
    units, variables,
};

/// The oldest form of the file that Grafana 11 and 12 take as it is.
const SCHEMA: u64 = 39;

/// The longest uid that Grafana takes.
const UID_BYTES: usize = 40;

/// Columns of the grid.
const COLUMNS: u64 = 24;

/// Panels that show how things went.
const OVER_TIME: [&str; 4] = ["heatmap", "state-timeline", "status-history", "timeseries"];

/// Panels that come with Grafana and show what is queried, and those that query nothing.
const PANELS: [&str; 17] = [
    "barchart",
    "bargauge",
    "candlestick",
    "canvas",
    "gauge",
    "heatmap",
    "histogram",
    "piechart",
    "row",
    "stat",
    "state-timeline",
    "status-history",
    "table",
    "text",
    "timeseries",
    "trend",
    "xychart",
];

pub(super) fn check(boards: &[Board], findings: &mut Findings) {
    let mut uids: BTreeMap<&str, &str> = BTreeMap::new();
    for board in boards {
        check_head(board, findings);
        if let Some(other) = uids.insert(board.uid(), &board.file) {
            let uid = board.uid();
            findings.add(
                &board.file,
                format!("uid \"{uid}\" is that of {other} too: take another"),
            );
        }
        check_variables(board, findings);
        check_datasources(board, findings);
        check_layout(board, findings);
        let mut ids = BTreeSet::new();
        for panel in board.panels() {
            check_panel(board, panel, findings);
            if let Some(id) = panel.json.get("id").and_then(Value::as_u64)
                && !ids.insert(id)
            {
                findings.add(
                    board.place(panel),
                    "another panel has this id: take a new one",
                );
            }
        }
    }
}

fn check_head(board: &Board, findings: &mut Findings) {
    let json = &board.json;
    if text(json, "/title").is_none_or(str::is_empty) {
        findings.add(&board.file, "no title: add one");
    }
    match board.uid() {
        "" => findings.add(&board.file, "no uid: add one, for links to it"),
        uid if uid.len() > UID_BYTES => findings.add(
            &board.file,
            format!("uid \"{uid}\" is longer than Grafana's {UID_BYTES} characters"),
        ),
        _ => {}
    }
    let schema = json.get("schemaVersion").and_then(Value::as_u64);
    if schema.is_none_or(|schema| schema < SCHEMA) {
        findings.add(
            &board.file,
            format!("schemaVersion is below {SCHEMA}: write it as Grafana 11 does"),
        );
    }
    if json.get("id").is_some_and(|id| !id.is_null()) {
        findings.add(
            &board.file,
            "id is that of someone's database: make it null",
        );
    }
}

/// Variables have names of their own, and each that a text names is there.
fn check_variables(board: &Board, findings: &mut Findings) {
    let mut names = BTreeSet::new();
    for variable in &board.variables {
        if !names.insert(variable.name.as_str()) {
            let name = &variable.name;
            findings.add(&board.file, format!("variable `{name}` is there twice"));
        }
    }
    let mut all = Vec::new();
    texts(&board.json, "", &mut all);
    let mut told = BTreeSet::new();
    for (pointer, text) in all {
        for name in variables::used(text) {
            let known = names.contains(name) || variables::is_built_in(name);
            // The words of a text panel are the reader's.
            if !known && told.insert(name.to_owned()) {
                findings.add(
                    &board.file,
                    format!("`${name}` at {pointer} is no variable: add it, or mend the name"),
                );
            }
        }
    }
    for name in names {
        let mut elsewhere = Vec::new();
        texts(&board.json, "", &mut elsewhere);
        let used = elsewhere
            .iter()
            .any(|(_, text)| variables::used(text).contains(&name));
        let repeated = board
            .panels()
            .iter()
            .any(|panel| panel.text("/repeat") == Some(name));
        if !used && !repeated {
            findings.add(
                &board.file,
                format!("variable `{name}` is used nowhere: leave it out"),
            );
        }
    }
}

/// All data comes from the variable that the user can set.
fn check_datasources(board: &Board, findings: &mut Findings) {
    let ours = |json: &Value| {
        text(json, "/uid") == Some("${datasource}") && text(json, "/type") == Some("prometheus")
    };
    let variable = board.variable("datasource");
    let there = variable.is_some_and(|variable| {
        variable.kind == "datasource" && text(&variable.json, "/query") == Some("prometheus")
    });
    if !there {
        findings.add(
            &board.file,
            "no variable `datasource` of type datasource for prometheus: add it",
        );
    }
    let wrong = "the datasource is not {\"type\": \"prometheus\", \"uid\": \"${datasource}\"}";
    for panel in board
        .panels()
        .into_iter()
        .filter(|panel| !panel.is_silent())
    {
        let own = panel.json.get("datasource");
        if !own.is_some_and(ours) {
            findings.add(board.place(panel), wrong);
        }
        for target in panel.list("/targets") {
            if !target.get("datasource").is_none_or(ours) {
                let id = text(target, "/refId").unwrap_or("?");
                findings.add(board.place(panel), format!("target {id}: {wrong}"));
            }
        }
    }
    for variable in board.variables.iter().filter(|one| one.kind == "query") {
        if !variable.json.get("datasource").is_some_and(ours) {
            findings.add(
                &board.file,
                format!("variable `{}`: {wrong}", variable.name),
            );
        }
    }
    for annotation in super::board::list(&board.json, "/annotations/list") {
        let built_in = annotation
            .get("builtIn")
            .is_some_and(|flag| *flag == 1 || *flag == true);
        if !built_in && !annotation.get("datasource").is_some_and(ours) {
            let name = text(annotation, "/name").unwrap_or("?");
            findings.add(&board.file, format!("annotation \"{name}\": {wrong}"));
        }
    }
}

fn check_panel(board: &Board, panel: Panel<'_>, findings: &mut Findings) {
    let place = board.place(panel);
    if panel
        .json
        .get("id")
        .and_then(Value::as_u64)
        .is_none_or(|id| id == 0)
    {
        findings.add(&place, "no id: number it");
    }
    if panel.title().is_empty() && panel.kind() != "text" {
        findings.add(&place, "no title: add one");
    }
    if !PANELS.contains(&panel.kind()) {
        let kind = panel.kind();
        findings.add(
            &place,
            format!("\"{kind}\" is no panel that comes with Grafana"),
        );
    }
    if panel.kind() == "row" {
        let folded = panel.json.get("collapsed") == Some(&Value::Bool(true));
        if !folded && panel.list("/panels").next().is_some() {
            findings.add(
                &place,
                "panels inside a row that is open: Grafana has them behind it",
            );
        }
        return;
    }
    if panel.row.is_some() && panel.list("/panels").next().is_some() {
        findings.add(&place, "panels inside a panel: only rows have them");
    }
    if panel
        .text("/description")
        .is_none_or(|text| text.trim().is_empty())
        && panel.kind() != "text"
    {
        findings.add(
            &place,
            "no description: say what it shows and what to do about it",
        );
    }
    check_targets(board, panel, findings);
    check_units(&place, panel, findings);
}

fn check_targets(board: &Board, panel: Panel<'_>, findings: &mut Findings) {
    if panel.is_silent() {
        return;
    }
    let place = &board.place(panel);
    let has_instances = board.variable("instance").is_some();
    let mut ids = BTreeSet::new();
    for target in panel.list("/targets") {
        let id = text(target, "/refId").unwrap_or_default();
        if id.is_empty() {
            findings.add(place, "a target without refId: give it a letter");
        } else if !ids.insert(id) {
            findings.add(place, format!("two targets have the refId {id}"));
        }
        let instant = target.get("instant") == Some(&Value::Bool(true));
        let range = target.get("range") != Some(&Value::Bool(false));
        if OVER_TIME.contains(&panel.kind()) && (instant || !range) {
            findings.add(
                place,
                format!(
                    "target {id} is asked for one time only: a {} takes a range",
                    panel.kind()
                ),
            );
        }
        if text(target, "/expr").is_none_or(|expr| expr.trim().is_empty()) {
            findings.add(place, format!("target {id} has no expr"));
        } else if has_instances
            && !text(target, "/expr")
                .is_some_and(|expr| variables::used(expr).contains(&"instance"))
        {
            findings.add(
                place,
                format!("target {id} shows all nodes, whichever are chosen: take `$instance`"),
            );
        }
    }
    if panel.targets().next().is_none() {
        findings.add(place, "nothing is queried: add a target, or leave it out");
    }
}

fn check_units(place: &str, panel: Panel<'_>, findings: &mut Findings) {
    let defaults = panel.text("/fieldConfig/defaults/unit");
    let overrides = panel
        .list("/fieldConfig/overrides")
        .flat_map(|one| super::board::list(one, "/properties"))
        .filter(|property| text(property, "/id") == Some("unit"))
        .filter_map(|property| text(property, "/value"));
    for unit in defaults.into_iter().chain(overrides) {
        if !units::is_known(unit) {
            findings.add(
                place,
                format!(
                    "unit \"{unit}\" is not in the list of xtask/src/dashboards/units.rs: \
                    take an id of Grafana's, or `suffix:…`"
                ),
            );
        }
    }
}

/// Panels stand within the grid and beside each other. Those that are folded into a row are
/// compared with each other only, as Grafana moves what is below when it opens.
fn check_layout(board: &Board, findings: &mut Findings) {
    let mut placed: Vec<(Panel<'_>, Grid)> = Vec::new();
    for panel in board.panels() {
        let place = board.place(panel);
        let Some(grid) = panel.grid() else {
            findings.add(place, "no gridPos of x, y, w, h: Grafana would choose one");
            continue;
        };
        if grid.w == 0 || grid.h == 0 || grid.x + grid.w > COLUMNS {
            findings.add(
                &place,
                format!(
                    "x {} and w {} are not within {COLUMNS} columns",
                    grid.x, grid.w
                ),
            );
        }
        let others = placed.iter().filter(|(other, _)| other.row == panel.row);
        for (other, _) in others.filter(|(_, other)| other.overlaps(grid)) {
            findings.add(&place, format!("lies on \"{}\": move it", other.title()));
        }
        placed.push((panel, grid));
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
