//! Who the process ids are that a driver names.
//!
//! An id alone is not believed: it has to be in `/proc`, and counts as the process that started
//! at that time. For each process that was met, one file is kept open, `/proc/PID/comm`: a read
//! tells its name, and fails once the process is gone, even if its id is in use again. Where there
//! would be too many, the start time is read again at each look.

use super::book::GroupBook;
use crate::{
    bpf::in_host_pid_namespace,
    process::{
        Key,
        procfs::{Procfs, process_of_thread},
    },
};
use esnode_ebpf::{NAME_LEN, Name};
use rustc_hash::FxHashMap;
use rustix::process::{Resource, getrlimit};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// What an id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A live process and its group.
    Alive(Key, Name),
    /// That a process of this group was alive at the last look and has ended since.
    Ended(Name),
    /// Another one than at the last look: what was measured since could be of either.
    Replaced(Key, Name),
    /// None in `/proc`.
    Unknown,
}

/// The open files of all devices: a process on several has one. There are so many at most, as other
/// collectors need descriptors too.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(Arc<Mutex<FxHashMap<u32, Weak<File>>>>);

impl Files {
    /// `/proc/PID/comm` of a live process, and its name; no file if there are too many already.
    fn open(&self, root: &Path, pid: u32) -> io::Result<(Option<Arc<File>>, Name)> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(&pid).and_then(Weak::upgrade)
            && let Ok(name) = read_name(&file)
        {
            return Ok((Some(file), name));
        }
        let file = File::open(root.join(format!("{pid}/comm")))?;
        let name = read_name(&file)?;
        files.retain(|_, file| file.strong_count() > 0);
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if files.len() as u64 >= limit / 4 {
            return Ok((None, name));
        }
        let file = Arc::new(file);
        files.insert(pid, Arc::downgrade(&file));
        Ok((Some(file), name))
    }
}

#[derive(Debug)]
struct Person {
    key: Key,
    name: Name,
    /// `None` if there are too many files.
    comm: Option<Arc<File>>,
}

impl Person {
    /// Reads the name again; says whether it is still there.
    fn refresh(&mut self, procfs: &Procfs) -> bool {
        if let Some(comm) = &self.comm {
            let name = read_name(comm);
            self.name = name.as_ref().copied().unwrap_or(self.name);
            return name.is_ok();
        }
        match procfs.process(self.key.pid) {
            Ok(process) => process.is_some_and(|process| {
                self.name = process.name;
                process.key == self.key
            }),
            // Nobody knows; it was there the last time.
            Err(_) => true,
        }
    }
}

/// The processes that were met on a device.
#[derive(Debug)]
pub(super) struct People {
    procfs: Procfs,
    root: PathBuf,
    files: Files,
    groups: GroupBook,
    /// Whether ids below `root` are those of the host, as the driver's are.
    is_host: bool,
    known: FxHashMap<u32, Person>,
    /// Those who were gone at the last refresh, with their groups.
    ended: FxHashMap<u32, Name>,
}

impl People {
    /// Nobody yet.
    #[must_use]
    pub(super) fn new(root: &Path, procfs: Procfs, files: Files, groups: GroupBook) -> Self {
        Self {
            procfs,
            root: root.to_owned(),
            files,
            groups,
            is_host: is_host(root),
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
        let (ended, procfs, groups) = (&mut self.ended, &self.procfs, &self.groups);
        self.known.retain(|pid, person| {
            let alive = person.refresh(procfs);
            if !alive {
                ended.insert(*pid, groups.group(person.key, person.name));
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
        let alive = self.known.get(&pid);
        let alive = alive.map(|Person { key, name, .. }| (*key, self.groups.group(*key, *name)));
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
        if !self.is_host {
            // Somebody there may have the same id by chance.
            return None;
        }
        // First the file, then the start time, then the file once more: if that still reads, both
        // are of one process.
        let (comm, name) = self.files.open(&self.root, pid).ok()?;
        let process = self.procfs.process(pid).ok()??;
        // Ids of threads are found below /proc as well.
        let (of, _) = process_of_thread(&self.root, pid)?;
        if of != pid {
            return None;
        }
        let mut person = Person {
            key: process.key,
            name,
            comm,
        };
        person.refresh(&self.procfs).then_some(person)
    }
}

/// Nobody yet, by the proc of this machine.
#[cfg(test)]
pub(super) fn people() -> People {
    use crate::process::procfs::Units;

    let root = Path::new("/proc");
    People::new(
        root,
        Procfs::new(root, Units::of_this_kernel()),
        Files::default(),
        GroupBook::default(),
    )
}

/// Whether a proc is that of the host's PID namespace: its kernel threads are nowhere else.
#[must_use]
pub(super) fn is_host(root: &Path) -> bool {
    let thread = fs::read(root.join("2/comm"));
    in_host_pid_namespace() || thread.is_ok_and(|name| name == b"kthreadd\n")
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
    use std::process::{Child, Command};

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
