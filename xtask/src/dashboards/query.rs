//! All PromQL of dashboards and rules, read.

use promql_parser::parser::{Expr, parse};
use serde_json::Value;

use super::{
    board::{Board, list, text},
    findings::Findings,
    rules::{Rule, What},
    variables::{Times, Variable, replace},
};

/// What a query is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A panel's, over a range of time.
    Graph,
    /// A panel's, at one time.
    Instant,
    Variable,
    Annotation,
    Record(String),
    Alert,
}

/// A query and where it stands.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) place: String,
    pub(super) purpose: Purpose,
    /// The place of its dashboard in the list; none for rules.
    pub(super) board: Option<usize>,
    /// As it is written, with variables.
    pub(super) text: String,
    /// As Prometheus could be asked.
    pub(super) expr: Expr,
    /// Texts that take labels of the result: a legend, the annotations of an alert.
    pub(super) templates: Vec<String>,
    /// A label whose values are wanted, of a variable's.
    pub(super) label: Option<String>,
    /// Labels that are added to the result, by a rule.
    pub(super) added: Vec<String>,
    /// The variable for whose values its panel is repeated.
    pub(super) repeat: Option<String>,
}

/// What a variable asks Prometheus for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// `label_values(selector, label)`
    Values(&'a str, &'a str),
    /// `query_result(expression)`
    Result(&'a str),
}

/// The queries of all files; those that can't be read are findings.
pub(super) fn collect(boards: &[Board], rules: &[Rule], findings: &mut Findings) -> Vec<Query> {
    let mut collector = Collector {
        queries: Vec::new(),
        findings,
    };
    for (index, board) in boards.iter().enumerate() {
        collector.board(index, board);
    }
    for rule in rules {
        collector.rule(rule);
    }
    collector.queries
}

struct Collector<'a> {
    queries: Vec<Query>,
    findings: &'a mut Findings,
}

impl Collector<'_> {
    /// Reads one; what it's part of is filled in by the caller.
    fn read(
        &mut self,
        place: &str,
        purpose: Purpose,
        text: &str,
        board: Option<(usize, &Board)>,
    ) -> Option<&mut Query> {
        let value = |name: &str| {
            let variable = board.and_then(|(_, board)| board.variable(name));
            variable.map(Variable::neutral)
        };
        match parse(&replace(text, Times::NEUTRAL, value)) {
            Err(error) => {
                let error = error.trim();
                self.findings
                    .add(place, format!("`{text}` is no PromQL: {error}"));
                None
            }
            Ok(expr) => {
                self.queries.push(Query {
                    place: place.to_owned(),
                    purpose,
                    board: board.map(|(index, _)| index),
                    text: text.to_owned(),
                    expr,
                    templates: Vec::new(),
                    label: None,
                    added: Vec::new(),
                    repeat: None,
                });
                self.queries.last_mut()
            }
        }
    }

    fn board(&mut self, index: usize, board: &Board) {
        for panel in board
            .panels()
            .into_iter()
            .filter(|panel| !panel.is_silent())
        {
            for target in panel.targets() {
                let Some(expr) = text(target, "/expr").filter(|expr| !expr.trim().is_empty())
                else {
                    continue;
                };
                let id = text(target, "/refId").unwrap_or("?");
                let place = format!("{}, target {id}", board.place(panel));
                let purpose = if target.get("instant") == Some(&Value::Bool(true)) {
                    Purpose::Instant
                } else {
                    Purpose::Graph
                };
                if let Some(query) = self.read(&place, purpose, expr, Some((index, board))) {
                    query
                        .templates
                        .extend(text(target, "/legendFormat").map(str::to_owned));
                    query.repeat = panel.text("/repeat").map(str::to_owned);
                }
            }
        }
        for variable in &board.variables {
            let Some(wanted) = &variable.query else {
                continue;
            };
            let place = format!("{}: variable `{}`", board.file, variable.name);
            let (expr, label) = match asked(wanted) {
                Some(Asked::Values(selector, label)) => (selector, Some(label)),
                Some(Asked::Result(expr)) => (expr, None),
                None => {
                    let text = format!(
                        "`{wanted}` is neither label_values(metric, label) nor query_result(query)"
                    );
                    self.findings.add(place, text);
                    continue;
                }
            };
            if let Some(query) = self.read(&place, Purpose::Variable, expr, Some((index, board))) {
                query.label = label.map(str::to_owned);
            }
        }
        for annotation in list(&board.json, "/annotations/list") {
            if let Some(expr) = text(annotation, "/expr") {
                let name = text(annotation, "/name").unwrap_or("?");
                let place = format!("{}: annotation \"{name}\"", board.file);
                if let Some(query) =
                    self.read(&place, Purpose::Annotation, expr, Some((index, board)))
                {
                    let texts = ["/titleFormat", "/textFormat", "/tagKeys"];
                    let texts = texts.iter().filter_map(|pointer| text(annotation, pointer));
                    query.templates = texts.map(str::to_owned).collect();
                }
            }
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let purpose = match &rule.what {
            What::Record(name) => Purpose::Record(name.clone()),
            What::Alert => Purpose::Alert,
        };
        if let Some(query) = self.read(&rule.place, purpose, &rule.expr, None) {
            query.added = rule.labels.keys().cloned().collect();
            query.templates = rule.annotations.values().cloned().collect();
        }
    }
}

