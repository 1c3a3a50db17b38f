//! Files of the host, below a root that may be another filesystem's.

use super::Error;
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};
use serde::de::DeserializeOwned;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// How many names of a folder are looked at.
const MOST_NAMES: usize = 65_536;

/// A root below which to read.
#[derive(Clone, Debug)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The file as this process sees it.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads a file of at most `limit` bytes; nothing if there is none.
    pub(super) fn read(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let failed = |source| Error::Read {
            path: self.place(path),
            source,
        };
        let Some(file) = absent(self.open(path, OFlags::empty())).map_err(failed)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let file = File::from(file);
        file.take(most).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > limit {
            let path = self.place(path);
            return Err(Error::TooLong { path, limit });
        }
        Ok(Some(bytes))
    }

    /// Reads a file of JSON of at most `limit` bytes; nothing if there is none.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        path: &Path,
        limit: usize,
    ) -> Result<Option<T>, Error> {
        let Some(bytes) = self.read(path, limit)? else {
            return Ok(None);
        };
        let place = || self.place(path).display().to_string();
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| Error::Json {
            place: place(),
            source,
        })
    }

    /// The names in a folder; nothing if there is none.
    pub(super) fn names(&self, path: &Path) -> Result<Option<Vec<String>>, Error> {
        let failed = |source: io::Error| Error::Read {
            path: self.place(path),
            source,
        };
        let Some(folder) = absent(self.open(path, OFlags::DIRECTORY)).map_err(failed)? else {
            return Ok(None);
        };
        let mut names = Vec::new();
        for entry in Dir::new(folder).map_err(|error| failed(error.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            // What is no text was not named by a runtime.
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
            if names.len() == MOST_NAMES {
                break;
            }
        }
        Ok(Some(names))
    }

    /// Opens so that links, absolute ones too, lead where they lead on the host, and not below the
    /// root of the agent's own container (openat2(2), since Linux 5.6).
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        // Should it be a pipe, nobody waits for a writer.
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.root, at, Mode::empty())?;
        match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // Not known to the kernel, or to a filter of system calls.
            Err(Errno::NOSYS | Errno::PERM) => {
                let place = self.place(path);
                Ok(openat(CWD, &place, flags, Mode::empty())?)
            }
            opened => Ok(opened?),
        }
    }
}

/// What does not exist is no error: no source has to.
fn absent(opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Err(error) if is_absent(&error) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::container::fixture::Folder;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_on_the_host() {
        let folder = Folder::new();
        folder.write("data/docker/a.json", "[1,2]");
        symlink("/data", folder.path().join("lib")).expect("link");
        let host = Host::new(folder.path().to_owned());
        let path = Path::new("/lib/docker/a.json");
        assert_eq!(
            host.json::<Vec<u8>>(path, 5).expect("read"),
            Some(vec![1, 2])
        );
        assert_eq!(
            host.read(Path::new("lib/../../../data/docker/a.json"), 5)
                .expect("read")
                .map(|b| b.len()),
            Some(5)
        );
        let names = host.names(Path::new("/lib")).expect("read");
        assert_eq!(names, Some(vec!["docker".to_owned()]));
    }

    #[test]
    fn says_what_it_cannot_read() {
        let folder = Folder::new();
        folder.write("a.json", "[1,2");
        let host = Host::new(folder.path().to_owned());
        let path = Path::new("/a.json");
        assert!(matches!(
            host.read(path, 3),
            Err(Error::TooLong { limit: 3, .. })
        ));
        let error = host.json::<Vec<u8>>(path, 4).expect_err("half");
        assert!(error.to_string().contains("a.json: EOF"), "{error}");
        assert!(matches!(
            host.read(Path::new("/"), 3),
            Err(Error::Read { .. })
        ));
        assert!(host.read(Path::new("/b.json"), 3).expect("none").is_none());
        assert!(host.names(Path::new("/a.json/b")).expect("none").is_none());
        let gone = Host::new(folder.path().join("gone"));
        assert!(gone.names(path).expect("none").is_none());
    }
}
