//! Network bytes without BPF: the kernel's own account of each TCP socket, joined with the process
//! that has the socket by the inode number of the file.
//!
//! A socket's bytes are booked as they come: to the process that has it, of several to the one
//! that started first. When that closes it or ends, what comes then goes to the next; what was
//! booked stays where it is. When the kernel frees a socket it tells its last numbers, so that
//! nothing depends on how often anyone looks; of a socket that nobody was seen to have, they are
//! nobody's.
//!
//! A network namespace is read while a process is in it, or has a socket of it that was seen. One
//! that lives between two looks only leaves no trace.

mod holders;
mod left;
mod namespaces;
mod socket;
mod watches;
mod wire;

use super::{Group, Key, Process, Usage, netlink::Netlink, table::Unattributed};
use esnode_ebpf::Name;
use left::Left;
use namespaces::{Namespace, NamespaceId};
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::io::Errno;
use socket::{Socket, traffic};
use std::{
    collections::hash_map::Entry,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;
use tracing::warn;
use watches::Watches;
use wire::{Moved, Reading};

/// Passes between two searches for who has a socket, at most.
const MOST_PATIENCE: u64 = 32;

/// So long a namespace that nobody is in is read on for sockets that nobody has, such as those
/// whose last bytes are still on their way. Those of the kernel do not end by themselves.
const LINGER: Duration = Duration::from_secs(10);

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
    /// Those that may not be entered, or for which there are no descriptors; `None` where even that may not be read of some process.
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
    /// Those that are tried again, for lack of descriptors.
    short: FxHashSet<NamespaceId>,
    told_short: bool,
    /// Those that are older than the agent and were not entered yet.
    older: FxHashSet<NamespaceId>,
    left: Left,
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
            short: FxHashSet::default(),
            told_short: false,
            older: namespaces::mounted(procfs),
            left: Left::default(),
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
        diag.older.extend(&diag.short);
        diag.older.retain(|id| !diag.namespaces.contains_key(id));
        Ok(diag)
    }

    /// Puts the traffic of a group, which has no members any more, to that of another one.
    pub fn fold(&mut self, from: Name, into: Name) {
        if let Some(moved) = self.groups.remove(&from) {
            self.groups.entry(into).or_default().add(moved);
        }
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
            refused: (!self.watches.any_denied()).then_some(self.refused.len() + self.short.len()),
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
        let mut empty = Vec::new();
        for (id, namespace) in &mut self.namespaces {
            if *id == own || namespace.is_in_use(procfs, *id) {
                namespace.empty_since = None;
            } else {
                empty.push((*id, *namespace.empty_since.get_or_insert_with(Instant::now)));
            }
        }
        empty.retain(|(id, since)| self.is_done(*id, *since));
        if empty.is_empty() {
            return;
        }
        // Others may be in it than those who were remembered.
        let Ok(mut members) = namespaces::all_members(&self.procfs) else {
            return;
        };
        for (id, _) in empty {
            match (members.remove(&id), self.namespaces.get_mut(&id)) {
                (Some(members), Some(namespace)) => namespace.members = members,
                _ => self.leave(id),
            }
        }
    }

    /// Whether a namespace that nobody is in has no more sockets that keep the agent there.
    fn is_done(&mut self, id: NamespaceId, since: Instant) -> bool {
        self.read_namespace(id);
        self.drain();
        let lingers = since.elapsed() < LINGER;
        !self.sockets.iter().any(|((of, _), socket)| {
            // Those keep the namespace alive as well, so the agent may.
            let is_held = || {
                let holder = socket.holder.as_ref();
                holder.is_some_and(|holder| holder.holds(&self.procfs, socket.inode))
            };
            *of == id && (lingers || is_held())
        })
    }

    /// Leaves a namespace. What was booked of its sockets is kept, should it be entered again.
    fn leave(&mut self, id: NamespaceId) {
        self.drain();
        self.namespaces.remove(&id);
        let mut sockets: Vec<(u64, Socket)> = self
            .sockets
            .extract_if(|(of, _), _| *of == id)
            .map(|((_, cookie), socket)| (cookie, socket))
            .collect();
        for (_, socket) in &mut sockets {
            self.give(socket, true);
        }
        self.left.keep(id, sockets);
    }

    /// Takes up the account of a namespace where it was left.
    fn arrive(&mut self, id: NamespaceId, mut namespace: Namespace) {
        namespace.baseline = self.older.remove(&id);
        if let Some(sockets) = self.left.take(id) {
            namespace.baseline |= sockets.is_empty();
            let pass = self.pass;
            self.sockets
                .extend(sockets.into_iter().map(|(cookie, mut socket)| {
                    socket.pass = pass;
                    ((id, cookie), socket)
                }));
        }
        self.namespaces.insert(id, namespace);
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
            let followed = namespaces::follow(
                &self.procfs,
                &mut self.namespaces,
                self.own,
                &in_use,
                &mut self.refused,
            );
            self.short = followed.short;
            for (id, namespace) in followed.entered {
                self.arrive(id, namespace);
            }
        }
        if !self.refused.is_empty() && !self.told_refused {
            self.told_refused = true;
            warn!(
                "TCP sockets of other network namespaces can't be read (it takes CAP_SYS_ADMIN and \
                 CAP_SYS_PTRACE)"
            );
        }
        if !self.short.is_empty() && !self.told_short {
            self.told_short = true;
            warn!(
                namespaces = self.short.len(),
                "TCP sockets of some network namespaces aren't read for lack of file descriptors or \
                 memory: raise the limit of open files (RLIMIT_NOFILE), two for each namespace"
            );
        }
        let ids: Vec<_> = self.namespaces.keys().copied().collect();
        for id in ids {
            self.read_namespace(id);
        }
    }

    /// Reads all sockets of a namespace.
    fn read_namespace(&mut self, id: NamespaceId) {
        let Some(namespace) = self.namespaces.get_mut(&id) else {
            return;
        };
        let (pass, baseline, sockets) = (self.pass, namespace.baseline, &mut self.sockets);
        let take = |message: &[u8]| {
            let Some(reading) = wire::parse(message) else {
                return;
            };
            let (socket, unknown) = match sockets.entry((id, reading.cookie)) {
                Entry::Occupied(entry) => (entry.into_mut(), false),
                Entry::Vacant(entry) => (entry.insert(Socket::default()), true),
            };
            socket.read(&reading);
            socket.pass = pass;
            if baseline && unknown {
                socket.booked = socket.reading;
            }
        };
        // What one pass can't read, the next one finds in the same counters.
        if namespace.dump(take).is_ok() {
            namespace.baseline = false;
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