/// What the query of a variable is, of those that give nothing but what Prometheus has.
pub(super) fn asked(query: &str) -> Option<Asked<'_>> {
    let inner = |name: &str| query.trim().strip_prefix(name)?.strip_suffix(')');
    if let Some(inner) = inner("label_values(") {
        let (selector, label) = inner.rsplit_once(',')?;
        return Some(Asked::Values(selector.trim(), label.trim()));
    }
    inner("query_result(").map(Asked::Result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;

    #[test]
    fn queries_of_variables() {
        let query = r#"label_values(a{x=~"1,2"}, pid)"#;
        assert_eq!(asked(query), Some(Asked::Values(r#"a{x=~"1,2"}"#, "pid")));
        assert_eq!(
            asked("query_result(topk(1, a))"),
            Some(Asked::Result("topk(1, a)"))
        );
        assert_eq!(asked("metrics(a)"), None);
    }

    #[test]
    fn what_can_not_be_read_is_told() -> Result<()> {
        let board = Board::parse(
            "a.json",
            r#"{"panels": [{"id": 1, "title": "T", "type": "stat", "targets": [
                    {"refId": "A", "expr": "rate(x[$__rate_interval]"},
                    {"refId": "B", "expr": "rate(x[$__rate_interval])", "legendFormat": "{{y}}"}]}],
                "templating": {"list": [{"name": "v", "type": "query", "query": "metrics(x)"}]}}"#,
        )?;
        let rules = super::super::rules::parse(
            "r.yml",
            "groups: [{name: g, rules: [{alert: A, expr: 'x >'}]}]",
        )?;
        let mut findings = Findings::default();
        let queries = collect(&[board], &rules, &mut findings);
        let found: Vec<_> = findings.iter().collect();
        assert_eq!(found.len(), 3, "{found:?}");
        for (line, start) in found.iter().zip([
            "a.json: panel 1 \"T\", target A: `rate(x[$__rate_interval]` is no PromQL: ",
            "a.json: variable `v`: `metrics(x)` is neither label_values(metric, label) nor",
            "r.yml: A: `x >` is no PromQL: ",
        ]) {
            assert!(line.starts_with(start), "{line}");
        }
        let places: Vec<_> = queries.iter().map(|query| query.place.as_str()).collect();
        assert_eq!(places, ["a.json: panel 1 \"T\", target B"]);
        Ok(())
    }
}
