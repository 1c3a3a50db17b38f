//! What is to mend, one line each: the file, the place in it, what is wrong, and what to do.

use std::fmt::Display;

#[derive(Debug, Default)]
pub(super) struct Findings(Vec<String>);

impl Findings {
    pub(super) fn add(&mut self, place: impl Display, text: impl Display) {
        self.0.push(format!("{place}: {text}"));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
impl Findings {
    /// Fails unless these are all.
    pub(super) fn check(&self, expected: &[&str]) {
        assert_eq!(self.0, expected);
    }
}
