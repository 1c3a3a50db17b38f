//! Reading files of the kernel, and what can go wrong with it.

use rustix::io::Errno;
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Why a file gave no facts.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It holds something else than the kernel documents.
    #[error("{path}, line {line}: expected {expected}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line number, from 1; 0 for the file as a whole.
        line: usize,
        /// What should have stood there.
        expected: String,
    },
}

impl ReadError {
    /// Whether this kernel does not have the file, or has it switched off.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        source.kind() == io::ErrorKind::NotFound
            || source.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error())
    }
}

/// Where a parser stopped: a line (from 1, or 0 for the text as a whole) and what it expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line number.
    pub line: usize,
    /// What should have stood there.
    pub expected: String,
}

impl ParseError {
    /// An error at a line.
    #[must_use]
    pub fn new(line: usize, expected: impl Into<String>) -> Self {
        Self {
            line,
            expected: expected.into(),
        }
    }

    /// The same, in the file at `path`.
    #[must_use]
    pub fn at(self, path: &Path) -> ReadError {
        ReadError::Parse {
            path: path.to_owned(),
            line: self.line,
            expected: self.expected,
        }
    }
}

/// Files of proc say that they are empty. Without room the standard library begins with 32 bytes,
/// and for each read the kernel may count anew over all CPUs (`/proc/vmstat`).
const ROOM: usize = 8 << 10;

/// Reads a text file as a whole.
///
/// # Errors
/// [`ReadError::Io`]; text that is not UTF-8 counts as `InvalidData`.
pub fn read_file(path: &Path) -> Result<String, ReadError> {
    let read = || {
        let mut text = String::with_capacity(ROOM);
        File::open(path)?.read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| ReadError::Io {
        path: path.to_owned(),
        source,
    })
}
