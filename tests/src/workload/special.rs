//! Calls whose count isn't obvious: those that fail, look ahead, move nothing or move more than
//! they seem to.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::skip;
use esnode_tests::tally::Protocol;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr, UdpGroSegment};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockProtocol, SockType,
    SockaddrStorage, recv, recvmsg, send, sendmsg, setsockopt, shutdown, socket,
};

use crate::meter::Meter;
use crate::sys;
use crate::transport::{Ip, Pair, Transport, udp};

/// How often each case repeats its special call.
const TIMES: usize = 10;
/// Bytes per message.
const MESSAGE: usize = 1_000;
/// `linux/errqueue.h`.
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
/// Segments per send with segmentation offload.
const SEGMENTS: usize = 5;

/// Runs a case that sends `transmit` bytes in all, where the case doesn't decide it itself.
pub(crate) fn command(case: &str, transport: &str, transmit: usize) -> Result<()> {
    let mut meter = Meter::default();
    if case == "netlink" {
        netlink(&mut meter)?;
        return meter.tell();
    }
    if case == "error-queue" {
        error_queue(transport, &mut meter)?;
        return meter.tell();
    }
    let pair = Transport::parse(transport)?.connect()?;
    match case {
        "peek" => peek(&pair, transmit, &mut meter)?,
        "zero-length" => zero_length(&pair, transmit, &mut meter)?,
        "eagain" => eagain(&pair, transmit, &mut meter)?,
        "epipe" => {
            epipe(pair, transmit, &mut meter)?;
            return meter.tell();
        }
        "partial" => partial(&pair, &mut meter)?,
        "short-receive" => receive_into_less(&pair, transmit, MsgFlags::empty(), &mut meter)?,
        "trunc-receive" => receive_into_less(&pair, transmit, MsgFlags::MSG_TRUNC, &mut meter)?,
        "zerocopy" => zerocopy(&pair, transmit, &mut meter)?,
        "gso" => segments(&pair, transmit, false, &mut meter)?,
        "gro" => segments(&pair, transmit, true, &mut meter)?,
        _ => bail!("no such case: {case}"),
    }
    // Not every source knows sockets that are closed: they stay while the page is read.
    std::mem::forget(pair);
    meter.tell()
}

/// One send, counted.
pub(crate) fn send_once(
    pair: &Pair,
    bytes: usize,
    flags: MsgFlags,
    meter: &mut Meter,
) -> Result<()> {
    let sent = send(pair.near.as_raw_fd(), &vec![b'x'; bytes], flags)?;
    ensure!(sent == bytes, "sent {sent} of {bytes}");
    meter.sent(pair.protocol, sent);
    Ok(())
}

/// Receives until so many bytes are in, counted.
pub(crate) fn receive_all(pair: &Pair, bytes: usize, meter: &mut Meter) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let received = recv(pair.far.as_raw_fd(), &mut vec![0; left], MsgFlags::empty())?;
        ensure!(received > 0, "the stream ended");
        meter.received(pair.protocol, received);
        left -= received;
    }
    Ok(())
}

/// Every message is looked at twice before it's received.
fn peek(pair: &Pair, transmit: usize, meter: &mut Meter) -> Result<()> {
    for _ in 0..transmit / MESSAGE {
        send_once(pair, MESSAGE, MsgFlags::empty(), meter)?;
        for _ in 0..2 {
            let seen = recv(pair.far.as_raw_fd(), &mut [0; MESSAGE], MsgFlags::MSG_PEEK)?;
            ensure!(seen == MESSAGE, "saw {seen} of {MESSAGE}");
        }
        receive_all(pair, MESSAGE, meter)?;
    }
    Ok(())
}

/// Some messages are empty.
fn zero_length(pair: &Pair, transmit: usize, meter: &mut Meter) -> Result<()> {
    send_once(pair, transmit, MsgFlags::empty(), meter)?;
    receive_all(pair, transmit, meter)?;
    for _ in 0..TIMES {
        send_once(pair, 0, MsgFlags::empty(), meter)?;
        let received = recv(pair.far.as_raw_fd(), &mut [0; 1], MsgFlags::empty())?;
        ensure!(received == 0, "an empty message has {received} bytes");
        meter.received(pair.protocol, 0);
    }
    Ok(())
}

