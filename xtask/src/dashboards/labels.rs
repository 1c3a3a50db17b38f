//! What labels an expression's result has, and complaints about those that it asks for in vain.
//!
//! It is told from the labels that families have by the README. Where they are not known, as of
//! other programs' metrics, nothing is complained about.

use std::collections::BTreeSet;

use promql_parser::label::{METRIC_NAME, Matchers};
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
    token::{T_BOTTOMK, T_COUNT_VALUES, T_LIMIT_RATIO, T_LIMITK, T_LOR, T_TOPK},
};

use super::{contract::Kind, families::Families};

/// Labels that series may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// Nobody knows.
    Any,
    /// These, and no others.
    Known(BTreeSet<String>),
}

impl Labels {
    pub(super) fn none() -> Self {
        Self::Known(BTreeSet::new())
    }

    pub(super) fn lacks(&self, label: &str) -> bool {
        matches!(self, Self::Known(labels) if !labels.contains(label))
    }

    pub(super) fn insert(&mut self, label: &str) {
        if let Self::Known(labels) = self {
            labels.insert(label.to_owned());
        }
    }

    fn remove(&mut self, label: &str) {
        if let Self::Known(labels) = self {
            labels.remove(label);
        }
    }

    fn only(names: &[String]) -> Self {
        Self::Known(names.iter().cloned().collect())
    }

    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => {
                Self::Known(one.union(&other).cloned().collect())
            }
            _ => Self::Any,
        }
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Known(labels) if labels.is_empty() => f.write_str("none"),
            Self::Known(labels) => {
                let all: Vec<&str> = labels.iter().map(String::as_str).collect();
                f.write_str(&all.join(", "))
            }
        }
    }
}

/// Looks at an expression.
pub(super) struct Inference<'a> {
    families: &'a Families,
    /// What it found wrong.
    pub(super) complaints: Vec<String>,
}

impl<'a> Inference<'a> {
    pub(super) fn new(families: &'a Families) -> Self {
        Self {
            families,
            complaints: Vec::new(),
        }
    }

    /// The labels of the result.
    pub(super) fn labels(&mut self, expr: &Expr) -> Labels {
        match expr {
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => self.labels(&unary.expr),
            Expr::Paren(paren) => self.labels(&paren.expr),
            Expr::Subquery(subquery) => self.labels(&subquery.expr),
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(selector) => self.selector(&selector.vs),
            Expr::Call(call) => self.call(call),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Labels::none(),
            Expr::Extension(_) => Labels::Any,
        }
    }

