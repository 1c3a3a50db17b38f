//! `esnode-core`: parses the command line, starts the parts in order, and ends them.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use esnode_agent::{
    agent,
    bpf::{
        Bpf,
        sys::{BpfLog, watch},
    },
    cli::{Cli, LogFormat, LogLevel, LogOptions},
    privileges,
    sampler::Sampler,
    server, version,
};
use std::{
    io::{IsTerminal, stderr},
    net::TcpListener,
    process::ExitCode,
    time::{Duration, SystemTime},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, level_filters::LevelFilter, warn};

/// How long a pass that is running may hold up the end.
const PATIENCE: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.log);
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with all causes.
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(options: &LogOptions) {
    let level = match options.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn run(cli: &Cli) -> Result<()> {
    let started = SystemTime::now();
    info!("Starting esnode-core {}", version::line());
    agent::check_roots(cli)?;
    let listeners = agent::bind(cli)?;
    let mut bpf = agent::load_bpf(cli);
    let bpf_log = bpf.as_mut().map(Bpf::take_logger).transpose();
    let bpf_log = bpf_log.context("cannot open the log of the BPF programs")?;
    // Before there are threads: capabilities are theirs.
    if let Err(error) = privileges::drop(bpf.is_some()) {
        warn!(%error, "keeping all privileges");
    }
    let collectors = agent::collectors(cli, bpf)?;
    let (sampler, thread) =
        Sampler::start(collectors, started).context("cannot start the sampler thread")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("cannot start the event loop")?
        .block_on(serve(listeners, sampler, bpf_log))?;
    thread.join(PATIENCE);
    info!("Stopped");
    Ok(())
}

/// Serves until SIGTERM or SIGINT.
async fn serve(
    listeners: Vec<TcpListener>,
    sampler: Sampler,
    bpf_log: Option<BpfLog>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
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
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
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
