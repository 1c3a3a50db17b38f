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
};

/// What waits of freed sockets until someone takes it in.
const ROOM_BYTES: usize = 8 << 20;
/// So many processes of a namespace are remembered, to see whether it is still in use.
const MEMBERS: usize = 16;

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
    members: Vec<u32>,
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

/// Brings the open namespaces in line with those in use: leaves those that nobody is in, and
/// enters the others. Those that may not be entered are added to `refused` and not tried again.
pub(super) fn follow(
    procfs: &Path,
    open: &mut FxHashMap<NamespaceId, Namespace>,
    own: NamespaceId,
    in_use: &Members,
    refused: &mut FxHashSet<NamespaceId>,
) {
    open.retain(|id, _| *id == own || in_use.contains_key(id));
    refused.retain(|id| in_use.contains_key(id));
    let new: Vec<_> = in_use
        .iter()
        .filter(|(id, _)| **id != own && !open.contains_key(id) && !refused.contains(id))
        .map(|(id, members)| (*id, procfs.to_owned(), members.clone()))
        .collect();
    if !new.is_empty() {
        // A thread can't always come back to where it was, so it ends.
        let visit = || new.into_iter().map(enter).collect::<Vec<_>>();
        let visited = thread::scope(|scope| scope.spawn(visit).join());
        for (id, entered) in visited.unwrap_or_default() {
            match entered {
                Ok(namespace) => drop(open.insert(id, namespace)),
                Err(Some(_)) => drop(refused.insert(id)),
                // All its processes are gone again.
                Err(None) => {}
            }
        }
    }
    for (id, namespace) in open {
        if let Some(members) = in_use.get(id) {
            namespace.members.clone_from(members);
        }
    }
}

type Entered = (NamespaceId, Result<Namespace, Option<Errno>>);

/// Takes the calling thread into a namespace and opens its sockets there.
fn enter((id, procfs, members): (NamespaceId, PathBuf, Vec<u32>)) -> Entered {
    // Kept for this alone, and so not in effect anywhere else.
    let _ = caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN);
    for pid in members {
        let Ok(link) = File::open(procfs.join(format!("{pid}/ns/net"))) else {
            continue;
        };
        if link.metadata().map_or(0, |metadata| metadata.ino()) != id {
            continue;
        }
        let entered = move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
            .and_then(|()| Namespace::open());
        return (id, entered.map_err(Some));
    }
    (id, Err(None))
}
