use super::*;
use crate::dashboards::{board::Board, contract, query, rules};
use anyhow::Result;

const README: &str = "\n## The page\n\n### Things\n\nLabels: `gpu` (index), `uuid`. So a sum takes `mig=\"\"`.\n\n\
    | family | type | more labels | meaning |\n| --- | --- | --- | --- |\n\
    | `x_{rx,tx}_total` | counter | `link` | |\n\
    | `x_power`, `x_energy_total` | gauge, counter | | |\n\
    | `x_seconds` | histogram | `operation` | |\n\
    | `x_up` | gauge | none at all | |\n\n\
    ## Configuration\n\n| family | type | labels | meaning |\n| --- | --- | --- | --- |\n\
    | `y` | gauge | | |\n";

/// A dashboard whose one panel has these queries, and names labels as these legends do.
fn panel(queries: &[(&str, &str)]) -> Result<Board> {
    let targets: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(number, (expr, legend))| {
            serde_json::json!({"refId": number.to_string(), "expr": expr, "legendFormat": legend})
        })
        .collect();
    let board = serde_json::json!({"panels": [
        {"id": 1, "title": "T", "type": "timeseries", "targets": targets}]});
    Board::parse("a.json", &board.to_string())
}

/// What is found wrong with one query of a panel that shows all else as well.
fn complaints(expr: &str, legend: &str) -> Result<Vec<String>> {
    let all = "{__name__=~\"x_.*\"}";
    let boards = [panel(&[(expr, legend), (all, "")])?];
    let mut findings = Findings::default();
    let queries = query::collect(&boards, &[], &mut findings);
    check(&queries, &mut contract::read(README)?, &mut findings);
    let place = "a.json: panel 1 \"T\", target 0: ";
    Ok(findings
        .iter()
        .map(|line| line.strip_prefix(place).unwrap_or(line).to_owned())
        .collect())
}

#[test]
fn good_queries_are_left_alone() -> Result<()> {
    for (expr, legend) in [
        (
            "rate(x_rx_total{link=\"0\", job=\"j\"}[1m])",
            "{{gpu}} {{ link }} {{instance}}",
        ),
        (
            "sum by (gpu) (x_power) / on (gpu) group_left (link) x_rx_total",
            "{{gpu}} {{link}}",
        ),
        (
            "histogram_quantile(0.9, sum by (le, operation) (rate(x_seconds_bucket[1m])))",
            "{{operation}}",
        ),
        (
            "label_replace(x_up, \"host\", \"$1\", \"instance\", \"(.*):.*\")",
            "{{host}}",
        ),
        ("topk(3, x_power)", "{{uuid}}"),
        ("count_values(\"v\", x_power)", "{{v}}"),
        ("sum without (link) (x_rx_total)", "{{gpu}}"),
        ("ALERTS{alertname=\"A\"}", "{{severity}}"),
        ("x_seconds_sum / x_seconds_count", "{{operation}}"),
        ("deriv(x_power[1m])", ""),
    ] {
        assert_eq!(complaints(expr, legend)?, Vec::<String>::new(), "{expr}");
    }
    Ok(())
}

#[test]
fn names_labels_and_types_that_are_not_there_are_told() -> Result<()> {
    let four = "take one of gpu, instance, job, uuid";
    for (expr, legend, expected) in [
        (
            "y",
            "",
            "y is not exported: neither a table of README.md nor a recording rule has it"
                .to_owned(),
        ),
        (
            "x_seconds",
            "",
            "x_seconds is not exported: neither a table of README.md nor a recording rule has it"
                .to_owned(),
        ),
        (
            "{__name__=~\"z_.*\"}",
            "",
            "{__name__=~\"z_.*\"} means nothing that is exported: give it a name".to_owned(),
        ),
        (
            "x_power{pid=\"1\"}",
            "",
            format!("x_power has no label `pid`: {four}"),
        ),
        (
            "x_up{gpu=\"0\"}",
            "",
            "x_up has no label `gpu`: take one of instance, job".to_owned(),
        ),
        (
            "sum by (link) (x_power)",
            "",
            format!("what is aggregated has no label `link`: {four}"),
        ),
        (
            "x_power * on (pid) x_power",
            "",
            format!("the left side of `on` has no label `pid`: {four}"),
        ),
        (
            "x_power * on (gpu) group_left (name) x_power",
            "",
            format!("the side that labels are brought from has no label `name`: {four}"),
        ),
        (
            "sum by (gpu) (x_power)",
            "{{uuid}}",
            "the result has no label `uuid`, but gpu".to_owned(),
        ),
        (
            "rate(x_power[1m])",
            "",
            "`rate` of x_power, which is a gauge: take `delta`, `deriv` or `changes`".to_owned(),
        ),
        (
            "delta(x_rx_total[1m])",
            "",
            "`delta` of x_rx_total, which is a counter: take `rate` or `increase`".to_owned(),
        ),
    ] {
        let found = complaints(expr, legend)?;
        assert_eq!(found.first(), Some(&expected), "{expr}");
    }
    Ok(())
}

#[test]
fn what_is_shown_nowhere_is_told() -> Result<()> {
    // What a rule records is shown where its result is; what an alert looks at is not.
    let rules = rules::parse(
        "r.yml",
        "groups:\n- name: g\n  rules:\n\
         \x20 - {record: 'gpu:x_rx:rate', expr: 'sum by (gpu) (rate(x_rx_total[1m]))'}\n\
         \x20 - {alert: A, expr: 'x_up == 0', annotations: {summary: '{{ $labels.gpu }}'}}\n",
    )?;
    let boards = [panel(&[
        ("gpu:x_rx:rate{link=\"0\"}", ""),
        ("x_power + x_seconds_sum", ""),
    ])?];
    let mut findings = Findings::default();
    let queries = query::collect(&boards, &rules, &mut findings);
    let mut families = contract::read(README)?;
    check(&queries, &mut families, &mut findings);
    let missing = |name: &str| {
        format!(
            "docker/grafana/dashboards: {name} is exported and shown nowhere: add it to a panel"
        )
    };
    findings.check(&[
        "a.json: panel 1 \"T\", target 0: gpu:x_rx:rate has no label `link`: take one of gpu",
        "r.yml: A: the result has no label `gpu`, but instance, job",
        &missing("x_energy_total"),
        &missing("x_tx_total"),
        &missing("x_up"),
    ]);
    Ok(())
}

#[test]
fn what_need_not_be_shown_is_kept_up_to_date() -> Result<()> {
    let families = contract::read(README)?;
    let shown: BTreeSet<_> = families.series().collect();
    let mut findings = Findings::default();
    let exempt = [("x_up", "is always 1"), ("x_gone", "was there once")];
    check_shown(&shown, &families, &exempt, &mut findings);
    findings.check(&[
        "docker/grafana/dashboards: x_up is shown after all, though \"is always 1\": \
         take it off SHOWN_NOWHERE",
        "docker/grafana/dashboards: x_gone is in SHOWN_NOWHERE and not exported: take it off",
    ]);
    Ok(())
}
