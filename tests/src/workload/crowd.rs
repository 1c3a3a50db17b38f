//! Many processes, most of them short-lived.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{hint, io, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use esnode_tests::skip;
use esnode_tests::tally::{Io, Protocol, Tally};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, close, pipe, read, write};

use crate::meter::{Meter, say, tell_fact};
use crate::{disk, stage, sys, threads, transfer};

/// Children that are alive at a time.
pub(crate) const AT_ONCE: usize = 16;
/// Bytes that each child of a storm sends.
const STORM_BYTES: usize = 100;

/// Forks `count` children; each sends `bytes`, writes a file of its own, and is gone. The sum of
/// their disk accounts is read from the zombies.
pub(crate) fn short_lived(
    count: usize,
    bytes: usize,
    file_bytes: usize,
    directory: &Path,
) -> Result<()> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = sink.local_addr()?;
    let mut meter = Meter::default();
    let mut sum = Io::default();
    let mut alive = 0;
    stage("start")?;
    for index in 0..count {
        if alive == AT_ONCE {
            sum += reap_any()?.1;
            alive -= 1;
        }
        let file = directory.join(index.to_string());
        sys::fork(|| {
            send_to(address, bytes)?;
            drop(disk::write(&file, file_bytes)?);
            Ok(())
        })?;
        meter.sent(Protocol::Udp, bytes);
        alive += 1;
    }
    for _ in 0..alive {
        sum += reap_any()?.1;
    }
    say(&sum.line("children"));
    meter.tell()
}

/// Sends one datagram from a socket of its own.
pub(crate) fn send_to(address: SocketAddr, bytes: usize) -> Result<()> {
    let sent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(&vec![b'x'; bytes], address)?;
    ensure!(sent == bytes, "sent {sent} of {bytes}");
    Ok(())
}

/// Waits for any child, which must have ended well; gives it with its final disk account.
pub(crate) fn reap_any() -> Result<(Pid, Io)> {
    let zombie = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let pid = zombie.pid().context("no child")?;
    let io = Io::of(pid)?;
    let status = waitpid(pid, None)?;
    ensure!(
        status == WaitStatus::Exited(pid, 0),
        "a child failed: {status:?}"
    );
    Ok((pid, io))
}

/// Forks children that send and end, one after the other, until stdin is closed. With names, every
/// fourth child first becomes one of them.
pub(crate) fn storm(names: &[&str]) -> Result<()> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = sink.local_addr()?;
    let mut meter = Meter::default();
    let (mut forks, mut alive) = (0, 0);
    say("at storm\n");
    while !stdin_closed()? {
        if alive == AT_ONCE {
            reap_any()?;
            alive -= 1;
        }
        let name = names.get(forks % (names.len() * 4).max(1)).copied();
        sys::fork(|| {
            send_to(address, STORM_BYTES)?;
            name.map_or(Ok(()), |name| {
                threads::become_next(&Tally::default(), &[name, "burst", "1"])
            })
        })?;
        meter.sent(Protocol::Udp, STORM_BYTES);
        forks += 1;
        alive += 1;
    }
    for _ in 0..alive {
        reap_any()?;
    }
    tell_fact("forks", forks as u64);
    meter.tell()
}

/// Uses the processor a little, ten times a second, until stdin is closed.
pub(crate) fn ticks() -> Result<()> {
    say("at ticks\n");
    while !stdin_closed()? {
        spin(Duration::from_millis(1));
        thread::sleep(Duration::from_millis(99));
    }
    Ok(())
}

/// Whether stdin is at its end.
fn stdin_closed() -> Result<bool> {
    let stdin = io::stdin();
    let mut files = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut files, PollTimeout::ZERO)? > 0)
}

/// A sequence of numbers that a seed decides (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }
}

/// Forks `count` children that send over all kinds of sockets, some from threads; then some end,
/// some fork, and some become one of the named programs, which goes on in the same way.
pub(crate) fn mixed(seed: u64, count: usize, names: &[&str]) -> Result<()> {
    let mut alive = 0;
    for index in 0..count {
        if alive == AT_ONCE {
            reap_any()?;
            alive -= 1;
        }
        sys::fork(|| member(&mut Numbers(seed ^ (index as u64) << 20), 0, names))?;
        alive += 1;
    }
    for _ in 0..alive {
        reap_any()?;
    }
    Ok(())
}