/// Nothing is there to be received.
fn eagain(pair: &Pair, transmit: usize, meter: &mut Meter) -> Result<()> {
    send_once(pair, transmit, MsgFlags::empty(), meter)?;
    receive_all(pair, transmit, meter)?;
    for _ in 0..TIMES {
        let result = recv(
            pair.far.as_raw_fd(),
            &mut [0; MESSAGE],
            MsgFlags::MSG_DONTWAIT,
        );
        ensure!(result == Err(Errno::EAGAIN), "{result:?}");
    }
    Ok(())
}

/// The way out is closed: by the sender, and then by the other end.
fn epipe(pair: Pair, transmit: usize, meter: &mut Meter) -> Result<()> {
    send_once(&pair, transmit, MsgFlags::empty(), meter)?;
    receive_all(&pair, transmit, meter)?;
    let refuse = |socket: &OwnedFd| -> Result<()> {
        for _ in 0..TIMES {
            let result = send(socket.as_raw_fd(), &[b'x'; MESSAGE], MsgFlags::MSG_NOSIGNAL);
            ensure!(
                matches!(result, Err(Errno::EPIPE | Errno::ECONNRESET)),
                "{result:?}"
            );
        }
        Ok(())
    };
    shutdown(pair.near.as_raw_fd(), Shutdown::Write)?;
    refuse(&pair.near)?;
    drop(pair.near);
    if pair.protocol == Protocol::Unix {
        refuse(&pair.far)?;
    }
    Ok(())
}

