//! Groups of processes: by container, by engine and model, by rules, by command name.

mod container;
mod engine;
mod few;
mod moving;
mod rules;
mod support;

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    [
        container::cases(),
        engine::cases(),
        few::cases(),
        moving::cases(),
        rules::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
