//! Processes with threads: that end early, that outlive the first, that exec.

use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::{fs, io, process, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use esnode_tests::tally::{Tally, settles_at_threads};
use nix::sys::prctl::set_name;

use crate::meter::{Meter, say, tell_io};
use crate::{done, stage, sys, transfer};

/// Starts `count` threads that each send `bytes` and receive half; the first `ending` of them have
/// ended when it says that it's done.
pub(crate) fn many(count: usize, ending: usize, bytes: usize) -> Result<()> {
    let release = Arc::new(Barrier::new(count - ending + 1));
    let (tell, told) = channel();
    let mut ended = Vec::new();
    for index in 0..count {
        let (tell, release) = (tell.clone(), Arc::clone(&release));
        let builder = thread::Builder::new().name(format!("worker-{index}"));
        let worker = builder.spawn(move || {
            let mut meter = Meter::default();
            let result = transfer::udp(bytes, bytes / 2, &mut meter).map(|()| meter.tally);
            // The receiver is gone only when another thread failed.
            let _ = tell.send(result);
            if index >= ending {
                release.wait();
            }
        })?;
        if index < ending {
            ended.push(worker);
        }
    }
    drop(tell);
    let mut meter = Meter::default();
    for _ in 0..count {
        meter.tally += &told.recv()??;
    }
    for worker in ended {
        worker.join().map_err(|_| anyhow!("a thread panicked"))?;
    }
    ensure!(
        settles_at_threads(count - ending + 1)?,
        "a thread hasn't ended"
    );
    meter.tell()?;
    done()?;
    release.wait();
    Ok(())
}

/// The first thread sends and ends; another one sends when that is over, and lives on.
pub(crate) fn leader_ends(bytes: usize) -> Result<()> {
    let mut meter = Meter::default();
    transfer::udp(bytes, 0, &mut meter)?;
    thread::spawn(move || {
        let result = after_leader(bytes, meter);
        if let Err(error) = &result {
            eprintln!("workload: {error:#}");
        }
        process::exit(i32::from(result.is_err()));
    });
    sys::end_thread()
}

/// What the second thread does once the first is a zombie.
fn after_leader(bytes: usize, mut meter: Meter) -> Result<()> {
    while !fs::read_to_string("/proc/self/stat")?.contains(") Z ") {
        thread::yield_now();
    }
    transfer::udp(bytes, bytes, &mut meter)?;
    meter.tell()?;
    done()
}

/// Sends, and becomes another program.
pub(crate) fn exec(bytes: usize, next: &[&str]) -> Result<()> {
    let mut meter = Meter::default();
    transfer::udp(bytes, bytes / 2, &mut meter)?;
    become_next(&meter.tally, next)
}

/// Sends from three threads, of which one that isn't the first becomes another program.
pub(crate) fn exec_from_thread(bytes: usize, next: &[&str]) -> Result<()> {
    let next: Vec<String> = next.iter().map(|&word| word.to_owned()).collect();
    let (tell, told) = channel();
    for _ in 0..2 {
        let tell = tell.clone();
        thread::spawn(move || {
            let mut meter = Meter::default();
            let result = transfer::udp(bytes, bytes / 2, &mut meter).map(|()| meter.tally);
            // The receiver is gone only when the process is about to end.
            let _ = tell.send(result);
            loop {
                thread::park();
            }
        });
    }
    let mut meter = Meter::default();
    for _ in 0..2 {
        meter.tally += &told.recv()??;
    }
    // Under a name of its own, which is never the process's.
    let runner = thread::Builder::new()
        .name("runner".to_owned())
        .spawn(move || {
            transfer::udp(bytes, bytes / 2, &mut meter)?;
            let next: Vec<&str> = next.iter().map(String::as_str).collect();
            become_next(&meter.tally, &next)
        })?;
    // On success there is nothing left that could return.
    runner.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Says what was moved under the old name, and becomes the next program.
pub(crate) fn become_next(tally: &Tally, next: &[&str]) -> Result<()> {
    let (program, arguments) = next.split_first().context("no next program")?;
    say(&tally.lines(&crate::meter::own_name()?));
    tell_io("exec")?;
    let error: io::Error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("exec {program}"))
}

/// Sends from four threads, takes another name, and sends from all of them again.
pub(crate) fn rename(name: &str, bytes: usize) -> Result<()> {
    let step = Barrier::new(4);
    let send = || -> Result<Tally> {
        let mut meter = Meter::default();
        transfer::udp(bytes, bytes / 2, &mut meter)?;
        Ok(meter.tally)
    };
    let other = || -> Result<[Tally; 2]> {
        let before = send();
        step.wait();
        step.wait();
        Ok([before?, send()?])
    };
    let [before, after] = thread::scope(|scope| -> Result<[Tally; 2]> {
        let others: Vec<_> = (0..3).map(|_| scope.spawn(other)).collect();
        let before = send();
        step.wait();
        let renamed = CString::new(name).map(|name| set_name(&name));
        step.wait();
        renamed??;
        let mut sums = [before?, send()?];
        for other in others {
            let tallies = other.join().map_err(|_| anyhow!("a thread panicked"))??;
            for (sum, tally) in sums.iter_mut().zip(&tallies) {
                *sum += tally;
            }
        }
        Ok(sums)
    })?;
    say(&before.lines("before"));
    say(&after.lines("after"));
    Ok(())
}

/// Sends twice, with stages before, between and after.
pub(crate) fn stages(first: usize, second: usize) -> Result<()> {
    let mut meter = Meter::default();
    transfer::udp(first, first / 2, &mut meter)?;
    stage("first")?;
    transfer::udp(second, second / 2, &mut meter)?;
    meter.tell()
}
