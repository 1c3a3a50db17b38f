//! The workload as a test sees it: a process with a name of its own, what it says that it moved,
//! and the kernel's final account of it.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, process};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, geteuid};

use crate::skip;
use crate::tally::{EXIT_SKIPPED, Io, Report};

/// The longest command name that the kernel keeps.
const COMM_BYTES: usize = 15;

/// Where the workload is, and a folder for its links and files.
static PLACE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();

/// Says where the workload's binary is, and where a folder of this run may be made.
pub fn set_up(binary: &Path, parent: &Path) -> Result<()> {
    let directory = parent.join(format!("run-{}", process::id()));
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    // The first read of the binary would be charged to whoever does it.
    fs::read(binary).with_context(|| binary.display().to_string())?;
    PLACE
        .set((binary.to_owned(), directory))
        .ok()
        .context("set up twice")
}

/// Removes the folder of this run.
pub fn clean_up() -> Result<()> {
    fs::remove_dir_all(directory()?).context("remove the folder of this run")
}

/// The folder of this run.
pub fn directory() -> Result<&'static Path> {
    Ok(&PLACE.get().context("not set up")?.1)
}

/// Makes a link to the workload.
pub fn link(path: &Path) -> Result<()> {
    let (binary, _) = PLACE.get().context("not set up")?;
    symlink(binary, path).with_context(|| path.display().to_string())
}

/// The ending of every name of this run, so that runs on one machine don't meet in a group.
fn ending() -> String {
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = process::id() as usize;
    let mut text = String::from(".");
    for _ in 0..3 {
        text.extend(
            digits
                .get(rest % digits.len())
                .map(|&digit| char::from(digit)),
        );
        rest /= digits.len();
    }
    text
}

/// A regular expression that selects every workload of this run.
#[must_use]
pub fn select_all() -> String {
    format!("{}$", ending().replace('.', "\\."))
}

/// A command name of its own, and the link that gives it to a process.
#[derive(Clone, Debug)]
pub struct Name {
    /// The command name as a label has it: see [`label`].
    pub comm: String,
    /// The link to the workload.
    pub path: PathBuf,
}

impl Name {
    /// Makes a name that no other test has, with a stem of at most 7 bytes.
    pub fn new(stem: &str) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::exact(OsStr::new(&format!("{stem}-{number}{}", ending())))
    }

    /// Makes a name of exactly these bytes.
    pub fn exact(comm: &OsStr) -> Result<Self> {
        ensure!(
            comm.len() <= COMM_BYTES,
            "{} is cut by the kernel",
            comm.display()
        );
        let (binary, directory) = PLACE.get().context("not set up")?;
        let path = directory.join(comm);
        symlink(binary, &path)
            .with_context(|| format!("{}: is the name taken?", path.display()))?;
        Ok(Self {
            comm: label(comm.as_bytes()),
            path,
        })
    }

    /// Makes a name that begins with at most 11 bytes of any kind.
    pub fn odd(stem: &[u8]) -> Result<Self> {
        let mut bytes = stem.to_vec();
        bytes.extend_from_slice(ending().as_bytes());
        Self::exact(&OsString::from_vec(bytes))
    }

    /// A file of this run that is named after this one.
    #[must_use]
    pub fn file(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().as_bytes().to_vec();
        name.extend_from_slice(suffix.as_bytes());
        PathBuf::from(OsString::from_vec(name))
    }
}

/// A command name as the page tells it: bytes that aren't UTF-8 and control characters as `\xNN`,
/// and so a backslash as two.
fn label(comm: &[u8]) -> String {
    let hex = |byte: u8| format!("\\x{byte:02x}");
    let mut label = String::new();
    for chunk in comm.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => label += "\\\\",
                '\0'..' ' | '\x7f' => label.extend(char.to_string().bytes().map(hex)),
                char => label.push(char),
            }
        }
        label.extend(chunk.invalid().iter().copied().map(hex));
    }
    label
}

/// A running workload; killed when dropped.
pub struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What it said so far.
    pub report: Report,
}

/// How a workload ended.
#[derive(Debug)]
pub struct Ended {
    /// The kernel's last account of its disk bytes, read from the zombie; only root may.
    io: Option<Io>,
    /// All that it said.
    pub report: Report,
}

impl Ended {
    /// The kernel's last account of its disk bytes.
    pub fn io(&self) -> Result<Io> {
        match self.io {
            Some(io) => Ok(io),
            None => skip!("needs root to read the account of a zombie"),
        }
    }
}

impl Workload {
    /// Starts a workload under this name. It waits when it's done, so that the page can be read
    /// while it lives.
    pub fn start<S: AsRef<OsStr>>(name: &Name, args: &[S]) -> Result<Self> {
        let mut command = Command::new(&name.path);
        command.arg("--hold").args(args);
        Self::launch(command)
    }

    /// Starts a workload as this command says.
    pub fn launch(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self {
            child,
            stdin,
            stdout,
            report: Report::default(),
        })
    }

    /// Runs a workload until it's done, and leaves it alive.
    pub fn run<S: AsRef<OsStr>>(name: &Name, args: &[S]) -> Result<Self> {
        let mut workload = Self::start(name, args)?;
        workload.wait_for("done")?;
        Ok(workload)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes in what it says until it says this line.
    pub fn wait_for(&mut self, line: &str) -> Result<()> {
        loop {
            let mut said = String::new();
            if self.stdout.read_line(&mut said)? == 0 {
                bail!(
                    "the workload ended before it was at {line:?}: {}",
                    self.child.wait()?
                );
            }
            let said = said.trim_end_matches('\n');
            if said == line {
                return Ok(());
            }
            if let Some(reason) = said.strip_prefix("skip ") {
                skip!("{reason}");
            }
            self.report.take(said)?;
        }
    }

    /// Lets it go on from a stage.
    pub fn go_on(&mut self) -> Result<()> {
        self.stdin
            .as_mut()
            .context("already released")?
            .write_all(b"\n")?;
        Ok(())
    }

    /// Tells it something, and waits until it has done that.
    pub fn order(&mut self, order: &str) -> Result<()> {
        self.tell(order)?;
        self.wait_for("ok")
    }

    /// Tells it something.
    pub fn tell(&mut self, order: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("already released")?;
        stdin.write_all(format!("{order}\n").as_bytes())?;
        Ok(())
    }

    /// Kills it. What others say who have its stdout can still be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it end; takes in the rest of what it says, and the kernel's final account of it.
    pub fn release(mut self) -> Result<Ended> {
        drop(self.stdin.take());
        let mut said = String::new();
        while self.stdout.read_line(&mut said)? > 0 {
            match said.trim_end_matches('\n') {
                "done" => {}
                line => self.report.take(line)?,
            }
            said.clear();
        }
        let io = self.wait_zombie()?;
        let status = self.child.wait()?;
        ensure!(ok(status), "the workload failed: {status}");
        Ok(Ended {
            io,
            report: std::mem::take(&mut self.report),
        })
    }

    /// Waits until it's a zombie and reads the account that is left of it.
    fn wait_zombie(&self) -> Result<Option<Io>> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        geteuid().is_root().then(|| Io::of(pid)).transpose()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a workload ended well; having skipped counts as well.
fn ok(status: ExitStatus) -> bool {
    status.success() || status.code() == Some(EXIT_SKIPPED)
}
