//! What a key means.

use super::column::Column;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Help,
    /// Out of the innermost that is open: help, details, filter.
    Back,
    Move(Step),
    /// By the column beside the present one; -1 is left of it.
    SortBeside(isize),
    SortBy(Column),
    Reverse,
    Freeze,
    Tree,
    EnginesOnly,
    Gpus,
    Details,
    /// Begin to type a filter.
    Filter,
    Type(char),
    Erase,
    /// The filter is as wanted.
    Accept,
}

/// How far the selection moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Lines(isize),
    Pages(isize),
    First,
    Last,
}

/// The letters that sort, and by what.
pub(super) const SORT_KEYS: [(char, Column); 10] = [
    ('P', Column::Pid),
    ('U', Column::User),
    ('E', Column::Engine),
    ('G', Column::GpuPercent),
    ('V', Column::GpuMemory),
    ('W', Column::Watts),
    ('C', Column::CpuPercent),
    ('M', Column::Rss),
    ('D', Column::Disk),
    ('N', Column::Network),
];

/// What a key means, while a filter is typed or not.
pub(super) fn action(key: KeyEvent, typing: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('u') if typing => Some(Action::Back),
            _ => None,
        };
    }
    moves(key.code).or_else(|| {
        if typing {
            typed(key.code)
        } else {
            commanded(key.code)
        }
    })
}

fn moves(code: KeyCode) -> Option<Action> {
    Some(Action::Move(match code {
        KeyCode::Up => Step::Lines(-1),
        KeyCode::Down => Step::Lines(1),
        KeyCode::PageUp => Step::Pages(-1),
        KeyCode::PageDown => Step::Pages(1),
        KeyCode::Home => Step::First,
        KeyCode::End => Step::Last,
        _ => return None,
    }))
}

fn typed(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Enter => Action::Accept,
        KeyCode::Esc => Action::Back,
        KeyCode::Backspace => Action::Erase,
        KeyCode::Char(char) => Action::Type(char),
        _ => return None,
    })
}

fn commanded(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Esc => Action::Back,
        KeyCode::Enter => Action::Details,
        KeyCode::Char(char) => match char {
            'q' => Action::Quit,
            '?' | 'h' => Action::Help,
            'k' => Action::Move(Step::Lines(-1)),
            'j' => Action::Move(Step::Lines(1)),
            '<' | ',' => Action::SortBeside(-1),
            '>' | '.' => Action::SortBeside(1),
            'r' => Action::Reverse,
            ' ' | 'p' => Action::Freeze,
            't' => Action::Tree,
            'e' => Action::EnginesOnly,
            'g' => Action::Gpus,
            '/' => Action::Filter,
            letter => {
                let (_, column) = SORT_KEYS.iter().find(|(key, _)| *key == letter)?;
                Action::SortBy(*column)
            }
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers, typing: bool) -> Option<Action> {
        action(KeyEvent::new(code, modifiers), typing)
    }

    #[test]
    fn letters_are_text_while_a_filter_is_typed() {
        let press = |char, typing| press(KeyCode::Char(char), KeyModifiers::NONE, typing);
        assert_eq!(press('q', false), Some(Action::Quit));
        assert_eq!(press('q', true), Some(Action::Type('q')));
        assert_eq!(press('M', false), Some(Action::SortBy(Column::Rss)));
        assert_eq!(press('z', false), None);
    }

    #[test]
    fn control_c_quits_always() {
        for typing in [false, true] {
            let quit = press(KeyCode::Char('c'), KeyModifiers::CONTROL, typing);
            assert_eq!(quit, Some(Action::Quit));
            let moved = press(KeyCode::Down, KeyModifiers::NONE, typing);
            assert_eq!(moved, Some(Action::Move(Step::Lines(1))));
        }
    }

    #[test]
    fn no_key_sorts_by_two_columns() {
        for (key, column) in SORT_KEYS {
            let press = press(KeyCode::Char(key), KeyModifiers::SHIFT, false);
            assert_eq!(press, Some(Action::SortBy(column)), "{key}");
        }
    }
}
