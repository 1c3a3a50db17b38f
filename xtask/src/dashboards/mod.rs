//! `cargo xtask dashboards`: dashboards and rules against what the agent exports, and against a
//! running Prometheus.

mod board;
mod columns;
mod contract;
mod families;
mod findings;
mod labels;
mod links;
mod live;
mod names;
mod operands;
mod prometheus;
mod query;
mod rules;
mod schema;
mod units;
mod usage;
mod variables;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail};

use self::{
    board::Board, families::Families, findings::Findings, query::Query, rules::Rule, words::Words,
};
use crate::{step, workspace::Workspace};

/// Where dashboards and rules are, below the folder.
const DASHBOARDS: &str = "grafana/dashboards";
const RULES: &str = "prometheus/rules";

/// Check Grafana's dashboards and Prometheus's rules.
///
/// Without a Prometheus: whether the files are as Grafana needs them, each query can be read, takes
/// metrics and labels that README.md has, and each metric of README.md is on a dashboard.
///
/// With --prometheus: which panels, variables and rules have no data there, and which metrics of
/// README.md are not there. Of alerts, which have no data while all is well, the comparisons are
/// left out.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask dashboards --prometheus http://127.0.0.1:19090")]
pub(crate) struct Args {
    /// Another folder than docker/ with grafana/dashboards and prometheus/rules
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    live: live::Options,
}

/// What is looked at.
struct Files {
    families: Families,
    words: Words,
    boards: Vec<Board>,
    rules: Vec<Rule>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let mut files = Files::read(args.folder.as_deref())?;
    let (checked, queries) = files.check();
    let live = match &args.live.prometheus {
        Some(url) => live::main(url, &args.live, &files, &queries)?,
        None => ExitCode::SUCCESS,
    };
    checked.map(|()| live)
}

/// The checks that need no Prometheus.
pub(crate) fn check() -> Result<()> {
    Files::read(None)?.check().0
}

impl Files {
    fn read(folder: Option<&Path>) -> Result<Self> {
        let workspace = Workspace::locate()?;
        let readme = workspace.root.join("README.md");
        let readme = fs::read_to_string(&readme)
            .with_context(|| format!("cannot read {}", readme.display()))?;
        let own = workspace.root.join("docker");
        let folder = folder.unwrap_or(&own);
        let root = folder.parent().unwrap_or(folder);
        Ok(Self {
            families: contract::read(&readme)?,
            words: Words::read(&workspace.root)?,
            boards: Board::read_all(root, &folder.join(DASHBOARDS))?,
            rules: rules::read_all(root, &folder.join(RULES))?,
        })
    }

    /// Prints what is to mend, and fails if that is anything; also the queries that can be read.
    fn check(&mut self) -> (Result<()>, Vec<Query>) {
        let (findings, queries) = self.findings();
        for finding in findings.iter() {
            eprintln!("{finding}");
        }
        let result = match findings.len() {
            0 => Ok(()),
            count => Err(anyhow!("{count} things to mend in dashboards and rules")),
        };
        if result.is_ok() {
            step::announce(&format!(
                "{} dashboards and {} rules with {} queries are as they should be",
                self.boards.len(),
                self.rules.len(),
                queries.len()
            ));
        }
        (result, queries)
    }

    fn findings(&mut self) -> (Findings, Vec<Query>) {
        let mut findings = Findings::default();
        schema::check(&self.boards, &mut findings);
        links::check(&self.boards, &mut findings);
        for rule in &self.rules {
            for text in rule.annotations.values() {
                for complaint in links::complaints(text, &self.boards) {
                    findings.add(&rule.place, complaint);
                }
            }
        }
        let queries = query::collect(&self.boards, &self.rules, &mut findings);
        usage::check(&queries, &mut self.families, &mut findings);
        words::check(&queries, &self.words, &mut findings);
        columns::check(&self.boards, &queries, &self.families, &mut findings);
        (findings, queries)
    }
}

/// The files of a folder with this extension, by name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!("{} has no .{extension} files", folder.display());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names and labels of the tables are those of pages: of hosts that are made of files.
    #[test]
    fn readme_has_what_the_golden_pages_have() -> Result<()> {
        let workspace = Workspace::locate()?;
        let families = contract::read(&fs::read_to_string(workspace.root.join("README.md"))?)?;
        let mut seen = 0;
        for host in fs::read_dir(workspace.root.join("tests/fixtures"))? {
            let page = fs::read_to_string(host?.path().join("page.prom"))?;
            for line in page.lines().filter(|line| line.starts_with("esnode_")) {
                let end = line.find(['{', ' ']).context("a name")?;
                let (name, rest) = line.split_at(end);
                let found = families
                    .find(name)
                    .with_context(|| format!("{name} is in no table"))?;
                let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
                for label in labels
                    .split("=\"")
                    .filter_map(|text| text.rsplit(['{', ',']).next())
                {
                    // The last piece is a value.
                    let is_label = names::is_name(label) && rest.contains(&format!("{label}=\""));
                    assert!(!is_label || !found.labels.lacks(label), "{label} of {name}");
                }
                seen += 1;
            }
        }
        assert!(seen > 1_000, "{seen} series");
        Ok(())
    }
}
