//! Plain transfers: the same bytes by every family of system calls.

use std::cmp::min;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::skip;
use io_uring::IoUring;
use io_uring::squeue::Flags;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrStorage, recv, recvfrom, recvmmsg, recvmsg, send, sendmmsg,
    sendmsg, sendto,
};
use nix::unistd::{pipe, read, write};

use crate::meter::Meter;
use crate::sys;
use crate::transport::{Pair, Transport};

/// Bytes per send on a stream.
const STREAM_CHUNK: usize = 20_000;
/// Bytes per message on a datagram socket.
const DATAGRAM_CHUNK: usize = 1_000;
/// Bytes per message of a batch.
const BATCH_CHUNK: usize = 100;

/// A family of system calls.
enum Method {
    Send,
    Write,
    Vectors,
    Messages,
    Batches,
    SendTo(SockaddrStorage),
    SendFile(File),
    Splice {
        file: File,
        out: OwnedFd,
        into: OwnedFd,
    },
    SpliceOut {
        out: OwnedFd,
        into: OwnedFd,
    },
    Ring(Box<IoUring>, Flags),
}

/// What a call returned: bytes, and how many messages that was.
struct Returned {
    bytes: usize,
    calls: usize,
}

/// Sends `transmit` bytes and receives the first `receive` of them. On a datagram socket that must
/// be whole messages.
pub(crate) fn command(
    method: &str,
    transport: &str,
    transmit: usize,
    receive: usize,
) -> Result<()> {
    let transport = Transport::parse(transport)?;
    let (pair, address) = if method == "sendto" {
        let (pair, address) = transport.unconnected()?;
        (pair, Some(address))
    } else {
        (transport.connect()?, None)
    };
    let mut method = Method::parse(method, address)?;
    let mut meter = Meter::default();
    run(&mut method, &pair, transmit, receive, &mut meter)?;
    // A ring's threads end some time after the ring; they should stay while the page is read.
    mem::forget(method);
    // And so should the sockets: not every source knows those that are closed.
    mem::forget(pair);
    meter.tell()
}

/// Sends and receives by turns, so that no buffer ever fills up.
fn run(
    method: &mut Method,
    pair: &Pair,
    transmit: usize,
    receive: usize,
    meter: &mut Meter,
) -> Result<()> {
    let chunk = if pair.datagrams {
        DATAGRAM_CHUNK
    } else {
        STREAM_CHUNK
    };
    let mut room = vec![0; chunk];
    let (mut sent, mut received) = (0, 0);
    while sent < transmit {
        let data = vec![b'x'; min(chunk, transmit - sent)];
        let returned = method.send(pair, &data)?;
        count(returned.calls, returned.bytes, |bytes| {
            meter.sent(pair.protocol, bytes);
        });
        sent += returned.bytes;
        while received < min(sent, receive) {
            let wanted = min(min(sent, receive) - received, chunk);
            let returned = method.receive(pair, room.get_mut(..wanted).unwrap_or_default())?;
            ensure!(
                returned.bytes > 0,
                "the stream ended at {received} of {receive}"
            );
            count(returned.calls, returned.bytes, |bytes| {
                meter.received(pair.protocol, bytes);
            });
            received += returned.bytes;
        }
    }
    Ok(())
}

/// Counts the bytes with the first call, and every further one without any.
fn count(calls: usize, bytes: usize, mut add: impl FnMut(usize)) {
    add(bytes);
    (1..calls).for_each(|_| add(0));
}

impl Method {
    fn parse(text: &str, address: Option<SockaddrStorage>) -> Result<Self> {
        let file = || -> Result<File> {
            let mut file = File::from(memfd_create(c"data", MFdFlags::MFD_CLOEXEC)?);
            file.write_all(&vec![b'x'; STREAM_CHUNK])?;
            Ok(file)
        };
        let ring = || -> Result<_> {
            match IoUring::new(8) {
                Ok(ring) => Ok(Box::new(ring)),
                Err(error) => skip!("io_uring_setup is refused: {error}"),
            }
        };
        Ok(match text {
            "send" => Self::Send,
            "write" => Self::Write,
            "writev" => Self::Vectors,
            "sendmsg" => Self::Messages,
            "sendmmsg" => Self::Batches,
            "sendto" => Self::SendTo(address.context("no address")?),
            "sendfile" => Self::SendFile(file()?),
            "splice" => {
                let (out, into) = pipe()?;
                Self::Splice {
                    file: file()?,
                    out,
                    into,
                }
            }
            "splice-out" => {
                let (out, into) = pipe()?;
                Self::SpliceOut { out, into }
            }
            "io_uring" => Self::Ring(ring()?, Flags::empty()),
            "io_uring-async" => Self::Ring(ring()?, Flags::ASYNC),
            _ => bail!("no such method: {text}"),
        })
    }

