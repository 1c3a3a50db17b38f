//! A Docker Engine of the tests' own: its daemon, and containers that run the workload.
//!
//! It needs no image from anywhere and no network, and leaves nothing behind. Its programs are
//! found by [`tools`].

mod container;
mod daemon;
mod traces;

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

pub use self::container::Container;
pub use self::daemon::Paused;

use self::daemon::Daemon;
use crate::{skip, tools};

/// The agent and the workload, each one file that needs nothing else.
const STATIC_AGENT: &str = "ESNODE_STATIC_AGENT";
const STATIC_WORKLOAD: &str = "ESNODE_STATIC_WORKLOAD";

/// The agent in the image.
pub const AGENT: &str = "/agent";

/// The workload in the image.
const WORKLOAD: &str = "/workload";

/// What `docker` and `dockerd` start in turn.
const PROGRAMS: [&str; 5] = [
    "docker",
    "dockerd",
    "containerd",
    "containerd-shim-runc-v2",
    "runc",
];

/// A running daemon with one image, under several names.
pub struct Docker {
    folder: PathBuf,
    path: OsString,
    daemon: Daemon,
}

static SHARED: Mutex<Option<Arc<Docker>>> = Mutex::new(None);

impl Docker {
    /// The one daemon of all tests.
    pub fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(docker) = &*shared {
            return Ok(Arc::clone(docker));
        }
        Ok(Arc::clone(shared.insert(Arc::new(Self::start()?))))
    }

    /// Ends the daemon, once its last user is done.
    pub fn stop_shared() {
        drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn start() -> Result<Self> {
        if !geteuid().is_root() {
            skip!("needs root to run containers");
        }
        for program in PROGRAMS {
            tools::find(program)?;
        }
        let path = tools::search_path()?;
        let programs = Static::find()?;
        // The sockets' paths have to be short: see unix(7).
        let folder = env::temp_dir().join(format!("esnode-docker-{}", process::id()));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let docker = Self {
            daemon: Daemon::start(&folder, &path)?,
            folder,
            path,
        };
        docker.daemon.wait(|| docker.version().is_ok())?;
        docker.import(&programs)?;
        Ok(docker)
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// Where it keeps what it knows of containers: its data-root.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        daemon::data(&self.folder)
    }

    /// The command that makes its client do this.
    pub fn client<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(words)
            .env("PATH", &self.path)
            .env("DOCKER_CONFIG", self.folder.join("client"))
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    /// What its client prints, without the last line break.
    pub fn ask<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<String> {
        output(&mut self.client(words))
    }

    /// Stops the daemon in its tracks, for as long as the value lives. Containers run on.
    pub fn pause(&self) -> Result<Paused> {
        self.daemon.pause()
    }

    /// Makes an image of this name, once, from what `cargo xtask image` leaves for docker: a folder
    /// `root`, and a Dockerfile beside it that starts from nothing.
    pub fn build(&self, context: &Path, name: &str) -> Result<()> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let file = context.join("Dockerfile");
        let (file, root) = (file.to_string_lossy(), context.join("root"));
        let words = ["build", "--quiet", "--tag", name, "--file", &file];
        let mut build = self.client(&words);
        output(build.arg(root)).map(drop)
    }

    /// What its daemon says that it is.
    pub fn version(&self) -> Result<String> {
        self.ask(&["version", "--format", "{{.Server.Version}}"])
    }

    /// Makes an image with the two programs in it.
    fn import(&self, programs: &Static) -> Result<()> {
        let root = self.folder.join("image");
        fs::create_dir_all(root.join("data"))?;
        for (from, to) in [(&programs.agent, AGENT), (&programs.workload, WORKLOAD)] {
            let place = root.join(to.trim_start_matches('/'));
            fs::copy(from, &place).with_context(|| from.display().to_string())?;
        }
        for name in container::NAMES {
            symlink(WORKLOAD, root.join(name))?;
        }
        let archive = self.folder.join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".");
        output(&mut tar)?;
        let archive = archive.to_string_lossy();
        let id = self.ask(&["import", &archive, container::IMAGES[0]])?;
        for name in &container::IMAGES[1..] {
            self.ask(&["tag", &id, name])?;
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Whatever a failed test left running. None of this can be mended here.
        if let Ok(left) = self.ask(&["ps", "--all", "--quiet"]) {
            let words = ["rm", "--force"].into_iter().chain(left.lines());
            let _ = self.ask(&words.collect::<Vec<_>>());
        }
        self.daemon.stop();
        let _ = traces::unmount(&self.folder);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The programs that go into the image.
struct Static {
    agent: PathBuf,
    workload: PathBuf,
}

impl Static {
    fn find() -> Result<Self> {
        match (env::var_os(STATIC_AGENT), env::var_os(STATIC_WORKLOAD)) {
            (Some(agent), Some(workload)) => Ok(Self {
                agent: agent.into(),
                workload: workload.into(),
            }),
            _ => {
                skip!("needs {STATIC_AGENT} and {STATIC_WORKLOAD}, as `cargo xtask test` sets them")
            }
        }
    }
}

/// Runs a command to its end and returns what it printed, without the last line break.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// Sends a signal to one process.
fn send(pid: u32, signal: nix::sys::signal::Signal) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, signal).with_context(|| format!("{signal} to {pid}"))
}

/// A folder and those above it that don't exist yet, the innermost first.
fn missing(folder: &Path) -> Vec<PathBuf> {
    let above = folder.ancestors().take_while(|path| !path.exists());
    above.map(Path::to_owned).collect()
}
