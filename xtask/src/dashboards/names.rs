//! Names of families as the README's tables write them: braces and shorthand, spelled out.

use anyhow::{Result, bail};

/// The names that a cell stands for: `` `a_{rx,tx}_total` `` is two, and of
/// `` `a_receive_bytes_total`, `_transmit_bytes_total` `` the second goes on from the first.
pub(super) fn in_cell(cell: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for word in code(cell) {
        for name in braces(word)? {
            let name = match (name.starts_with('_'), names.last()) {
                (false, _) => name,
                (true, Some(before)) => continued(before, &name)?,
                (true, None) => bail!("`{name}` goes on from nothing: write the name in full"),
            };
            if !is_name(&name) {
                bail!("`{word}` is no name of a family that can be spelled out");
            }
            names.push(name);
        }
    }
    if names.is_empty() {
        bail!("`{cell}` names no family");
    }
    Ok(names)
}

/// What of a cell is set as code.
pub(super) fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .chars()
            .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
}

/// All that `a_{b,c}_{d,e}` stands for.
fn braces(word: &str) -> Result<Vec<String>> {
    let Some((start, rest)) = word.split_once('{') else {
        return Ok(vec![word.to_owned()]);
    };
    let Some((choices, end)) = rest.split_once('}') else {
        bail!("`{word}` opens a brace and does not close it");
    };
    let ends = braces(end)?;
    let choices = choices.split(',');
    Ok(choices
        .flat_map(|choice| ends.iter().map(move |end| format!("{start}{choice}{end}")))
        .collect())
}

/// The name that a shorthand stands for after another name. Where its first word is one of the
/// other's, it begins there: `link_generation`, `_link_width`. Otherwise it takes the place of the
/// one word that differs, and of what both end in: `receive_bytes_total`, `_transmit_bytes_total`.
fn continued(before: &str, shorthand: &str) -> Result<String> {
    let words: Vec<&str> = before.split('_').collect();
    let new: Vec<&str> = shorthand.split('_').skip(1).collect();
    let same = words.iter().rposition(|word| Some(word) == new.first());
    let ending = words.iter().rev().zip(new.iter().rev());
    let common = ending.take_while(|(one, other)| one == other).count();
    let kept = same.or_else(|| words.len().checked_sub(common + 1));
    match kept.and_then(|kept| words.get(..kept)) {
        Some(kept) if !kept.is_empty() => Ok([kept, &new].concat().join("_")),
        _ => bail!("`{shorthand}` can't go on from `{before}`: write the name in full"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(cell: &str) -> String {
        match in_cell(cell) {
            Ok(names) => names.join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn braces_and_shorthand_are_spelled_out() {
        for (cell, names) in [
            ("`x_y`", "x_y"),
            (
                "`x_{rx,tx}_{bytes,packets}_total`",
                "x_rx_bytes_total x_rx_packets_total x_tx_bytes_total x_tx_packets_total",
            ),
            (
                "`x_receive_bytes_total`, `_transmit_bytes_total`",
                "x_receive_bytes_total x_transmit_bytes_total",
            ),
            (
                "`x_load_1m`, `_5m`, `_15m`",
                "x_load_1m x_load_5m x_load_15m",
            ),
            (
                "`x_link_generation`, `_link_width`",
                "x_link_generation x_link_width",
            ),
            (
                "`x_program_runs_total`, `_run_seconds_total`",
                "x_program_runs_total x_program_run_seconds_total",
            ),
        ] {
            assert_eq!(spelled(cell), names, "{cell}");
        }
    }

    #[test]
    fn what_can_not_be_spelled_out_is_an_error() {
        for (cell, error) in [
            ("none", "`none` names no family"),
            (
                "`_total`",
                "`_total` goes on from nothing: write the name in full",
            ),
            ("`x_{a,b`", "`x_{a,b` opens a brace and does not close it"),
            (
                "`x_total`, `_x_total`",
                "`_x_total` can't go on from `x_total`: write the name in full",
            ),
            (
                "`x_…`",
                "`x_…` is no name of a family that can be spelled out",
            ),
        ] {
            assert_eq!(spelled(cell), error, "{cell}");
        }
    }
}
