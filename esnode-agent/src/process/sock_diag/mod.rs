//! Network bytes without BPF: the kernel's own account of each TCP socket, joined with the process
//! that has the socket by the inode number of the file.
//!
//! A socket's bytes are booked as they come: to the process that has it, of several to the one
//! that started first. When that closes it or ends, what comes then goes to the next; what was
//! booked stays where it is. When the kernel frees a socket it tells its last numbers, so that
//! nothing depends on how often anyone looks; of a socket that nobody was seen to have, they are
//! nobody's.

mod holders;
mod namespaces;
mod socket;
mod watches;
mod wire;

use super::{Group, Key, Process, Usage, netlink::Netlink, table::Unattributed};
use esnode_ebpf::Name;
use namespaces::{Namespace, NamespaceId};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::io::Errno;
use socket::{Socket, traffic};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;
use tracing::warn;
use watches::Watches;
use wire::{Moved, Reading};

/// Passes between two searches for who has a socket, at most.
const MOST_PATIENCE: u64 = 32;

/// Why sock_diag can't be used.
#[derive(Debug, Error)]
pub enum SockDiagError {
    /// The kernel has no such netlink protocol.
    #[error("the kernel has no sock_diag for TCP: {0}")]
    Missing(Errno),
    /// Something between the agent and the kernel refuses, such as a seccomp filter.
    #[error("netlink sockets of sock_diag are refused: {0}")]
    Refused(Errno),
}

impl SockDiagError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing(_) => {
                "load the modules inet_diag and tcp_diag (CONFIG_INET_DIAG, CONFIG_INET_TCP_DIAG)"
            }
            Self::Refused(_) => "let the container's seccomp profile pass AF_NETLINK sockets",
        }
    }
}

impl From<Errno> for SockDiagError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ACCESS | Errno::PERM => Self::Refused(error),
            _ => Self::Missing(error),
        }
    }
}

/// Network namespaces by whether their sockets are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Those that are.
    pub read: usize,
    /// Those that may not be entered; `None` where even that may not be read of some process.
    pub refused: Option<usize>,
}

/// Reads the sockets and keeps the accounts.
#[derive(Debug)]
pub struct SockDiag {
    procfs: PathBuf,
    own: NamespaceId,
    namespaces: FxHashMap<NamespaceId, Namespace>,
    refused: FxHashSet<NamespaceId>,
    told_refused: bool,
    watches: Watches,
    sockets: FxHashMap<(NamespaceId, u64), Socket>,
    processes: FxHashMap<Key, Moved>,
    groups: FxHashMap<Name, Moved>,
    nobody: Moved,
    overruns: u64,
    pass: u64,
}

impl SockDiag {
    /// Opens sockets in the agent's own namespace and in those of `processes`. Sockets that there
    /// are now count from here on.
    ///
    /// # Errors
    /// If not even the agent's own namespace can be read.
    pub fn open(procfs: &Path, processes: &[Process]) -> Result<Self, SockDiagError> {
        let own = namespaces::own(procfs).unwrap_or_default();
        let namespace = Namespace::open()?;
        // Is there anyone to answer?
        namespace.dump(|_| {})?;
        let mut diag = Self {
            procfs: procfs.to_owned(),
            own,
            namespaces: [(own, namespace)].into_iter().collect(),
            refused: FxHashSet::default(),
            told_refused: false,
            watches: Watches::default(),
            sockets: FxHashMap::default(),
            processes: FxHashMap::default(),
            groups: FxHashMap::default(),
            nobody: Moved::default(),
            overruns: 0,
            pass: 0,
        };
        diag.read_sockets(processes);
        diag.find_holders(processes);
        for socket in diag.sockets.values_mut() {
            socket.booked = socket.reading;
        }
        Ok(diag)
    }

    /// Reads everything once; gives `processes` and `groups` their traffic. The groups are those
    /// of the processes, who may be in another only after this call.
    pub fn sample(&mut self, processes: &mut [Process], groups: &mut Vec<Group>) {
        self.pass += 1;
        self.drain();
        self.read_sockets(processes);
        self.find_holders(processes);
        self.book();
        let alive: FxHashSet<Key> = processes.iter().map(|process| process.key).collect();
        self.processes.retain(|key, _| alive.contains(key));
        self.forget(&alive);
        for process in processes.iter_mut() {
            process.usage.network = Some(traffic(self.processes.get(&process.key)));
        }
        let nothing = groups.first().map(|group| group.usage.nothing());
        let mut missing = self.groups.clone();
        for group in groups.iter_mut() {
            group.usage.network = Some(traffic(missing.remove(&group.name).as_ref()));
        }
        groups.extend(missing.into_iter().map(|(name, moved)| Group {
            name,
            usage: Usage {
                network: Some(traffic(Some(&moved))),
                ..nothing.unwrap_or_default()
            },
            ..Group::default()
        }));
    }

    /// Bytes of sockets that nobody was seen to have.
    #[must_use]
    pub fn unattributed(&self) -> [Unattributed; 2] {
        let nobody = |signal, bytes| Unattributed {
            signal,
            reason: "no_owner",
            bytes,
        };
        [
            nobody("network_receive", self.nobody.receive_bytes),
            nobody("network_transmit", self.nobody.transmit_bytes),
        ]
    }

