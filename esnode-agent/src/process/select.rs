//! The rules of `--select`: which processes are to have series of their own.
//!
//! A rule is `[FIELD=]REGEX`; without a field it is about the command name. One rule that matches
//! is enough. What is not known of a process matches nothing.

#[cfg(test)]
mod tests;

use regex::{Regex, RegexSet};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectField {
    /// Command name, at most 15 bytes.
    Comm,
    /// Arguments, joined by spaces.
    Cmdline,
    /// Path of the cgroup.
    Cgroup,
    /// Name or number of the user, as a whole.
    User,
    /// Name of the container, or the beginning of its id (4 digits at least).
    Container,
    /// Inference engine.
    Engine,
    /// Model that it serves.
    Model,
}

impl SelectField {
    const ALL: [Self; 7] = [
        Self::Comm,
        Self::Cmdline,
        Self::Cgroup,
        Self::User,
        Self::Container,
        Self::Engine,
        Self::Model,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Comm => "comm",
            Self::Cmdline => "cmdline",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Container => "container",
            Self::Engine => "engine",
            Self::Model => "model",
        }
    }
}

/// Why a text is no rule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectError {
    /// It says nothing.
    #[error("an empty expression matches every process")]
    Empty,
    /// What stands before `=` is no field.
    #[error(
        "there is no field {0:?}: expected comm, cmdline, cgroup, user, container, engine or model \
         before the first = (of a command name that holds =, write comm=REGEX)"
    )]
    Field(String),
    /// The expression is none.
    #[error("{0}")]
    Expression(String),
}

/// A rule.
#[derive(Clone, Debug)]
pub struct SelectRule {
    field: SelectField,
    regex: Regex,
}

impl SelectRule {
    /// What it looks at.
    #[must_use]
    pub fn field(&self) -> SelectField {
        self.field
    }

    /// Its expression, as it was given.
    #[must_use]
    pub fn expression(&self) -> &str {
        self.regex.as_str()
    }
}

impl fmt::Display for SelectRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.field.name(), self.expression())
    }
}

impl FromStr for SelectRule {
    type Err = SelectError;

    fn from_str(text: &str) -> Result<Self, SelectError> {
        let (field, expression) = match text.split_once('=') {
            Some((word, rest)) if is_word(word) => (field(word)?, rest),
            _ => (SelectField::Comm, text),
        };
        if expression.is_empty() {
            return Err(SelectError::Empty);
        }
        let regex = Regex::new(expression).map_err(|error| {
            // The library draws an arrow below the expression; its last line says it in words.
            let error = error.to_string();
            let words = error.lines().last().unwrap_or_default();
            SelectError::Expression(words.trim().to_owned())
        })?;
        Ok(Self { field, regex })
    }
}

/// Whether someone meant a field: anything else before `=` is part of an expression.
fn is_word(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|char: char| char.is_ascii_lowercase()) && text.bytes().all(is_part)
}

fn field(word: &str) -> Result<SelectField, SelectError> {
    let mut fields = SelectField::ALL.into_iter();
    fields
        .find(|field| field.name() == word)
        .ok_or_else(|| SelectError::Field(word.to_owned()))
}

/// What is known of a process. Of a field that no rule looks at, nothing needs to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelectSubject<'a> {
    /// Command name, as the page has it.
    pub comm: &'a str,
    /// Arguments, joined by spaces; `None` of kernel threads.
    pub cmdline: Option<&'a str>,
    /// Path of the cgroup.
    pub cgroup: Option<&'a str>,
    /// Name of the user.
    pub user: Option<&'a str>,
    /// Number of the user.
    pub user_id: Option<u32>,
    /// Name of the container.
    pub container: Option<&'a str>,
    /// Id of the container, in lower case.
    pub container_id: Option<&'a str>,
    /// Inference engine.
    pub engine: Option<&'a str>,
    /// Model.
    pub model: Option<&'a str>,
}

/// All rules.
#[derive(Clone, Debug)]
pub struct Selector {
    comm: RegexSet,
    cmdline: RegexSet,
    cgroup: RegexSet,
    /// Of the whole.
    user: RegexSet,
    container: RegexSet,
    container_ids: Vec<String>,
    engine: RegexSet,
    model: RegexSet,
}

impl Selector {
    /// Of these rules; of none, it matches no process.
    ///
    /// # Errors
    /// If the expressions are too large together.
    pub fn new(rules: &[SelectRule]) -> Result<Self, regex::Error> {
        let of = |field| rules.iter().filter(move |rule| rule.field == field);
        let set = |field| RegexSet::new(of(field).map(SelectRule::expression));
        let whole = |rule: &SelectRule| format!(r"\A(?:{})\z", rule.expression());
        let ids = of(SelectField::Container).filter_map(|rule| id_prefix(rule.expression()));
        Ok(Self {
            comm: set(SelectField::Comm)?,
            cmdline: set(SelectField::Cmdline)?,
            cgroup: set(SelectField::Cgroup)?,
            user: RegexSet::new(of(SelectField::User).map(whole))?,
            container: set(SelectField::Container)?,
            container_ids: ids.collect(),
            engine: set(SelectField::Engine)?,
            model: set(SelectField::Model)?,
        })
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let sets = [
            &self.comm,
            &self.cmdline,
            &self.cgroup,
            &self.user,
            &self.container,
            &self.engine,
            &self.model,
        ];
        sets.into_iter().all(RegexSet::is_empty)
    }

    /// Whether a rule matches the process.
    #[must_use]
    pub fn matches(&self, subject: &SelectSubject<'_>) -> bool {
        let known = [
            (&self.comm, Some(subject.comm)),
            (&self.user, subject.user),
            (&self.container, subject.container),
            (&self.engine, subject.engine),
            (&self.model, subject.model),
            (&self.cgroup, subject.cgroup),
            (&self.cmdline, subject.cmdline),
        ];
        let matches = |(set, text): (&RegexSet, Option<&str>)| {
            !set.is_empty() && text.is_some_and(|text| set.is_match(text))
        };
        known.into_iter().any(matches) || self.matches_number(subject) || self.matches_id(subject)
    }

    fn matches_number(&self, subject: &SelectSubject<'_>) -> bool {
        let number = subject.user_id.filter(|_| !self.user.is_empty());
        number.is_some_and(|number| self.user.is_match(&number.to_string()))
    }

    fn matches_id(&self, subject: &SelectSubject<'_>) -> bool {
        let id = subject.container_id.unwrap_or_default();
        self.container_ids.iter().any(|it| id.starts_with(it))
    }

    /// Whether a rule looks at arguments.
    #[must_use]
    pub fn needs_cmdline(&self) -> bool {
        !self.cmdline.is_empty()
    }

    /// Whether a rule looks at the user.
    #[must_use]
    pub fn needs_user(&self) -> bool {
        !self.user.is_empty()
    }

    /// Whether a rule looks at the cgroup itself.
    #[must_use]
    pub fn needs_cgroup(&self) -> bool {
        !self.cgroup.is_empty()
    }

    /// Whether a rule looks at the container.
    #[must_use]
    pub fn needs_container(&self) -> bool {
        !self.container.is_empty()
    }

    /// Whether a rule looks at the engine or the model.
    #[must_use]
    pub fn needs_engine(&self) -> bool {
        !self.engine.is_empty() || !self.model.is_empty()
    }
}

/// What may be the beginning of an id. Fewer digits would meet ids by chance that a name was meant
/// for: `db` is one, too.
fn id_prefix(text: &str) -> Option<String> {
    let hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (text.len() >= 4 && hexadecimal).then(|| text.to_ascii_lowercase())
}
