//! Many threads that wait for bytes at a time.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::unistd::gettid;

use crate::meter::Meter;
use crate::transport::{Pair, Transport};

/// How often they all wait.
const TIMES: usize = 3;
/// How long it may take until they do.
const PATIENCE: Duration = Duration::from_mins(1);

/// So many threads wait in a receive, each on a connection of its own; when all of them do, each
/// gets `bytes`.
pub(crate) fn command(transport: &str, count: usize, bytes: usize) -> Result<()> {
    let transport = Transport::parse(transport)?;
    let pairs = (0..count)
        .map(|_| transport.connect())
        .collect::<Result<Vec<_>>>()?;
    let (tell, told) = channel();
    let mut meter = Meter::default();
    thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .iter()
            .map(|pair| {
                let tell = tell.clone();
                scope.spawn(move || receive(pair, bytes, &tell))
            })
            .collect();
        // From here on the channel ends with the last thread.
        drop(tell);
        let given = give(&pairs, bytes, &told, &mut meter);
        if given.is_err() {
            // Nobody else would wake them up.
            for pair in &pairs {
                shutdown(pair.near.as_raw_fd(), Shutdown::Both)?;
            }
            return given;
        }
        for thread in threads {
            let received = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            meter.tally += &received.tally;
        }
        Ok(())
    })?;
    std::mem::forget(pairs);
    meter.tell()
}

/// What each thread does: says who it is, and waits for its bytes.
fn receive(pair: &Pair, bytes: usize, tell: &Sender<i32>) -> Result<Meter> {
    let mut meter = Meter::default();
    for _ in 0..TIMES {
        tell.send(gettid().as_raw())?;
        let mut left = bytes;
        while left > 0 {
            let received = recv(pair.far.as_raw_fd(), &mut vec![0; left], MsgFlags::empty())?;
            ensure!(received > 0, "the stream ended");
            meter.received(pair.protocol, received);
            left -= received;
        }
    }
    Ok(meter)
}

/// Waits until all threads wait, and sends to each.
fn give(pairs: &[Pair], bytes: usize, told: &Receiver<i32>, meter: &mut Meter) -> Result<()> {
    for _ in 0..TIMES {
        for _ in pairs {
            wait_for(told.recv().context("a thread has ended")?)?;
        }
        for pair in pairs {
            let data = vec![b'x'; bytes];
            let sent = send(pair.near.as_raw_fd(), &data, MsgFlags::empty())?;
            ensure!(sent == bytes, "sent {sent} of {bytes}");
            meter.sent(pair.protocol, sent);
        }
    }
    Ok(())
}

/// Waits until a thread sleeps in a receive.
fn wait_for(thread: i32) -> Result<()> {
    let start = Instant::now();
    let call = format!("{} ", libc::SYS_recvfrom);
    loop {
        // `running`, or the number of the system call that it sleeps in, and its arguments.
        let seen = fs::read_to_string(format!("/proc/self/task/{thread}/syscall"))?;
        if seen.starts_with(&call) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "a thread is at {seen}");
        thread::sleep(Duration::from_millis(1));
    }
}
