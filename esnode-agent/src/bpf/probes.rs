//! Kprobes and kretprobes, made through tracefs.
//!
//! The kernel keeps an instance of a kretprobe for every call that has not returned, and the ways
//! to attach one that libraries offer leave it at some ten instances: with a few dozen threads
//! blocked in a receive, returns are missed. tracefs lets the number be chosen.

use super::sys::{PerfEvent, attach_to_tracepoint};
use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};
use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    process,
};
use thiserror::Error;

/// Calls of one function that may be on their way at a time, each in a thread of its own; the
/// most that the kernel allows (`KRETPROBE_MAXACTIVE_MAX`).
const CALLS: u32 = 4096;

/// Which end of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Entry,
    Return,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Entry => "kprobe",
            Self::Return => "kretprobe",
        })
    }
}

/// Why a probe could not be made.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// tracefs can't be reached.
    #[error("cannot mount tracefs: {0}")]
    NoTracefs(#[source] io::Error),
    /// The kernel has no kprobes, or not on this function.
    #[error("cannot write `{line}` to tracefs' kprobe_events: {source}")]
    Refused {
        /// What was written.
        line: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The event exists, and no program may hang on it.
    #[error("cannot attach to the event {event}: {source}")]
    Attach {
        /// Its name.
        event: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The probes of this agent; dropping them takes them away.
#[derive(Default)]
pub(super) struct Probes {
    tracefs: Option<Tracefs>,
    probes: Vec<Probe>,
}

struct Probe {
    name: String,
    /// Closing it detaches the program, without which the event can't be removed.
    event: Option<PerfEvent>,
}

impl Probes {
    /// Hangs a loaded program on one end of a function.
    pub(super) fn attach(
        &mut self,
        name: &str,
        function: &str,
        direction: Direction,
        program: BorrowedFd<'_>,
    ) -> Result<(), ProbeError> {
        let tracefs = match &self.tracefs {
            Some(tracefs) => tracefs,
            None => self.tracefs.insert(Tracefs::open()?),
        };
        let kind = match direction {
            Direction::Entry => "p".to_owned(),
            Direction::Return => format!("r{CALLS}"),
        };
        let group = group(process::id());
        tracefs.write(&format!("{kind}:{group}/{name} {function}"))?;
        // From here on it is there to be removed.
        self.probes.push(Probe {
            name: name.to_owned(),
            event: None,
        });
        let failed = |source| ProbeError::Attach {
            event: format!("{group}/{name}"),
            source,
        };
        let id = tracefs.event_id(&group, name).map_err(failed)?;
        let event = attach_to_tracepoint(id, program).map_err(failed)?;
        if let Some(probe) = self.probes.last_mut() {
            probe.event = Some(event);
        }
        Ok(())
    }

    /// Takes one away, if it is there.
    pub(super) fn detach(&mut self, name: &str) {
        let Some(place) = self.probes.iter().position(|probe| probe.name == name) else {
            return;
        };
        drop(self.probes.swap_remove(place));
        if let Some(tracefs) = &self.tracefs {
            // It fails only where somebody else removed it.
            let _ = tracefs.write(&format!("-:{}/{name}", group(process::id())));
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        while let Some(Probe { name, .. }) = self.probes.first() {
            let name = name.clone();
            self.detach(&name);
        }
    }
}

/// The group of events of an agent.
fn group(pid: u32) -> String {
    format!("esnode_{pid}")
}

/// tracefs, in a mount of our own that nobody else sees.
struct Tracefs(OwnedFd);

impl Tracefs {
    fn open() -> Result<Self, ProbeError> {
        let tracefs = mount()
            .map(Self)
            .map_err(|error| ProbeError::NoTracefs(error.into()))?;
        tracefs.sweep();
        Ok(tracefs)
    }

    fn file(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let file = openat(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty())?;
        Ok(file.into())
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        self.file(path, OFlags::RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn write(&self, line: &str) -> Result<(), ProbeError> {
        self.file("kprobe_events", OFlags::WRONLY | OFlags::APPEND)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|source| ProbeError::Refused {
                line: line.to_owned(),
                source,
            })
    }

    fn event_id(&self, group: &str, name: &str) -> io::Result<u64> {
        self.read(&format!("events/{group}/{name}/id"))?
            .trim()
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "an id that is no number"))
    }

    /// Removes what agents left that were killed.
    fn sweep(&self) {
        let Ok(events) = self.read("kprobe_events") else {
            return;
        };
        for event in left_over(&events, |pid| Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = self.write(&format!("-:{event}"));
        }
    }
}

fn mount() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

/// The events `GROUP/NAME` of agents that do not run any more, from the text of `kprobe_events`:
/// lines such as `r4096:esnode_71/leave_inet_recvmsg inet_recvmsg`.
fn left_over(events: &str, runs: impl Fn(u32) -> bool) -> Vec<&str> {
    events
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let event = rest.split_ascii_whitespace().next()?;
            let (group, _) = event.split_once('/')?;
            let pid = group.strip_prefix("esnode_")?.parse().ok()?;
            (!runs(pid)).then_some(event)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_agents_that_are_gone() {
        let events = "p:kprobes/mine do_exit\n\
                      r4096:esnode_71/leave_inet_recvmsg inet_recvmsg\n\
                      p:esnode_72/enter_inet_recvmsg inet_recvmsg a=%di\n\
                      p:esnode_x/enter inet_recvmsg\nnonsense\n";
        assert_eq!(
            left_over(events, |pid| pid == 72),
            ["esnode_71/leave_inet_recvmsg"]
        );
    }
}
