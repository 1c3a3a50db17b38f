//! Metrics that are used but not exported, and those that are exported but shown nowhere; labels
//! that a query, a legend or an alert's text asks for in vain.

use std::{collections::BTreeSet, sync::LazyLock};

use promql_parser::{
    label::METRIC_NAME,
    parser::{Expr, VectorSelector},
};
use regex::Regex;

use super::{
    families::Families,
    findings::Findings,
    labels::{Inference, Labels},
    query::{Purpose, Query},
};

/// Families that no dashboard shows, each with the reason.
const SHOWN_NOWHERE: &[(&str, &str)] = &[];

/// `{{label}}` of a legend.
static LEGEND: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::unwrap_used, reason = "a constant, which the tests compile")]
    Regex::new(r"\{\{\s*(\w+)\s*\}\}").unwrap()
});

/// `$labels.label` of an alert's text, where `{{end}}` is a word of Go's.
static ANNOTATION: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::unwrap_used, reason = "a constant, which the tests compile")]
    Regex::new(r"\$labels\.(\w+)").unwrap()
});

/// Complains about the queries. What rules record is a family from here on.
pub(super) fn check(queries: &[Query], families: &mut Families, findings: &mut Findings) {
    record(queries, families);
    let mut shown = BTreeSet::new();
    for query in queries {
        for selector in selectors(&query.expr) {
            let names = names(selector, families);
            if names.is_empty() {
                findings.add(&query.place, not_exported(selector));
            }
            if matches!(query.purpose, Purpose::Graph | Purpose::Instant) {
                shown.extend(names);
            }
        }
        let mut inference = Inference::new(families);
        let mut labels = inference.labels(&query.expr);
        for complaint in &inference.complaints {
            findings.add(&query.place, complaint);
        }
        for label in &query.added {
            labels.insert(label);
        }
        let wanted = template_labels(query).chain(query.label.as_deref());
        for label in wanted {
            if labels.lacks(label) {
                findings.add(
                    &query.place,
                    format!("the result has no label `{label}`, but {labels}"),
                );
            }
        }
    }
    check_shown(
        &shown_by_rules(queries, families, shown),
        families,
        SHOWN_NOWHERE,
        findings,
    );
}

/// Adds what rules record, with its labels, which may hang on what other rules record.
fn record(queries: &[Query], families: &mut Families) {
    let recorded = |query: &Query| match &query.purpose {
        Purpose::Record(name) => Some(name.clone()),
        _ => None,
    };
    for query in queries {
        if let Some(name) = recorded(query) {
            families.record(&name, Labels::Any);
        }
    }
    for query in queries {
        if let Some(name) = recorded(query) {
            let mut labels = Inference::new(families).labels(&query.expr);
            for label in &query.added {
                labels.insert(label);
            }
            families.record(&name, labels);
        }
    }
}

/// All that a shown name stands for: what a recording rule takes is shown where its result is.
fn shown_by_rules(
    queries: &[Query],
    families: &Families,
    mut shown: BTreeSet<String>,
) -> BTreeSet<String> {
    loop {
        let before = shown.len();
        for query in queries {
            let Purpose::Record(name) = &query.purpose else {
                continue;
            };
            if shown.contains(name) {
                let taken = selectors(&query.expr).into_iter();
                shown.extend(taken.flat_map(|selector| names(selector, families)));
            }
        }
        if shown.len() == before {
            return shown;
        }
    }
}

fn check_shown(
    shown: &BTreeSet<String>,
    families: &Families,
    exempt: &[(&str, &str)],
    findings: &mut Findings,
) {
    let shown: BTreeSet<&str> = shown
        .iter()
        .filter_map(|name| families.family_of(name))
        .collect();
    let place = "docker/grafana/dashboards";
    for name in families.names() {
        let exempt = exempt.iter().find(|(exempt, _)| *exempt == name);
        match (shown.contains(name), exempt) {
            (false, None) => findings.add(
                place,
                format!("{name} is exported and shown nowhere: add it to a panel"),
            ),
            (true, Some((_, reason))) => findings.add(
                place,
                format!(
                    "{name} is shown after all, though \"{reason}\": take it off SHOWN_NOWHERE"
                ),
            ),
            _ => {}
        }
    }
    for (name, _) in exempt {
        if families.family_of(name).is_none() {
            findings.add(
                place,
                format!("{name} is in SHOWN_NOWHERE and not exported: take it off"),
            );
        }
    }
}

/// The series that a selector can mean, of those that exist.
fn names(selector: &VectorSelector, families: &Families) -> Vec<String> {
    if let Some(name) = &selector.name {
        let known = families.find(name).is_some();
        return known.then(|| name.clone()).into_iter().collect();
    }
    let matchers = selector.matchers.find_matchers(METRIC_NAME);
    if matchers.is_empty() {
        return Vec::new();
    }
    let fits = |name: &String| matchers.iter().all(|matcher| matcher.is_match(name));
    families.series().filter(fits).collect()
}

fn not_exported(selector: &VectorSelector) -> String {
    match &selector.name {
        Some(name) => format!(
            "{name} is not exported: neither a table of README.md nor a recording rule has it"
        ),
        None => format!("{selector} means nothing that is exported: give it a name"),
    }
}

pub(super) fn selectors(expr: &Expr) -> Vec<&VectorSelector> {
    let mut found = Vec::new();
    visit(expr, &mut found);
    found
}

fn visit<'a>(expr: &'a Expr, found: &mut Vec<&'a VectorSelector>) {
    match expr {
        Expr::VectorSelector(selector) => found.push(selector),
        Expr::MatrixSelector(selector) => found.push(&selector.vs),
        Expr::Aggregate(aggregate) => {
            visit(&aggregate.expr, found);
            if let Some(parameter) = &aggregate.param {
                visit(parameter, found);
            }
        }
        Expr::Unary(unary) => visit(&unary.expr, found),
        Expr::Binary(binary) => {
            visit(&binary.lhs, found);
            visit(&binary.rhs, found);
        }
        Expr::Paren(paren) => visit(&paren.expr, found),
        Expr::Subquery(subquery) => visit(&subquery.expr, found),
        Expr::Call(call) => {
            for argument in &call.args.args {
                visit(argument, found);
            }
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

/// The labels that texts take of a query's result.
fn template_labels(query: &Query) -> impl Iterator<Item = &str> {
    let syntax = if query.purpose == Purpose::Alert {
        &ANNOTATION
    } else {
        &LEGEND
    };
    let texts = query.templates.iter();
    let found = texts.flat_map(|text| syntax.captures_iter(text));
    found
        .filter_map(|found| found.get(1))
        .map(|label| label.as_str())
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
