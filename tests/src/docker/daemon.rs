//! The daemon: started in a folder of its own, and ended whatever happens.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::send;
use super::traces::Traces;

/// How long the daemon may take to answer for the first time, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon.
pub(super) struct Daemon {
    pid: u32,
    ended: Mutex<Receiver<ExitStatus>>,
    folder: PathBuf,
    traces: Traces,
}

/// Its data-root.
pub(super) fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

impl Daemon {
    pub(super) fn start(folder: &Path, path: &OsStr) -> Result<Self> {
        // Packages and people configure the daemon of the machine, which this is not.
        let configuration = folder.join("daemon.json");
        fs::write(&configuration, "{}")?;
        let log = File::create(log(folder))?;
        let flag = |name: &str, file: &str| format!("--{name}={}", folder.join(file).display());
        // The kernel ends it with the suite, by whatever signal that goes.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--", "dockerd"])
            .arg(flag("config-file", "daemon.json"))
            .arg(flag("data-root", "data"))
            .arg(flag("exec-root", "exec"))
            .arg(flag("pidfile", "dockerd.pid"))
            .arg(format!("--host=unix://{}/docker.sock", folder.display()))
            // Where the machine's own containerd runs, it's used, and told apart by these.
            .arg("--containerd-namespace=esnode-tests")
            .arg("--containerd-plugins-namespace=esnode-tests-plugins")
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let traces = Traces::before();
        let (pid, ended) = spawn(command)?;
        Ok(Self {
            pid,
            ended: Mutex::new(ended),
            folder: folder.to_owned(),
            traces,
        })
    }

    /// Waits until it's ready.
    pub(super) fn wait(&self, ready: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            if self.ends_within(Duration::ZERO) || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(log(&self.folder))?;
                let last: Vec<_> = log.lines().rev().take(5).collect();
                bail!("dockerd doesn't serve; its log, the last line first: {last:#?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn ends_within(&self, time: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody sends any more, if that was heard before.
        ended.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }

    pub(super) fn pause(&self) -> Result<Paused> {
        send(self.pid, Signal::SIGSTOP)?;
        Ok(Paused(self.pid))
    }

    /// Ends it, and removes what it made outside of its folder.
    pub(super) fn stop(&self) {
        // Each fails only for what has ended already.
        let _ = send(self.pid, Signal::SIGTERM);
        if !self.ends_within(PATIENCE) {
            let _ = send(self.pid, Signal::SIGKILL);
            self.ends_within(PATIENCE);
        }
        self.traces.remove();
    }
}

/// A daemon that stands still until this is dropped.
pub struct Paused(u32);

impl Drop for Paused {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = send(self.0, Signal::SIGCONT);
    }
}

/// Starts a program from a thread that lives as long: the kernel takes the end of the thread that
/// started it for the end of its parent (`PR_SET_PDEATHSIG` in prctl(2)).
fn spawn(mut command: Command) -> Result<(u32, Receiver<ExitStatus>)> {
    let (started, start) = mpsc::channel();
    let (over, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return drop(started.send(Err(error))),
        };
        // Whoever doesn't listen any more needs no news.
        let _ = started.send(Ok(child.id()));
        if let Ok(status) = child.wait() {
            let _ = over.send(status);
        }
    });
    let pid = start.recv().context("no thread")?.context("dockerd")?;
    Ok((pid, ended))
}

fn log(folder: &Path) -> PathBuf {
    folder.join("dockerd.log")
}
