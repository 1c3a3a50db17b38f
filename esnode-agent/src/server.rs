//! The HTTP side.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | the page, OpenMetrics or text by `Accept` |
//! | `/api/v1/processes` | the same facts as one table, JSON |
//! | `/healthz` | `ok` |
//! | `/` | where to find them |

use crate::{
    page::text::{OPEN_METRICS, TEXT, from_open_metrics, prefers_open_metrics},
    sampler::Sampler,
    version,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, VARY},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible, error::Error, future::Future, io, pin::pin, sync::Arc, time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

/// A client that has not sent its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is asked to end after this time, and cut off after twice that: clients that do not
/// read must not keep others out for good.
const LIFETIME: Duration = Duration::from_secs(20);

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;

/// How long requests may go on after the order to stop.
const GRACE: Duration = Duration::from_millis(300);

/// Serves on all `listeners` until `shutdown` resolves.
pub async fn serve(
    listeners: Vec<TcpListener>,
    sampler: Sampler,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut acceptors = JoinSet::new();
    for listener in listeners {
        acceptors.spawn(accept(listener, sampler.clone(), Arc::clone(&permits)));
    }
    shutdown.await;
    acceptors.shutdown().await;
    // Every open connection holds a permit: with all of them back, all requests are answered.
    let everyone = permits.acquire_many(u32::try_from(CONNECTIONS).unwrap_or(u32::MAX));
    if timeout(GRACE, everyone).await.is_err() {
        debug!("connections were still open at the end");
    }
}

async fn accept(listener: TcpListener, sampler: Sampler, permits: Arc<Semaphore>) {
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let sampler = sampler.clone();
                tokio::spawn(async move {
                    connection(stream, sampler).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: trying again at once would spin.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, sampler: Sampler) {
    let answer = service_fn(|request| answer(request, &sampler));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer);
    let mut served = pin!(served);
    let mut ended = timeout(LIFETIME, served.as_mut()).await;
    if ended.is_err() {
        served.as_mut().graceful_shutdown();
        ended = timeout(LIFETIME, served).await;
    }
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection ended early"),
        Err(_) => debug!("a client did not read its answer"),
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, sampler: &Sampler) -> Result<Answer, Infallible> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(match request.uri().path() {
        "/metrics" => {
            let answer = if reads {
                metrics(&request, sampler).await
            } else {
                not_allowed()
            };
            sampler.scrapes().count(answer.status().as_u16());
            answer
        }
        "/api/v1/processes" if reads => processes(sampler).await,
        "/healthz" if reads => plain(StatusCode::OK, "ok\n"),
        "/" if reads => landing(),
        "/api/v1/processes" | "/healthz" | "/" => not_allowed(),
        _ => plain(StatusCode::NOT_FOUND, "not found: try /metrics\n"),
    })
}

async fn metrics(request: &Request<Incoming>, sampler: &Sampler) -> Answer {
    let mut accepts = request
        .headers()
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let open_metrics = accepts.any(prefers_open_metrics);
    let page = match sampler.page().await {
        Ok(page) => page,
        Err(error) => return failed(&error),
    };
    let mut answer = if open_metrics {
        with_type(StatusCode::OK, OPEN_METRICS, page)
    } else {
        with_type(
            StatusCode::OK,
            TEXT,
            from_open_metrics(&String::from_utf8_lossy(&page)),
        )
    };
    answer
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

/// Does not count as a scrape: those are for the page.
async fn processes(sampler: &Sampler) -> Answer {
    let snapshot = match sampler.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(error) => return failed(&error),
    };
    match serde_json::to_vec(&snapshot) {
        Ok(json) => with_type(StatusCode::OK, "application/json", json),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn Error) -> Answer {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

fn landing() -> Answer {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <title>esnode-core</title></head>\n<body>\n<h1>esnode-core</h1>\n\
         <p>Which process used what on this node. Version {}.</p>\n<ul>\n\
         <li><a href=\"/metrics\">/metrics</a>: the page for Prometheus</li>\n\
         <li><a href=\"/api/v1/processes\">/api/v1/processes</a>: the same facts as one table of \
         processes, in JSON</li>\n\
         <li><a href=\"/healthz\">/healthz</a>: whether the agent answers</li>\n\
         </ul>\n</body>\n</html>\n",
        version::line()
    );
    with_type(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn not_allowed() -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", text)
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Makes listeners that were bound before there was a runtime into its own.
///
/// # Errors
/// If one can't be registered with the runtime.
pub fn register(listeners: Vec<std::net::TcpListener>) -> io::Result<Vec<TcpListener>> {
    listeners
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })
        .collect()
}
