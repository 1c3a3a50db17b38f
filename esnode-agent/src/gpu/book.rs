//! Which group the energy of a process on a GPU goes to.

use crate::process::Key;
use esnode_ebpf::Name;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Groups of processes on GPUs, as the process collector saw them last. GPUs are sampled more often
/// than that: a process that it has not seen has a group of its own for the time being.
#[derive(Clone, Debug, Default)]
pub struct GroupBook {
    /// `None` where the command name says it.
    groups: Option<Arc<Mutex<FxHashMap<Key, Name>>>>,
}

impl GroupBook {
    /// Of groups that the command name does not tell.
    #[must_use]
    pub fn new() -> Self {
        Self {
            groups: Some(Arc::default()),
        }
    }

    /// Replaces what is written. Start times are in whole ticks, as `/proc` has them.
    pub fn write(&self, groups: impl IntoIterator<Item = (Key, Name)>) {
        if let Some(book) = &self.groups {
            *book.lock().unwrap_or_else(PoisonError::into_inner) = groups.into_iter().collect();
        }
    }

    /// The group of a process with this command name.
    #[must_use]
    pub(super) fn group(&self, key: Key, name: Name) -> Name {
        let Some(book) = &self.groups else {
            return name;
        };
        let book = book.lock().unwrap_or_else(PoisonError::into_inner);
        let known = book.get(&key).copied();
        known.unwrap_or_else(|| Name::of_process(key.pid, key.start_nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_in_the_book_is_a_group_alone() {
        let key = Key {
            pid: 7,
            start_nanoseconds: 30,
        };
        let name = Name::from_bytes([b'a'; 16]);
        assert_eq!(GroupBook::default().group(key, name), name);
        let book = GroupBook::new();
        assert_eq!(book.group(key, name), Name::of_process(7, 30));
        book.write([(key, Name::of_number(5))]);
        assert_eq!(book.group(key, name), Name::of_number(5));
    }
}
