//! The rules as data: what a file of them holds, and what is wrong with a file that holds something else.

use regex::Regex;
use serde::{Deserialize, Deserializer, de};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;

/// The rules that the agent brings, in the format of a user's file.
pub(super) const BUILT_IN: &str = include_str!("rules.toml");

/// Why a file of rules cannot be used.
#[derive(Debug, Error)]
pub enum RulesError {
    /// It is not TOML, or holds a key or value that no rule has.
    #[error("{path}, line {line}{rule}: {expected}", path = path.display(), rule = in_rule(*number))]
    Format {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Which `[[rule]]` of the file, from 1; 0 before the first one.
        number: usize,
        /// What stood there, and what should have.
        expected: String,
    },
    /// A rule says too little, or contradicts itself.
    #[error("{path}, rule {number} ({name}): expected {expected}", path = path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// Which `[[rule]]` of the file, from 1.
        number: usize,
        /// The rule's name.
        name: String,
        /// What should have stood there.
        expected: String,
    },
}

fn in_rule(number: usize) -> String {
    match number {
        0 => String::new(),
        number => format!(", rule {number}"),
    }
}

/// A file of rules.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// Programs that start whatever they are told to: what is below them is not claimed for an engine above.
    pub(super) launchers: Vec<String>,
    /// Options that take no value; a `*` at the end stands for all that begin so.
    pub(super) switches: Vec<String>,
    /// The rules, the first that fits wins.
    pub(super) rule: Vec<Rule>,
}

/// One rule. The module's documentation says what each key means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a key of the file that a user writes"
)]
pub(super) struct Rule {
    pub(super) name: String,
    #[serde(deserialize_with = "label")]
    pub(super) engine: Arc<str>,
    #[serde(deserialize_with = "label")]
    pub(super) role: Arc<str>,
    #[serde(default)]
    pub(super) roles: BTreeMap<String, String>,

    #[serde(default)]
    pub(super) program: Vec<String>,
    #[serde(default)]
    pub(super) script: Vec<String>,
    #[serde(default)]
    pub(super) module: Vec<String>,
    #[serde(default)]
    pub(super) python: bool,
    #[serde(default, deserialize_with = "pattern")]
    pub(super) code: Option<Regex>,
    #[serde(default, deserialize_with = "pattern")]
    pub(super) title: Option<Regex>,
    #[serde(default, deserialize_with = "pattern")]
    pub(super) comm: Option<Regex>,

    #[serde(default, deserialize_with = "pattern")]
    pub(super) path: Option<Regex>,
    #[serde(default)]
    pub(super) subcommand: Vec<String>,
    #[serde(default)]
    pub(super) flags: Vec<String>,
    #[serde(default, deserialize_with = "pattern")]
    pub(super) argument: Option<Regex>,

    #[serde(default)]
    pub(super) under: Vec<String>,
    #[serde(default)]
    pub(super) alone: bool,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) gpu: bool,
    #[serde(default)]
    pub(super) maps: Option<String>,

    #[serde(default)]
    pub(super) server: bool,
    #[serde(default = "yes")]
    pub(super) adopts: bool,
    #[serde(default)]
    pub(super) model: Model,
    #[serde(default)]
    pub(super) rank: Rank,
}

/// Where a rule finds the model, in this order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Model {
    pub(super) flags: Vec<String>,
    #[serde(deserialize_with = "pattern")]
    pub(super) argument: Option<Regex>,
    pub(super) position: Option<usize>,
    pub(super) environment: Vec<String>,
}

/// Where a rule finds the rank, if not in the group `rank` of its title.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rank {
    pub(super) flags: Vec<String>,
    pub(super) environment: Vec<String>,
}

fn yes() -> bool {
    true
}

fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Err(de::Error::custom("expected a name, not an empty string"));
    }
    Ok(Arc::from(text))
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Regex::new(&text)
        .map(Some)
        .map_err(|error| de::Error::custom(format!("expected a regular expression: {error}")))
}

impl File {
    /// Reads a file of rules. `known` are engines of other files, which `under` may name too.
    pub(super) fn parse(path: &Path, text: &str, known: &[Arc<str>]) -> Result<Self, RulesError> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text
                .bytes()
                .take(start)
                .filter(|byte| *byte == b'\n')
                .count()
                + 1;
            let heads = text
                .lines()
                .take(line)
                .filter(|line| line.trim_start().starts_with("[[rule]]"));
            RulesError::Format {
                path: path.to_owned(),
                line,
                number: heads.count(),
                expected: error.message().to_owned(),
            }
        })?;
        for (index, rule) in file.rule.iter().enumerate() {
            let earlier = file
                .rule
                .iter()
                .take(index)
                .any(|other| other.name == rule.name);
            let unknown = rule.under.iter().find(|engine| {
                let mut engines = known
                    .iter()
                    .chain(file.rule.iter().map(|rule| &rule.engine));
                !engines.any(|known| **known == ***engine)
            });
            let expected = if earlier {
                Some("a name that no earlier rule has".to_owned())
            } else if let Some(engine) = unknown {
                Some(format!(
                    "`under` to name engines that some rule gives, not {engine:?}"
                ))
            } else {
                rule.fault()
            };
            if let Some(expected) = expected {
                return Err(RulesError::Rule {
                    path: path.to_owned(),
                    number: index + 1,
                    name: rule.name.clone(),
                    expected,
                });
            }
        }
        Ok(file)
    }
}

impl Rule {
    /// What this rule would need to make sense.
    fn fault(&self) -> Option<String> {
        let names = [&self.program, &self.script, &self.module]
            .map(|names| names.iter())
            .into_iter()
            .flatten();
        let subject =
            self.python || self.code.is_some() || self.title.is_some() || self.comm.is_some();
        let path = self.program.iter().find(|name| name.contains('/'));
        let flag = [&self.flags, &self.model.flags, &self.rank.flags]
            .into_iter()
            .flatten()
            .find(|flag| !flag.starts_with('-'));
        if names.clone().next().is_none() && !subject {
            return Some("one of program, script, module, python, code, title, comm".to_owned());
        }
        if names.clone().any(|name| name.trim().is_empty()) {
            return Some("names that are not empty in program, script and module".to_owned());
        }
        if let Some(path) = path {
            return Some(format!(
                "base names in `program`, not the path {path:?}; `path` takes a pattern for paths"
            ));
        }
        if let Some(flag) = flag {
            return Some(format!("flags that begin with a dash, not {flag:?}"));
        }
        if self.model.position == Some(0) {
            return Some("`model.position` to count from 1".to_owned());
        }
        if self
            .model
            .argument
            .as_ref()
            .is_some_and(|pattern| !has_group(pattern, "model"))
        {
            return Some("a group `(?<model>…)` in `model.argument`".to_owned());
        }
        let titles = [&self.title, &self.comm].into_iter().flatten();
        if !self.roles.is_empty() && !titles.clone().any(|title| has_group(title, "role")) {
            return Some(
                "a group `(?<role>…)` in `title` or `comm`, which `roles` refers to".to_owned(),
            );
        }
        if self.environment.values().any(|value| value == "{prefix}")
            && !self
                .title
                .as_ref()
                .is_some_and(|title| has_group(title, "prefix"))
        {
            return Some(
                "a group `(?<prefix>…)` in `title`, which `environment` refers to".to_owned(),
            );
        }
        None
    }
}

fn has_group(pattern: &Regex, name: &str) -> bool {
    pattern.capture_names().flatten().any(|group| group == name)
}
