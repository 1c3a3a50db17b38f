//! A virtual machine: started, listened to, and ended when it is silent for too long.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{processor::Processor, step};

/// How long nothing may come before the machine counts as hung. The slowest test takes a
/// fraction of it.
const SILENCE: Duration = Duration::from_mins(4);

/// How long a machine may take for everything.
const LIMIT: Duration = Duration::from_hours(1);

const MEMORY_MIB: &str = "1536";

/// Bytes of the virtual disk; a file with holes.
const DISK: &str = "2G";

/// What a machine is made of.
pub(super) struct Parts<'a> {
    pub(super) processor: Processor,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    /// Where its disk and its log go.
    pub(super) folder: &'a Path,
}

/// How a machine ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself.
    Off,
    /// It said nothing for too long.
    Silent,
    /// It took too long.
    Late,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("it powered off"),
            Self::Silent => write!(f, "it said nothing for {} s", SILENCE.as_secs()),
            Self::Late => write!(f, "it took more than {} s", LIMIT.as_secs()),
        }
    }
}

/// Boots a machine and hands each line of its console to `hear`, until it ends.
pub(super) fn run(parts: &Parts, mut hear: impl FnMut(&str)) -> Result<End> {
    let disk = make_disk(parts.folder)?;
    let log = parts.folder.join("console.log");
    let mut log = File::create(&log).with_context(|| log.display().to_string())?;
    let mut child = spawn(parts, &disk)?;
    let lines = follow(&mut child.0)?;
    let start = Instant::now();
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                writeln!(log, "[{:7.1}] {line}", start.elapsed().as_secs_f64())?;
                hear(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Off),
            Err(RecvTimeoutError::Timeout) => return Ok(End::Silent),
        }
        if start.elapsed() > LIMIT {
            return Ok(End::Late);
        }
    }
}

/// Fails with the name of the package if qemu is not there.
pub(super) fn ensure_qemu(processor: Processor) -> Result<()> {
    let program = qemu(processor);
    match Command::new(&program).arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let package = match processor {
                Processor::X86_64 => "qemu-system-x86",
                Processor::Arm64 => "qemu-system-arm",
            };
            bail!("{program} is missing: it is in the package `{package}`")
        }
        Err(error) => Err(error).with_context(|| format!("cannot run {program}")),
    }
}

fn qemu(processor: Processor) -> String {
    format!("qemu-system-{}", processor.arch())
}

/// A qemu that ends with its owner.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn spawn(parts: &Parts, disk: &Path) -> Result<Qemu> {
    let (console, model): (_, &[&str]) = match parts.processor {
        Processor::X86_64 => ("ttyS0", &["-cpu", "max"]),
        Processor::Arm64 => ("ttyAMA0", &["-machine", "virt", "-cpu", "cortex-a72"]),
    };
    // What is no parameter of the kernel becomes a variable of the first process.
    let line = format!(
        "console={console} quiet panic=-1 oops=panic PATH=/ \
         ESNODE_CORE=/esnode-core ESNODE_TEST_WORKLOAD=/esnode-workload ESNODE_TEST_SLOWNESS=10"
    );
    let mut drive = OsString::from("if=virtio,format=raw,cache=unsafe,file=");
    drive.push(disk);
    // The kernel ends qemu when xtask ends, by whatever signal.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(qemu(parts.processor))
        .args(model)
        .args(["-accel", "tcg", "-smp", "2", "-m", MEMORY_MIB])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-monitor", "none", "-serial", "stdio"])
        .args(["-device", "virtio-rng-pci"])
        .arg("-drive")
        .arg(drive)
        .arg("-kernel")
        .arg(parts.kernel)
        .arg("-initrd")
        .arg(parts.initrd)
        .args(["-append", &line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = command
        .spawn()
        .with_context(|| format!("cannot run `{}`", step::shown(&command)))?;
    Ok(Qemu(child))
}

/// Reads the console on a thread that ends with it.
fn follow(child: &mut Child) -> Result<Receiver<String>> {
    let console = child.stdout.take().context("no pipe")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if sender.send(line.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

/// Makes a disk with an empty ext4 on it.
fn make_disk(folder: &Path) -> Result<PathBuf> {
    let disk = folder.join("disk.ext4");
    if disk.exists() {
        std::fs::remove_file(&disk)?;
    }
    // In sbin, which is on the path of root only.
    let program = ["/usr/sbin/mke2fs", "/sbin/mke2fs"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let mut mke2fs = Command::new(program.unwrap_or("mke2fs"));
    mke2fs
        .args(["-q", "-t", "ext4", "-E", "lazy_itable_init=0"])
        .arg(&disk)
        .arg(DISK);
    step::capture(&mut mke2fs).context("no disk was made (mke2fs is in `e2fsprogs`)")?;
    Ok(disk)
}
