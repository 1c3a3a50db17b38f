//! Reading attributes of sysfs: small files, each of one value
//! (Documentation/filesystems/sysfs.rst).

use crate::error::{ParseError, ReadError};
use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    str,
};

/// The kernel gives an attribute whole at the first read, of a page at most.
const ATTRIBUTE_BYTES: usize = 4096;

/// Names in a folder, by their numbers: `cpu2` before `cpu10`; `None` if there is no such folder.
pub(super) fn entries(folder: &Path) -> Result<Option<Vec<String>>, ReadError> {
    let io = |source| ReadError::Io {
        path: folder.to_owned(),
        source,
    };
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(source) => {
            let error = io(source);
            return if error.is_absent() {
                Ok(None)
            } else {
                Err(error)
            };
        }
    };
    let mut names = Vec::new();
    for entry in listed {
        // The kernel has no other names here.
        names.extend(entry.map_err(io)?.file_name().into_string().ok());
    }
    names.sort_by(|a, b| natural(a, b));
    Ok(Some(names))
}

/// Orders texts by their letters and by the values of their numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let key = |text: &str| {
        let digit = |byte: &u8| byte.is_ascii_digit();
        let parts = text.as_bytes().chunk_by(|a, b| digit(a) == digit(b));
        let part = |part: &[u8]| {
            let text = String::from_utf8_lossy(part).into_owned();
            (text.parse::<u64>().ok(), text)
        };
        parts.map(part).collect::<Vec<_>>()
    };
    key(a).cmp(&key(b))
}

/// An attribute without the end of its line.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let mut bytes = [0; ATTRIBUTE_BYTES];
    let length = File::open(path)?.read(&mut bytes)?;
    let text = str::from_utf8(bytes.get(..length).unwrap_or_default());
    let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(text.trim_end().to_owned())
}

/// An attribute, parsed. `None` if it is not there, or the kernel or the device refuses it, as they do
/// for what a device does not have at the moment.
pub(super) fn attribute<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<Option<T>, ReadError> {
    let Ok(text) = text(path) else {
        return Ok(None);
    };
    parse(&text).map(Some).map_err(|error| error.at(path))
}

/// An attribute that is a whole number.
pub(super) fn number<T: str::FromStr>(path: &Path) -> Result<Option<T>, ReadError> {
    attribute(path, |text| {
        let number = text.trim().parse();
        number.map_err(|_| ParseError::new(1, "a whole number"))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::Host, *};

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let host = Host::new(&[("sys/a/cpu10", ""), ("sys/a/cpu2", ""), ("sys/a/b", "")]);
        let names = entries(&host.sysfs().join("a")).expect("readable");
        assert_eq!(names.expect("there"), ["b", "cpu2", "cpu10"]);
        assert!(entries(&host.sysfs().join("b")).expect("absent").is_none());
    }

    #[test]
    fn numbers_and_what_is_none() {
        let host = Host::new(&[("sys/a", "-7\n"), ("sys/b", "7 apples\n"), ("sys/d", "")]);
        let of = |file: &str| number::<i64>(&host.sysfs().join(file));
        assert_eq!(of("a").expect("valid"), Some(-7));
        assert_eq!(of("c").expect("absent"), None);
        let error = of("b").expect_err("no number").to_string();
        assert!(
            error.ends_with("sys/b, line 1: expected a whole number"),
            "{error}"
        );
        assert!(of("d").is_err());
    }
}