/// Calls that send less than they were asked to, until nothing more fits.
fn partial(pair: &Pair, meter: &mut Meter) -> Result<()> {
    let data = vec![b'x'; 3_000_001];
    let mut total = 0;
    loop {
        match send(pair.near.as_raw_fd(), &data, MsgFlags::MSG_DONTWAIT) {
            Ok(sent) => {
                meter.sent(pair.protocol, sent);
                total += sent;
            }
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(total % data.len() != 0, "no send was partial");
    receive_all(pair, total, meter)
}

/// Messages that are larger than the buffer they are received into.
fn receive_into_less(
    pair: &Pair,
    transmit: usize,
    flags: MsgFlags,
    meter: &mut Meter,
) -> Result<()> {
    for _ in 0..transmit / MESSAGE {
        send_once(pair, MESSAGE, MsgFlags::empty(), meter)?;
        let received = recv(pair.far.as_raw_fd(), &mut [0; MESSAGE / 10], flags)?;
        meter.received(pair.protocol, received);
    }
    Ok(())
}

/// Sends from the caller's own pages, and takes the notices that they are free again.
fn zerocopy(pair: &Pair, transmit: usize, meter: &mut Meter) -> Result<()> {
    sys::set_option(pair.near.as_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
    let flags = MsgFlags::from_bits_retain(libc::MSG_ZEROCOPY);
    let chunk = 20_000;
    let (mut sent, mut notices) = (0, 0);
    while sent < transmit {
        let bytes = chunk.min(transmit - sent);
        send_once(pair, bytes, flags, meter)?;
        receive_all(pair, bytes, meter)?;
        sent += bytes;
        notices += 1;
    }
    while notices > 0 {
        wait_error(pair.near.as_fd())?;
        let mut space = nix::cmsg_space!([u8; 128]);
        let message = recvmsg::<SockaddrStorage>(
            pair.near.as_raw_fd(),
            &mut [],
            Some(&mut space),
            MsgFlags::MSG_ERRQUEUE,
        )?;
        let notice = message
            .cmsgs()?
            .next()
            .context("a notice without a message")?;
        notices -= completed(&notice)?;
    }
    Ok(())
}

/// How many sends a notice of completion covers.
fn completed(notice: &nix::sys::socket::ControlMessageOwned) -> Result<u32> {
    use nix::sys::socket::ControlMessageOwned::{Ipv4RecvErr, Ipv6RecvErr};
    let (Ipv4RecvErr(error, _) | Ipv6RecvErr(error, _)) = notice else {
        bail!("{notice:?}")
    };
    ensure!(
        error.ee_origin == SO_EE_ORIGIN_ZEROCOPY,
        "not a notice of completion: {notice:?}"
    );
    Ok(error.ee_data - error.ee_info + 1)
}

/// Waits until there is something in a socket's error queue.
fn wait_error(socket: BorrowedFd<'_>) -> Result<()> {
    let ready = poll(
        &mut [PollFd::new(socket, PollFlags::empty())],
        PollTimeout::from(10_000_u16),
    )?;
    ensure!(ready == 1, "nothing in the error queue");
    Ok(())
}

/// One send makes several datagrams; `joined`, one receive takes them all.
fn segments(pair: &Pair, transmit: usize, joined: bool, meter: &mut Meter) -> Result<()> {
    if joined {
        setsockopt(&pair.far, UdpGroSegment, &true)?;
    }
    let size = u16::try_from(MESSAGE)?;
    let data = vec![b'x'; MESSAGE * SEGMENTS];
    for _ in 0..transmit / data.len() {
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let vectors = [IoSlice::new(&data)];
        let sent = sendmsg::<SockaddrStorage>(
            pair.near.as_raw_fd(),
            &vectors,
            &control,
            MsgFlags::empty(),
            None,
        )?;
        meter.sent(pair.protocol, sent);
        let before = meter.tally.of(pair.protocol).receives;
        receive_all(pair, sent, meter)?;
        let calls = meter.tally.of(pair.protocol).receives - before;
        if joined && calls == SEGMENTS as u64 {
            skip!("this kernel's loopback hands datagrams over one by one");
        }
        ensure!(
            calls == if joined { 1 } else { SEGMENTS as u64 },
            "{calls} receives"
        );
    }
    Ok(())
}

/// A datagram that nobody takes comes back as an error, with its bytes.
fn error_queue(transport: &str, meter: &mut Meter) -> Result<()> {
    let Transport::Udp(ip) = Transport::parse(transport)? else {
        bail!("for UDP only")
    };
    let near: UdpSocket = udp(ip)?;
    if ip == Ip::V6 {
        setsockopt(&near, Ipv6RecvErr, &true)?;
    } else {
        setsockopt(&near, Ipv4RecvErr, &true)?;
    }
    let gone = udp(ip)?.local_addr()?;
    near.connect(gone)?;
    meter.sent(Protocol::Udp, near.send(&[b'x'; MESSAGE])?);
    wait_error(near.as_fd())?;
    let mut room = [0; MESSAGE];
    let bytes = recv(near.as_raw_fd(), &mut room, MsgFlags::MSG_ERRQUEUE)?;
    ensure!(bytes > 0, "the error has none of the datagram's bytes");
    Ok(())
}

/// Asks the kernel for its network interfaces, over a socket that is none of the usual ones.
fn netlink(meter: &mut Meter) -> Result<()> {
    const RTM_GETLINK: u16 = 18;
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    const NLMSG_DONE: u16 = 3;
    let opened = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    );
    let Ok(netlink) = opened else {
        skip!("no netlink socket: {opened:?}")
    };
    let mut request = Vec::new();
    request.extend(32_u32.to_ne_bytes());
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.resize(32, 0);
    meter.sent(
        Protocol::Other,
        send(netlink.as_raw_fd(), &request, MsgFlags::empty())?,
    );
    let mut room = vec![0; 32 * 1024];
    loop {
        let bytes = recv(netlink.as_raw_fd(), &mut room, MsgFlags::empty())?;
        meter.received(Protocol::Other, bytes);
        let kind = room.get(4..6).context("no header")?;
        if kind == NLMSG_DONE.to_ne_bytes() {
            return Ok(());
        }
    }
}
