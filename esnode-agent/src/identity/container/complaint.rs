//! What goes wrong with the sources, for the log: once for each source and change.

use super::{Error, Source, error::Kind};
use std::collections::BTreeMap;

/// Something that the log should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Who told nothing.
    pub source: Source,
    /// Why, as a sentence without an end.
    pub reason: String,
}

/// What every source last did.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    kinds: BTreeMap<Source, Kind>,
    untold: BTreeMap<Source, String>,
    last: Option<String>,
}

impl Complaints {
    /// Notes an error. One of the kind that the source had before is no news.
    pub(super) fn note(&mut self, source: Source, error: &Error) {
        let reason = error.to_string();
        if self.kinds.insert(source, error.kind()) != Some(error.kind()) {
            self.untold.insert(source, reason.clone());
        }
        self.last = Some(reason);
    }

    /// Notes that a daemon answers, so that its next error is news.
    pub(super) fn worked(&mut self, source: Source) {
        self.kinds.remove(&source);
    }

    /// The next that was not handed out.
    pub(super) fn take(&mut self) -> Option<Complaint> {
        let (source, reason) = self.untold.pop_first()?;
        Some(Complaint { source, reason })
    }

    pub(super) fn last(&self) -> Option<String> {
        self.last.clone()
    }
}
