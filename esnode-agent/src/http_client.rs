//! A small HTTP client, for sources on this host: daemons on UNIX sockets, other agents on TCP.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use std::{io, path::PathBuf, pin::pin, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    select,
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
    let answer = async {
        let request = Request::get(path)
            .header(HOST, host)
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(HttpError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), limit).collect().await;
        Ok(body.map_err(HttpError::Body)?.to_bytes())
    };
    let mut answer = pin!(answer);
    // No task of its own has the connection: it ends with this future, even if the runtime does not
    // run again for long, as one of a single thread that blocks on each request.
    select! {
        biased;
        answer = &mut answer => answer,
        // Closed by the peer; what it sent before can still be read.
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, net::TcpListener};
    use tokio::runtime::Builder;

    #[test]
    fn a_peer_that_never_answers_is_hung_up_on_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let peer = Peer::Tcp(address.to_string());
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("runtime");
        let patience = Duration::from_millis(100);
        let error = runtime.block_on(get(&peer, "/", patience, 9));
        let error = error.expect_err("no answer");
        assert!(matches!(error, HttpError::Timeout(_)), "{error}");
        // The runtime is there, but does not run.
        let (mut connection, _) = listener.accept().expect("connection");
        let waits = connection.set_read_timeout(Some(Duration::from_secs(10)));
        waits.expect("timeout");
        let mut request = String::new();
        connection.read_to_string(&mut request).expect("hung up");
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
        drop(runtime);
    }
}
