//! Netlink: sockets to the kernel, and the messages and attributes in what it answers.
//!
//! netlink(7); `include/uapi/linux/netlink.h`. Nothing that the kernel wrote is read by index: what
//! is cut short ends the iteration.

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, sendto,
        socket_with, sockopt,
    },
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use rustix::net::Protocol;

/// Asks for a dump of all that there is.
pub const NLM_F_DUMP: u16 = 0x300;
/// Asks for an answer, if only to say that all is well.
pub const NLM_F_ACK: u16 = 4;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const HEADER: usize = 16;
/// The kernel makes messages of a dump at most this long (`NLMSG_GOODSIZE` and its relatives).
const RECEIVE_BYTES: usize = 64 * 1024;

/// A netlink socket of one protocol.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread, and joins these groups (a
    /// mask).
    ///
    /// # Errors
    /// If the kernel doesn't know the protocol, or refuses.
    pub fn open(protocol: Protocol, groups: u32) -> Result<Self, Errno> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Makes room for so many bytes that wait to be received; without `CAP_NET_ADMIN` less.
    pub fn make_room(&self, bytes: usize) {
        if sockopt::set_socket_recv_buffer_size_force(&self.0, bytes).is_err() {
            // What the system allows to everyone is better than nothing, and so is the default.
            let _ = sockopt::set_socket_recv_buffer_size(&self.0, bytes);
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If the kernel refuses it at once.
    pub fn request(&self, kind: u16, flags: u16, payload: &[u8]) -> Result<(), Errno> {
        let length = u32::try_from(HEADER + payload.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(payload);
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &message, SendFlags::empty(), &kernel).map(|_| ())
    }

    /// Sends a request, and hands over the payload of every message of the answer, to its end.
    ///
    /// # Errors
    /// What the kernel answers instead.
    pub fn ask(
        &self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Errno> {
        self.request(kind, flags, payload)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let length = receive(&self.0, &mut buffer, RecvFlags::empty())?;
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => return status(message.payload),
                    _ => take(message.payload),
                }
            }
        }
    }

    /// Hands over the payloads of all messages that wait; says whether the kernel had to drop
    /// some.
    ///
    /// # Errors
    /// If the socket can't be read.
    pub fn drain(&self, mut take: impl FnMut(&[u8])) -> Result<bool, Errno> {
        self.drain_messages(|message| {
            if !matches!(message.kind, NLMSG_DONE | NLMSG_ERROR) {
                take(message.payload);
            }
        })
    }

    /// Hands over all messages that wait, of any kind; says whether the kernel had to drop some.
    ///
    /// # Errors
    /// If the socket can't be read.
    pub fn drain_messages(&self, mut take: impl FnMut(Message<'_>)) -> Result<bool, Errno> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut dropped = false;
        loop {
            match receive(&self.0, &mut buffer, RecvFlags::DONTWAIT) {
                Ok(length) => {
                    messages(buffer.get(..length).unwrap_or_default()).for_each(&mut take);
                }
                Err(Errno::AGAIN) => return Ok(dropped),
                Err(Errno::NOBUFS) => dropped = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    loop {
        match recv(socket, &mut *buffer, flags) {
            Ok((length, _)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a message that ends an answer says: a negative error number, or 0.
fn status(payload: &[u8]) -> Result<(), Errno> {
    match field::<4>(payload, 0).map(i32::from_ne_bytes) {
        Some(0) | None => Ok(()),
        Some(error) => Err(Errno::from_raw_os_error(error.saturating_neg())),
    }
}

/// A message, without its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages in what one receive returned.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(field(rest, 0)?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(field(rest, 4)?),
            payload: rest.get(HEADER..length)?,
        };
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes (`struct nlattr`) in a payload, by their type.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Flags in the type: nested, and network byte order.
    const TYPE: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(field(rest, 0)?));
        let attribute = (
            u16::from_ne_bytes(field(rest, 2)?) & TYPE,
            rest.get(4..length)?,
        );
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(attribute)
    })
}

/// Appends an attribute.
pub fn push_attribute(to: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&length.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(payload);
    to.resize(aligned(to.len()), 0);
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// So many bytes at an offset, if they are there.
#[must_use]
pub fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// A number of 4 bytes in host order.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    field(bytes, offset).map(u32::from_ne_bytes)
}

/// A number of 8 bytes in host order.
#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    field(bytes, offset).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(payload);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    #[test]
    fn messages_follow_each_other_aligned() {
        let mut bytes = message(20, b"odd");
        bytes.extend(message(NLMSG_DONE, &[0; 4]));
        let seen: Vec<_> = messages(&bytes)
            .map(|message| (message.kind, message.payload))
            .collect();
        assert_eq!(seen, [(20, &b"odd"[..]), (NLMSG_DONE, &[0; 4])]);
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let bytes = message(20, b"payload!");
        for length in 0..bytes.len() {
            assert_eq!(messages(&bytes[..length]).count(), 0, "{length}");
        }
        // A length that is shorter than the header would never end.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 1, 2, 3]).count(), 0);
    }

    #[test]
    fn attributes_are_padded() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 1, b"0-1\0\0");
        push_attribute(&mut bytes, 0x8002, &[7; 8]);
        let seen: Vec<_> = attributes(&bytes).collect();
        assert_eq!(seen, [(1, &b"0-1\0\0"[..]), (2, &[7; 8])]);
    }

    #[test]
    fn an_answer_ends_with_a_status() {
        assert_eq!(status(&0_i32.to_ne_bytes()), Ok(()));
        assert_eq!(status(&(-1_i32).to_ne_bytes()), Err(Errno::PERM));
        assert_eq!(status(&[]), Ok(()));
    }
}
