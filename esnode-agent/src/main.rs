//! `esnode-core`: parses the command line, starts the parts in order, and ends them.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use esnode_agent::{
    agent::{self, Found},
    bpf::{
        Bpf,
        sys::{BpfLog, use_one_heap, watch},
    },
    check,
    cli::{AgentOptions, Cli, Command, LogFormat, LogLevel, LogOptions},
    health, privileges,
    sampler::Sampler,
    server, top, version,
};
use std::{
    io::{IsTerminal, stderr},
    net::TcpListener,
    process::ExitCode,
    time::{Duration, SystemTime},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, level_filters::LevelFilter, warn};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How long a pass that is running may hold up the end.
const PATIENCE: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let Cli { command, agent } = Cli::parse();
    let done = match command {
        None => {
            start_log(&agent.log);
            serve(&agent)
        }
        Some(Command::Check(options)) => {
            start_log(&options.log);
            check::run(&options)
        }
        // It has the terminal, which a log would draw over: it says itself what went wrong.
        Some(Command::Top(options)) => return top::run(&options),
        Some(Command::Health(options)) => {
            start_log(&options.log);
            health::run(&options)
        }
    };
    done.unwrap_or_else(|error| {
        // One line with all causes.
        error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn start_log(options: &LogOptions) {
    let level = match options.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // aya tells each relocation at this level; who wants to know asks for more.
    let of_aya = if level == LevelFilter::TRACE {
        level
    } else {
        level.min(LevelFilter::INFO)
    };
    let levels = Targets::new()
        .with_default(level)
        .with_target("aya", of_aya);
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        // A log that can't be written must not end the agent.
        .log_internal_errors(false)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    match options.log_format {
        LogFormat::Text => log.finish().with(levels).init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(levels).init(),
    }
}

/// Runs the agent until a signal ends it.
fn serve(options: &AgentOptions) -> Result<ExitCode> {
    let started = SystemTime::now();
    use_one_heap();
    privileges::raise_file_limit();
    info!("Starting esnode-core {}", version::line());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    // From here on a signal ends the agent in good order, also while it is starting.
    let signals = runtime.block_on(async { Signals::catch() })?;
    agent::check_roots(&options.sources)?;
    let mut found = Found::nothing(&options.identity)?;
    let listeners = agent::bind(&options.serving)?;
    let standings = found.load(&options.sources, &options.gpu)?;
    agent::log_standings(&standings);
    let bpf_log = found.bpf.as_mut().map(Bpf::take_logger).transpose();
    let bpf_log = bpf_log.context("cannot open the log of the BPF programs")?;
    // Before there are threads: capabilities are theirs.
    if let Err(error) = privileges::drop(found.needs()) {
        warn!(%error, "keeping all privileges");
    }
    let (sources, page) = (&options.sources, &options.page);
    let collectors = agent::collectors(sources, page, found, &standings)?;
    agent::log_collectors(sources, &collectors);
    let (sampler, thread) = Sampler::start(collectors, page.names(), started)
        .context("cannot start the sampler thread")?;
    runtime.block_on(answer(listeners, sampler, bpf_log, signals))?;
    thread.join(PATIENCE);
    info!("Stopped");
    Ok(ExitCode::SUCCESS)
}

/// The signals that end the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        })
    }

    /// Waits for one; gives its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Serves until SIGTERM or SIGINT.
async fn answer(
    listeners: Vec<TcpListener>,
    sampler: Sampler,
    bpf_log: Option<BpfLog>,
    mut signals: Signals,
) -> Result<()> {
    let listeners = server::register(listeners).context("cannot use the listening sockets")?;
    for listener in &listeners {
        let address = listener
            .local_addr()
            .context("cannot tell the listening address")?;
        info!("Metrics listener active on {address}");
    }
    if let Some(log) = bpf_log {
        tokio::spawn(forward(log));
    }
    server::serve(listeners, sampler, async {
        let name = signals.next().await;
        info!("Stopping on {name}");
    })
    .await;
    Ok(())
}

/// Writes what the BPF programs log to the agent's log, as it comes.
async fn forward(log: BpfLog) {
    let mut log = match watch(log) {
        Ok(log) => log,
        Err(error) => {
            warn!(%error, "cannot watch the log of the BPF programs");
            return;
        }
    };
    while let Ok(mut ready) = log.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