    fn ask(&mut self, of: &Labels, label: &str, whose: &str) {
        if of.lacks(label) {
            self.complaints
                .push(format!("{whose} has no label `{label}`: take one of {of}"));
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Labels {
        let Some(name) = &selector.name else {
            return Labels::Any;
        };
        // A name that nobody has is told elsewhere.
        let Some(found) = self.families.find(name) else {
            return Labels::Any;
        };
        for label in matched(&selector.matchers) {
            self.ask(&found.labels, label, name);
        }
        found.labels
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Labels {
        let inner = self.labels(&aggregate.expr);
        let mut labels = match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => {
                self.ask_all(&inner, &by.labels, "what is aggregated");
                Labels::only(&by.labels)
            }
            Some(LabelModifier::Exclude(without)) => {
                self.ask_all(&inner, &without.labels, "what is aggregated");
                let mut left = inner.clone();
                for label in &without.labels {
                    left.remove(label);
                }
                left
            }
            None => Labels::none(),
        };
        match aggregate.op.id() {
            // They choose among the series, and change none.
            T_TOPK | T_BOTTOMK | T_LIMITK | T_LIMIT_RATIO => return inner,
            T_COUNT_VALUES => {
                if let Some(Expr::StringLiteral(label)) = aggregate.param.as_deref() {
                    labels.insert(&label.val);
                }
            }
            _ => {}
        }
        labels
    }

    fn ask_all(&mut self, of: &Labels, labels: &[String], whose: &str) {
        for label in labels {
            self.ask(of, label, whose);
        }
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Labels {
        let (left, right) = (self.labels(&binary.lhs), self.labels(&binary.rhs));
        if is_scalar(&binary.lhs) {
            return right;
        }
        if is_scalar(&binary.rhs) {
            return left;
        }
        let modifier = binary.modifier.as_ref();
        let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
        match matching {
            Some(LabelModifier::Include(on)) => {
                self.ask_all(&left, &on.labels, "the left side of `on`");
                self.ask_all(&right, &on.labels, "the right side of `on`");
            }
            Some(LabelModifier::Exclude(ignoring)) => {
                let both = left.clone().or(right.clone());
                self.ask_all(
                    &both,
                    &ignoring.labels,
                    "the two sides of `ignoring` together",
                );
            }
            None => {}
        }
        if binary.op.is_set_operator() {
            let both = binary.op.id() == T_LOR;
            return if both { left.or(right) } else { left };
        }
        let card = modifier.map(|modifier| &modifier.card);
        let (mut many, one, brought) = match card {
            Some(VectorMatchCardinality::ManyToOne(brought)) => (left, right, brought),
            Some(VectorMatchCardinality::OneToMany(brought)) => (right, left, brought),
            _ => {
                return match matching {
                    Some(LabelModifier::Include(on)) => Labels::only(&on.labels),
                    Some(LabelModifier::Exclude(ignoring)) => {
                        let mut labels = left;
                        for label in &ignoring.labels {
                            labels.remove(label);
                        }
                        labels
                    }
                    None => left,
                };
            }
        };
        for label in &brought.labels {
            self.ask(&one, label, "the side that labels are brought from");
            many.insert(label);
        }
        many
    }

    fn call(&mut self, call: &Call) -> Labels {
        let arguments = &call.args.args;
        for argument in arguments {
            self.check_type(call.func.name, argument);
        }
        let mut results: Vec<Labels> = arguments
            .iter()
            .map(|argument| self.labels(argument))
            .collect();
        let text = |index: usize| match arguments.get(index).map(AsRef::as_ref) {
            Some(Expr::StringLiteral(text)) => Some(text.val.as_str()),
            _ => None,
        };
        match call.func.name {
            "label_replace" | "label_join" => {
                let source = if call.func.name == "label_replace" {
                    text(3).into_iter().collect()
                } else {
                    (3..arguments.len()).filter_map(text).collect::<Vec<_>>()
                };
                let mut labels = results.swap_remove(0);
                // From none, a label is made of nothing but text.
                for label in source.into_iter().filter(|label| !label.is_empty()) {
                    self.ask(&labels, label, call.func.name);
                }
                if let Some(label) = text(1) {
                    labels.insert(label);
                }
                labels
            }
            "histogram_quantile" => {
                let mut labels = results.swap_remove(1);
                labels.remove("le");
                labels
            }
            "vector" | "time" | "scalar" | "pi" => Labels::none(),
            // They bring what their argument's matchers ask for.
            "absent" | "absent_over_time" => Labels::Any,
            _ => arguments
                .iter()
                .zip(results)
                .find(|(argument, _)| !is_scalar(argument))
                .map_or_else(Labels::none, |(_, labels)| labels),
        }
    }

    /// A rate of what is no counter means nothing, and so does the slope of one that begins anew.
    fn check_type(&mut self, function: &str, argument: &Expr) {
        let Expr::MatrixSelector(matrix) = argument else {
            return;
        };
        let name = matrix.vs.name.as_deref().unwrap_or_default();
        let Some(found) = self.families.find(name) else {
            return;
        };
        let (wrong, kind, instead) = match function {
            "rate" | "irate" | "increase" | "resets" => {
                (Kind::Gauge, "a gauge", "take `delta`, `deriv` or `changes`")
            }
            "delta" | "idelta" | "deriv" | "predict_linear" => {
                (Kind::Counter, "a counter", "take `rate` or `increase`")
            }
            _ => return,
        };
        if found.kind == wrong {
            self.complaints.push(format!(
                "`{function}` of {name}, which is {kind}: {instead}"
            ));
        }
    }
}

fn is_scalar(expr: &Expr) -> bool {
    use promql_parser::parser::value::ValueType;
    matches!(expr.value_type(), ValueType::Scalar | ValueType::String)
}

/// The labels that a selector asks for.
fn matched(matchers: &Matchers) -> impl Iterator<Item = &str> {
    let all = matchers
        .matchers
        .iter()
        .chain(matchers.or_matchers.iter().flatten());
    all.map(|matcher| matcher.name.as_str())
        .filter(|name| *name != METRIC_NAME)
}
