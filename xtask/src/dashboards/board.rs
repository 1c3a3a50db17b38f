//! A dashboard as Grafana's file format has it, as far as it is looked at here.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::variables::Variable;

/// One file.
#[derive(Debug)]
pub(super) struct Board {
    /// Its path as it is shown.
    pub(super) file: String,
    pub(super) json: Value,
    pub(super) variables: Vec<Variable>,
}

/// A panel, or a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel<'a> {
    pub(super) json: &'a Value,
    /// The place in the list of the row that it is folded into.
    pub(super) row: Option<usize>,
}

/// A place on the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) w: u64,
    pub(super) h: u64,
}

impl Board {
    /// All files of a folder, by name.
    pub(super) fn read_all(root: &Path, folder: &Path) -> Result<Vec<Self>> {
        super::files(folder, "json")?
            .iter()
            .map(|path| {
                let text = fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                let file = path
                    .strip_prefix(root)
                    .unwrap_or(path)
                    .display()
                    .to_string();
                Self::parse(&file, &text)
            })
            .collect()
    }

    pub(super) fn parse(file: &str, text: &str) -> Result<Self> {
        let json: Value =
            serde_json::from_str(text).with_context(|| format!("{file} is no JSON"))?;
        let list = json.pointer("/templating/list").and_then(Value::as_array);
        let variables = list.into_iter().flatten().map(Variable::read).collect();
        Ok(Self {
            file: file.to_owned(),
            json,
            variables,
        })
    }

    pub(super) fn uid(&self) -> &str {
        text(&self.json, "/uid").unwrap_or_default()
    }

    /// All panels and rows, those that are folded into rows after these.
    pub(super) fn panels(&self) -> Vec<Panel<'_>> {
        let mut all = Vec::new();
        for (place, json) in list(&self.json, "/panels").enumerate() {
            all.push(Panel { json, row: None });
            all.extend(list(json, "/panels").map(|json| Panel {
                json,
                row: Some(place),
            }));
        }
        all
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.name == name)
    }

    /// How a panel is called in a message.
    pub(super) fn place(&self, panel: Panel<'_>) -> String {
        let id = panel
            .json
            .get("id")
            .map_or("?".to_owned(), Value::to_string);
        format!("{}: panel {id} \"{}\"", self.file, panel.title())
    }
}

impl<'a> Panel<'a> {
    pub(super) fn title(self) -> &'a str {
        self.text("/title").unwrap_or_default()
    }

    pub(super) fn kind(self) -> &'a str {
        self.text("/type").unwrap_or_default()
    }

    pub(super) fn text(self, pointer: &str) -> Option<&'a str> {
        text(self.json, pointer)
    }

    pub(super) fn list(self, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        list(self.json, pointer)
    }

    /// Whether it has nothing to query: a row, or a text.
    pub(super) fn is_silent(self) -> bool {
        ["row", "text"].contains(&self.kind())
    }

    /// Queries that Grafana runs.
    pub(super) fn targets(self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.list("/targets")
            .filter(|target| target.get("hide") != Some(&Value::Bool(true)))
    }

    pub(super) fn grid(self) -> Option<Grid> {
        let number = |name| self.json.get("gridPos")?.get(name)?.as_u64();
        Some(Grid {
            x: number("x")?,
            y: number("y")?,
            w: number("w")?,
            h: number("h")?,
        })
    }
}

impl Grid {
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

pub(super) fn text<'a>(json: &'a Value, pointer: &str) -> Option<&'a str> {
    json.pointer(pointer).and_then(Value::as_str)
}

pub(super) fn list<'a>(
    json: &'a Value,
    pointer: &str,
) -> impl Iterator<Item = &'a Value> + use<'a> {
    let list = json.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// All texts in a value, and where they stand.
pub(super) fn texts<'a>(json: &'a Value, pointer: &str, found: &mut Vec<(String, &'a str)>) {
    match json {
        Value::String(text) => found.push((pointer.to_owned(), text)),
        Value::Array(list) => {
            for (place, json) in list.iter().enumerate() {
                texts(json, &format!("{pointer}/{place}"), found);
            }
        }
        Value::Object(map) => {
            for (key, json) in map {
                texts(json, &format!("{pointer}/{key}"), found);
            }
        }
        _ => {}
    }
}
