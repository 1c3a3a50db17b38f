//! Every query on a running Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use promql_parser::parser::parse;
use serde::Serialize;

use super::{
    Files,
    board::Board,
    operands,
    prometheus::{Data, Prometheus},
    query::{Asked, Purpose, Query, asked},
    variables::{Times, Variable, replace, used},
};
use crate::step;

/// The most combinations of values of variables that are tried, until a panel has data.
const COMBINATIONS: usize = 64;

#[derive(clap::Args)]
pub(super) struct Options {
    /// A Prometheus that has the agent's metrics: which queries have no data there?
    #[arg(long, value_name = "URL")]
    pub(super) prometheus: Option<String>,
    /// How far to look back, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3_600,
        requires = "prometheus"
    )]
    last: u64,
    /// How often Prometheus gets samples, in seconds; $__rate_interval is four times as much
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 5,
        requires = "prometheus"
    )]
    scrape_interval: u64,
    /// Print what was found as JSON
    #[arg(long, requires = "prometheus")]
    json: bool,
}

/// What a Prometheus lacks.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Queries with data.
    answered: Vec<Answered>,
    /// Queries without.
    empty: Vec<Empty>,
    /// Metrics of README.md that are not there.
    missing: Vec<String>,
    /// Metrics of the agent that are there, and not in README.md.
    undocumented: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Answered {
    place: String,
    /// As it was asked.
    query: String,
}

#[derive(Debug, Serialize)]
struct Empty {
    place: String,
    /// As it was asked.
    query: String,
    why: String,
}

pub(super) fn main(
    url: &str,
    options: &Options,
    files: &Files,
    queries: &[Query],
) -> Result<ExitCode> {
    let prometheus = Prometheus::new(url)?;
    let times = Times {
        range_seconds: options.last,
        rate_seconds: options.scrape_interval * 4,
    };
    let mut run = Run {
        prometheus,
        times,
        report: Report::default(),
    };
    run.names(files)?;
    let values: Vec<_> = files
        .boards
        .iter()
        .map(|board| run.variables(board))
        .collect::<Result<_>>()?;
    for query in queries {
        let board = query
            .board
            .and_then(|index| Some((files.boards.get(index)?, values.get(index)?)));
        run.query(query, board)?;
    }
    run.report.print(options.json)?;
    Ok(ExitCode::from(u8::from(!run.report.is_complete())))
}

/// What the queries of a dashboard's variables gave, by name.
type Values = BTreeMap<String, Vec<String>>;

struct Run {
    prometheus: Prometheus,
    times: Times,
    report: Report,
}

impl Run {
    /// Compares the names that are there with those that should be.
    fn names(&mut self, files: &Files) -> Result<()> {
        let there = self
            .prometheus
            .label_values("__name__", None, self.times.range_seconds)?;
        let there: BTreeSet<_> = there.into_iter().collect();
        let expected: BTreeSet<_> = files.families.series().collect();
        self.report.missing = expected.difference(&there).cloned().collect();
        let ours = there.difference(&expected);
        self.report.undocumented = ours
            .filter(|name| name.starts_with("esnode_"))
            .cloned()
            .collect();
        Ok(())
    }

    /// What the variables of a dashboard can be. They may hang on each other, in the order of the
    /// dashboard.
    fn variables(&mut self, board: &Board) -> Result<Values> {
        let mut all = Values::new();
        for variable in &board.variables {
            if let Some(wanted) = variable.query.as_deref().and_then(asked) {
                let queried = self.queried(board, variable, &wanted, &all)?;
                all.insert(variable.name.clone(), queried);
            }
        }
        Ok(all)
    }

    fn queried(
        &mut self,
        board: &Board,
        variable: &Variable,
        wanted: &Asked<'_>,
        values: &Values,
    ) -> Result<Vec<String>> {
        let place = format!("{}: variable `{}`", board.file, variable.name);
        let (text, mut found) = match wanted {
            Asked::Values(selector, label) => {
                let mut found = BTreeSet::new();
                for selector in combinations(selector, board, values, None, self.times) {
                    let seconds = self.times.range_seconds;
                    let more = self
                        .prometheus
                        .label_values(label, Some(&selector), seconds);
                    found.extend(more.with_context(|| place.clone())?);
                }
                (*selector, found)
            }
            // What Grafana would make of the result is not worked out: only whether there is one.
            Asked::Result(expr) => (*expr, BTreeSet::new()),
        };
        let query = text.to_owned();
        if matches!(wanted, Asked::Result(_)) {
            // It is run with the other queries.
        } else if found.is_empty() {
            let why = "no values".to_owned();
            self.report.empty.push(Empty { place, query, why });
        } else {
            self.report.answered.push(Answered { place, query });
        }
        // Chosen from a list, the empty value is none.
        found.remove("");
        Ok(found.into_iter().collect())
    }

