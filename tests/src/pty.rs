//! A program on a pseudo-terminal: keys go in, and what a person would see comes out.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// How long the screen may take to show what it must.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing comes once a screen is drawn, which comes in pieces.
const QUIET: Duration = Duration::from_millis(100);

/// What came from the program.
struct Output {
    /// All bytes.
    bytes: Vec<u8>,
    /// What a terminal shows of them.
    parser: vt100::Parser,
}

/// A program on a pseudo-terminal of its own; killed when dropped.
pub struct Pty {
    master: File,
    /// The end of the program, held to see its settings.
    slave: File,
    child: Child,
    output: Arc<(Mutex<Output>, Condvar)>,
}

/// The screen at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Its lines, without spaces at their ends.
    pub lines: Vec<String>,
    /// Whether it's the alternate screen.
    pub alternate: bool,
    /// Whether the cursor is hidden.
    pub cursor_hidden: bool,
}

impl Screen {
    /// The first line with this text.
    #[must_use]
    pub fn line(&self, part: &str) -> Option<&str> {
        let mut lines = self.lines.iter();
        lines.find(|line| line.contains(part)).map(String::as_str)
    }

    /// Where the first line with this text is.
    #[must_use]
    pub fn row(&self, part: &str) -> Option<usize> {
        self.lines.iter().position(|line| line.contains(part))
    }

    /// The last line.
    #[must_use]
    pub fn last(&self) -> &str {
        self.lines.last().map_or("", String::as_str)
    }

    /// All lines.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

impl Pty {
    /// Starts a command on a terminal of so many columns and rows.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let (master, slave) = open()?;
        tcsetwinsize(&master, size(columns, rows)).context("set the size of the terminal")?;
        command
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave.try_clone()?);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let parser = vt100::Parser::new(cells(rows)?, cells(columns)?, 0);
        let output = Output {
            bytes: Vec::new(),
            parser,
        };
        let output = Arc::new((Mutex::new(output), Condvar::new()));
        let (from, to) = (master.try_clone()?, Arc::clone(&output));
        thread::spawn(move || follow(from, &to));
        Ok(Self {
            master,
            slave,
            child,
            output,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Types.
    pub fn send(&self, keys: &str) -> Result<()> {
        let mut master = &self.master;
        master.write_all(keys.as_bytes()).context("type")
    }

    /// Changes the size, as a window does. The kernel tells those in the foreground of their
    /// controlling terminal; this one is none, so they are told here.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let mut output = self.lock();
        let screen = output.parser.screen_mut();
        screen.set_size(cells(rows)?, cells(columns)?);
        drop(output);
        tcsetwinsize(&self.master, size(columns, rows)).context("set the size")?;
        self.signal(Signal::SIGWINCH)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal).context("signal")
    }

    /// The screen as it is now.
    #[must_use]
    pub fn screen(&self) -> Screen {
        shown(&self.lock())
    }

    /// All that the program has written.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Waits for a screen that is as wanted, and whole: nothing is drawn any more. Fails with the
    /// screen that there is instead.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Screen) -> bool) -> Result<Screen> {
        let deadline = Instant::now() + PATIENCE;
        let mut output = self.lock();
        loop {
            let screen = shown(&output);
            let good = wanted(&screen);
            let seen = output.bytes.len();
            let pause = if good { QUIET } else { PATIENCE };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the screen never shows {what}:\n{}", screen.text());
            }
            let result = self.output.1.wait_timeout(output, pause.min(left));
            output = result.unwrap_or_else(PoisonError::into_inner).0;
            if good && output.bytes.len() == seen {
                return Ok(screen);
            }
        }
    }

    /// Waits for a text on the screen.
    pub fn wait_for(&self, part: &str) -> Result<Screen> {
        self.wait(&format!("{part:?}"), |screen| screen.line(part).is_some())
    }

    /// How the terminal is set.
    pub fn settings(&self) -> Result<Termios> {
        tcgetattr(&self.slave).context("read the settings of the terminal")
    }

    /// Waits for the program to end.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the program doesn't end:\n{}", self.screen().text())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens both ends of a new terminal.
fn open() -> Result<(File, File)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context("open a pseudo-terminal")?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(name.to_str()?)
        .context("open the other end of the pseudo-terminal")?;
    Ok((File::from(master), slave))
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn cells(count: u16) -> Result<NonZeroU16> {
    NonZeroU16::new(count).context("a terminal has at least a cell")
}

/// Takes what the program writes, until both ends are closed.
fn follow(mut from: File, to: &(Mutex<Output>, Condvar)) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        let mut output = to.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.bytes.extend_from_slice(bytes);
        output.parser.process(bytes);
        drop(output);
        to.1.notify_all();
    }
}

fn shown(output: &Output) -> Screen {
    let screen = output.parser.screen();
    let (_, columns) = screen.size();
    Screen {
        lines: screen
            .rows(0, columns.get())
            .map(|line| line.trim_end().to_owned())
            .collect(),
        alternate: screen.alternate_screen(),
        cursor_hidden: screen.hide_cursor(),
    }
}
