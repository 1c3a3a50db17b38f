//! What can go wrong with BPF, in words.

use super::layout::LayoutError;
use aya::{maps::MapError, programs::ProgramError};
use std::io;
use thiserror::Error;

/// Why BPF is not used.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The binary was built by plain `cargo build`.
    #[error("this binary was built without BPF objects: build it with `cargo xtask build`")]
    NotEmbedded,
    /// The kernel does not describe its types, or not readably.
    #[error("cannot read the kernel's BTF at {path} (CONFIG_DEBUG_INFO_BTF): {source}")]
    NoBtf {
        /// Where it should be.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A field could not be found.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A map or the object could not be created; without CAP_BPF, CAP_PERFMON or CAP_SYS_ADMIN
    /// the kernel refuses the first map.
    #[error("cannot load the BPF object: {}", error_chain(.0))]
    Load(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("cannot {action} the BPF program {program}: {}", last_words(.source))]
    Program {
        /// Its name.
        program: &'static str,
        /// `load` or `attach`.
        action: &'static str,
        /// The kernel's answer.
        source: Box<ProgramError>,
    },
    /// A map could not be opened or written.
    #[error("cannot use the BPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: Box<MapError>,
    },
    /// A map could not be read, or the iterator failed.
    #[error("cannot read {what}: {source}")]
    Read {
        /// Map or iterator.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Records do not fit the contract.
    #[error("the task iterator wrote something else than agreed, at byte {at} of {len}")]
    Record {
        /// Where decoding stopped.
        at: usize,
        /// Bytes read in this pass.
        len: usize,
    },
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A verifier log runs over pages; its last lines tell what was refused.
fn last_words(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let tail = lines
                .get(lines.len().saturating_sub(3)..)
                .unwrap_or_default();
            format!(
                "{io_error}; the verifier's last words: {}",
                tail.join(" | ")
            )
        }
        other => error_chain(other),
    }
}

/// A map that the object should have and has not.
pub(super) fn no_such_map(name: &str) -> MapError {
    MapError::InvalidName {
        name: name.to_owned(),
    }
}

/// An error of one map.
pub(super) fn map_error(map: &'static str, source: MapError) -> BpfError {
    BpfError::Map {
        map,
        source: Box::new(source),
    }
}
