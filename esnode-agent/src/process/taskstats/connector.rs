//! Births and ends of threads, told by the proc connector (`include/uapi/linux/cn_proc.h`): unlike
//! records of taskstats before Linux 5.19, its messages name the process.

use crate::process::netlink::{Message, Netlink, u32_at};
use rustix::{io::Errno, net::netlink::CONNECTOR};

/// What waits until someone takes it in: some twenty thousand messages.
const ROOM_BYTES: usize = 16 << 20;

/// `CN_IDX_PROC` and `CN_VAL_PROC`; the group of the former.
const PROC: (u32, u32) = (1, 1);
const PROC_GROUP: u32 = 1;

const NLMSG_DONE: u16 = 3;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_CN_MCAST_IGNORE: u32 = 2;

const PROC_EVENT_NONE: u32 = 0;
const PROC_EVENT_FORK: u32 = 1;
const PROC_EVENT_EXIT: u32 = 0x8000_0000;

/// What the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// How a request went: 0, or an error number.
    Answer(u32),
    /// A thread will begin to run.
    Born {
        /// Thread id.
        tid: u32,
        /// Process id.
        pid: u32,
    },
    /// A thread ended, which its record told before.
    Ended {
        /// Thread id.
        tid: u32,
        /// Process id.
        pid: u32,
    },
}

/// Listens to births and ends of threads.
#[derive(Debug)]
pub(super) struct Connector(Netlink);

impl Connector {
    /// Begins to listen.
    pub(super) fn open() -> Result<Self, Errno> {
        let connector = Self(Netlink::open(CONNECTOR, PROC_GROUP)?);
        connector.0.make_room(ROOM_BYTES);
        connector.ask_to(PROC_CN_MCAST_LISTEN)?;
        // The kernel has answered by now, or never will: in a namespace of users or processes.
        let mut answer = None;
        connector.drain(|event| {
            if let Event::Answer(error) = event {
                answer = answer.or(Some(error));
            }
        })?;
        match answer {
            Some(0) => Ok(connector),
            Some(_) => Err(Errno::PERM),
            None => Err(Errno::TIMEDOUT),
        }
    }

    fn ask_to(&self, operation: u32) -> Result<(), Errno> {
        self.0
            .request(NLMSG_DONE, 0, &message(&operation.to_ne_bytes()))
    }

    /// Hands over all that waits; says whether the kernel had to drop some.
    pub(super) fn drain(&self, mut take: impl FnMut(Event)) -> Result<bool, Errno> {
        self.0.drain_messages(|Message { payload, .. }| {
            if let Some(event) = parse(payload) {
                take(event);
            }
        })
    }

    pub(super) fn socket(&self) -> &Netlink {
        &self.0
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Old kernels go on making messages for those who just leave. Without rights, so be it.
        let _ = self.ask_to(PROC_CN_MCAST_IGNORE);
    }
}

/// A `struct cn_msg` with this content.
fn message(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(20 + content.len());
    for number in [PROC.0, PROC.1, 0, 0] {
        message.extend_from_slice(&number.to_ne_bytes());
    }
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&[0; 2]);
    message.extend_from_slice(content);
    message
}

/// Reads a `struct cn_msg` with a `struct proc_event`; `None` if it is about something else.
fn parse(payload: &[u8]) -> Option<Event> {
    if (u32_at(payload, 0)?, u32_at(payload, 4)?) != PROC {
        return None;
    }
    let event = payload.get(20..)?;
    // After the kind, the CPU and the time.
    let number = |index: usize| u32_at(event, 16 + 4 * index);
    match u32_at(event, 0)? {
        PROC_EVENT_NONE => Some(Event::Answer(number(0)?)),
        PROC_EVENT_FORK => Some(Event::Born {
            tid: number(2)?,
            pid: number(3)?,
        }),
        PROC_EVENT_EXIT => Some(Event::Ended {
            tid: number(0)?,
            pid: number(1)?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, numbers: [u32; 4]) -> Vec<u8> {
        let mut content = kind.to_ne_bytes().to_vec();
        content.extend_from_slice(&[7; 12]);
        for number in numbers {
            content.extend_from_slice(&number.to_ne_bytes());
        }
        message(&content)
    }

    #[test]
    fn births_and_ends_name_the_process() {
        assert_eq!(
            parse(&event(PROC_EVENT_FORK, [1, 2, 3, 4])),
            Some(Event::Born { tid: 3, pid: 4 })
        );
        assert_eq!(
            parse(&event(PROC_EVENT_EXIT, [1, 2, 3, 4])),
            Some(Event::Ended { tid: 1, pid: 2 })
        );
        assert_eq!(
            parse(&event(PROC_EVENT_NONE, [5, 0, 0, 0])),
            Some(Event::Answer(5))
        );
    }

    #[test]
    fn anything_else_is_nothing() {
        // An exec; another connector.
        assert_eq!(parse(&event(2, [1, 2, 3, 4])), None);
        let mut other = event(PROC_EVENT_FORK, [1, 2, 3, 4]);
        other[0] = 2;
        assert_eq!(parse(&other), None);
        let whole = event(PROC_EVENT_FORK, [1, 2, 3, 4]);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_request_is_20_bytes_and_its_content() {
        let request = message(&PROC_CN_MCAST_LISTEN.to_ne_bytes());
        assert_eq!(request.len(), 24);
        assert_eq!(u32_at(&request, 20), Some(PROC_CN_MCAST_LISTEN));
    }
}