/// One member of the crowd.
fn member(numbers: &mut Numbers, depth: usize, names: &[&str]) -> Result<()> {
    let mut meter = Meter::default();
    some(numbers, &mut meter)?;
    if numbers.below(4) == 0 {
        meter.tally += &from_thread(numbers.next())?;
    }
    let next = names.get(numbers.below(names.len() + 2));
    if let Some(next) = next {
        let seed = numbers.next().to_string();
        return threads::become_next(&meter.tally, &[next, "burst", &seed]);
    }
    meter.tell()?;
    if depth < 2 && numbers.below(3) == 0 {
        sys::fork(|| member(&mut Numbers(numbers.next()), depth + 1, names))?;
        reap_any()?;
    }
    Ok(())
}

/// Moves some bytes over some transports.
fn some(numbers: &mut Numbers, meter: &mut Meter) -> Result<()> {
    for transport in ["udp4", "tcp4", "stream", "seqpacket"] {
        if numbers.below(2) == 0 {
            let messages = 1 + numbers.below(9);
            let received = numbers.below(messages + 1);
            transfer::over(transport, messages * 1_000, received * 1_000, meter)?;
        }
    }
    Ok(())
}

/// Moves some bytes from a thread that ends.
fn from_thread(seed: u64) -> Result<Tally> {
    let worker = thread::spawn(move || {
        let mut meter = Meter::default();
        some(&mut Numbers(seed), &mut meter).map(|()| meter.tally)
    });
    worker.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// What a member does after it has become this program.
pub(crate) fn burst(seed: u64) -> Result<()> {
    let mut meter = Meter::default();
    transfer::udp(2_000, 1_000, &mut meter)?;
    some(&mut Numbers(seed), &mut meter)?;
    meter.tell()
}

/// Two children, one after the other, have the same process id.
pub(crate) fn same_pid(first: usize, second: usize) -> Result<()> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = sink.local_addr()?;
    let (pid, hold) = held_child(None, || send_to(address, first))?;
    tell_fact("pid", u64::try_from(pid.as_raw())?);
    stage("first")?;
    drop(hold);
    reap_any()?;
    let (again, hold) = held_child(Some(pid), || send_to(address, second))?;
    ensure!(again == pid, "another process id");
    stage("second")?;
    drop(hold);
    reap_any()?;
    let mut meter = Meter::default();
    meter.sent(Protocol::Udp, first);
    meter.sent(Protocol::Udp, second);
    meter.tell()
}

/// A child writes and lives until the next stage; then it's reaped.
pub(crate) fn child_writes(file: &Path, bytes: usize) -> Result<()> {
    let own = Io::of("self")?;
    let (pid, hold) = held_child(None, || disk::write(file, bytes).map(drop))?;
    say(&Io::of(pid)?.line("child"));
    say(&own.line("parent"));
    stage("alive")?;
    drop(hold);
    reap_any()?;
    Ok(())
}

/// Forks a child that does something and then lives until the pipe is closed; returns when it has
/// done it.
pub(crate) fn held_child(
    wanted: Option<Pid>,
    action: impl Fn() -> Result<()>,
) -> Result<(Pid, OwnedFd)> {
    let (hold_out, hold_in) = pipe()?;
    let (done_out, done_in) = pipe()?;
    let child = || -> Result<()> {
        action()?;
        write(&done_in, b"d")?;
        // As long as the child has this end open, the other doesn't come to its end.
        close(hold_in.as_raw_fd())?;
        ensure!(read(&hold_out, &mut [0; 1])? == 0, "the pipe isn't closed");
        Ok(())
    };
    let pid = match wanted {
        None => sys::fork(child)?,
        Some(pid) => match sys::fork_as(pid, child) {
            Ok(pid) => pid,
            Err(error) => skip!("no process with a chosen id here: {error:#}"),
        },
    };
    drop(done_in);
    ensure!(read(&done_out, &mut [0; 1])? == 1, "the child failed");
    Ok((pid, hold_in))
}

/// Uses the processor for so long: half in a thread that ends, half in a child that ends.
pub(crate) fn burn(milliseconds: u64) -> Result<()> {
    let half = Duration::from_millis(milliseconds / 2);
    sys::fork(|| {
        spin(half);
        Ok(())
    })?;
    reap_any()?;
    thread::spawn(move || spin(half))
        .join()
        .map_err(|_| anyhow!("a thread panicked"))?;
    let mut microseconds = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        microseconds +=
            usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    }
    tell_fact("cpu_microseconds", u64::try_from(microseconds)?);
    Ok(())
}

/// Computes for a while.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        hint::spin_loop();
    }
}
