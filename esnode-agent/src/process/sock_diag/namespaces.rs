//! Network namespaces: sockets of netlink belong to the one that they were opened in.

use super::{
    holders::parse_link,
    wire::{DESTROYED, FAMILIES, SOCK_DIAG_BY_FAMILY, request},
};
use crate::process::netlink::{NLM_F_DUMP, Netlink};
use caps::{CapSet, Capability};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::{
    io::Errno,
    net::netlink::SOCK_DIAG,
    process::{Resource, getrlimit},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

/// What waits of freed sockets until someone takes it in.
const ROOM_BYTES: usize = 8 << 20;
/// So many processes of a namespace are remembered, to see whether it is still in use.
const MEMBERS: usize = 16;
/// So many descriptors are left to the rest of the agent, and no more than one in so many.
const RESERVE: u64 = 64;
const RESERVE_PART: u64 = 4;
/// A namespace takes so many descriptors, and one more while it is entered.
const DESCRIPTORS: u64 = 2;

/// Inode number of a network namespace.
pub(super) type NamespaceId = u64;

/// Some processes of each namespace.
pub(super) type Members = FxHashMap<NamespaceId, Vec<u32>>;

/// The sockets that read one namespace. They keep it alive.
#[derive(Debug)]
pub(super) struct Namespace {
    questions: Netlink,
    /// Where the kernel tells of sockets that it frees.
    pub(super) destroyed: Arc<Netlink>,
    /// Some processes that are in it.
    pub(super) members: Vec<u32>,
    /// Since when nobody is in it.
    pub(super) empty_since: Option<Instant>,
    /// The sockets that are met first may have moved something that is not to be counted.
    pub(super) baseline: bool,
}

impl Namespace {
    /// Opens the sockets in the namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Errno> {
        // This one first: what is freed between the two is then known of.
        let destroyed = Netlink::open(SOCK_DIAG, DESTROYED)?;
        destroyed.make_room(ROOM_BYTES);
        Ok(Self {
            questions: Netlink::open(SOCK_DIAG, 0)?,
            destroyed: Arc::new(destroyed),
            members: Vec::new(),
            empty_since: None,
            baseline: false,
        })
    }

    /// Hands over a message for every TCP socket.
    pub(super) fn dump(&self, mut take: impl FnMut(&[u8])) -> Result<(), Errno> {
        for family in FAMILIES {
            let request = request(family);
            match self
                .questions
                .ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request, &mut take)
            {
                // A kernel without IPv6.
                Err(Errno::NOENT) if family != FAMILIES[0] => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Whether a process that was in it still is.
    pub(super) fn is_in_use(&self, procfs: &Path, id: NamespaceId) -> bool {
        let is_member = |pid: &u32| of_process(procfs, *pid).is_ok_and(|now| now == id);
        self.members.iter().any(is_member)
    }
}

/// Adds a process to those of its namespace.
pub(super) fn add_member(members: &mut Members, id: NamespaceId, pid: u32) {
    let members = members.entry(id).or_default();
    if members.len() < MEMBERS {
        members.push(pid);
    }
}

/// The namespace of a process.
pub(super) fn of_process(procfs: &Path, pid: u32) -> io::Result<NamespaceId> {
    of_link(&procfs.join(format!("{pid}/ns/net")))
}

/// The namespace of this process.
pub(super) fn own(procfs: &Path) -> io::Result<NamespaceId> {
    of_link(&procfs.join("self/ns/net"))
}

fn of_link(path: &Path) -> io::Result<NamespaceId> {
    let link = fs::read_link(path)?;
    parse_link(link.as_os_str().as_bytes(), b"net:[").ok_or(io::ErrorKind::InvalidData.into())
}

/// Some members of each namespace, of all processes that there are now.
pub(super) fn all_members(procfs: &Path) -> io::Result<Members> {
    let mut members = Members::default();
    for entry in fs::read_dir(procfs)?.map_while(Result::ok) {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && let Ok(id) = of_process(procfs, pid)
        {
            add_member(&mut members, id, pid);
        }
    }
    Ok(members)
}

/// The namespaces that are mounted somewhere, and so are there with no process in them.
pub(super) fn mounted(procfs: &Path) -> FxHashSet<NamespaceId> {
    let mounts = fs::read_to_string(procfs.join("self/mountinfo")).unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| line.split(' ').nth(3));
    roots
        .filter_map(|root| parse_link(root.as_bytes(), b"net:["))
        .collect()
}

/// Why a namespace isn't entered.
#[derive(Debug)]
enum Obstacle {
    /// All its processes are gone again.
    Empty,
    /// File descriptors or memory are short, which may pass.
    Short,
    Refused,
}

impl From<Errno> for Obstacle {
    fn from(error: Errno) -> Self {
        match error {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN => {
                Self::Short
            }
            _ => Self::Refused,
        }
    }
}

/// What became of the namespaces that processes are in.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub(super) entered: Vec<(NamespaceId, Namespace)>,
    /// Those to be tried again, for lack of descriptors or memory.
    pub(super) short: FxHashSet<NamespaceId>,
}

