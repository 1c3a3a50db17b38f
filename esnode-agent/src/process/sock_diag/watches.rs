//! What is remembered of processes, so that not everything is read in every pass.

use super::{
    holders::{self, Holder},
    namespaces::{self, Members, NamespaceId},
};
use crate::process::{Key, Process};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{io, path::Path};

/// So many times the namespace of a process is read in every pass, and then in every so many.
const ALWAYS_READ: u64 = 3;
const READ_EVERY: u64 = 16;

/// What is remembered of a process, so that not everything is read in every pass.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    namespace: Option<NamespaceId>,
    /// Whether that may not be read.
    denied: bool,
    /// Passes that met it, and the last of them.
    passes: u64,
    pass: u64,
    /// Its CPU time when its files were listed last.
    listed_at: Option<u64>,
    /// Whether it was seen to have a socket.
    had_sockets: bool,
}

/// The processes that were met in the last pass.
#[derive(Debug, Default)]
pub(super) struct Watches(FxHashMap<Key, Watch>);

impl Watches {
    /// Whether of some process not even the namespace may be read.
    pub(super) fn any_denied(&self) -> bool {
        self.0.values().any(|watch| watch.denied)
    }

    /// Follows the processes; gives the namespaces that they are in. A process changes that, if
    /// ever, soon after it began.
    pub(super) fn follow(&mut self, procfs: &Path, pass: u64, processes: &[Process]) -> Members {
        let mut in_use = Members::default();
        for process in processes.iter().filter(|process| !process.kernel) {
            let pid = process.key.pid;
            let watch = self.0.entry(process.key).or_default();
            if watch.passes < ALWAYS_READ || (pass + u64::from(pid)).is_multiple_of(READ_EVERY) {
                let namespace = namespaces::of_process(procfs, pid);
                let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
                watch.denied = namespace.as_ref().is_err_and(denied);
                watch.namespace = namespace.ok();
            }
            watch.passes += 1;
            watch.pass = pass;
            if let Some(id) = watch.namespace {
                namespaces::add_member(&mut in_use, id, pid);
            }
        }
        self.0.retain(|_, watch| watch.pass == pass);
        in_use
    }

    /// Lists files until all wanted sockets were found, or there is nobody left to have them.
    pub(super) fn search(
        &mut self,
        procfs: &Path,
        processes: &[Process],
        mut wanted: FxHashSet<u32>,
    ) -> FxHashMap<u32, Holder> {
        let mut found = FxHashMap::default();
        let watches = &mut self.0;
        let likely = |process: &&Process| {
            let watch = watches.get(&process.key);
            let ran = |watch: &Watch| watch.listed_at != Some(process.usage.cpu_nanoseconds);
            watch.is_none_or(|watch| watch.had_sockets || ran(watch))
        };
        // Who got a socket has run since, if by less than the clock tells.
        let all = processes.iter().filter(|process| !process.kernel);
        let (likely, others): (Vec<_>, Vec<_>) = all.partition(likely);
        for processes in [likely, others] {
            if wanted.is_empty() {
                break;
            }
            for process in &processes {
                let watch = watches.entry(process.key).or_default();
                watch.listed_at = Some(process.usage.cpu_nanoseconds);
            }
            holders::find(procfs, processes, &mut wanted, &mut found);
        }
        for holder in found.values() {
            watches.entry(holder.key).or_default().had_sockets = true;
        }
        found
    }
}