    /// How many namespaces are read, and how many not.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces {
        Namespaces {
            read: self.namespaces.len(),
            refused: (!self.watches.any_denied()).then_some(self.refused.len()),
        }
    }

    /// How often the kernel told of more freed sockets than were taken in.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Where the kernel tells of freed sockets: [`SockDiag::drain`] when something waits there.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<Netlink>> {
        let namespaces = self.namespaces.values();
        namespaces
            .map(|namespace| Arc::clone(&namespace.destroyed))
            .collect()
    }

    /// Leaves the namespaces that nobody is in: an open socket would keep them alive.
    pub fn leave_unused(&mut self) {
        let (own, procfs) = (self.own, &self.procfs);
        let left: Vec<_> = self
            .namespaces
            .iter()
            .filter(|(id, namespace)| **id != own && !namespace.is_in_use(procfs, **id))
            .map(|(id, _)| *id)
            .collect();
        if !left.is_empty() {
            self.drain();
            self.namespaces.retain(|id, _| !left.contains(id));
            self.sockets.retain(|(id, _), _| !left.contains(id));
        }
    }

    /// Takes in what the kernel told of freed sockets.
    pub fn drain(&mut self) {
        let mut freed = Vec::new();
        for (id, namespace) in &self.namespaces {
            let take = |message: &[u8]| {
                freed.extend(wire::parse(message).map(|reading| (*id, reading)));
            };
            self.overruns += u64::from(namespace.destroyed.drain(take).unwrap_or(true));
        }
        for (id, reading) in freed {
            self.bury(id, reading);
        }
    }

    /// Books the last numbers of a socket that is no more.
    fn bury(&mut self, id: NamespaceId, reading: Reading) {
        let mut socket = self
            .sockets
            .remove(&(id, reading.cookie))
            .unwrap_or_default();
        socket.read(&reading);
        self.give(&mut socket, true);
    }

    /// Reads all sockets of all namespaces.
    fn read_sockets(&mut self, processes: &[Process]) {
        // Where the own namespace isn't known, another one could be it under another name.
        if self.own != 0 {
            let in_use = self.watches.follow(&self.procfs, self.pass, processes);
            let (open, refused) = (&mut self.namespaces, &mut self.refused);
            namespaces::follow(&self.procfs, open, self.own, &in_use, refused);
            let namespaces = &self.namespaces;
            self.sockets
                .retain(|(id, _), _| namespaces.contains_key(id));
        }
        if !self.refused.is_empty() && !self.told_refused {
            self.told_refused = true;
            warn!(
                "TCP sockets of other network namespaces can't be read (it takes CAP_SYS_ADMIN and \
                 CAP_SYS_PTRACE)"
            );
        }
        let pass = self.pass;
        for (id, namespace) in &self.namespaces {
            let take = |message: &[u8]| {
                let Some(reading) = wire::parse(message) else {
                    return;
                };
                let socket = self.sockets.entry((*id, reading.cookie)).or_default();
                socket.read(&reading);
                socket.pass = pass;
            };
            // What one pass can't read, the next one finds in the same counters.
            let _ = namespace.dump(take);
        }
    }

    /// Looks who has the sockets, as far as that isn't known.
    fn find_holders(&mut self, processes: &[Process]) {
        let by_key: FxHashMap<Key, &Process> = processes
            .iter()
            .map(|process| (process.key, process))
            .collect();
        let mut wanted = FxHashSet::default();
        for socket in self.sockets.values_mut() {
            if let Some(holder) = &mut socket.holder
                && let Some(process) = by_key.get(&holder.key)
            {
                holder.group = process.group;
                // Closed by everybody, it belongs to whom it belonged; and who has it matters only
                // when it moved something.
                let closed = socket.inode == 0;
                let quiet = socket.reading == socket.booked;
                if closed || quiet || holder.holds(&self.procfs, socket.inode) {
                    continue;
                }
            }
            if socket.inode != 0 && socket.not_before <= self.pass {
                wanted.insert(socket.inode);
            }
        }
        if wanted.is_empty() {
            return;
        }
        let found = self.watches.search(&self.procfs, processes, wanted.clone());
        for socket in self.sockets.values_mut() {
            if !wanted.contains(&socket.inode) {
                continue;
            }
            if let Some(holder) = found.get(&socket.inode) {
                socket.holder = Some(*holder);
                socket.searches = 0;
            } else {
                // It may be on its way from one process to another, or in nobody's hands for good.
                socket.searches += 1;
                let patience = 1 << socket.searches.min(MOST_PATIENCE.ilog2());
                socket.not_before = self.pass + patience / 2;
            }
        }
    }

    /// Books what the sockets moved since they were booked last.
    fn book(&mut self) {
        let mut sockets = std::mem::take(&mut self.sockets);
        for socket in sockets.values_mut() {
            self.give(socket, false);
        }
        self.sockets = sockets;
    }

    /// Books one socket. That nobody has it must be found twice, until it is `freed`.
    fn give(&mut self, socket: &mut Socket, freed: bool) {
        let due = socket.due();
        if due == Moved::default() {
            return;
        }
        match &socket.holder {
            Some(holder) => {
                self.processes.entry(holder.key).or_default().add(due);
                self.groups.entry(holder.group).or_default().add(due);
            }
            None if freed || socket.searches > 1 || socket.inode == 0 => self.nobody.add(due),
            None => return,
        }
        socket.booked = socket.reading;
    }

    /// Forgets sockets that are no more. That the kernel told so may have been lost; and one that
    /// was shut down is in no dump while a process still has it, and reads from it.
    fn forget(&mut self, alive: &FxHashSet<Key>) {
        let (pass, procfs) = (self.pass, &self.procfs);
        self.sockets.retain(|_, socket| {
            socket.pass + 1 >= pass
                || socket.holder.is_some_and(|holder| {
                    alive.contains(&holder.key) && holder.holds(procfs, socket.inode)
                })
        });
    }
}
