//! Runs programs: says which, for how long, and which one failed.

use std::{
    io::{self, Read, Write as _},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, LazyLock, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// When the first step began.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How long the output of a program that has ended is awaited. A child that it left behind can
/// hold the pipe open for good.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Prints one line of progress, with the time since the first.
pub(crate) fn announce(title: &str) {
    eprintln!("==> [{:>5.1} s] {title}", BEGIN.elapsed().as_secs_f64());
}

/// Prints one line of the result.
#[expect(clippy::print_stdout, reason = "results belong on standard output")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

/// Runs a program to its end with xtask's own input and output.
pub(crate) fn run(title: &str, command: &mut Command) -> Result<()> {
    announce(title);
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    check(command, status)
}

/// Runs a program quietly and returns what it printed, without the last line break.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    check(command, output.status)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim_end().to_owned())
}

/// Runs a program, shows its standard output as it comes, and returns it with the exit status.
pub(crate) fn tee(title: &str, command: &mut Command) -> Result<(ExitStatus, String)> {
    announce(title);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    let mut pipe = child.stdout.take().context("no pipe")?;
    let copied = Arc::new(Mutex::new(Vec::new()));
    let (done, ended) = mpsc::channel();
    thread::spawn({
        let copied = Arc::clone(&copied);
        move || {
            let result = copy(&mut pipe, &copied);
            done.send(result).ok();
        }
    });
    let status = child.wait().context("cannot wait for a program to end")?;
    match ended.recv_timeout(LAST_OUTPUT) {
        Ok(result) => result.context("cannot copy the output of a program")?,
        Err(_) => eprintln!(
            "warning: `{}` left a process behind that holds its output",
            shown(command)
        ),
    }
    let copied = copied.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((status, String::from_utf8_lossy(&copied).into_owned()))
}

fn copy(from: &mut impl Read, copied: &Mutex<Vec<u8>>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = from.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else {
            return Ok(());
        };
        let mut out = io::stdout().lock();
        out.write_all(chunk)?;
        out.flush()?;
        copied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(chunk);
    }
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// The command as one would type it, the program by its file name.
pub(crate) fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