/// Enters the namespaces in use that aren't open. Those that may not be entered are added to
/// `refused` and not tried again.
pub(super) fn follow(
    procfs: &Path,
    open: &mut FxHashMap<NamespaceId, Namespace>,
    own: NamespaceId,
    in_use: &Members,
    refused: &mut FxHashSet<NamespaceId>,
) -> Followed {
    for (id, namespace) in open.iter_mut() {
        if let Some(members) = in_use.get(id) {
            namespace.members.clone_from(members);
        }
    }
    refused.retain(|id| in_use.contains_key(id));
    let mut new: Vec<_> = in_use
        .iter()
        .filter(|(id, _)| **id != own && !open.contains_key(id) && !refused.contains(id))
        .map(|(id, members)| (*id, procfs.to_owned(), members.clone()))
        .collect();
    let mut followed = Followed::default();
    if new.is_empty() {
        return followed;
    }
    let rest = new.split_off(new.len().min(room(procfs)));
    followed.short.extend(rest.into_iter().map(|(id, ..)| id));
    let ids: Vec<_> = new.iter().map(|(id, ..)| *id).collect();
    // A thread can't always come back to where it was, so it ends.
    let visit = || new.into_iter().map(enter).collect::<Vec<_>>();
    let visited = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, visit);
        thread.ok().and_then(|thread| thread.join().ok())
    });
    let Some(visited) = visited else {
        followed.short.extend(ids);
        return followed;
    };
    for (id, entered) in visited {
        match entered {
            Ok(namespace) => followed.entered.push((id, namespace)),
            Err(Obstacle::Refused) => drop(refused.insert(id)),
            Err(Obstacle::Short) => drop(followed.short.insert(id)),
            Err(Obstacle::Empty) => {}
        }
    }
    followed
}

/// How many namespaces can be entered and leave enough descriptors to the rest of the agent.
fn room(procfs: &Path) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return usize::MAX;
    };
    let Ok(files) = fs::read_dir(procfs.join("self/fd")) else {
        return 0;
    };
    room_within(limit, files.count() as u64)
}

fn room_within(limit: u64, used: u64) -> usize {
    let reserve = RESERVE.min(limit / RESERVE_PART) + 1;
    let room = limit.saturating_sub(used).saturating_sub(reserve) / DESCRIPTORS;
    usize::try_from(room).unwrap_or(usize::MAX)
}

type Entered = (NamespaceId, Result<Namespace, Obstacle>);

/// Takes the calling thread into a namespace and opens its sockets there.
fn enter((id, procfs, members): (NamespaceId, PathBuf, Vec<u32>)) -> Entered {
    // Kept for this alone, and so not in effect anywhere else.
    let _ = caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN);
    let mut obstacle = Obstacle::Empty;
    for pid in &members {
        let link = match File::open(procfs.join(format!("{pid}/ns/net"))) {
            Ok(link) => link,
            Err(error) => {
                let error = error.raw_os_error().map(Errno::from_raw_os_error);
                if let Some(Obstacle::Short) = error.map(Obstacle::from) {
                    obstacle = Obstacle::Short;
                }
                continue;
            }
        };
        if link.metadata().map_or(0, |metadata| metadata.ino()) != id {
            continue;
        }
        let entered = move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
            .and_then(|()| Namespace::open())
            .map(|namespace| Namespace {
                members: members.clone(),
                ..namespace
            });
        return (id, entered.map_err(Obstacle::from));
    }
    (id, Err(obstacle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_to_the_rest() {
        // Of 64, 16 are left, and one for the link.
        assert_eq!(room_within(64, 20), 13);
        assert_eq!(room_within(64, 47), 0);
        assert_eq!(room_within(64, 100), 0);
        assert_eq!(room_within(1024, 59), 450);
    }

    #[test]
    fn this_process_is_a_member_of_its_namespace() {
        let procfs = Path::new("/proc");
        let own = own(procfs).expect("a namespace");
        let members = all_members(procfs).expect("processes");
        assert!(members.get(&own).is_some_and(|members| !members.is_empty()));
    }
}
