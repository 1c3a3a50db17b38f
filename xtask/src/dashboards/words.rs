//! Words that queries compare labels with, against those that the agent writes.
//!
//! A misspelled alternative, or a misspelled value that is left out, changes what a query says and
//! leaves it with data. Labels that have a closed set of values take them from string literals of the
//! agent's source, and roles and engines from its rules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use promql_parser::label::{MatchOp, Matcher};

use super::{findings::Findings, query::Query, usage::selectors};

/// Labels whose values the agent knows beforehand.
const CLOSED: [&str; 14] = [
    "cause",
    "clock",
    "engine",
    "engine_type",
    "kind",
    "limit",
    "operation",
    "reason",
    "resource",
    "role",
    "scope",
    "signal",
    "source",
    "state",
];

/// The agent's source, and its rules.
pub(super) struct Words(String);

impl Words {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut text = String::new();
        for path in sources(&root.join("esnode-agent/src"))? {
            text += &fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
        Ok(Self(text))
    }

    fn have(&self, word: &str) -> bool {
        self.0.contains(&format!("\"{word}\""))
    }
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path
            .extension()
            .is_some_and(|end| end == "rs" || end == "toml")
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Complains about words that the agent never writes.
pub(super) fn check(queries: &[Query], words: &Words, findings: &mut Findings) {
    for query in queries {
        for selector in selectors(&query.expr) {
            let ours = |name: &String| name.starts_with("esnode_");
            if !selector.name.as_ref().is_some_and(ours) {
                continue;
            }
            for matcher in &selector.matchers.matchers {
                for word in unknown(matcher, words) {
                    let label = &matcher.name;
                    findings.add(
                        &query.place,
                        format!("{label} is never \"{word}\": no source of the agent has it"),
                    );
                }
            }
        }
    }
}

fn unknown<'a>(matcher: &'a Matcher, words: &Words) -> Vec<&'a str> {
    if !CLOSED.contains(&matcher.name.as_str()) {
        return Vec::new();
    }
    let alternatives: Vec<&str> = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
    };
    let plain = |word: &&str| {
        let part_of_word = |char: char| char.is_ascii_alphanumeric() || "_-".contains(char);
        !word.is_empty() && word.chars().all(part_of_word)
    };
    let unknown = |word: &&str| !words.have(word);
    alternatives
        .into_iter()
        .filter(plain)
        .filter(unknown)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboards::{board::Board, query};

    #[test]
    fn misspelled_words_are_found() -> Result<()> {
        let words = Words("[\"idle\", \"iowait\"]".to_owned());
        for (matcher, expected) in [
            ("state=\"idle\"", &[][..]),
            ("state!=\"idel\"", &["idel"]),
            ("state=~\"idle|iowiat|iowait\"", &["iowiat"]),
            ("state!~\"idel|iowait\"", &["idel"]),
            // Patterns, empty values and open sets are the reader's.
            ("state=~\"id.*\"", &[]),
            ("state!=\"\"", &[]),
            ("device=\"sda\"", &[]),
        ] {
            let expr = format!("esnode_x{{{matcher}}}");
            let board = serde_json::json!({"panels": [{"id": 1, "title": "T", "type": "stat",
                "targets": [{"refId": "A", "expr": expr}]}]});
            let boards = [Board::parse("a.json", &board.to_string())?];
            let mut findings = Findings::default();
            let queries = query::collect(&boards, &[], &mut findings);
            check(&queries, &words, &mut findings);
            let found: Vec<_> = findings.iter().collect();
            assert_eq!(found.len(), expected.len(), "{matcher}: {found:?}");
            for (line, word) in found.iter().zip(expected) {
                assert!(line.contains(&format!("never \"{word}\"")), "{line}");
            }
        }
        Ok(())
    }
}
