//! What is remembered of namespaces that were left, should they be entered again.

use super::{namespaces::NamespaceId, socket::Socket};
use std::collections::VecDeque;

/// So many sockets are remembered, and so many namespaces.
const MOST_SOCKETS: usize = 16 * 1024;
const MOST_NAMESPACES: usize = 4 * 1024;

type Sockets = Vec<(u64, Socket)>;

/// The sockets that were alive when their namespace was left, by their cookies; those of the
/// namespace that was left first come first.
#[derive(Debug, Default)]
pub(super) struct Left(VecDeque<(NamespaceId, Sockets)>);

impl Left {
    /// Keeps the sockets of a namespace. Where that are too many, those left longest ago are
    /// forgotten, not their namespace.
    pub(super) fn keep(&mut self, id: NamespaceId, sockets: Sockets) {
        self.take(id);
        if sockets.is_empty() {
            return;
        }
        self.0.push_back((id, sockets));
        let mut count: usize = self.0.iter().map(|(_, sockets)| sockets.len()).sum();
        for (_, sockets) in &mut self.0 {
            if count <= MOST_SOCKETS {
                break;
            }
            count -= sockets.len();
            *sockets = Vec::new();
        }
        if self.0.len() > MOST_NAMESPACES {
            self.0.pop_front();
        }
    }

    /// The sockets of a namespace that is entered again: none if they were forgotten, `None` if
    /// there were none.
    pub(super) fn take(&mut self, id: NamespaceId) -> Option<Sockets> {
        let at = self.0.iter().position(|(of, _)| *of == id)?;
        self.0.remove(at).map(|(_, sockets)| sockets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_sockets_are_forgotten_oldest_namespace_first() {
        let sockets = |count| vec![(7, Socket::default()); count];
        let mut left = Left::default();
        left.keep(1, sockets(3));
        left.keep(2, sockets(MOST_SOCKETS - 1));
        left.keep(3, Vec::new());
        assert_eq!(left.take(1).map(|sockets| sockets.len()), Some(0));
        assert!(left.take(3).is_none());
        let kept = left.take(2).map(|sockets| sockets.len());
        assert_eq!(kept, Some(MOST_SOCKETS - 1));
        assert!(left.take(2).is_none());
    }
}
