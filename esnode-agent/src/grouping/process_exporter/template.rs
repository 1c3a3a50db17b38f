//! Names of groups: templates of Go (text/template), of which process-exporter's users need the
//! fields. Other actions are refused.

use super::{Matches, Subject, base};
use std::fmt::Write as _;
use thiserror::Error;

/// A name with fields in it.
#[derive(Debug)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Comm,
    /// Base name of `argv[0]`, or else the command name.
    ExeBase,
    /// `argv[0]`, or else the command name.
    ExeFull,
    Username,
    Cwd,
    Pid,
    StartTime,
    Cgroups,
    /// All captures, as Go prints a map.
    Matches,
    /// One capture.
    Match(String),
}

/// Why a text is no template.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum TemplateError {
    #[error("`{{{{` without `}}}}`")]
    Open,
    #[error(
        "there is no field `{0}`: write .Comm, .ExeBase, .ExeFull, .Username, .Cwd, .PID, \
         .StartTime, .Cgroups, .Matches or .Matches.NAME"
    )]
    Unknown(String),
    #[error("cannot do `{0}`: only fields such as {{{{.Comm}}}} may stand between the braces")]
    Action(String),
}

/// What Go takes as space beside the braces.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// What Go writes for a capture that there is not.
const NO_VALUE: &str = "<no value>";

impl Default for Template {
    fn default() -> Self {
        Self(vec![Piece::Field(Field::ExeBase)])
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let (mut rest, mut trim) = (text, false);
        loop {
            let (before, action) = match rest.split_once("{{") {
                Some((before, action)) => (before, Some(action)),
                None => (rest, None),
            };
            let mut before = if trim {
                before.trim_start_matches(SPACE)
            } else {
                before
            };
            let trimmed = action.and_then(|it| it.strip_prefix('-'));
            let trimmed = trimmed.filter(|it| it.starts_with(SPACE));
            if trimmed.is_some() {
                before = before.trim_end_matches(SPACE);
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let Some(action) = trimmed.or(action) else {
                return Ok(Self(pieces));
            };
            let (field, after, trims) = parse_action(action)?;
            pieces.extend(field.map(Piece::Field));
            (rest, trim) = (after, trims);
        }
    }

    pub(super) fn uses(&self, field: &Field) -> bool {
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Field(it) if it == field))
    }

    /// The name of a process, if all that it takes is known.
    pub(super) fn write(&self, subject: &Subject<'_>, matches: &Matches<'_>) -> Option<String> {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Field(field) => name.push_str(&field.of(subject, matches)?),
            }
        }
        Some(name)
    }

    /// The name if only the command name is known. Whether there are `captures`, is as well.
    pub(super) fn write_by_comm(&self, comm: &str, captures: bool) -> Option<String> {
        let mut name = String::new();
        for piece in &self.0 {
            name.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Field(Field::Comm) => comm,
                Piece::Field(Field::Matches) if !captures => "map[]",
                Piece::Field(Field::Match(_)) if !captures => NO_VALUE,
                Piece::Field(_) => return None,
            });
        }
        Some(name)
    }
}

/// Splits `.Field }} rest` into the field (none of a comment), the rest, and whether space is to be
/// cut off there.
fn parse_action(text: &str) -> Result<(Option<Field>, &str, bool), TemplateError> {
    let inside = text.trim_start_matches(SPACE);
    if let Some(comment) = inside.strip_prefix("/*") {
        let (_, after) = comment.split_once("*/").ok_or(TemplateError::Open)?;
        let (between, rest) = after.split_once("}}").ok_or(TemplateError::Open)?;
        return match between.trim_matches(SPACE) {
            "" => Ok((None, rest, false)),
            "-" => Ok((None, rest, true)),
            other => Err(TemplateError::Action(other.to_owned())),
        };
    }
    let (inside, rest) = inside.split_once("}}").ok_or(TemplateError::Open)?;
    let trimmed = inside.strip_suffix('-').filter(|it| it.ends_with(SPACE));
    let field = parse_field(trimmed.unwrap_or(inside).trim_matches(SPACE))?;
    Ok((Some(field), rest, trimmed.is_some()))
}

fn parse_field(text: &str) -> Result<Field, TemplateError> {
    let action = || TemplateError::Action(text.to_owned());
    // `$` is what the dot is at the start.
    let path = text.strip_prefix('$').unwrap_or(text);
    let path = path.strip_prefix('.').ok_or_else(action)?;
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|char| char == '_' || char.is_alphanumeric())
    };
    if !path.split('.').all(is_name) {
        return Err(action());
    }
    Ok(match path {
        "Comm" => Field::Comm,
        "ExeBase" => Field::ExeBase,
        "ExeFull" => Field::ExeFull,
        "Username" => Field::Username,
        "Cwd" => Field::Cwd,
        "PID" => Field::Pid,
        "StartTime" => Field::StartTime,
        "Cgroups" => Field::Cgroups,
        "Matches" => Field::Matches,
        _ => match path.strip_prefix("Matches.") {
            Some(name) if !name.contains('.') => Field::Match(name.to_owned()),
            _ => return Err(TemplateError::Unknown(text.to_owned())),
        },
    })
}

impl Field {
    fn of(&self, subject: &Subject<'_>, matches: &Matches<'_>) -> Option<String> {
        let first = subject.argv.first();
        Some(match self {
            Self::Comm => subject.comm.to_owned(),
            Self::ExeBase => first.map_or(subject.comm, |it| base(it)).to_owned(),
            Self::ExeFull => first.map_or(subject.comm, String::as_str).to_owned(),
            Self::Username => (subject.user)()?,
            Self::Cwd => (subject.cwd)()?,
            Self::Pid => subject.pid.to_string(),
            Self::StartTime => go_time(subject.start_seconds?)?,
            Self::Cgroups => format!("[{}]", (subject.cgroups)()?.join(" ")),
            Self::Matches => go_map(matches),
            Self::Match(name) => (*matches.get(name.as_str()).unwrap_or(&NO_VALUE)).to_owned(),
        })
    }
}

/// A map as Go's `fmt` prints it: by key.
fn go_map(matches: &Matches<'_>) -> String {
    let pairs = matches
        .iter()
        .map(|(name, value)| format!("{name}:{value}"));
    format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
}

/// A time since 1970 as Go prints it, in UTC. The kernel tells starts in ticks of 10 ms.
fn go_time(seconds: f64) -> Option<String> {
    const DAY: i64 = 86_400;
    if !(0.0..1e11).contains(&seconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    let hundredths = (seconds * 100.0).round() as i64;
    let (seconds, fraction) = (hundredths / 100, hundredths % 100);
    let (year, month, day) = civil(seconds / DAY);
    let of_day = seconds % DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    if fraction > 0 {
        let digits = format!("{fraction:02}");
        write!(text, ".{}", digits.trim_end_matches('0')).ok()?;
    }
    text.push_str(" +0000 UTC");
    Some(text)
}

/// Year, month and day of the Gregorian calendar, of days since 1970.
fn civil(mut days: i64) -> (i64, i64, i64) {
    let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // The calendar repeats itself every 400 years.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}
