//! Bytes that leave TCP sockets and are no receive: by splice(2) and by `TCP_ZEROCOPY_RECEIVE`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::skip;
use io_uring::IoUring;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::TcpNoDelay;
use nix::sys::socket::{MsgFlags, Shutdown, setsockopt, shutdown};
use nix::unistd::pipe;

use crate::meter::{Meter, tell_fact};
use crate::special::{receive_all, send_once};
use crate::sys::taking::{ring_splice, take, window};
use crate::transport::{Pair, Transport};

/// How often each case repeats its calls.
const TIMES: usize = 20;
/// Bytes of a page, which is what can be mapped.
const PAGE: usize = 4096;
/// Pages that are sent at a time.
const PAGES: usize = 8;
/// Bytes beside them, which can't be mapped.
const TAIL: usize = 100;

/// The other end sends no more.
const PEER_ENDED: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// Runs a case on connections of this kind.
pub(crate) fn command(case: &str, transport: &str) -> Result<()> {
    let transport = Transport::parse(transport)?;
    let mut meter = Meter::default();
    let pair = transport.connect()?;
    match case {
        "zerocopy" => zerocopy(&pair, 0, &mut meter)?,
        "zerocopy-copy" => zerocopy(&pair, 2 * PAGE, &mut meter)?,
        "receive-and-splice" => receive_and_splice(&pair, &mut meter)?,
        "splice-to-the-end" => splice_to_the_end(&pair, &mut meter)?,
        "splice-before-the-end" => splice_before_the_end(&pair, &mut meter)?,
        "splice-by-ring" => splice_by_ring(&pair, &mut meter)?,
        "splice-by-turns" => {
            let other = transport.connect()?;
            splice_by_turns([&pair, &other], &mut meter)?;
            std::mem::forget(other);
        }
        _ => bail!("no such case: {case}"),
    }
    // Not every source knows sockets that are closed: they stay while the page is read.
    std::mem::forget(pair);
    meter.tell()
}

/// What splice(2) goes through.
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self> {
        let (out, into) = pipe()?;
        Ok(Self { out, into })
    }

    /// Takes at most so many bytes out of a connection; 0 at its end.
    fn splice(&self, pair: &Pair, bytes: usize, meter: &mut Meter) -> Result<usize> {
        let flags = SpliceFFlags::empty();
        let taken = splice(&pair.far, None, &self.into, None, bytes, flags)?;
        if taken > 0 {
            meter.received(pair.protocol, taken);
        }
        File::from(self.out.try_clone()?).read_exact(&mut vec![0; taken])?;
        Ok(taken)
    }

    /// Takes exactly so many bytes.
    fn splice_exact(&self, pair: &Pair, bytes: usize, meter: &mut Meter) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let taken = self.splice(pair, left, meter)?;
            ensure!(taken > 0, "the stream ended");
            left -= taken;
        }
        Ok(())
    }

    /// Sends data in pages of their own.
    fn send(&self, pair: &Pair, data: &[u8], meter: &mut Meter) -> Result<()> {
        File::from(self.into.try_clone()?).write_all(data)?;
        let mut left = data.len();
        while left > 0 {
            let flags = SpliceFFlags::empty();
            let sent = splice(&self.out, None, &pair.near, None, left, flags)?;
            meter.sent(pair.protocol, sent);
            left -= sent;
        }
        Ok(())
    }
}

fn wait_for(pair: &Pair, flags: PollFlags) -> Result<()> {
    let mut waits = [PollFd::new(pair.far.as_fd(), flags)];
    let ready = poll(&mut waits, PollTimeout::from(10_000_u16))?;
    ensure!(ready == 1, "{flags:?} doesn't come");
    Ok(())
}

