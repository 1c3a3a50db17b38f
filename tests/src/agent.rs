//! The agent under test: started with flags, read by its log and its page, ended by a signal.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::http::{self, Response};
use crate::log::Log;
use crate::page::{Format, Page};
use crate::{skip, workload};

/// What the agent's log says before a listener's address.
const READY: &str = "Metrics listener active on ";

/// How long a start or an end may take before the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// The variable that names rungs which the agent does without; a run of the suite may set it for
/// all agents.
pub const WITHOUT: &str = "ESNODE_WITHOUT";

/// The `Accept` header of a client that wants `OpenMetrics`.
pub const ACCEPT_OPENMETRICS: &str = "Accept: application/openmetrics-text; version=1.0.0";

/// Where the binary under test is.
pub fn binary() -> Result<PathBuf> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/esnode-core");
    let path = env::var_os("ESNODE_CORE").map_or_else(built, PathBuf::from);
    let path = path.canonicalize().with_context(|| {
        format!(
            "no agent at {}: `cargo xtask build` makes it, or ESNODE_CORE names one",
            path.display()
        )
    })?;
    Ok(path)
}

/// The command that runs the agent, with an environment that holds none of its variables but
/// [`WITHOUT`].
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("ESNODE_") && name != WITHOUT {
            command.env_remove(name);
        }
    }
    // Containers with GPUs have it; the agent would take only those.
    command.env_remove("NVIDIA_VISIBLE_DEVICES");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    /// Where it listens, in the order of the log.
    pub addresses: Vec<SocketAddr>,
    /// What it wrote to stderr.
    pub log: Arc<Log>,
}

/// How an agent ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// From the signal to the end.
    pub took: Duration,
}

impl Agent {
    /// Starts the agent on a free loopback port with these flags, and waits until it serves.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let mut command = command()?;
        command
            .args(["--listen-address", "127.0.0.1:0"])
            .args(flags);
        Self::launch(command, 1)
    }

    /// Starts the agent as this command says, and waits until it serves on so many addresses.
    pub fn launch(mut command: Command, listeners: usize) -> Result<Self> {
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let log = Log::follow(child.stderr.take().context("no stderr")?);
        let mut agent = Self {
            child,
            addresses: Vec::new(),
            log,
        };
        let ready = agent.log.wait(|lines| {
            let addresses: Vec<_> = lines.iter().filter_map(|line| listener(line)).collect();
            (addresses.len() >= listeners).then_some(addresses)
        });
        match ready {
            Some(addresses) => agent.addresses = addresses,
            None => bail!("the agent doesn't serve: {:?}", agent.child.try_wait()?),
        }
        Ok(agent)
    }

    /// The one agent that tests share which need no flags of their own: every workload of this
    /// run is selected, and no group is folded into `other`.
    pub fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*shared {
            agent.log.show_on_failure();
            return Ok(Arc::clone(agent));
        }
        let select = workload::select_all();
        let agent = Self::start(&["--select", &select, "--group-limit", "100000"])?;
        Ok(Arc::clone(shared.insert(Arc::new(agent))))
    }

    /// As [`Agent::shared`], once it's known that it counts network bytes by BPF.
    pub fn shared_with_bpf() -> Result<Arc<Self>> {
        need_bpf()?;
        Self::shared()
    }

    /// Ends the shared agent.
    pub fn stop_shared() {
        drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The first address it listens on.
    pub fn address(&self) -> Result<SocketAddr> {
        self.addresses.first().copied().context("no listener")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads the page, which must be valid.
    pub fn page(&self) -> Result<Page> {
        Ok(self.scrape()?.0)
    }

    /// Reads the page, which must be valid; and the answer that it came in.
    pub fn scrape(&self) -> Result<(Page, Response)> {
        let response = http::request(self.address()?, "GET", "/metrics", &[ACCEPT_OPENMETRICS])?;
        ensure!(
            response.status == 200,
            "the page has status {}",
            response.status
        );
        let page = Page::parse(response.text()?, Format::OpenMetrics)?;
        Ok((page, response))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), signal).context("signal the agent")
    }

    /// Ends it by SIGTERM.
    pub fn stop(self) -> Result<Ended> {
        self.stop_by(Signal::SIGTERM)
    }

    /// Ends it by a signal and waits for the end.
    pub fn stop_by(mut self, signal: Signal) -> Result<Ended> {
        let start = Instant::now();
        self.signal(signal)?;
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended {
                    status,
                    took: start.elapsed(),
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
        bail!("the agent doesn't end on {signal}")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The agent that tests share.
static SHARED: Mutex<Option<Arc<Agent>>> = Mutex::new(None);

/// The address in a line that says that a listener is active.
fn listener(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(READY)?;
    let end = rest.find(|char: char| !char.is_ascii_hexdigit() && !".:[]".contains(char));
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}

/// Whether the agent can count by BPF here; tried once.
pub fn need_bpf() -> Result<()> {
    static ABLE: OnceLock<Result<(), String>> = OnceLock::new();
    if !geteuid().is_root() {
        skip!("needs root to load BPF programs");
    }
    if let Some(able) = ABLE.get() {
        if let Err(reason) = able {
            skip!("{reason}");
        }
        return Ok(());
    }
    let page = Agent::shared()?.page()?;
    let source = page.label_values(
        "esnode_attribution_source",
        &[("signal", "network")],
        "source",
    );
    let able = match source.first() {
        Some(&("sock_length" | "fexit" | "kprobe")) => Ok(()),
        other => Err(format!(
            "the agent's source of network bytes is {}",
            other.unwrap_or(&"not known")
        )),
    };
    if let Err(reason) = ABLE.get_or_init(|| able) {
        skip!("{reason}");
    }
    Ok(())
}

/// Runs the agent to its end with these flags; for those that make it end by itself.
pub fn run(flags: &[&str]) -> Result<std::process::Output> {
    let mut command = command()?;
    command.args(flags).stdout(Stdio::piped());
    finish(command)
}

/// Runs a command to its end, or kills it and fails when that doesn't come.
pub fn finish(mut command: Command) -> Result<std::process::Output> {
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > PATIENCE {
            child.kill()?;
            let output = child.wait_with_output()?;
            bail!(
                "{command:?} doesn't end: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(child.wait_with_output()?)
}
