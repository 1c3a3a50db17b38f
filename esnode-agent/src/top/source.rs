//! Where snapshots come from: a running agent, or this host.

use super::local::Local;
use crate::{
    api::Snapshot,
    cli::{AgentUrl, TopOptions},
    http_client::{self, HttpError, Peer},
    sampler::Stopped,
};
use hyper::StatusCode;
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel},
    thread,
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

/// Where an agent answers with a snapshot.
const PATH: &str = "/api/v1/processes";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How soon after the first snapshot the second one comes, at the latest: rates need both.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes that an answer may have: some ten thousand processes.
const LIMIT: usize = 32 << 20;

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Nobody answers there, or not with a snapshot.
    #[error("cannot get {url}: {error}; is esnode-core running there, and serving on that port?")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        error: HttpError,
    },
    /// There is something, but it knows no such path.
    #[error(
        "there is no {url}: what serves there is no esnode-core, or one that is too old for `top`"
    )]
    TooOld {
        /// What was asked.
        url: String,
    },
    /// The answer is no snapshot.
    #[error(
        "what {url} answers is no snapshot of a node: {error}; is it esnode-core that serves there?"
    )]
    Malformed {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// There is no event loop to ask with.
    #[error("cannot start the client: {0}")]
    Client(#[source] io::Error),
    /// This host can't be read.
    #[error("cannot read this host: {0:#}")]
    Local(anyhow::Error),
    /// The sampler of this host is gone.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The source panicked.
    #[error("what takes the snapshots has panicked: a bug of esnode-core")]
    Broken,
}

/// Something that gives one snapshot after another, when asked.
pub trait Source: Send {
    /// Takes a snapshot.
    ///
    /// # Errors
    /// If there is none this time; a later call may have one.
    fn next(&mut self) -> Result<Snapshot, SourceError>;
}

/// Opens the source that the options name.
///
/// # Errors
/// If it can't be had at all.
pub(super) fn open(options: &TopOptions) -> Result<Box<dyn Source>, SourceError> {
    match &options.url {
        Some(url) => Ok(Box::new(Remote::new(url)?)),
        None => Ok(Box::new(Local::new(options).map_err(SourceError::Local)?)),
    }
}

/// A running agent.
struct Remote {
    peer: Peer,
    url: String,
    runtime: Runtime,
}

impl Remote {
    fn new(url: &AgentUrl) -> Result<Self, SourceError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            peer: Peer::Tcp(url.authority.clone()),
            url: format!("http://{}{PATH}", url.authority),
            runtime: runtime.map_err(SourceError::Client)?,
        })
    }
}

impl Source for Remote {
    fn next(&mut self) -> Result<Snapshot, SourceError> {
        let url = || self.url.clone();
        let answer = http_client::get(&self.peer, PATH, PATIENCE, LIMIT);
        let body = match self.runtime.block_on(answer) {
            Ok(body) => body,
            Err(HttpError::Status(StatusCode::NOT_FOUND)) => {
                return Err(SourceError::TooOld { url: url() });
            }
            Err(error) => return Err(SourceError::Unreachable { url: url(), error }),
        };
        serde_json::from_slice(&body).map_err(|error| SourceError::Malformed { url: url(), error })
    }
}

/// A source in a thread of its own, which is asked once per interval.
pub(super) struct Feed {
    /// Dropped to end it.
    _end: Sender<()>,
}

impl Feed {
    /// Asks `source` once per interval, and hands on what it says by `deliver`, until that
    /// refuses or the feed is dropped.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start<M: Send + 'static>(
        source: Box<dyn Source>,
        interval: Duration,
        messages: SyncSender<M>,
        wrap: fn(Result<Snapshot, SourceError>) -> M,
    ) -> io::Result<Self> {
        let (end, ended) = channel();
        thread::Builder::new()
            .name("top-source".to_owned())
            .spawn(move || feed(source, interval, &messages, wrap, &ended))?;
        Ok(Self { _end: end })
    }
}

fn feed<M>(
    mut source: Box<dyn Source>,
    interval: Duration,
    messages: &SyncSender<M>,
    wrap: fn(Result<Snapshot, SourceError>) -> M,
    ended: &Receiver<()>,
) {
    let mut due = Instant::now() + interval.min(FIRST_INTERVAL);
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        // A panic must end the program; alone it would end this thread, and nobody would know.
        let answer = catch_unwind(AssertUnwindSafe(|| source.next()));
        let broken = answer.is_err();
        let message = wrap(answer.unwrap_or(Err(SourceError::Broken)));
        if messages.send(message).is_err() || broken {
            return;
        }
        // A slow source is asked less often, not in bursts.
        due = (due + interval).max(Instant::now());
    }
}
