//! The file: YAML as the decoder of process-exporter (yaml.v2) reads it. Of a key that is there
//! twice, the last holds; null is nothing; only the first document counts.

use super::{Config, Executables, GoRegex, Rule, Template};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use std::{
    fmt,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// What is wrong with a file.
#[derive(Debug, Error)]
#[error("{path}{place}: {problem}", path = path.display(), place = place(*line))]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1; `None` if it is the file as a whole.
    pub line: Option<usize>,
    /// What is wrong there, and what is expected.
    pub problem: String,
}

fn place(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let Some(document) = serde_norway::Deserializer::from_str(text).next() else {
        return Ok(Config::default());
    };
    match Option::<Root>::deserialize(document) {
        Ok(root) => Ok(Config(root.map_or_else(Vec::new, |root| root.0))),
        // Of a file of comments, the library says so only now.
        Err(_) if text.lines().all(is_blank) => Ok(Config::default()),
        Err(error) => Err(described(path, &error)),
    }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line == "---"
}

/// The library puts the place at the end of its sentence.
fn described(path: &Path, error: &serde_norway::Error) -> ConfigError {
    let location = error.location();
    let text = error.to_string();
    let end = location.as_ref().map(|it| {
        let (line, column) = (it.line(), it.column());
        format!(" at line {line} column {column}")
    });
    let problem = end.and_then(|end| text.strip_suffix(&end));
    ConfigError {
        path: path.to_owned(),
        line: location.map(|it| it.line()),
        problem: problem.unwrap_or(&text).to_owned(),
    }
}

/// The file as a whole.
struct Root(Vec<Rule>);

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Root;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`process_names:` with a list of rules")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Root, M::Error> {
                let mut rules = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "process_names" {
                        rules = map.next_value::<Option<Vec<Rule>>>()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Root(rules.unwrap_or_default()))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The keys of a rule, so far.
#[derive(Default)]
struct Parts {
    comm: Option<Vec<String>>,
    exe: Option<Vec<String>>,
    cmdline: Option<Vec<GoRegex>>,
    name: Option<Template>,
}

impl Parts {
    fn read<'de, M: MapAccess<'de>>(mut map: M) -> Result<Self, M::Error> {
        let mut parts = Self::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "comm" => parts.comm = texts(&mut map)?,
                "exe" => parts.exe = texts(&mut map)?,
                "cmdline" => {
                    // Null among them is an empty one, which matches everything.
                    let list = map.next_value::<Option<Vec<Option<GoRegex>>>>()?;
                    parts.cmdline = list.map(|it| it.into_iter().flatten().collect());
                }
                "name" => parts.name = map.next_value()?,
                "<<" => parts.merge(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(parts)
    }

    /// Takes over what another map has: YAML's merge key.
    fn merge(&mut self, other: Self) {
        self.comm = other.comm.or(self.comm.take());
        self.exe = other.exe.or(self.exe.take());
        self.cmdline = other.cmdline.or(self.cmdline.take());
        self.name = other.name.or(self.name.take());
    }
}

/// A list of texts. Null among them is an empty one.
fn texts<'de, M: MapAccess<'de>>(map: &mut M) -> Result<Option<Vec<String>>, M::Error> {
    let list = map.next_value::<Option<Vec<Option<String>>>>()?;
    Ok(list.map(|it| it.into_iter().map(Option::unwrap_or_default).collect()))
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a rule with `comm`, `exe` or `cmdline`")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Parts, M::Error> {
        Parts::read(map)
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PartsVisitor)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Rule;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                PartsVisitor.expecting(formatter)
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Rule, M::Error> {
                let Parts {
                    comm,
                    exe,
                    cmdline,
                    name,
                } = Parts::read(map)?;
                if comm.is_none() && exe.is_none() && cmdline.is_none() {
                    return Err(de::Error::custom(
                        "a rule without `comm`, `exe` or `cmdline`: give at least one of them",
                    ));
                }
                Ok(Rule {
                    comm: comm.map(|names| names.into_iter().collect()),
                    exe: exe.map(Executables::new),
                    cmdline,
                    name: name.unwrap_or_default(),
                })
            }
        }
        deserializer.deserialize_map(Whole)
    }
}

/// Reads a text into what it means, so that an error has its line.
struct Text<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for GoRegex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(|text| {
            Self::new(text).map_err(|error| error.to_string())
        }))
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(|text| {
            // An empty name is as good as none.
            if text.is_empty() {
                return Ok(Self::default());
            }
            Self::parse(text).map_err(|error| format!("name {text:?}: {error}"))
        }))
    }
}
