//! Regular expressions of Go (RE2, <https://pkg.go.dev/regexp/syntax>), by way of those of Rust.
//!
//! Both match alike (leftmost-first, over characters); they differ in how things are written.
//! `\d`, `\s`, `\w` and `\b` mean ASCII there; a brace that is no repetition, and a bracket, `&`,
//! `-` or `~` in a class, stand for themselves; so do `\<` and `\>`. `\Q…\E`, octal escapes and
//! names of groups that begin with a digit exist there only. Classes of Unicode (`\pL`) are refused:
//! the tables for them are not built in.

#[cfg(test)]
mod tests;

use regex::Regex;
use std::{iter::Peekable, str::Chars};
use thiserror::Error;

/// An expression with the names of its groups.
#[derive(Debug)]
pub(super) struct GoRegex {
    regex: Regex,
    /// By index, the first for the match as a whole; empty for those without.
    names: Vec<String>,
    /// Whether every command line that is not empty matches.
    any: bool,
}

/// Why an expression can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("regular expression {text:?}: {problem}")]
pub(super) struct GoRegexError {
    text: String,
    problem: String,
}

/// ASCII, as Go has them.
const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x0C\r ";
const WORD: &str = "0-9A-Za-z_";
/// Names of POSIX, perhaps after `^`.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

impl GoRegex {
    pub(super) fn new(text: &str) -> Result<Self, GoRegexError> {
        let error = |problem: String| GoRegexError {
            text: text.to_owned(),
            problem,
        };
        let mut translation = Translation {
            rest: text.chars().peekable(),
            out: String::new(),
            names: vec![String::new()],
        };
        translation.run().map_err(error)?;
        let regex = Regex::new(&translation.out).map_err(|cause| {
            // The library draws an arrow below the expression; its last line says it in words.
            let cause = cause.to_string();
            let words = cause.lines().last().unwrap_or_default().trim();
            error(words.trim_start_matches("error: ").to_owned())
        })?;
        Ok(Self {
            regex,
            names: translation.names,
            any: matches!(text, "" | "." | ".+" | ".*"),
        })
    }

    /// Groups with what they captured, nothing where they took no part.
    pub(super) fn captures<'a>(
        &'a self,
        text: &'a str,
    ) -> Option<impl Iterator<Item = (&'a str, &'a str)> + use<'a>> {
        let captures = self.regex.captures(text)?;
        let names = self.names.iter().enumerate();
        Some(names.map(move |(index, name)| {
            let capture = captures.get(index).map_or("", |it| it.as_str());
            (name.as_str(), capture)
        }))
    }

    pub(super) fn matches_any_command(&self) -> bool {
        self.any
    }
}

/// One pass over an expression. What goes wrong is said in words.
struct Translation<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    names: Vec<String>,
}

