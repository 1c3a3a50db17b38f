//! Who the process ids are that a driver names.
//!
//! An id alone is not believed: it has to be in `/proc`, and counts as the process that started
//! at that time. For each process that was met, one file is kept open, `/proc/PID/comm`: a read
//! tells its name, and fails once the process is gone, even if its id is in use again.

use crate::process::{
    Key,
    procfs::{Procfs, process_of_thread},
};
use esnode_ebpf::{NAME_LEN, Name};
use rustc_hash::FxHashMap;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What an id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A live process and its command name.
    Alive(Key, Name),
    /// A process that was alive at the last look and has ended since.
    Ended(Name),
    /// Another one than at the last look: what was measured since could be of either.
    Replaced(Key, Name),
    /// None in `/proc`.
    Unknown,
}

#[derive(Debug)]
struct Person {
    key: Key,
    name: Name,
    comm: File,
}

impl Person {
    /// Reads the name again; fails once the process is gone.
    fn refresh(&mut self) -> io::Result<()> {
        self.name = read_name(&self.comm)?;
        Ok(())
    }
}

/// The processes that were met on a device.
#[derive(Debug)]
pub(super) struct People {
    procfs: Procfs,
    root: PathBuf,
    known: FxHashMap<u32, Person>,
    /// Those who were gone at the last refresh.
    ended: FxHashMap<u32, Name>,
}

impl People {
    /// Nobody yet.
    #[must_use]
    pub(super) fn new(root: &Path, procfs: Procfs) -> Self {
        Self {
            procfs,
            root: root.to_owned(),
            known: FxHashMap::default(),
            ended: FxHashMap::default(),
        }
    }

    /// Makes these known, if they are alive: they were met before this was made.
    pub(super) fn adopt(&mut self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            if let Some(person) = self.meet(key.pid)
                && person.key == key
            {
                self.known.insert(key.pid, person);
            }
        }
    }

    /// Looks at everyone who is known. For a new interval, those who have ended before are
    /// forgotten.
    pub(super) fn refresh(&mut self, is_new: bool) {
        if is_new {
            self.ended.clear();
        }
        let ended = &mut self.ended;
        self.known.retain(|pid, person| {
            let alive = person.refresh().is_ok();
            if !alive {
                ended.insert(*pid, person.name);
            }
            alive
        });
    }

    /// Who that is.
    pub(super) fn who(&mut self, pid: u32) -> Who {
        if !self.known.contains_key(&pid)
            && let Some(person) = self.meet(pid)
        {
            self.known.insert(pid, person);
        }
        let alive = self.known.get(&pid).map(|person| (person.key, person.name));
        match (alive, self.ended.get(&pid)) {
            (Some((key, name)), None) => Who::Alive(key, name),
            (Some((key, name)), Some(_)) => Who::Replaced(key, name),
            (None, Some(name)) => Who::Ended(*name),
            (None, None) => Who::Unknown,
        }
    }

    /// Everyone who was alive at the last refresh, or was met since.
    pub(super) fn alive(&self) -> impl Iterator<Item = Key> {
        self.known.values().map(|person| person.key)
    }

    fn meet(&self, pid: u32) -> Option<Person> {
        // First the file, then the start time, then the file once more: if that still reads, both
        // are of one process.
        let comm = File::open(self.root.join(format!("{pid}/comm"))).ok()?;
        let process = self.procfs.process(pid).ok()??;
        // Ids of threads are found below /proc as well.
        let (of, _) = process_of_thread(&self.root, pid)?;
        if of != pid {
            return None;
        }
        let name = read_name(&comm).ok()?;
        Some(Person {
            key: process.key,
            name,
            comm,
        })
    }
}

fn read_name(comm: &File) -> io::Result<Name> {
    let mut text = [0; NAME_LEN + 1];
    let length = comm.read_at(&mut text, 0)?;
    let mut bytes = [0; NAME_LEN];
    // The last byte is the end of the line.
    let text = text.get(..length.saturating_sub(1)).unwrap_or_default();
    for (to, from) in bytes.iter_mut().zip(text) {
        *to = *from;
    }
    Ok(Name::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::procfs::Units;
    use std::process::{Child, Command};

    fn people() -> People {
        let root = Path::new("/proc");
        People::new(root, Procfs::new(root, Units::of_this_kernel()))
    }

    fn sleeper() -> Child {
        let spawned = Command::new("sleep").arg("60").spawn();
        let child = spawned.expect("sleep is there");
        // Until then it bears the name of this process.
        while !people().alive_as(child.id(), "sleep") {
            std::thread::yield_now();
        }
        child
    }

    impl People {
        fn is_alive(&self, key: &Key) -> bool {
            self.alive().any(|other| other == *key)
        }

        fn alive_as(&mut self, pid: u32, expected: &str) -> bool {
            self.known.clear();
            matches!(self.who(pid), Who::Alive(_, name) if crate::process::label(name) == expected)
        }
    }

    #[test]
    fn a_process_is_known_until_it_ends() {
        let mut child = sleeper();
        let pid = child.id();
        let mut people = people();
        let Who::Alive(key, name) = people.who(pid) else {
            panic!("not alive");
        };
        assert_eq!(key.pid, pid);
        assert!(people.is_alive(&key));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        people.refresh(true);
        assert_eq!(people.who(pid), Who::Ended(name));
        assert!(!people.is_alive(&key));
        // As long as the interval lasts.
        people.refresh(false);
        assert_eq!(people.who(pid), Who::Ended(name));
        // One interval later nobody remembers.
        people.refresh(true);
        assert_eq!(people.who(pid), Who::Unknown);
    }

    #[test]
    fn an_id_that_is_not_in_proc_is_not_believed() {
        // Larger than the kernel's largest.
        assert_eq!(people().who(4_200_000), Who::Unknown);
    }

    #[test]
    fn a_thread_is_no_process() {
        let tid = std::thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            (tid, people().who(tid.unsigned_abs()))
        });
        let (_, who) = tid.join().expect("ended");
        assert_eq!(who, Who::Unknown);
    }

    #[test]
    fn only_the_same_process_is_adopted() {
        let mut child = sleeper();
        let mut first = people();
        let Who::Alive(key, _) = first.who(child.id()) else {
            panic!("not alive");
        };
        let mut other = key;
        other.start_nanoseconds += 10_000_000;
        let mut second = people();
        second.adopt([key]);
        assert!(second.is_alive(&key));
        let mut third = people();
        third.adopt([other]);
        assert!(!third.is_alive(&key));
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
}
