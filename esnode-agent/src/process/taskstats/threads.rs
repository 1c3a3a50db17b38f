//! Which process a thread is of, where its record doesn't say.

use super::{Event, Record};
use std::{collections::HashMap, fs, path::Path};

/// Threads at most. Of further ones, the process is known only from their end.
const LIMIT: usize = 1 << 18;

/// Threads by what the kernel tells of births and ends.
#[derive(Debug, Default)]
pub struct Threads {
    by_id: HashMap<u32, Thread>,
    /// Those whose end was told since [`Threads::forget_ended`].
    ended: Vec<u32>,
    /// Those whose end was told before.
    ended_before: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    pid: u32,
    /// Whether it is the first of its process, and others came.
    has_others: bool,
    ended: bool,
}

impl Thread {
    fn of(pid: u32) -> Self {
        Self {
            pid,
            has_others: false,
            ended: false,
        }
    }
}

impl Threads {
    /// The threads that there are.
    #[must_use]
    pub fn there(procfs: &Path) -> Self {
        let mut threads = Self::default();
        for pid in numbers(procfs) {
            for tid in numbers(&procfs.join(format!("{pid}/task"))) {
                threads.learn(Event::Born { tid, pid });
            }
        }
        threads
    }

    /// Takes in what the kernel tells.
    pub fn learn(&mut self, event: Event) {
        match event {
            Event::Answer(_) => {}
            // What is known of an earlier thread with this id is over.
            Event::Born { tid, pid } if tid == pid => self.insert(tid, Thread::of(pid)),
            Event::Born { tid, pid } => {
                self.insert(tid, Thread::of(pid));
                let first = self.by_id.get(&pid).filter(|first| first.pid == pid);
                let first = first.copied().unwrap_or(Thread::of(pid));
                self.insert(
                    pid,
                    Thread {
                        has_others: true,
                        ..first
                    },
                );
            }
            Event::Ended { tid, pid } => {
                let known = self.by_id.get(&tid).filter(|known| known.pid == pid);
                let known = known.copied().unwrap_or(Thread::of(pid));
                // They are few: see `forget_ended`.
                self.by_id.insert(
                    tid,
                    Thread {
                        ended: true,
                        ..known
                    },
                );
                self.ended.push(tid);
            }
        }
    }

    fn insert(&mut self, tid: u32, thread: Thread) {
        if self.by_id.len() < LIMIT || self.by_id.contains_key(&tid) {
            self.by_id.insert(tid, thread);
        }
    }

    /// Says whose thread this record is of, and whether its process ended with it, if that is
    /// known. The last of several threads has a record that says so itself: where it does not, a
    /// first thread was the only one ever, or others go on.
    pub fn complete(&self, record: &mut Record) {
        if record.pid.is_some() {
            return;
        }
        if let Some(thread) = self.by_id.get(&record.tid) {
            record.pid = Some(thread.pid);
            record.ends_process = Some(record.tid == thread.pid && !thread.has_others);
        }
    }

    /// Forgets those whose end was told before the last call: their records, which came still
    /// earlier, have been taken in by now.
    pub fn forget_ended(&mut self) {
        for tid in std::mem::take(&mut self.ended_before) {
            if self.by_id.get(&tid).is_some_and(|thread| thread.ended) {
                self.by_id.remove(&tid);
            }
        }
        self.ended_before = std::mem::take(&mut self.ended);
    }
}

/// The names in a folder that are numbers.
fn numbers(folder: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .map_while(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Usage;
    use esnode_ebpf::{NAME_LEN, Name};

    /// What is said of a record that names no process.
    fn said(threads: &Threads, tid: u32) -> (Option<u32>, Option<bool>) {
        let mut record = Record {
            tid,
            pid: None,
            ends_process: None,
            parent: 1,
            name: Name::from_bytes([0; NAME_LEN]),
            lived_nanoseconds: 0,
            usage: Usage::default(),
        };
        threads.complete(&mut record);
        (record.pid, record.ends_process)
    }

    fn told(events: &[Event]) -> Threads {
        let mut threads = Threads::default();
        for event in events {
            threads.learn(*event);
        }
        threads
    }

    #[test]
    fn a_lonely_thread_ends_its_process() {
        let mut threads = told(&[Event::Born { tid: 7, pid: 7 }]);
        assert_eq!(said(&threads, 7), (Some(7), Some(true)));
        assert_eq!(said(&threads, 8), (None, None));
        threads.learn(Event::Ended { tid: 7, pid: 7 });
        // Its record may be taken in once more, then no more.
        threads.forget_ended();
        assert_eq!(said(&threads, 7), (Some(7), Some(true)));
        threads.forget_ended();
        assert_eq!(said(&threads, 7), (None, None));
        assert!(threads.by_id.is_empty());
    }

    #[test]
    fn threads_that_others_follow_end_nothing() {
        let threads = told(&[
            Event::Born { tid: 7, pid: 7 },
            Event::Born { tid: 9, pid: 7 },
            Event::Ended { tid: 7, pid: 7 },
            Event::Ended { tid: 9, pid: 7 },
        ]);
        assert_eq!(said(&threads, 7), (Some(7), Some(false)));
        assert_eq!(said(&threads, 9), (Some(7), Some(false)));
    }

    #[test]
    fn an_end_tells_whose_thread_it_was() {
        let threads = told(&[Event::Ended { tid: 9, pid: 7 }]);
        assert_eq!(said(&threads, 9), (Some(7), Some(false)));
    }

    #[test]
    fn an_id_that_is_used_again_is_another_thread() {
        let mut threads = told(&[
            Event::Born { tid: 7, pid: 7 },
            Event::Born { tid: 8, pid: 7 },
            Event::Ended { tid: 8, pid: 7 },
            Event::Ended { tid: 7, pid: 7 },
        ]);
        threads.forget_ended();
        threads.learn(Event::Born { tid: 7, pid: 7 });
        threads.learn(Event::Born { tid: 8, pid: 8 });
        threads.forget_ended();
        assert_eq!(said(&threads, 7), (Some(7), Some(true)));
        assert_eq!(said(&threads, 8), (Some(8), Some(true)));
    }

    #[test]
    fn those_that_there_are_can_be_listed() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let threads = Threads::there(Path::new("/proc"));
        let (pid, ends) = said(&threads, own.cast_unsigned());
        // A test runs in a thread of its own.
        assert_eq!((pid, ends), (Some(std::process::id()), Some(false)));
    }
}