    fn send(&mut self, pair: &Pair, data: &[u8]) -> Result<Returned> {
        let socket = pair.near.as_raw_fd();
        let bytes = match self {
            Self::Send | Self::SpliceOut { .. } => send(socket, data, MsgFlags::empty())?,
            Self::Write => write(&pair.near, data)?,
            Self::Vectors => nix::sys::uio::writev(&pair.near, &parts(data))?,
            Self::Messages => {
                sendmsg::<SockaddrStorage>(socket, &parts(data), &[], MsgFlags::empty(), None)?
            }
            Self::Batches => return send_batch(pair, data),
            Self::SendTo(address) => sendto(socket, data, address, MsgFlags::empty())?,
            Self::SendFile(file) => sendfile(&pair.near, file.as_fd(), Some(&mut 0), data.len())?,
            Self::Splice { file, out, into } => {
                let flags = SpliceFFlags::empty();
                let filled = splice(file.as_fd(), Some(&mut 0), &*into, None, data.len(), flags)?;
                let mut left = filled;
                while left > 0 {
                    left -= splice(&*out, None, &pair.near, None, left, flags)?;
                }
                filled
            }
            Self::Ring(ring, flags) => sys::ring_send(ring, socket, data, *flags)?,
        };
        Ok(Returned { bytes, calls: 1 })
    }

    fn receive(&mut self, pair: &Pair, room: &mut [u8]) -> Result<Returned> {
        let socket = pair.far.as_raw_fd();
        let bytes = match self {
            Self::Send | Self::SendFile(_) | Self::Splice { .. } => {
                recv(socket, room, MsgFlags::empty())?
            }
            Self::Write => read(&pair.far, room)?,
            Self::Vectors => nix::sys::uio::readv(&pair.far, &mut parts_mut(room))?,
            Self::Messages => {
                recvmsg::<SockaddrStorage>(socket, &mut parts_mut(room), None, MsgFlags::empty())?
                    .bytes
            }
            Self::Batches => return receive_batch(pair, room),
            Self::SendTo(_) => recvfrom::<SockaddrStorage>(socket, room)?.0,
            Self::SpliceOut { out, into } => {
                let bytes = splice(
                    &pair.far,
                    None,
                    &*into,
                    None,
                    room.len(),
                    SpliceFFlags::empty(),
                )?;
                File::from(out.try_clone()?)
                    .read_exact(room.get_mut(..bytes).context("too much")?)?;
                bytes
            }
            Self::Ring(ring, flags) => sys::ring_receive(ring, socket, room, *flags)?,
        };
        Ok(Returned { bytes, calls: 1 })
    }
}

/// Cuts data into three vectors of different lengths.
fn parts(data: &[u8]) -> [IoSlice<'_>; 3] {
    let (first, rest) = data.split_at(data.len() / 5);
    let (second, third) = rest.split_at(rest.len() / 3);
    [
        IoSlice::new(first),
        IoSlice::new(second),
        IoSlice::new(third),
    ]
}

/// As [`parts`], to receive into.
fn parts_mut(room: &mut [u8]) -> [IoSliceMut<'_>; 3] {
    let (first, rest) = room.split_at_mut(room.len() / 4);
    let (second, third) = rest.split_at_mut(rest.len() / 3);
    [
        IoSliceMut::new(first),
        IoSliceMut::new(second),
        IoSliceMut::new(third),
    ]
}

/// Sends data as many small messages by one call.
fn send_batch(pair: &Pair, data: &[u8]) -> Result<Returned> {
    let messages: Vec<_> = data
        .chunks(BATCH_CHUNK)
        .map(|message| [IoSlice::new(message)])
        .collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(messages.len(), None);
    let addresses = vec![None; messages.len()];
    let results = sendmmsg(
        pair.near.as_raw_fd(),
        &mut headers,
        &messages,
        addresses,
        [],
        MsgFlags::empty(),
    )?;
    let bytes: Vec<usize> = results.map(|message| message.bytes).collect();
    Ok(Returned {
        bytes: bytes.iter().sum(),
        calls: bytes.len(),
    })
}

/// Receives many small messages by one call.
fn receive_batch(pair: &Pair, room: &mut [u8]) -> Result<Returned> {
    let mut messages: Vec<_> = room
        .chunks_mut(BATCH_CHUNK)
        .map(|message| [IoSliceMut::new(message)])
        .collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(messages.len(), None);
    let flags = MsgFlags::MSG_WAITFORONE;
    let results = recvmmsg(
        pair.far.as_raw_fd(),
        &mut headers,
        messages.iter_mut(),
        flags,
        None,
    )?;
    let bytes: Vec<usize> = results.map(|message| message.bytes).collect();
    Ok(Returned {
        bytes: bytes.iter().sum(),
        calls: bytes.len(),
    })
}

/// Sends and receives so many bytes over UDP, for processes that are only to have moved something.
pub(crate) fn udp(transmit: usize, receive: usize, meter: &mut Meter) -> Result<()> {
    over("udp4", transmit, receive, meter)
}

/// Sends and receives so many bytes.
pub(crate) fn over(
    transport: &str,
    transmit: usize,
    receive: usize,
    meter: &mut Meter,
) -> Result<()> {
    run(
        &mut Method::Send,
        &Transport::parse(transport)?.connect()?,
        transmit,
        receive,
        meter,
    )
}
