//! TCP connections that come and go, are shared, or are in another network namespace.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::{fs, fs::File, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::tally::Protocol;
use nix::sys::socket::{self, SockaddrIn};
use nix::sys::wait::waitpid;
use nix::unistd::{pipe, read};

use crate::meter::{Meter, tell_fact};
use crate::transport::{Pair, Transport};
use crate::{stage, sys};

fn connect() -> Result<Pair> {
    Transport::parse("tcp4")?.connect()
}

/// Sends and receives so many bytes over a connection.
fn exchange(pair: &Pair, bytes: usize, meter: &mut Meter) -> Result<()> {
    let (mut near, mut far) = (stream(&pair.near)?, stream(&pair.far)?);
    let data = vec![b'x'; bytes.min(20_000)];
    let mut left = bytes;
    while left > 0 {
        let chunk = data.get(..left.min(data.len())).unwrap_or_default();
        near.write_all(chunk)?;
        meter.sent(Protocol::Tcp, chunk.len());
        far.read_exact(&mut vec![0; chunk.len()])?;
        meter.received(Protocol::Tcp, chunk.len());
        left -= chunk.len();
    }
    Ok(())
}

fn stream(fd: &std::os::fd::OwnedFd) -> Result<TcpStream> {
    Ok(TcpStream::from(fd.try_clone()?))
}

/// Opens, uses and closes connections, one after the other; with stages while each is open, and
/// after it was closed.
pub(crate) fn one_by_one(count: usize, bytes: usize) -> Result<()> {
    let mut meter = Meter::default();
    for _ in 0..count {
        let pair = connect()?;
        exchange(&pair, bytes, &mut meter)?;
        stage("open")?;
        // What comes after someone looked counts as well.
        exchange(&pair, bytes, &mut meter)?;
        drop(pair);
        stage("closed")?;
    }
    meter.tell()
}

/// The same without stages: nobody sees them open.
pub(crate) fn unseen(count: usize, bytes: usize) -> Result<()> {
    let mut meter = Meter::default();
    stage("start")?;
    for _ in 0..count {
        exchange(&connect()?, bytes, &mut meter)?;
    }
    meter.tell()
}

/// Both ends of a connection are shut down for sending, and read to the end of the stream.
pub(crate) fn half_closed(bytes: usize) -> Result<()> {
    let mut meter = Meter::default();
    let pair = connect()?;
    exchange(&pair, bytes, &mut meter)?;
    stream(&pair.near)?.shutdown(Shutdown::Write)?;
    let end = stream(&pair.far)?.read(&mut [0; 10])?;
    ensure!(end == 0, "the stream goes on");
    let mut far = stream(&pair.far)?;
    far.write_all(&vec![b'y'; bytes])?;
    meter.sent(Protocol::Tcp, bytes);
    stream(&pair.near)?.read_exact(&mut vec![0; bytes])?;
    meter.received(Protocol::Tcp, bytes);
    std::mem::forget(pair);
    meter.tell()
}

/// A peer that doesn't read: the sender fills its own queue, too.
pub(crate) fn slow_peer() -> Result<()> {
    let mut meter = Meter::default();
    let pair = connect()?;
    let mut near = stream(&pair.near)?;
    near.set_nonblocking(true)?;
    let data = vec![b'x'; 50_000];
    let mut quiet = 0;
    // Until the kernel has taken all that it takes, in spite of what it sends meanwhile.
    while quiet < 5 {
        match near.write(&data) {
            Ok(bytes) => {
                meter.sent(Protocol::Tcp, bytes);
                quiet = 0;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                quiet += 1;
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut far = stream(&pair.far)?;
    far.read_exact(&mut [0; 12_345])?;
    meter.received(Protocol::Tcp, 12_345);
    std::mem::forget(pair);
    meter.tell()
}

/// One socket is connected again and again, and exchanges so many bytes each time.
pub(crate) fn reconnected(sizes: &[&str]) -> Result<()> {
    let mut meter = Meter::default();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let SocketAddr::V4(address) = listener.local_addr()? else {
        bail!("not IPv4");
    };
    let near = sys::stream_socket(0)?;
    for bytes in sizes {
        socket::connect(near.as_raw_fd(), &SockaddrIn::from(address))?;
        let pair = Pair {
            near: near.try_clone()?,
            far: listener.accept()?.0.into(),
            datagrams: false,
            protocol: Protocol::Tcp,
        };
        exchange(&pair, bytes.parse()?, &mut meter)?;
        stage("connected")?;
        sys::disconnect(near.as_fd())?;
    }
    meter.tell()
}

/// A process has a connection of a network namespace that it is not in itself; others come to be
/// in it, and go.
pub(crate) fn from_outside(bytes: usize) -> Result<()> {
    let mut meter = Meter::default();
    let outside = File::open("/proc/self/ns/net")?;
    sys::enter_new_network()?;
    let inside = File::open("/proc/self/ns/net")?;
    let pair = connect()?;
    exchange(&pair, bytes, &mut meter)?;
    sys::enter_network(&outside)?;
    for _ in 0..2 {
        let (entered_out, entered_in) = pipe()?;
        let (end_out, end_in) = pipe()?;
        let child = sys::fork(|| {
            nix::unistd::close(end_in.as_raw_fd())?;
            sys::enter_network(&inside)?;
            nix::unistd::write(&entered_in, b"e")?;
            ensure!(read(&end_out, &mut [0; 1])? == 0, "told too early");
            Ok(())
        })?;
        drop(entered_in);
        ensure!(read(&entered_out, &mut [0; 1])? == 1, "the child failed");
        stage("visited")?;
        drop(end_in);
        waitpid(child, None).context("wait for the child")?;
        stage("alone")?;
    }
    std::mem::forget(pair);
    meter.tell()
}

/// A connection is inherited by a child: first both have it, then only the child.
pub(crate) fn inherited(bytes: usize, more: usize) -> Result<()> {
    let mut meter = Meter::default();
    let pair = connect()?;
    exchange(&pair, bytes, &mut meter)?;
    meter.tell()?;
    let (go_out, go_in) = pipe()?;
    let (done_out, done_in) = pipe()?;
    let (end_out, end_in) = pipe()?;
    let child = sys::fork(|| {
        nix::unistd::close(go_in.as_raw_fd())?;
        nix::unistd::close(end_in.as_raw_fd())?;
        fs::write("/proc/self/comm", "heir")?;
        ensure!(read(&go_out, &mut [0; 1])? == 0, "told too early");
        exchange(&pair, more, &mut Meter::default())?;
        nix::unistd::write(&done_in, b"d")?;
        ensure!(read(&end_out, &mut [0; 1])? == 0, "told too early");
        Ok(())
    })?;
    tell_fact("child", u64::try_from(child.as_raw())?);
    drop(done_in);
    stage("shared")?;
    let mut meter = Meter::default();
    exchange(&pair, bytes, &mut meter)?;
    meter.tell()?;
    stage("used")?;
    drop(pair);
    drop(go_in);
    ensure!(read(&done_out, &mut [0; 1])? == 1, "the child failed");
    stage("handed")?;
    drop(end_in);
    waitpid(child, None).context("wait for the child")?;
    Ok(())
}