impl Translation<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(char) = self.rest.next() {
            match char {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '{' => self.brace(),
                ']' | '}' => self.literal(char),
                _ => self.out.push(char),
            }
        }
        Ok(())
    }

    fn literal(&mut self, char: char) {
        let mut buffer = [0; 4];
        self.out
            .push_str(&regex::escape(char.encode_utf8(&mut buffer)));
    }

    /// What follows a backslash outside of classes.
    fn escape(&mut self) -> Result<(), String> {
        let char = self.rest.next().ok_or("a backslash at the end")?;
        if let Some(class) = ascii_class(char) {
            self.out.push_str(&class);
            return Ok(());
        }
        match char {
            'A' => self.out.push_str(r"\A"),
            'z' => self.out.push_str(r"\z"),
            'b' => self.out.push_str(r"(?-u:\b)"),
            'B' => self.out.push_str(r"(?-u:\B)"),
            'Q' => self.quoted(),
            _ => {
                let char = self.escaped(char)?;
                self.literal(char);
            }
        }
        Ok(())
    }

    /// Literal text up to `\E`, or the end.
    fn quoted(&mut self) {
        while let Some(char) = self.rest.next() {
            if char == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(char);
        }
    }

    /// The character that `char` after a backslash stands for.
    fn escaped(&mut self, char: char) -> Result<char, String> {
        Ok(match char {
            'a' => '\x07',
            'f' => '\x0C',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0B',
            'x' => self.hexadecimal()?,
            '0' => self.octal(char),
            '1'..='7' if self.rest.peek().is_some_and(|it| it.is_digit(8)) => self.octal(char),
            'p' | 'P' => {
                return Err(format!(
                    "classes of Unicode such as \\{char}L are not supported; list the characters"
                ));
            }
            '0'..='9' => return Err(format!("\\{char} refers back, which no such engine does")),
            _ if char.is_ascii() && !char.is_ascii_alphanumeric() => char,
            _ => return Err(format!("\\{char} has no meaning in Go")),
        })
    }

    /// Two digits, or any number in braces.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let digits: String = if self.rest.next_if_eq(&'{').is_some() {
            self.rest.by_ref().take_while(|char| *char != '}').collect()
        } else {
            self.rest.by_ref().take(2).collect()
        };
        let is_number = digits.chars().all(|char| char.is_ascii_hexdigit());
        // Nothing at all is no number either.
        let number = u32::from_str_radix(&digits, 16).ok();
        number
            .filter(|_| is_number)
            .and_then(char::from_u32)
            .ok_or_else(|| format!("\\x{digits} is no character"))
    }

    /// Up to three digits, the first of them read already.
    fn octal(&mut self, first: char) -> char {
        let mut value = first.to_digit(8).unwrap_or_default();
        for _ in 0..2 {
            let Some(digit) = self.rest.next_if(|char| char.is_digit(8)) else {
                break;
            };
            value = value * 8 + digit.to_digit(8).unwrap_or_default();
        }
        // At most 0o777.
        char::from_u32(value).unwrap_or_default()
    }

    /// A repetition such as `{2,3}` stays one; any other brace is itself.
    fn brace(&mut self) {
        let inside: String = self.rest.clone().take_while(|char| *char != '}').collect();
        let closed = self.rest.clone().any(|char| char == '}');
        let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
        let is_number = |text: &str| text.chars().all(|char| char.is_ascii_digit());
        if closed && !least.is_empty() && is_number(least) && is_number(most) {
            self.out.push('{');
            self.out.push_str(&inside);
            self.out.push('}');
            // The brace goes with it.
            self.rest.nth(inside.len());
        } else {
            self.literal('{');
        }
    }

    /// What follows an opening parenthesis. Names are kept here, since Go's may begin with a digit.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            self.names.push(String::new());
            return Ok(());
        }
        let named = self.rest.next_if_eq(&'P').is_some();
        if self.rest.next_if_eq(&'<').is_some() {
            return self.name();
        }
        if named {
            return Err("expected a name in angle brackets after (?P".to_owned());
        }
        self.out.push('?');
        loop {
            let flag = self.rest.next().ok_or("an opening ( without )")?;
            match flag {
                'i' | 'm' | 's' | 'U' | '-' => self.out.push(flag),
                ':' | ')' => {
                    self.out.push(flag);
                    return Ok(());
                }
                _ => return Err(format!("(?{flag} has no meaning in Go")),
            }
        }
    }

    fn name(&mut self) -> Result<(), String> {
        let name: String = self.rest.by_ref().take_while(|char| *char != '>').collect();
        let is_part = |char: char| char == '_' || char.is_ascii_alphanumeric();
        if name.is_empty() || !name.chars().all(is_part) {
            return Err(format!(
                "{name:?} is no name of a group: expected letters, digits and _"
            ));
        }
        if self.names.contains(&name) {
            return Err(format!("the name {name:?} is there twice"));
        }
        self.names.push(name);
        Ok(())
    }

    /// What follows an opening bracket.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let char = self.rest.next().ok_or("an opening [ without ]")?;
            match char {
                ']' if !first => {
                    self.out.push(']');
                    return Ok(());
                }
                '[' if self.posix()? => {}
                '\\' => match self.rest.peek().copied().and_then(ascii_class) {
                    Some(class) => {
                        self.rest.next();
                        self.out.push_str(&class);
                    }
                    None => self.range(char)?,
                },
                _ => self.range(char)?,
            }
            first = false;
        }
    }

    /// Takes a class such as `[:alpha:]`, of which the bracket was read. Both have the same ones.
    fn posix(&mut self) -> Result<bool, String> {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some(':') {
            return Ok(false);
        }
        let name: String = ahead.by_ref().take_while(|char| *char != ':').collect();
        if ahead.next() != Some(']') {
            return Ok(false);
        }
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(&name)) {
            return Err(format!("there is no class [:{name}:]"));
        }
        self.out.push_str("[:");
        self.out.push_str(&name);
        self.out.push_str(":]");
        self.rest = ahead;
        Ok(true)
    }

    /// A character of a class that begins with `char`, or a range of them.
    fn range(&mut self, char: char) -> Result<(), String> {
        let first = self.of_class(char)?;
        self.literal(first);
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || ahead.peek().is_none_or(|it| *it == ']') {
            return Ok(());
        }
        self.rest.next();
        let char = self.rest.next().ok_or("an opening [ without ]")?;
        let last = self.of_class(char)?;
        if last < first {
            return Err(format!("the range {first}-{last} ends before it begins"));
        }
        self.out.push('-');
        self.literal(last);
        Ok(())
    }

    fn of_class(&mut self, char: char) -> Result<char, String> {
        if char != '\\' {
            return Ok(char);
        }
        let char = self.rest.next().ok_or("a backslash at the end")?;
        self.escaped(char)
    }
}

/// A class of Perl as a class of its own, which may also stand in another.
fn ascii_class(char: char) -> Option<String> {
    Some(match char {
        'd' => format!("[{DIGIT}]"),
        'D' => format!("[^{DIGIT}]"),
        's' => format!("[{SPACE}]"),
        'S' => format!("[^{SPACE}]"),
        'w' => format!("[{WORD}]"),
        'W' => format!("[^{WORD}]"),
        _ => return None,
    })
}
