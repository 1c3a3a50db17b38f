//! Variables of dashboards, and Grafana's own: where they stand in a text, and what to put there.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};
use serde_json::Value;

/// As Grafana finds them (`packages/grafana-data`, `variableRegex`).
static SYNTAX: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::unwrap_used, reason = "a constant, which the tests compile")]
    Regex::new(r"\$(\w+)|\[\[(\w+?)(?::\w+)?\]\]|\$\{(\w+)(?:\.[^:}]+)?(?::[^}]+)?\}").unwrap()
});

/// What Grafana knows without being told.
const BUILT_IN: [&str; 20] = [
    "__all",
    "__all_variables",
    "__dashboard",
    "__data",
    "__field",
    "__from",
    "__interval",
    "__interval_ms",
    "__name",
    "__org",
    "__range",
    "__range_ms",
    "__range_s",
    "__rate_interval",
    "__series",
    "__timezone",
    "__to",
    "__url_time_range",
    "__user",
    "__value",
];

/// What to put in the place of Grafana's own in a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// `$__range`
    pub(super) range_seconds: u64,
    /// `$__rate_interval`
    pub(super) rate_seconds: u64,
}

impl Times {
    /// For reading queries only.
    pub(super) const NEUTRAL: Self = Self {
        range_seconds: 3_600,
        rate_seconds: 60,
    };

    fn value(self, name: &str) -> Option<String> {
        let seconds = |seconds| Some(format!("{seconds}s"));
        match name {
            "__range" => seconds(self.range_seconds),
            "__range_s" => Some(self.range_seconds.to_string()),
            "__range_ms" => Some((self.range_seconds * 1_000).to_string()),
            "__rate_interval" => seconds(self.rate_seconds),
            "__interval" => seconds(self.step_seconds()),
            "__interval_ms" => Some((self.step_seconds() * 1_000).to_string()),
            _ => None,
        }
    }

    /// Between two points of a graph: some hundred of them are in the range.
    pub(super) fn step_seconds(self) -> u64 {
        (self.range_seconds / 240).max(1)
    }
}

/// The names in a text, with Grafana's own.
pub(super) fn used(text: &str) -> Vec<&str> {
    let found = SYNTAX.captures_iter(text);
    found.filter_map(|found| name(&found)).collect()
}

fn name<'a>(found: &Captures<'a>) -> Option<&'a str> {
    let name = found.iter().skip(1).flatten().next()?.as_str();
    // `$1` is a group of a regular expression.
    let group = name.chars().all(|char| char.is_ascii_digit());
    (!group).then_some(name)
}

pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name)
}

/// Puts values in the place of names; who has none stays.
pub(super) fn replace(
    text: &str,
    times: Times,
    value: impl Fn(&str) -> Option<String>,
) -> Cow<'_, str> {
    SYNTAX.replace_all(text, |found: &Captures<'_>| {
        let whole = found.get(0).map_or("", |whole| whole.as_str());
        name(found)
            .and_then(|name| times.value(name).or_else(|| value(name)))
            .unwrap_or_else(|| whole.to_owned())
    })
}

/// A variable of a dashboard.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    /// `query`, `custom`, `datasource` …
    pub(super) kind: String,
    /// What is queried, of a variable of that kind.
    pub(super) query: Option<String>,
    /// Whether several values can be chosen at once.
    pub(super) multi: bool,
    /// What "All" stands for, if it is not all values.
    all: Option<String>,
    /// The values that stand in the dashboard.
    values: Vec<String>,
    pub(super) json: Value,
}

impl Variable {
    pub(super) fn read(json: &Value) -> Self {
        let text = |pointer| json.pointer(pointer).and_then(Value::as_str);
        let flag = |pointer| json.pointer(pointer).and_then(Value::as_bool) == Some(true);
        let kind = text("/type").unwrap_or_default();
        let queried = text("/query/query").or_else(|| text("/query"));
        Self {
            name: text("/name").unwrap_or_default().to_owned(),
            kind: kind.to_owned(),
            query: queried.filter(|_| kind == "query").map(str::to_owned),
            multi: flag("/multi") || flag("/includeAll"),
            all: text("/allValue")
                .filter(|value| !value.is_empty() && flag("/includeAll"))
                .map(str::to_owned),
            values: match kind {
                "custom" | "interval" => values(queried.unwrap_or_default()),
                "constant" | "textbox" => queried.into_iter().map(str::to_owned).collect(),
                _ => Vec::new(),
            },
            json: json.clone(),
        }
    }

    /// What to put in its place, so that a query can be read.
    pub(super) fn neutral(&self) -> String {
        self.values.first().map_or(".*", String::as_str).to_owned()
    }

    /// What Grafana may put in its place, one after the other, if its query gave these values. A
    /// panel that is repeated for each has one at a time.
    pub(super) fn choices(&self, queried: Option<&[String]>, repeated: bool) -> Vec<String> {
        let values = queried.unwrap_or(&self.values);
        if repeated || !self.multi {
            return values.to_vec();
        }
        if let Some(all) = &self.all {
            return vec![all.clone()];
        }
        let escaped: Vec<_> = values.iter().map(|value| regex::escape(value)).collect();
        match escaped.as_slice() {
            [] => Vec::new(),
            // In a string of PromQL, a backslash is two.
            several => vec![format!("({})", several.join("|")).replace('\\', "\\\\")],
        }
    }
}

/// `a, b` and `text : value` of a custom variable.
fn values(query: &str) -> Vec<String> {
    let all = query
        .split(',')
        .map(str::trim)
        .filter(|value| !value.is_empty());
    all.map(|value| {
        value
            .rsplit(" : ")
            .next()
            .unwrap_or(value)
            .trim()
            .to_owned()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_found_in_all_forms() {
        let text =
            r#"a{x=~"$x", y="${y:regex}", z="[[z]]"}[$__rate_interval] ${__field.labels.pid} $1"#;
        let expected = ["x", "y", "z", "__rate_interval", "__field"];
        assert_eq!(used(text), expected);
        for name in ["__rate_interval", "__field"] {
            assert!(is_built_in(name), "{name}");
        }
    }

    #[test]
    fn values_take_the_place_of_names() {
        let text =
            r#"label_replace(rate(a{x=~"$x"}[$__rate_interval]), "b", "$1", "c", "(.*)") + $y"#;
        let text = replace(text, Times::NEUTRAL, |name| {
            (name == "x").then(|| ".+".to_owned())
        });
        let expected = r#"label_replace(rate(a{x=~".+"}[60s]), "b", "$1", "c", "(.*)") + $y"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn choices_are_those_of_grafana() {
        let two = ["a.b".to_owned(), "c".to_owned()];
        let read = |json| Variable::read(&json).choices(Some(&two), false);
        assert_eq!(read(json!({"type": "query"})), ["a.b", "c"]);
        let multi = json!({"type": "query", "multi": true});
        assert_eq!(read(multi), [r"(a\\.b|c)"]);
        let all = json!({"type": "query", "includeAll": true, "allValue": ".*"});
        assert_eq!(read(all), [".*"]);
        let custom = json!({"type": "custom", "query": "Five : 5, 10"});
        assert_eq!(Variable::read(&custom).choices(None, false), ["5", "10"]);
    }
}
