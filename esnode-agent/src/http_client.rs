//! A small HTTP client, for sources on this host: daemons on UNIX sockets, other agents on TCP.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use std::{io, path::PathBuf, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};

/// Who to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A UNIX socket.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// The connection broke, or what came was no HTTP.
    #[error("no valid answer: {0}")]
    Http(#[from] hyper::Error),
    /// The request can't be made.
    #[error("not a valid request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The body broke off, or is longer than the limit.
    #[error("cannot read the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// An answer that is none.
    #[error("the answer is {0}")]
    Status(StatusCode),
}

/// Gets `path`, in at most `patience`, if it is at most `limit` bytes.
///
/// # Errors
/// Everything but an answer with status 200.
pub async fn get(
    peer: &Peer,
    path: &str,
    patience: Duration,
    limit: usize,
) -> Result<Bytes, HttpError> {
    let answer = async {
        match peer {
            Peer::Unix(socket) => {
                let stream = UnixStream::connect(socket).await?;
                exchange(stream, "localhost", path, limit).await
            }
            Peer::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                exchange(stream, address, path, limit).await
            }
        }
    };
    let timed = timeout(patience, answer).await;
    timed.unwrap_or(Err(HttpError::Timeout(patience)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: &str,
    path: &str,
    limit: usize,
) -> Result<Bytes, HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this future, so that a peer that never answers keeps no task and no socket.
    let mut connecting = JoinSet::new();
    connecting.spawn(connection);
    let request = Request::get(path)
        .header(HOST, host)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(HttpError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), limit).collect().await;
    Ok(body.map_err(HttpError::Body)?.to_bytes())
}
