//! Why a source did not tell what a container is called.

use crate::http_client::HttpError;
use std::{io, mem, path::PathBuf};
use thiserror::Error;

/// Why a source that is there told nothing. Names that could be had from it stay unknown, and
/// nothing else is lost.
#[derive(Debug, Error)]
pub enum Error {
    /// A daemon that does not answer as it should.
    #[error("cannot ask {daemon}: {source}")]
    Ask {
        /// The path of its socket, or its URL.
        daemon: String,
        /// What went wrong.
        source: HttpError,
    },
    /// A file or folder that exists, but cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file, as this process sees it.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file that is too long to be what it should be.
    #[error("{path} has more than {limit} bytes: it is not read", path = .path.display())]
    TooLong {
        /// The file, as this process sees it.
        path: PathBuf,
        /// How many bytes are read at most.
        limit: usize,
    },
    /// Neither JSON, nor with the members that it should have.
    #[error("{place}: {source}")]
    Json {
        /// The file, or the daemon and what it was asked for.
        place: String,
        /// The line, the column and what was expected there.
        source: serde_json::Error,
    },
}

/// What kind of error it is, whatever the container: a thousand containers make one complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(mem::Discriminant<Error>, Option<Cause>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Http(mem::Discriminant<HttpError>),
    Io(io::ErrorKind),
}

impl Error {
    pub(super) fn kind(&self) -> Kind {
        let cause = match self {
            Self::Ask { source, .. } => Some(Cause::Http(mem::discriminant(source))),
            Self::Read { source, .. } => Some(Cause::Io(source.kind())),
            Self::TooLong { .. } | Self::Json { .. } => None,
        };
        Kind(mem::discriminant(self), cause)
    }
}
