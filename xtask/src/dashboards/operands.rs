//! What of an alert must have data while all is well.
//!
//! An alert that does not fire gives no series, so that a name which nobody exports looks as one
//! that is fine. So its conditions are taken off: what a comparison compares, what `and`, `or` and
//! `unless` join, and what `absent` waits for is asked for by itself. Offsets are taken off as well,
//! and subqueries look at every second, as a Prometheus that has just begun remembers little.

use std::time::Duration;

use promql_parser::parser::{BinaryExpr, Expr, value::ValueType};

/// How far back a subquery looks at most.
const SUBQUERY: Duration = Duration::from_mins(1);

/// The expressions that must have data each.
pub(super) fn of(expr: &Expr) -> Vec<Expr> {
    let mut more = Vec::new();
    let first = strip(expr, &mut more);
    let mut all = vec![first];
    all.append(&mut more);
    all.retain(|expr| !is_scalar(expr));
    all
}

/// Whether `vector(…)` stands in for a series that is not there.
pub(super) fn have_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Binary(binary) => {
            let constant =
                |expr: &Expr| matches!(expr, Expr::Call(call) if call.func.name == "vector");
            binary.op.is_set_operator() && (constant(&binary.lhs) || constant(&binary.rhs))
                || have_constant(&binary.lhs)
                || have_constant(&binary.rhs)
        }
        Expr::Paren(paren) => have_constant(&paren.expr),
        Expr::Aggregate(aggregate) => have_constant(&aggregate.expr),
        Expr::Call(call) => call
            .args
            .args
            .iter()
            .any(|argument| have_constant(argument)),
        _ => false,
    }
}

/// The expression without conditions. What they compare it with is added to the others.
fn strip(expr: &Expr, others: &mut Vec<Expr>) -> Expr {
    let mut expr = expr.clone();
    match &mut expr {
        Expr::Binary(binary) => {
            let left = strip(&binary.lhs, others);
            let right = strip(&binary.rhs, others);
            if is_condition(binary) {
                let (kept, other) = if is_scalar(&left) {
                    (right, left)
                } else {
                    (left, right)
                };
                others.push(other);
                return kept;
            }
            *binary.lhs = left;
            *binary.rhs = right;
        }
        Expr::Call(call) if ["absent", "absent_over_time"].contains(&call.func.name) => {
            if let Some(waited_for) = call.args.args.first() {
                return strip(waited_for, others);
            }
        }
        Expr::Call(call) => {
            for argument in &mut call.args.args {
                **argument = strip(argument, others);
            }
        }
        Expr::Aggregate(aggregate) => *aggregate.expr = strip(&aggregate.expr, others),
        Expr::Unary(unary) => *unary.expr = strip(&unary.expr, others),
        Expr::Paren(paren) => *paren.expr = strip(&paren.expr, others),
        Expr::Subquery(subquery) => {
            *subquery.expr = strip(&subquery.expr, others);
            subquery.offset = None;
            subquery.range = subquery.range.min(SUBQUERY);
            subquery.step = Some(Duration::from_secs(1));
        }
        Expr::VectorSelector(selector) => selector.offset = None,
        Expr::MatrixSelector(selector) => selector.vs.offset = None,
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
    expr
}

/// Whether an operation lets through what fulfils it, and nothing else.
fn is_condition(binary: &BinaryExpr) -> bool {
    binary.op.is_set_operator() || binary.op.is_comparison_operator() && !binary.return_bool()
}

fn is_scalar(expr: &Expr) -> bool {
    matches!(expr.value_type(), ValueType::Scalar | ValueType::String)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Result, anyhow};
    use promql_parser::parser::parse;

    fn parts(text: &str) -> Result<Vec<String>> {
        let expr = parse(text).map_err(|error| anyhow!(error))?;
        Ok(of(&expr).iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_constant_hides_what_is_not_there() -> Result<()> {
        for (text, expected) in [
            ("count(a == 0) or vector(0)", true),
            ("100 * max((sum(a) or vector(0)))", true),
            ("vector(1) * a", false),
            ("a or b", false),
        ] {
            let expr = parse(text).map_err(|error| anyhow!(error))?;
            assert_eq!(have_constant(&expr), expected, "{text}");
        }
        Ok(())
    }

    #[test]
    fn conditions_are_taken_off() -> Result<()> {
        for (text, expected) in [
            ("a > 5", &["a"][..]),
            ("5 < a", &["a"]),
            ("a > on (x) b * 2", &["a", "b * 2"]),
            ("a unless on (x) b > 1", &["a", "b"]),
            ("(a > 1 or b > 2) and c", &["(a)", "b", "c"]),
            (
                "count by (x) (a == 0) / count by (x) (a)",
                &["count by (x) (a) / count by (x) (a)"],
            ),
            ("absent(up{job=\"x\"})", &["up{job=\"x\"}"]),
            ("a offset 5m unless a", &["a", "a"]),
            ("rate(a[5m] offset 1h) > bool 2", &["rate(a[5m]) > bool 2"]),
            (
                "max_over_time((a > 1)[5m:1m])",
                &["max_over_time((a)[1m:1s])"],
            ),
        ] {
            assert_eq!(parts(text)?, expected, "{text}");
        }
        Ok(())
    }
}
