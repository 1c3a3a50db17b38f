//! What threads used, told by the kernel when they end: `Documentation/accounting/taskstats.rst`.

mod connector;
mod record;
mod threads;

use super::netlink::{NLM_F_ACK, Netlink, attributes, field, push_attribute};
use crate::error::{ReadError, read_file};
use connector::Connector;
use record::{WITH_PROCESS, parse, version_of};
use rustix::{io::Errno, net::netlink::GENERIC};
use std::path::Path;
use thiserror::Error;
use tracing::warn;

pub use connector::Event;
pub use record::Record;
pub use threads::Threads;

/// What waits of ended threads until someone takes it in: some ten thousand of them.
const ROOM_BYTES: usize = 16 << 20;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME` and `CTRL_ATTR_FAMILY_ID`.
const CONTROL: (u16, u8, u16, u16) = (16, 3, 2, 1);

const TASKSTATS_CMD_GET: u8 = 1;
const TASKSTATS_CMD_ATTR_PID: u16 = 1;
const TASKSTATS_CMD_ATTR_REGISTER_CPUMASK: u16 = 3;

/// Why taskstats can't be used.
#[derive(Debug, Error)]
pub enum TaskstatsError {
    /// The kernel was built without it, or it is not for this network namespace.
    #[error("the kernel has no taskstats here: {0}")]
    Missing(Errno),
    /// No right to listen.
    #[error("listening to ends of processes is refused: {0}")]
    Refused(Errno),
    /// Only the first user and PID namespace may listen.
    #[error("not in the host's user and PID namespace: {0}")]
    Namespace(Errno),
    /// The layout isn't known.
    #[error("records of an unknown layout (taskstats version {0})")]
    Layout(u16),
    /// The processors aren't known.
    #[error(transparent)]
    Processors(#[from] ReadError),
}

impl TaskstatsError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing(_) => {
                "use a kernel with CONFIG_TASKSTATS; before Linux 5.14, in the host's network \
                 namespace"
            }
            Self::Refused(_) => "run as root, or with CAP_NET_ADMIN",
            Self::Namespace(_) => "start the container with --pid=host, not in a user namespace",
            Self::Layout(_) => "use another kernel; please report the version",
            Self::Processors(_) => "mount /sys or /proc",
        }
    }
}

/// Listens to ends of threads.
#[derive(Debug)]
pub struct Taskstats {
    socket: Netlink,
    /// Whether the kernel counts disk bytes.
    disk: bool,
    /// Where births and ends are told, if records don't name the process.
    connector: Option<Connector>,
}

impl Taskstats {
    /// Begins to listen, on all processors.
    ///
    /// # Errors
    /// If the kernel can't or the rights are missing.
    pub fn open(procfs: &Path, sysfs: &Path) -> Result<Self, TaskstatsError> {
        let socket = Netlink::open(GENERIC, 0).map_err(TaskstatsError::Missing)?;
        let family = family_of(&socket).map_err(TaskstatsError::Missing)?;
        let mut listener = Self {
            socket,
            disk: procfs.join("self/io").exists(),
            connector: None,
        };
        if listener.check_layout(family)? < WITH_PROCESS {
            // It is to tell the end of every thread that has a record.
            let opened = Connector::open().inspect_err(|error| {
                warn!(
                    "the records of this kernel do not name the process of a thread, and the proc \
                     connector is refused ({error}): many ended processes will be missing"
                );
            });
            listener.connector = opened.ok();
        }
        listener.socket.make_room(ROOM_BYTES);
        let mut request = command(1);
        let mut processors = processors(procfs, sysfs)?.into_bytes();
        processors.push(0);
        push_attribute(
            &mut request,
            TASKSTATS_CMD_ATTR_REGISTER_CPUMASK,
            &processors,
        );
        // Records may come before the answer: they are taken as it, and lost.
        let answer = listener.socket.ask(family, NLM_F_ACK, &request, |_| {});
        answer.map_err(|error| match error {
            Errno::PERM | Errno::ACCESS => TaskstatsError::Refused(error),
            _ => TaskstatsError::Namespace(error),
        })?;
        Ok(listener)
    }

    /// Asks for the numbers of this very thread, to see whether they are where they should be;
    /// gives the version of the layout.
    fn check_layout(&self, family: u16) -> Result<u16, TaskstatsError> {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let mut request = command(TASKSTATS_CMD_GET);
        push_attribute(&mut request, TASKSTATS_CMD_ATTR_PID, &own.to_ne_bytes());
        let (mut version, mut fits) = (0, false);
        let answer = self.socket.ask(family, NLM_F_ACK, &request, |payload| {
            version = version_of(payload).unwrap_or_default();
            fits = parse(payload, self.disk).is_some();
        });
        match answer {
            Err(error @ (Errno::PERM | Errno::ACCESS)) => Err(TaskstatsError::Refused(error)),
            // Thread ids are those of the first PID namespace.
            Err(error) => Err(TaskstatsError::Namespace(error)),
            Ok(()) if fits => Ok(version),
            Ok(()) => Err(TaskstatsError::Layout(version)),
        }
    }

    /// Hands over all records that wait; says whether the kernel had to drop some.
    ///
    /// # Errors
    /// If the socket can't be read.
    pub fn drain(&self, mut take: impl FnMut(Record)) -> Result<bool, Errno> {
        self.socket.drain(|payload| {
            if let Some(record) = parse(payload, self.disk) {
                take(record);
            }
        })
    }

    /// Whether births and ends are told, because records don't name the process.
    #[must_use]
    pub fn tells_births(&self) -> bool {
        self.connector.is_some()
    }

    /// Hands over all births and ends that wait; says whether the kernel had to drop some.
    ///
    /// # Errors
    /// If the socket can't be read.
    pub fn drain_events(&self, take: impl FnMut(Event)) -> Result<bool, Errno> {
        let connector = self.connector.as_ref();
        connector.map_or(Ok(false), |connector| connector.drain(take))
    }

    /// Where the kernel tells it.
    pub fn sockets(&self) -> impl Iterator<Item = &Netlink> {
        let connector = self.connector.as_ref().map(Connector::socket);
        std::iter::once(&self.socket).chain(connector)
    }
}

/// A header of generic netlink (`struct genlmsghdr`).
fn command(command: u8) -> Vec<u8> {
    vec![command, 1, 0, 0]
}

/// Looks up the message type of taskstats.
fn family_of(socket: &Netlink) -> Result<u16, Errno> {
    let (control, get, name, id) = CONTROL;
    let mut request = command(get);
    push_attribute(&mut request, name, b"TASKSTATS\0");
    let mut family = None;
    socket.ask(control, NLM_F_ACK, &request, |payload| {
        let found = attributes(payload.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == id);
        family = found.and_then(|(_, id)| field(id, 0).map(u16::from_ne_bytes));
    })?;
    family.ok_or(Errno::NOENT)
}

/// All processors that there may be, as a list such as `0-3,8`.
fn processors(procfs: &Path, sysfs: &Path) -> Result<String, ReadError> {
    let possible = sysfs.join("devices/system/cpu/possible");
    if let Ok(text) = read_file(&possible) {
        return Ok(text.trim().to_owned());
    }
    let text = read_file(&procfs.join("stat"))?;
    let numbers = text.lines().filter_map(|line| {
        let (name, _) = line.split_once(' ')?;
        name.strip_prefix("cpu")?.parse::<u32>().ok()
    });
    let numbers: Vec<_> = numbers.map(|number| number.to_string()).collect();
    Ok(numbers.join(","))
}
