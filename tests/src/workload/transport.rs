//! Pairs of connected sockets.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::{io, process};

use anyhow::{Result, bail};
use esnode_tests::skip;
use esnode_tests::tally::Protocol;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect, getsockname,
    listen, socketpair,
};

use crate::sys;

/// How bytes travel between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp(Ip),
    /// Multipath TCP, as some programs ask for it wherever they would use TCP.
    Mptcp,
    Udp(Ip),
    Unix(SockType),
}

/// How the loopback interface is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
    /// IPv4 through an IPv6 socket.
    Mapped,
}

impl Ip {
    /// A loopback address with any free port.
    fn any(self) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, 0).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, 0).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0).into(),
        }
    }
}

/// The two ends of a connection; what `near` sends comes in at `far`.
pub(crate) struct Pair {
    pub(crate) near: OwnedFd,
    pub(crate) far: OwnedFd,
    pub(crate) protocol: Protocol,
    /// Whether a receive takes one message.
    pub(crate) datagrams: bool,
}

impl Transport {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "tcp4" => Self::Tcp(Ip::V4),
            "tcp6" => Self::Tcp(Ip::V6),
            "tcp4in6" => Self::Tcp(Ip::Mapped),
            "mptcp4" => Self::Mptcp,
            "udp4" => Self::Udp(Ip::V4),
            "udp6" => Self::Udp(Ip::V6),
            "udp4in6" => Self::Udp(Ip::Mapped),
            "stream" => Self::Unix(SockType::Stream),
            "datagram" => Self::Unix(SockType::Datagram),
            "seqpacket" => Self::Unix(SockType::SeqPacket),
            _ => bail!("no such transport: {text}"),
        })
    }

    /// Makes a connected pair.
    pub(crate) fn connect(self) -> Result<Pair> {
        let (near, far) = match self {
            Self::Tcp(ip) => tcp(ip)?,
            Self::Mptcp => mptcp()?,
            Self::Udp(ip) => {
                let (near, far) = (udp(ip)?, udp(ip)?);
                near.connect(far.local_addr()?)?;
                far.connect(near.local_addr()?)?;
                (near.into(), far.into())
            }
            Self::Unix(kind) => {
                socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?
            }
        };
        Ok(self.pair(near, far))
    }

    /// Makes two datagram sockets that aren't connected, with the address of the far one.
    pub(crate) fn unconnected(self) -> Result<(Pair, SockaddrStorage)> {
        let (near, far): (OwnedFd, OwnedFd) = match self {
            Self::Udp(ip) => (udp(ip)?.into(), udp(ip)?.into()),
            Self::Unix(SockType::Datagram) => {
                let name = format!("esnode-workload-{}", process::id());
                let far = UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(name)?)?;
                (UnixDatagram::unbound()?.into(), far.into())
            }
            _ => bail!("{self:?} is always connected"),
        };
        let address = getsockname(far.as_raw_fd())?;
        Ok((self.pair(near, far), address))
    }

    fn pair(self, near: OwnedFd, far: OwnedFd) -> Pair {
        let (protocol, datagrams) = match self {
            Self::Tcp(_) | Self::Mptcp => (Protocol::Tcp, false),
            Self::Udp(_) => (Protocol::Udp, true),
            Self::Unix(kind) => (Protocol::Unix, kind != SockType::Stream),
        };
        Pair {
            near,
            far,
            protocol,
            datagrams,
        }
    }
}

fn tcp(ip: Ip) -> Result<(OwnedFd, OwnedFd)> {
    let listener = missing_ipv6(ip, TcpListener::bind(ip.any()))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    Ok((near.into(), far.into()))
}

/// A UDP socket on a free port.
pub(crate) fn udp(ip: Ip) -> Result<UdpSocket> {
    missing_ipv6(ip, UdpSocket::bind(ip.any()))
}

/// Tells a machine without IPv6 on its loopback interface from other failures to bind.
fn missing_ipv6<T>(ip: Ip, bound: io::Result<T>) -> Result<T> {
    match bound {
        Err(error) if ip != Ip::V4 => skip!("no IPv6 on the loopback interface: {error}"),
        other => Ok(other?),
    }
}

fn mptcp() -> Result<(OwnedFd, OwnedFd)> {
    let open = || -> Result<_> {
        match sys::stream_socket(libc::IPPROTO_MPTCP) {
            Err(error) => skip!("no multipath TCP here: {error}"),
            Ok(socket) => Ok(socket),
        }
    };
    let (listener, near) = (open()?, open()?);
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    listen(&listener, nix::sys::socket::Backlog::new(1)?)?;
    let address: SockaddrIn = getsockname(listener.as_raw_fd())?;
    connect(near.as_raw_fd(), &address)?;
    Ok((near, sys::accept(listener.as_fd())?))
}
