use super::*;
use crate::dashboards::{contract, query};
use anyhow::Result;

#[test]
fn columns_that_do_not_come_are_told() -> Result<()> {
    let families = contract::read(
        "\n## The page\n\n### X\n\n| family | type | labels | m |\n| --- | --- | --- | --- |\n\
         | `x_a` | gauge | `gpu` | |\n",
    )?;
    let board = Board::parse(
        "a.json",
        r#"{"panels": [{"id": 1, "title": "T", "type": "table",
            "targets": [
                {"refId": "A", "format": "table", "expr": "sum by (gpu) (x_a)"},
                {"refId": "B", "format": "table", "expr": "x_a"}],
            "transformations": [
                {"id": "merge"},
                {"id": "organize", "options": {
                    "renameByName": {"gpu": "GPU", "Value #A": "Sum", "Value #C": "No"},
                    "excludeByName": {"Time": true, "pid": true}}}],
            "options": {"sortBy": [{"displayName": "Power"}]},
            "fieldConfig": {"overrides": [
                {"matcher": {"id": "byName", "options": "gpu"}},
                {"matcher": {"id": "byName", "options": "Sum"}},
                {"matcher": {"id": "byFrameRefID", "options": "D"}}]}}]}"#,
    )?;
    let mut findings = Findings::default();
    let boards = [board];
    let queries = query::collect(&boards, &[], &mut findings);
    check(&boards, &queries, &families, &mut findings);
    let before = "there are Time, Value #A, Value #B, gpu, instance, job";
    let after = "there are GPU, Sum, Value #B, instance, job";
    let lines = [
        "an override is for target D, which is not there".to_owned(),
        format!("organize names a column \"Value #C\" that does not come: {before}"),
        format!("organize names a column \"pid\" that does not come: {before}"),
        format!("an override names a column \"gpu\" that does not come: {after}"),
        format!("sortBy names a column \"Power\" that does not come: {after}"),
    ];
    let lines: Vec<_> = lines
        .iter()
        .map(|line| format!("a.json: panel 1 \"T\": {line}"))
        .collect();
    findings.check(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(())
}