    fn query(&mut self, query: &Query, board: Option<(&Board, &Values)>) -> Result<()> {
        let texts = match (&query.purpose, board) {
            // They were run for their values.
            (Purpose::Variable, _) if query.label.is_some() => return Ok(()),
            (Purpose::Alert, _) => {
                // Each must have data.
                for part in operands::of(&query.expr) {
                    self.one(query, &[part.to_string()])?;
                }
                return Ok(());
            }
            (_, Some((board, values))) => {
                let repeated = query.repeat.as_deref();
                combinations(&query.text, board, values, repeated, self.times)
            }
            (_, None) => vec![query.text.clone()],
        };
        self.one(query, &texts)?;
        self.beside_constants(query, &texts)
    }

    /// Where `or vector(0)` stands for nothing, what stands before it must have data as well: a name
    /// that nobody exports would look as one that is fine.
    fn beside_constants(&mut self, query: &Query, texts: &[String]) -> Result<()> {
        let Some(expr) = texts.first().and_then(|text| parse(text).ok()) else {
            return Ok(());
        };
        if operands::have_constant(&expr) {
            for part in operands::of(&expr) {
                self.one(query, &[part.to_string()])?;
            }
        }
        Ok(())
    }

    /// Runs forms of a query until one has data.
    fn one(&mut self, query: &Query, texts: &[String]) -> Result<()> {
        let mut why = "a variable in it has no values";
        for text in texts {
            let data = self
                .data(query, text)
                .with_context(|| format!("{}: {text}", query.place))?;
            if data.with_numbers > 0 {
                self.report.answered.push(Answered {
                    place: query.place.clone(),
                    query: text.clone(),
                });
                return Ok(());
            }
            why = if data.series > 0 {
                "NaN only"
            } else {
                "no series"
            };
        }
        self.report.empty.push(Empty {
            place: query.place.clone(),
            query: texts.first().unwrap_or(&query.text).clone(),
            why: why.to_owned(),
        });
        Ok(())
    }

    fn data(&self, query: &Query, text: &str) -> Result<Data> {
        let Times { range_seconds, .. } = self.times;
        match query.purpose {
            Purpose::Graph | Purpose::Annotation => {
                let step = self.times.step_seconds();
                self.prometheus.query_range(text, range_seconds, step)
            }
            _ => self.prometheus.query(text),
        }
    }
}

/// The query with every combination of values of its variables, up to a number. The variable that a
/// panel is repeated for has one value at a time.
fn combinations(
    text: &str,
    board: &Board,
    values: &Values,
    repeated: Option<&str>,
    times: Times,
) -> Vec<String> {
    let names: BTreeSet<&str> = used(text).into_iter().collect();
    let mut chosen: Vec<BTreeMap<&str, String>> = vec![BTreeMap::new()];
    for name in names {
        let Some(variable) = board.variable(name) else {
            continue;
        };
        let queried = values.get(name).map(Vec::as_slice);
        let choices = variable.choices(queried, repeated == Some(name));
        let longer = chosen.iter().flat_map(|chosen| {
            choices.iter().map(move |value| {
                let mut chosen = chosen.clone();
                chosen.insert(name, value.clone());
                chosen
            })
        });
        chosen = longer.take(COMBINATIONS).collect();
    }
    let text = |chosen: BTreeMap<&str, String>| {
        let value = |name: &str| chosen.get(name).cloned();
        replace(text, times, value).into_owned()
    };
    chosen.into_iter().map(text).collect()
}

impl Report {
    fn is_complete(&self) -> bool {
        // What a host lacks, nobody can put on a page.
        self.empty.is_empty() && self.undocumented.is_empty()
    }

    fn print(&self, json: bool) -> Result<()> {
        if json {
            step::print(&serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        for Empty { place, query, why } in &self.empty {
            step::print(&format!("{place}: {why}: {query}"));
        }
        for name in &self.missing {
            step::print(&format!("{name}: in README.md, and not in this Prometheus"));
        }
        for name in &self.undocumented {
            step::print(&format!("{name}: in this Prometheus, and not in README.md"));
        }
        step::print(&format!(
            "{} queries, {} without data; {} metrics missing, {} not in README.md",
            self.answered.len() + self.empty.len(),
            self.empty.len(),
            self.missing.len(),
            self.undocumented.len()
        ));
        Ok(())
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
