//! One line of the screen, written from the left.

use super::theme::{PLAIN, Theme};
use crate::top::text::UNKNOWN;
use ratatui::{buffer::Buffer, layout::Rect, style::Style, text::Span};

/// How many cells a text takes.
pub(super) fn width(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

/// A line that is written from the left, and cut at its end.
pub(super) struct Line<'a> {
    buffer: &'a mut Buffer,
    pub(super) theme: Theme,
    x: u16,
    y: u16,
    end: u16,
}

impl<'a> Line<'a> {
    /// Line `row` of an area.
    pub(super) fn new(buffer: &'a mut Buffer, theme: Theme, area: Rect, row: u16) -> Self {
        let inside = row < area.height;
        Self {
            buffer,
            theme,
            x: area.x,
            y: area.y.saturating_add(row),
            end: if inside { area.right() } else { area.x },
        }
    }

    /// Cells that are left.
    pub(super) fn left(&self) -> u16 {
        self.end.saturating_sub(self.x)
    }

    pub(super) fn put(&mut self, text: &str, style: Style) -> &mut Self {
        let left = self.left();
        if left > 0 {
            let (x, _) = self
                .buffer
                .set_stringn(self.x, self.y, text, left.into(), style);
            self.x = x;
        }
        self
    }

    pub(super) fn skip(&mut self, cells: u16) -> &mut Self {
        self.x = self.x.saturating_add(cells).min(self.end);
        self
    }

    /// Text in so many cells, the rest of which stays empty; it is cut if it is longer.
    pub(super) fn cell(&mut self, text: &str, cells: u16, right: bool, style: Style) -> &mut Self {
        let end = self.x.saturating_add(cells).min(self.end);
        let room = end - self.x;
        if room > 0 {
            let wide = width(text);
            let start = if right {
                self.x + room.saturating_sub(wide)
            } else {
                self.x
            };
            let cut = u16::from(wide > room);
            let limit = usize::from(end - start - cut);
            self.buffer.set_stringn(start, self.y, text, limit, style);
            // A number that lost digits would be another number.
            if cut > 0 {
                self.buffer
                    .set_string(end - 1, self.y, self.theme.cut(), style);
            }
        }
        self.x = end;
        self
    }

    /// A word on a value, and the value.
    pub(super) fn fact(&mut self, label: &str, value: &str) -> &mut Self {
        let theme = self.theme;
        self.put(label, theme.label());
        self.put(" ", PLAIN).put(value, PLAIN).skip(2)
    }

    /// A bar in brackets, of so many cells inside; empty where it is not known.
    pub(super) fn bar(&mut self, fraction: Option<f64>, cells: u16) -> &mut Self {
        let theme = self.theme;
        let filled = match fraction {
            Some(fraction) => theme.bar(fraction, cells),
            None => format!("{UNKNOWN:^width$}", width = usize::from(cells)),
        };
        self.put("[", PLAIN);
        self.cell(&filled, cells, false, theme.load(fraction.unwrap_or(0.0)));
        self.put("]", PLAIN)
    }

    /// Gives the whole line a style, beneath what is written.
    pub(super) fn paint(&mut self, style: Style) -> &mut Self {
        let rest = Rect::new(self.x, self.y, self.left(), u16::from(self.left() > 0));
        self.buffer.set_style(rest, style);
        self
    }
}