/// Pages are mapped, what is left of them is copied into so much room or received.
fn zerocopy(pair: &Pair, room: usize, meter: &mut Meter) -> Result<()> {
    // Else the tail would wait for an answer, and the next page begin in its packet.
    setsockopt(&pair.near, TcpNoDelay, &true)?;
    let pipe = Pipe::new()?;
    let length = NonZeroUsize::new(PAGES * PAGE).context("no pages")?;
    let mut window = window(pair.far.as_fd(), length)?;
    let mut room = vec![0; room];
    let data: Vec<_> = b"abcdefg"
        .iter()
        .copied()
        .cycle()
        .take(length.get() + TAIL)
        .collect();
    let (mut mapped, mut copied, mut received) = (0, 0, 0);
    for _ in 0..TIMES {
        pipe.send(pair, &data, meter)?;
        let mut done = 0;
        while done < data.len() {
            wait_for(pair, PollFlags::POLLIN)?;
            let taken = take(pair.far.as_fd(), &mut window, &mut room)?;
            let seen = window.bytes().get(..taken.mapped).context("too much")?;
            let copy = room.get(..taken.copied).context("too much")?;
            let end = done + taken.mapped + taken.copied;
            let expected = data.get(done..end).context("too much")?;
            ensure!([seen, copy].concat() == expected, "other bytes came in");
            if end > done {
                meter.received(pair.protocol, end - done);
            }
            (mapped, copied, done) = (mapped + taken.mapped, copied + taken.copied, end);
            // Where nothing can be mapped, the kernel may give no hint.
            let rest = match (taken.rest, taken.mapped + taken.copied) {
                (0, 0) => data.len() - done,
                (rest, _) => rest,
            };
            receive_all(pair, rest, meter)?;
            (received, done) = (received + rest, done + rest);
        }
    }
    for (name, bytes) in [
        ("mapped", mapped),
        ("copied", copied),
        ("received", received),
    ] {
        tell_fact(name, bytes as u64);
    }
    Ok(())
}

/// A receive, a splice, and so on, of one stream.
fn receive_and_splice(pair: &Pair, meter: &mut Meter) -> Result<()> {
    let pipe = Pipe::new()?;
    for time in 1..=TIMES {
        let (first, second) = (time * 701, time * 503);
        send_once(pair, first + second, MsgFlags::empty(), meter)?;
        receive_all(pair, first, meter)?;
        pipe.splice_exact(pair, second, meter)?;
    }
    // And the other way round.
    for time in 1..=TIMES {
        send_once(pair, 2 * time, MsgFlags::empty(), meter)?;
        pipe.splice_exact(pair, time, meter)?;
        receive_all(pair, time, meter)?;
    }
    Ok(())
}

/// The end of the stream is there before its last bytes are taken.
fn splice_to_the_end(pair: &Pair, meter: &mut Meter) -> Result<()> {
    let pipe = Pipe::new()?;
    send_once(pair, 50_001, MsgFlags::empty(), meter)?;
    shutdown(pair.near.as_raw_fd(), Shutdown::Write)?;
    wait_for(pair, PEER_ENDED)?;
    while pipe.splice(pair, 7_777, meter)? > 0 {}
    // The end is there, as often as one looks.
    ensure!(pipe.splice(pair, 10, meter)? == 0, "bytes behind the end");
    Ok(())
}

/// All bytes are taken before the end of the stream comes.
fn splice_before_the_end(pair: &Pair, meter: &mut Meter) -> Result<()> {
    let pipe = Pipe::new()?;
    send_once(pair, 50_001, MsgFlags::empty(), meter)?;
    pipe.splice_exact(pair, 50_001, meter)?;
    shutdown(pair.near.as_raw_fd(), Shutdown::Write)?;
    wait_for(pair, PEER_ENDED)?;
    ensure!(pipe.splice(pair, 10, meter)? == 0, "bytes behind the end");
    Ok(())
}

/// Two connections are read by turns.
fn splice_by_turns([one, other]: [&Pair; 2], meter: &mut Meter) -> Result<()> {
    let pipe = Pipe::new()?;
    for time in 1..=TIMES {
        send_once(one, time * 901, MsgFlags::empty(), meter)?;
        send_once(other, time * 1_301, MsgFlags::empty(), meter)?;
        pipe.splice_exact(one, time * 400, meter)?;
        pipe.splice_exact(other, time * 500, meter)?;
        pipe.splice_exact(one, time * 501, meter)?;
        pipe.splice_exact(other, time * 801, meter)?;
    }
    Ok(())
}

/// The kernel splices in a thread of the ring.
fn splice_by_ring(pair: &Pair, meter: &mut Meter) -> Result<()> {
    let pipe = Pipe::new()?;
    let mut ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => skip!("io_uring_setup is refused: {error}"),
    };
    for time in 1..=TIMES {
        send_once(pair, 3 * time, MsgFlags::empty(), meter)?;
        receive_all(pair, time, meter)?;
        let mut left = 2 * time;
        while left > 0 {
            let taken = ring_splice(&mut ring, pair.far.as_fd(), pipe.into.as_fd(), left)?;
            ensure!(taken > 0, "the stream ended");
            meter.received(pair.protocol, taken);
            File::from(pipe.out.try_clone()?).read_exact(&mut vec![0; taken])?;
            left -= taken;
        }
    }
    // Its threads end some time after it; they should stay while the page is read.
    std::mem::forget(ring);
    Ok(())
}
