//! The suite as the first process of a virtual machine: makes a system of a bare kernel, runs
//! itself once for each round of a plan, and powers off.
//!
//! `cargo xtask vm` writes the plan and reads the lines that begin with [`MARK`].

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{self, Command};
use std::time::Instant;
use std::{env, fs, io};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::sync;

use crate::agent::{self, Agent};

/// What every line for xtask begins with.
const MARK: &str = "@vm";

/// The rounds: one per line, as words between tabs. The first word is the round's name, the
/// second the rungs that the agent does without, the others are arguments for the harness.
const PLAN: &str = "/plan";

/// Kernel modules, in the order in which they load.
const MODULES: &str = "/modules";

/// Where the files of the tests go: a real file system on a virtual disk.
const DISK: &str = "/disk";

/// What is mounted: kind, source, folder.
const MOUNTS: [(&str, &str, &str); 8] = [
    ("devtmpfs", "dev", "/dev"),
    ("proc", "proc", "/proc"),
    ("sysfs", "sys", "/sys"),
    ("tracefs", "tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "cgroup", "/sys/fs/cgroup"),
    ("tmpfs", "tmp", "/tmp"),
    ("tmpfs", "run", "/run"),
    ("ext4", "/dev/vda", DISK),
];

/// Prints a line for xtask.
macro_rules! say {
    ($($text:tt)*) => { tell(&format!($($text)*)) };
}

/// Whether this process is the first one of a virtual machine that xtask made.
#[must_use]
pub fn is_init() -> bool {
    process::id() == 1 && Path::new(PLAN).exists()
}

/// How many times longer things may take than on a real processor, by `ESNODE_TEST_SLOWNESS`.
#[must_use]
pub fn slowness() -> u32 {
    let set = env::var("ESNODE_TEST_SLOWNESS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs the plan and powers off; returns only if that fails.
pub fn main() -> Result<()> {
    if let Err(error) = run() {
        say!("error {error:#}");
    }
    say!("over");
    sync();
    reboot(RebootMode::RB_POWER_OFF)?;
    Ok(())
}

fn run() -> Result<()> {
    load_modules()?;
    for (kind, source, folder) in MOUNTS {
        fs::create_dir_all(folder).with_context(|| folder.to_owned())?;
        mount(
            Some(source),
            folder,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mount {kind} on {folder}"))?;
    }
    raise_loopback().context("bring the loopback interface up")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    say!("kernel {}", release.trim());
    for line in fs::read_to_string(PLAN)?.lines() {
        let mut words = line.split('\t');
        let name = words.next().unwrap_or_default();
        let without = words.next().unwrap_or_default();
        say!("round {name}");
        let start = Instant::now();
        describe(without)?;
        let code = run_suite(without, words)?;
        say!("end {name} {code} {:.1}", start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn load_modules() -> Result<()> {
    let mut paths: Vec<_> = fs::read_dir(MODULES)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        match finit_module(fs::File::open(&path)?, c"", ModuleInitFlags::empty()) {
            // A module for hardware that this machine hasn't.
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    Ok(())
}

/// Sets `IFF_UP` on the first interface, by a message of rtnetlink(7).
fn raise_loopback() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::new();
    // nlmsghdr: length, type, flags, sequence, port
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 8]);
    // ifinfomsg: family and padding, device type, index, flags, which of them change
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());

    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer.get(16..20).filter(|_| length >= 20);
    let code = i32::from_ne_bytes(code.context("a short answer")?.try_into()?);
    ensure!(code == 0, "{}", Errno::from_raw(-code));
    Ok(())
}

/// Says which rungs an agent reaches, and how long its programs are.
fn describe(without: &str) -> Result<()> {
    let mut command = agent::command()?;
    command.args(["--listen-address", "127.0.0.1:0", "--log-level", "debug"]);
    do_without(&mut command, without);
    let agent = Agent::launch(command, 1)?;
    let page = agent.page()?;
    for signal in page.label_values("esnode_attribution_source", &[], "signal") {
        let labels = [("signal", signal)];
        for source in page.label_values("esnode_attribution_source", &labels, "source") {
            say!("source {signal} {source}");
        }
    }
    for line in agent.log.lines() {
        if let Some((program, instructions)) = verified(&line) {
            say!("program {program} {instructions}");
        } else if line.contains("WARN") || line.contains("ERROR") {
            say!("log {line}");
        }
    }
    for (number, instructions) in programs_of(agent.pid())?.iter().enumerate() {
        say!("verified {number} {instructions}");
    }
    agent.stop()?;
    Ok(())
}

/// What the agent logs about a program that it loaded.
fn verified(line: &str) -> Option<(&str, u64)> {
    let value = |name| {
        let (_, rest) = line.split_once(name)?;
        rest.split([' ', '"', ',']).find(|word| !word.is_empty())
    };
    let instructions = value("verified_instructions=")?.parse().ok()?;
    Some((value("program=")?, instructions))
}

/// Instructions that the verifier walked, for each program that a process holds; since Linux
/// 5.17, the kernel says it there.
fn programs_of(pid: u32) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor that is closed meanwhile is none of a program.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        counts.extend(text.lines().find_map(|line| {
            let number = line.strip_prefix("verified_insns:")?;
            number.trim().parse::<u64>().ok()
        }));
    }
    Ok(counts)
}

/// Runs the suite in a process of its own, whose exit code this returns, and takes in orphans
/// until it ends.
fn run_suite<'a>(without: &str, arguments: impl Iterator<Item = &'a str>) -> Result<i32> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).env("ESNODE_TEST_FOLDER", DISK);
    do_without(&mut command, without);
    let child = i32::try_from(command.spawn()?.id())?;
    loop {
        match wait()? {
            WaitStatus::Exited(pid, code) if pid.as_raw() == child => return Ok(code),
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw() == child => {
                say!("error the suite was ended by {signal}");
                return Ok(-1);
            }
            _ => {}
        }
    }
}

fn do_without(command: &mut Command, rungs: &str) {
    if !rungs.is_empty() {
        command.env(agent::WITHOUT, rungs);
    }
}

fn tell(line: &str) {
    // Nobody is left to hear when the console fails.
    let _ = writeln!(io::stdout(), "{MARK} {line}");
}
