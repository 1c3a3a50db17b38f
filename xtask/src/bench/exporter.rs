//! A running exporter: scraping it, and reading what that cost it from `/proc`.

use std::{
    ffi::OsStr,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How long an exporter may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(20);

/// An exporter that answers; ended when dropped.
pub(crate) struct Exporter {
    pub(crate) name: String,
    pub(crate) seconds_to_first_answer: f64,
    child: Child,
    address: SocketAddr,
}

impl Exporter {
    /// Starts the agent on a free port.
    pub(crate) fn agent(agent: &Path, flags: &[&str]) -> Result<Self> {
        let mut command = Command::new(agent);
        command.args(flags).stderr(Stdio::null());
        Self::agent_by(command)
    }

    /// Starts the agent on a free port, by a command that says all else.
    pub(crate) fn agent_by(mut command: Command) -> Result<Self> {
        let address = free_address()?;
        command.arg(format!("--listen-address={address}"));
        Self::start("esnode-core", command, address)
    }

    fn start(name: &str, mut command: Command, address: SocketAddr) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut exporter = Self {
            name: name.to_owned(),
            seconds_to_first_answer: 0.0,
            child,
            address,
        };
        while exporter.scrape().is_err() {
            if let Some(status) = exporter.child.try_wait()? {
                bail!("{name} ended before it answered ({status})");
            }
            if begun.elapsed() > PATIENCE {
                bail!("{name} did not answer within {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(1));
        }
        exporter.seconds_to_first_answer = begun.elapsed().as_secs_f64();
        Ok(exporter)
    }

    /// The page, as Prometheus asks for it.
    pub(crate) fn scrape(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\
            Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n\
            Connection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200 ") {
            bail!(
                "{} answered: {}",
                self.name,
                answer.lines().next().unwrap_or_default()
            );
        }
        Ok(answer)
    }

    /// CPU time per scrape in milliseconds, over `count` scrapes.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    pub(crate) fn scrape_cost(&self, count: usize) -> Result<f64> {
        let before = self.cpu_nanoseconds()?;
        for _ in 0..count {
            self.scrape()?;
        }
        Ok((self.cpu_nanoseconds()? - before) as f64 / 1e6 / count as f64)
    }

    /// Resident memory.
    pub(crate) fn resident_mb(&self) -> Result<f64> {
        self.memory_mb("VmRSS:")
    }

    /// Resident memory that is no file's.
    pub(crate) fn anonymous_mb(&self) -> Result<f64> {
        self.memory_mb("RssAnon:")
    }

    /// Resident memory of a library that it has loaded; 0 of one that it has not.
    pub(crate) fn library_mb(&self, library: &Path) -> Result<f64> {
        let path = format!("/proc/{}/smaps", self.child.id());
        let maps = fs::read_to_string(&path).with_context(|| path.clone())?;
        let library = library.to_string_lossy();
        let (mut of_it, mut kibibytes) = (false, 0.0);
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("Rss:"), Some(size)) if of_it => kibibytes += size.parse::<f64>()?,
                (Some(name), _) if name.ends_with(':') => {}
                _ => of_it = line.ends_with(&*library),
            }
        }
        Ok(kibibytes * 1024.0 / 1e6)
    }

    fn memory_mb(&self, name: &str) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kibibytes.with_context(|| format!("no {name} in {path}"))? * 1024.0 / 1e6)
    }

    /// Size of the page.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    pub(crate) fn page_kb(&self) -> Result<f64> {
        Ok(self.scrape()?.len() as f64 / 1e3)
    }

    /// Time of all threads on a CPU. From the scheduler: the ticks in `stat` are too coarse.
    pub(crate) fn cpu_nanoseconds(&self) -> Result<u64> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut sum: u64 = 0;
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let path = task?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let first: Option<u64> = text
                .split_ascii_whitespace()
                .next()
                .and_then(|word| word.parse().ok());
            sum += first.with_context(|| format!("no number in {}", path.display()))?;
        }
        Ok(sum)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a process that this one started, by its id.
pub(crate) fn end(child: &mut Child) {
    // It may have ended by itself.
    child.kill().ok();
    child.wait().ok();
}

/// Those of the peers that are installed.
pub(crate) fn peers() -> Result<Vec<Exporter>> {
    let config = std::env::temp_dir().join(format!("esnode-bench-{}.yml", std::process::id()));
    let by_command = "process_names:\n  - name: \"{{.Comm}}\"\n    cmdline: ['.+']\n";
    fs::write(&config, by_command).with_context(|| config.display().to_string())?;
    // As cheap as it can be: grouped by command name, as the agent does, without threads and
    // smaps, which the agent does not read either.
    let grouped = [
        OsStr::new("-threads=false"),
        OsStr::new("-gather-smaps=false"),
        OsStr::new("-config.path"),
        config.as_os_str(),
    ];
    let name = "prometheus-process-exporter";
    let process_exporter = peer(name, "-web.listen-address", &grouped)?;
    fs::remove_file(&config).with_context(|| config.display().to_string())?;
    Ok(process_exporter
        .into_iter()
        .chain(node_exporter()?)
        .collect())
}

/// node_exporter with its default collectors, if it is installed.
pub(crate) fn node_exporter() -> Result<Option<Exporter>> {
    peer("prometheus-node-exporter", "--web.listen-address", &[])
}

/// A peer, if it is installed.
fn peer(name: &str, listen: &str, flags: &[&OsStr]) -> Result<Option<Exporter>> {
    let installed = Command::new(name)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !installed {
        crate::step::print(&format!("{name} is not installed and not measured"));
        return Ok(None);
    }
    let address = free_address()?;
    let mut command = Command::new(name);
    command.arg(listen).arg(address.to_string()).args(flags);
    command.stderr(Stdio::null());
    Exporter::start(name, command, address).map(Some)
}

/// A loopback address whose port nobody uses.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?)
}
