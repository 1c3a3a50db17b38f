//! Which process has which socket: `/proc/PID/fd`.

use crate::process::{Key, Process};
use esnode_ebpf::Name;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// The process that a socket's bytes are booked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) key: Key,
    /// The group that it was in when it was last looked at.
    pub(super) group: Name,
    /// Its number of the file.
    pub(super) file: u32,
}

impl Holder {
    /// Whether it still has the socket.
    pub(super) fn holds(&self, procfs: &Path, inode: u32) -> bool {
        let path = procfs.join(format!("{}/fd/{}", self.key.pid, self.file));
        inode_of_link(path) == Some(inode)
    }
}

/// Finds who of `processes` has these sockets, and takes them out of `wanted`. Of several it is the
/// process that started first.
pub(super) fn find(
    procfs: &Path,
    mut processes: Vec<&Process>,
    wanted: &mut FxHashSet<u32>,
    found: &mut FxHashMap<u32, Holder>,
) {
    processes.sort_unstable_by_key(|process| (process.key.start_nanoseconds, process.key.pid));
    for process in processes {
        if wanted.is_empty() {
            break;
        }
        // Gone, or another user's.
        let Ok(files) = fs::read_dir(procfs.join(format!("{}/fd", process.key.pid))) else {
            continue;
        };
        for file in files.map_while(Result::ok) {
            let Some(inode) = inode_of_link(file.path()) else {
                continue;
            };
            let number = file.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(file) = number
                && wanted.remove(&inode)
            {
                let holder = Holder {
                    key: process.key,
                    group: process.group,
                    file,
                };
                found.insert(inode, holder);
            }
        }
    }
}

/// The number in a link such as `socket:[4242]`.
fn inode_of_link(path: PathBuf) -> Option<u32> {
    parse_link(
        fs::read_link(path).ok()?.as_os_str().as_bytes(),
        b"socket:[",
    )
}

/// The number in a link that begins with `kind` and ends with a bracket.
pub(super) fn parse_link<T: std::str::FromStr>(link: &[u8], kind: &[u8]) -> Option<T> {
    let number = link.strip_prefix(kind)?.strip_suffix(b"]")?;
    str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsRawFd as _, os::unix::net::UnixStream};

    #[test]
    fn links_of_sockets_have_an_inode() {
        assert_eq!(parse_link(b"socket:[4242]", b"socket:["), Some(4242_u32));
        assert_eq!(parse_link::<u32>(b"/tmp/socket:[1]", b"socket:["), None);
        assert_eq!(
            parse_link::<u32>(b"socket:[99999999999]", b"socket:["),
            None
        );
        assert_eq!(
            parse_link(b"net:[4026531840]", b"net:["),
            Some(4_026_531_840_u64)
        );
    }

    #[test]
    fn a_holder_is_found_and_loses_its_socket() {
        let (socket, _other) = UnixStream::pair().expect("sockets");
        let procfs = Path::new("/proc");
        let link = procfs.join(format!("self/fd/{}", socket.as_raw_fd()));
        let inode = inode_of_link(link).expect("a socket");
        let me = Process {
            key: Key {
                pid: std::process::id(),
                start_nanoseconds: 1,
            },
            parent: 1,
            name: Name::EMPTY,
            group: Name::EMPTY,
            kernel: false,
            threads: 1,
            resident_bytes: None,
            ..Process::default()
        };
        let mut wanted: FxHashSet<u32> = [inode, 1].into_iter().collect();
        let mut found = FxHashMap::default();
        find(procfs, vec![&me], &mut wanted, &mut found);
        assert!(wanted.contains(&1) && !wanted.contains(&inode));
        let holder = found.get(&inode).expect("found");
        assert_eq!(i64::from(holder.file), i64::from(socket.as_raw_fd()));
        assert!(holder.holds(procfs, inode));
        // Whatever has the number next, it's another file.
        drop(socket);
        let _file = File::open("/dev/null");
        assert!(!holder.holds(procfs, inode));
    }
}
