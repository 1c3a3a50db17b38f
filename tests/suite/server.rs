//! The HTTP side: formats, routes, methods, connections.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{ACCEPT_OPENMETRICS, Agent};
use esnode_tests::http;
use esnode_tests::page::{Format, Page};

use crate::Case;
use crate::check::ensure_eq;

/// The content type of each format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("server::formats_by_accept_header", formats),
        Case::new("server::both_formats_have_the_same_series", same_series),
        Case::new("server::routes", routes),
        Case::new("server::other_methods_are_refused", methods),
        Case::new("server::connections_are_kept", kept_connections),
        Case::new("server::garbage_is_refused", garbage),
    ]
}

/// Every `Accept` header gets a page that is what its content type says.
fn formats() -> Result<()> {
    let agent = Agent::shared()?;
    for (accept, expected) in [
        (
            "Accept: application/openmetrics-text; version=1.0.0",
            OPENMETRICS,
        ),
        (
            "Accept: application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS,
        ),
        ("Accept: text/plain", TEXT),
        ("Accept: text/plain;version=0.0.4", TEXT),
    ] {
        let answer = http::request(agent.address()?, "GET", "/metrics", &[accept])?;
        ensure_eq!(answer.status, 200, "status for {accept}");
        ensure_eq!(
            normal(answer.header("content-type").unwrap_or_default()),
            normal(expected),
            "{accept}"
        );
        let format = if expected == TEXT {
            Format::Text
        } else {
            Format::OpenMetrics
        };
        Page::parse(answer.text()?, format).context(accept)?;
    }
    // Without a wish, either will do, if it's what it says.
    for wish in [&[][..], &["Accept: */*"], &["Accept: text/html,*/*;q=0.8"]] {
        let answer = http::request(agent.address()?, "GET", "/metrics", wish)?;
        ensure_eq!(answer.status, 200, "status for {wish:?}");
        let kind = normal(answer.header("content-type").unwrap_or_default());
        let format = if kind == normal(OPENMETRICS) {
            Format::OpenMetrics
        } else {
            Format::Text
        };
        ensure!(
            format == Format::OpenMetrics || kind == normal(TEXT),
            "content type {kind}"
        );
        Page::parse(answer.text()?, format)?;
    }
    Ok(())
}

/// A content type without the freedom of spaces.
fn normal(kind: &str) -> String {
    kind.to_lowercase().replace(' ', "")
}

/// What a page says is the same in both formats.
fn same_series() -> Result<()> {
    let agent = Agent::start(&["--collectors", "memory"])?;
    let page = |accept, format| -> Result<BTreeSet<String>> {
        let answer = http::request(agent.address()?, "GET", "/metrics", &[accept])?;
        let page = Page::parse(answer.text()?, format)?;
        Ok(page
            .samples()
            .map(|sample| format!("{} {:?}", sample.name, sample.labels))
            .collect())
    };
    // The first scrapes add series of their own, such as the count of scrapes.
    page(ACCEPT_OPENMETRICS, Format::OpenMetrics)?;
    let (open, text) = (
        page(ACCEPT_OPENMETRICS, Format::OpenMetrics)?,
        page("Accept: text/plain", Format::Text)?,
    );
    let odd: Vec<_> = open.symmetric_difference(&text).collect();
    ensure!(odd.is_empty(), "in one format only: {odd:?}");
    Ok(())
}

fn routes() -> Result<()> {
    let agent = Agent::shared()?;
    let health = http::get(agent.address()?, "/healthz")?;
    ensure_eq!(health.status, 200, "/healthz");
    let landing = http::get(agent.address()?, "/")?;
    ensure_eq!(landing.status, 200, "/");
    ensure!(
        landing
            .header("content-type")
            .unwrap_or_default()
            .starts_with("text/html"),
        "/ isn't HTML"
    );
    ensure!(
        landing.text()?.contains("/metrics"),
        "the landing page doesn't lead to the metrics"
    );
    for path in ["/nothing", "/metrics/", "/metricsx", "//", "/..", "/%2e"] {
        ensure_eq!(http::get(agent.address()?, path)?.status, 404, "{path}");
    }
    ensure_eq!(
        http::get(agent.address()?, "/metrics?name[]=x")?.status,
        200,
        "a query"
    );
    Ok(())
}

fn methods() -> Result<()> {
    let agent = Agent::shared()?;
    for path in ["/metrics", "/healthz", "/"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = http::request(agent.address()?, method, path, &["Content-Length: 0"])?;
            ensure_eq!(answer.status, 405, "{method} {path}");
            let allow = answer
                .header("allow")
                .with_context(|| format!("no Allow for {method} {path}"))?;
            ensure!(
                allow.split(',').any(|word| word.trim() == "GET"),
                "Allow: {allow}"
            );
        }
    }
    Ok(())
}

/// Two requests on one connection.
fn kept_connections() -> Result<()> {
    let agent = Agent::shared()?;
    let mut stream = http::connect(agent.address()?)?;
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut room = [0; 1024];
        while http::parse(&answer).is_err() {
            let count = stream.read(&mut room)?;
            ensure!(
                count > 0,
                "the connection was closed after {:?}",
                String::from_utf8_lossy(&answer)
            );
            answer.extend_from_slice(room.get(..count).unwrap_or_default());
        }
        ensure_eq!(http::parse(&answer)?.status, 200, "status");
    }
    Ok(())
}

/// What isn't HTTP gets no page, and harms nobody.
fn garbage() -> Result<()> {
    let agent = Agent::shared()?;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = http::connect(agent.address()?)?;
        stream.write_all(bytes)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        // A reset is as good an answer as a refusal.
        let _ = stream.read_to_end(&mut answer);
        ensure!(
            !answer.starts_with(b"HTTP/1.1 200"),
            "an answer to {bytes:?}"
        );
    }
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: test\r\n\r\n",
        "x".repeat(1_000_000)
    );
    let mut stream = http::connect(agent.address()?)?;
    // The agent may hang up in the middle of it.
    let _ = stream.write_all(long.as_bytes());
    agent.page()?;
    Ok(())
}
