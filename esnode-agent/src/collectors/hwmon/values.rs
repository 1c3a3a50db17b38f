//! Reading the files of a chip.

use super::chip::Chip;
use crate::{
    collectors::sysfs::text,
    error::{ParseError, ReadError},
};
use std::path::{Path, PathBuf};

/// A file that holds something else than a whole number.
#[derive(Clone, Debug)]
pub(super) struct Malformed(PathBuf);

impl From<Malformed> for ReadError {
    fn from(Malformed(path): Malformed) -> Self {
        ParseError::new(1, "a whole number").at(&path)
    }
}

/// By sensor and attribute of the chip; `None` is what the chip does not tell.
pub(super) type Values = Vec<Vec<Option<f64>>>;

/// Reads what the chip tells; limits and the like only if there is nothing from before.
pub(super) fn read(chip: &Chip, before: Option<&Values>) -> Result<Values, Malformed> {
    let mut values = Vec::with_capacity(chip.sensors.len());
    for (number, sensor) in chip.sensors.iter().enumerate() {
        let before = before.and_then(|before| before.get(number));
        let attributes = sensor.attributes.iter().enumerate();
        let read = attributes.map(|(number, attribute)| {
            match before.and_then(|before| before.get(number)) {
                Some(before) if attribute.setting => Ok(*before),
                _ => value(&attribute.path, attribute.exact),
            }
        });
        values.push(read.collect::<Result<_, _>>()?);
    }
    Ok(values)
}

/// What a file says, if anything: a chip that can't answer at the moment refuses (`EIO`, `ENODATA`,
/// `EAGAIN`).
#[expect(
    clippy::cast_precision_loss,
    reason = "readings are far below 2^53, but for energy after centuries"
)]
fn value(path: &Path, exact: bool) -> Result<Option<f64>, Malformed> {
    let Ok(text) = text(path) else {
        return Ok(None);
    };
    let number = text.trim().parse::<i64>().ok().map(|number| number as f64);
    match number {
        Some(number) => Ok(Some(number)),
        None if exact => Err(Malformed(path.to_owned())),
        // Some are names, or percentages with their sign.
        None => Ok(text.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    #[test]
    fn numbers_are_whole_where_the_kernel_says_so() {
        let host = Host::new(&[
            ("sys/a", "-7\n"),
            ("sys/b", "90.0%\n"),
            ("sys/c", "1.5\n"),
            ("sys/d", ""),
        ]);
        let value = |file: &str, exact| value(&host.sysfs().join(file), exact).ok();
        assert_eq!(value("a", true), Some(Some(-7.0)));
        assert_eq!(value("b", false), Some(None));
        assert_eq!(value("c", false), Some(Some(1.5)));
        assert_eq!(value("none", true), Some(None));
        assert_eq!(value("", true), Some(None));
        for file in ["b", "c", "d"] {
            assert_eq!(value(file, true), None, "{file}");
        }
    }
}
