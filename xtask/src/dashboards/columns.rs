//! Columns of tables: what a transformation or an override names is a column that comes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    board::{Board, Panel, list, text},
    families::Families,
    findings::Findings,
    labels::{Inference, Labels},
    query::Query,
};

/// Transformations that leave the names of columns as they are.
const HARMLESS: [&str; 8] = [
    "convertFieldType",
    "filterByRefId",
    "filterByValue",
    "filterFieldsByName",
    "formatTime",
    "joinByField",
    "limit",
    "sortBy",
];

pub(super) fn check(
    boards: &[Board],
    queries: &[Query],
    families: &Families,
    findings: &mut Findings,
) {
    for board in boards {
        for panel in board.panels() {
            let place = board.place(panel);
            check_references(&place, panel, findings);
            if panel.kind() == "table" {
                let own = format!("{place}, target ");
                let own = queries.iter().filter(|query| query.place.starts_with(&own));
                if let Some(columns) = of_targets(panel, own, families) {
                    check_columns(&place, panel, columns, findings);
                }
            }
        }
    }
}

/// Overrides by target name one that is there.
fn check_references(place: &str, panel: Panel<'_>, findings: &mut Findings) {
    let targets: BTreeSet<_> = panel
        .list("/targets")
        .filter_map(|one| text(one, "/refId"))
        .collect();
    for matcher in panel.list("/fieldConfig/overrides") {
        let named = text(matcher, "/matcher/options").unwrap_or_default();
        if text(matcher, "/matcher/id") == Some("byFrameRefID") && !targets.contains(named) {
            findings.add(
                place,
                format!("an override is for target {named}, which is not there"),
            );
        }
    }
}

/// The columns of a table's queries; none where they can't be told.
fn of_targets<'a>(
    panel: Panel<'_>,
    queries: impl Iterator<Item = &'a Query>,
    families: &Families,
) -> Option<BTreeSet<String>> {
    let targets: Vec<_> = panel.targets().collect();
    if targets
        .iter()
        .any(|target| text(target, "/format") != Some("table"))
    {
        return None;
    }
    let mut columns = BTreeSet::from(["Time".to_owned()]);
    for query in queries {
        match Inference::new(families).labels(&query.expr) {
            Labels::Any => return None,
            Labels::Known(labels) => columns.extend(labels),
        }
    }
    // As Grafana's data source for Prometheus names them.
    match targets.as_slice() {
        [_] => {
            columns.insert("Value".to_owned());
        }
        several => {
            let ids = several.iter().filter_map(|target| text(target, "/refId"));
            columns.extend(ids.map(|id| format!("Value #{id}")));
        }
    }
    Some(columns)
}

fn check_columns(
    place: &str,
    panel: Panel<'_>,
    mut columns: BTreeSet<String>,
    findings: &mut Findings,
) {
    for transformation in panel.list("/transformations") {
        let id = text(transformation, "/id").unwrap_or_default();
        let mut wanted: Vec<&str> = Vec::new();
        match id {
            "organize" => {
                let object = |key: &str| {
                    let object = transformation.pointer(key).and_then(Value::as_object);
                    object.into_iter().flatten()
                };
                wanted.extend(
                    [
                        "/options/renameByName",
                        "/options/indexByName",
                        "/options/excludeByName",
                    ]
                    .into_iter()
                    .flat_map(|key| object(key).map(|(name, _)| name.as_str())),
                );
                complain(place, id, &wanted, &columns, findings);
                for (from, to) in object("/options/renameByName") {
                    if let Some(to) = to.as_str().filter(|to| !to.is_empty())
                        && columns.remove(from)
                    {
                        columns.insert(to.to_owned());
                    }
                }
                for (name, _) in object("/options/excludeByName").filter(|(_, it)| **it == true) {
                    columns.remove(name);
                }
                continue;
            }
            "calculateField" => {
                // Without a name of its own, Grafana makes one up.
                let Some(alias) = text(transformation, "/options/alias") else {
                    return;
                };
                columns.insert(alias.to_owned());
            }
            "groupBy" => {
                let fields = transformation
                    .pointer("/options/fields")
                    .and_then(Value::as_object);
                let fields: Vec<_> = fields.into_iter().flatten().collect();
                wanted.extend(fields.iter().map(|(name, _)| name.as_str()));
                complain(place, id, &wanted, &columns, findings);
                columns = fields
                    .into_iter()
                    .flat_map(|(name, how)| grouped(name, how))
                    .collect();
                continue;
            }
            "merge" => {}
            id if HARMLESS.contains(&id) => {
                let sorted =
                    list(transformation, "/options/sort").filter_map(|one| text(one, "/field"));
                let included =
                    list(transformation, "/options/include/names").filter_map(Value::as_str);
                let joined = text(transformation, "/options/byField");
                wanted.extend(sorted.chain(included).chain(joined));
            }
            // What it makes of them is not known here.
            _ => return,
        }
        complain(place, id, &wanted, &columns, findings);
    }
    let named = panel
        .list("/fieldConfig/overrides")
        .filter(|one| text(one, "/matcher/id") == Some("byName"))
        .filter_map(|one| text(one, "/matcher/options"));
    let named: Vec<_> = named.collect();
    complain(place, "an override", &named, &columns, findings);
    let sorted: Vec<_> = panel
        .list("/options/sortBy")
        .filter_map(|one| text(one, "/displayName"))
        .collect();
    complain(place, "sortBy", &sorted, &columns, findings);
}

/// The columns that a field gives when rows are put together.
fn grouped(name: &str, how: &Value) -> Vec<String> {
    if text(how, "/operation") == Some("groupby") {
        return vec![name.to_owned()];
    }
    let calculations = list(how, "/aggregations").filter_map(Value::as_str);
    calculations.map(|one| format!("{name} ({one})")).collect()
}

fn complain(
    place: &str,
    who: &str,
    wanted: &[&str],
    columns: &BTreeSet<String>,
    findings: &mut Findings,
) {
    for name in wanted {
        if !columns.contains(*name) {
            let all: Vec<_> = columns.iter().map(String::as_str).collect();
            findings.add(
                place,
                format!(
                    "{who} names a column \"{name}\" that does not come: there are {}",
                    all.join(", ")
                ),
            );
        }
    }
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
