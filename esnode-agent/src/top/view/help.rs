//! The keys, in a line and in full.

use super::{
    gpus::MARKS_MEAN,
    line::{Line, width},
    theme::{INVERSE, PLAIN, STRONG, Theme},
};
use crate::top::input::SORT_KEYS;
use ratatui::{buffer::Buffer, layout::Rect};

/// Keys of the table, the most needed first: a narrow screen loses the last.
const KEYS: [(&str, &str); 11] = [
    ("q", "quit"),
    ("?", "help"),
    ("/", "filter"),
    ("<>", "sort"),
    ("r", "reverse"),
    ("p", "freeze"),
    ("t", "tree"),
    ("e", "engines"),
    ("Enter", "details"),
    ("g", "GPUs"),
    ("Esc", "clear filter"),
];

/// Keys while a filter is typed.
const TYPING_KEYS: [(&str, &str); 3] = [
    ("Enter", "keep the filter"),
    ("Esc", "clear it"),
    ("^U", "clear it"),
];

/// Keys of details and help.
const INNER_KEYS: [(&str, &str); 4] = [
    ("Esc", "back"),
    ("Up/Down", "other process"),
    ("p", "freeze"),
    ("q", "quit"),
];

const LINES: [(&str, &str); 14] = [
    ("q, Ctrl-C", "quit"),
    (
        "Up, Down, PgUp, PgDn, Home, End",
        "select a process; it stays selected where it goes",
    ),
    (
        "Enter",
        "all about the selected process, and its last 120 samples",
    ),
    (
        "/",
        "show only processes with a text in a name or id; Esc clears it",
    ),
    ("< >", "sort by the column to the left or right"),
    ("r", "reverse the order"),
    ("p, Space", "freeze what is shown, and go on"),
    ("t", "tree: children below their parents"),
    ("e", "only processes of inference engines"),
    ("g", "GPUs: as there is room, one per line, all in one"),
    ("", ""),
    ("GPU%, CPU%", "100 is one GPU, one CPU"),
    (
        "W",
        "watts of GPUs and of processors, as far as known; - is not known",
    ),
    (
        "DISK, NET",
        "bytes per second; NET is payload, without UNIX sockets",
    ),
];

/// What the keys are for.
#[derive(Clone, Copy)]
pub(super) enum Keys {
    Table,
    Typing,
    Inner,
}

/// Draws a line of keys, as many as fit.
pub(super) fn keys(of: Keys, line: &mut Line<'_>) {
    let keys: &[_] = match of {
        Keys::Table => &KEYS,
        Keys::Typing => &TYPING_KEYS,
        Keys::Inner => &INNER_KEYS,
    };
    for (key, meaning) in keys {
        if width(key) + 1 + width(meaning) > line.left() {
            break;
        }
        let theme = line.theme;
        line.put(key, STRONG).put(" ", PLAIN);
        line.put(meaning, theme.label()).skip(1);
    }
}

/// Draws all keys, and what the columns mean.
pub(super) fn draw(theme: Theme, area: Rect, buffer: &mut Buffer) {
    let mut title = Line::new(buffer, theme, area, 0);
    title.paint(INVERSE).put(" Keys", INVERSE);
    let beside = if area.width < 100 { 12 } else { 34 };
    let mut row = 1;
    for (key, meaning) in LINES {
        let mut line = Line::new(buffer, theme, area, row);
        // On a narrow screen the names of the arrows go without saying.
        let key = if width(key) > beside {
            "arrows ..."
        } else {
            key
        };
        line.skip(1).cell(key, beside, false, STRONG);
        line.put(meaning, PLAIN);
        row += 1;
    }
    let letters = SORT_KEYS.map(|(key, column)| format!("{key} {}", column.title()));
    let mut line = Line::new(buffer, theme, area, row);
    line.skip(1).cell("sort by", beside, false, STRONG);
    line.put(&letters.join(" "), PLAIN);
    for (key, meaning) in [("GPU marks", MARKS_MEAN.0), ("", MARKS_MEAN.1)] {
        row += 1;
        let mut line = Line::new(buffer, theme, area, row);
        line.skip(1).cell(key, beside, false, STRONG);
        line.put(meaning, PLAIN);
    }
}
