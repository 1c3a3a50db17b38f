//! How things look: with colour or without, in Unicode or ASCII. No meaning is in a colour alone.

use crate::top::clean::Charset;
use ratatui::style::{Color, Modifier, Style};

/// Eighths of a cell, from the left.
const UNICODE_EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Eighths of a cell, from below.
const UNICODE_LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The same in ASCII, the darker the more.
const ASCII_LEVELS: [char; 9] = [' ', '_', '.', ':', '-', '=', '+', '*', '#'];

/// As the terminal writes.
pub(super) const PLAIN: Style = Style::new();

/// What one looks for.
pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Titles, and what is selected.
pub(super) const INVERSE: Style = Style::new().add_modifier(Modifier::REVERSED);

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::top) struct Theme {
    pub(in crate::top) color: bool,
    pub(in crate::top) charset: Charset,
}

impl Theme {
    fn colored(self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    /// What is said of values, beside them.
    pub(super) fn label(self) -> Style {
        self.colored(Color::Cyan)
    }

    /// What someone should look at.
    pub(super) fn alarm(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn engine(self) -> Style {
        self.colored(Color::Green)
    }

    /// By how much of something is used, 0 to 1.
    pub(super) fn load(self, fraction: f64) -> Style {
        self.colored(if fraction < 0.6 {
            Color::Green
        } else if fraction < 0.9 {
            Color::Yellow
        } else {
            Color::Red
        })
    }

    /// A bar of so many cells; `fraction` is 0 to 1.
    pub(super) fn bar(self, fraction: f64, cells: u16) -> String {
        let eighths = eighths(fraction, cells);
        let (full, rest) = (eighths / 8, eighths % 8);
        let (block, part) = match self.charset {
            Charset::Unicode => ('█', UNICODE_EIGHTHS.get(rest).copied()),
            Charset::Ascii if rest >= 4 => ('|', Some('|')),
            Charset::Ascii => ('|', None),
        };
        let filled = std::iter::repeat_n(block, full).chain(part);
        let empty = std::iter::repeat(' ');
        filled.chain(empty).take(cells.into()).collect()
    }

    /// How one value among others stands, `rows` cells high: the cells from the top on.
    pub(super) fn column(self, fraction: f64, rows: u16) -> Vec<char> {
        let levels = match self.charset {
            Charset::Unicode => UNICODE_LEVELS,
            Charset::Ascii => ASCII_LEVELS,
        };
        // What is known is seen, though it be nothing.
        let eighths = eighths(fraction, rows).max(1);
        (0..usize::from(rows))
            .rev()
            .map(|row| eighths.saturating_sub(row * 8).min(8))
            .map(|level| levels.get(level).copied().unwrap_or(' '))
            .collect()
    }

    /// The mark of a column that is sorted by.
    pub(super) fn arrow(self, descending: bool) -> char {
        match (self.charset, descending) {
            (Charset::Unicode, true) => '▼',
            (Charset::Unicode, false) => '▲',
            (Charset::Ascii, true) => 'v',
            (Charset::Ascii, false) => '^',
        }
    }

    /// What stands for the end of a text that is cut.
    pub(super) fn cut(self) -> &'static str {
        match self.charset {
            Charset::Unicode => "…",
            Charset::Ascii => "+",
        }
    }

    /// What stands before a child in a tree.
    pub(super) fn branch(self) -> &'static str {
        match self.charset {
            Charset::Unicode => "└ ",
            Charset::Ascii => "`-",
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and eight times a width"
)]
fn eighths(fraction: f64, cells: u16) -> usize {
    (fraction.clamp(0.0, 1.0) * f64::from(cells) * 8.0).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Theme = Theme {
        color: true,
        charset: Charset::Unicode,
    };
    const ASCII: Theme = Theme {
        color: false,
        charset: Charset::Ascii,
    };

    #[test]
    fn bars_are_as_long_as_what_they_show() {
        assert_eq!(UNICODE.bar(0.5, 4), "██  ");
        assert_eq!(UNICODE.bar(0.40625, 4), "█▋  ");
        assert_eq!(UNICODE.bar(7.0, 2), "██");
        assert_eq!(ASCII.bar(0.5, 4), "||  ");
        assert_eq!(ASCII.bar(0.4, 4), "||  ");
        assert_eq!(ASCII.bar(f64::NAN, 2), "  ");
    }

    #[test]
    fn columns_grow_from_below() {
        assert_eq!(UNICODE.column(1.0, 2), ['█', '█']);
        assert_eq!(UNICODE.column(0.25, 2), [' ', '▄']);
        assert_eq!(UNICODE.column(0.0, 1), ['▁']);
        assert_eq!(ASCII.column(0.5, 1), ['-']);
    }

    #[test]
    fn without_colour_there_is_none() {
        for style in [
            ASCII.label(),
            ASCII.alarm(),
            ASCII.engine(),
            ASCII.load(0.95),
        ] {
            assert_eq!((style.fg, style.bg), (None, None));
        }
        assert_eq!(UNICODE.load(0.95).fg, Some(Color::Red));
    }
}
