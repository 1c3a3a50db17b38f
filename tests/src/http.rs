//! As much of an HTTP/1.1 client as the tests need, with a count of the bytes on the wire.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, and what it took on the wire.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body without any transfer encoding.
    pub body: Vec<u8>,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the answer, with its head.
    pub response_bytes: u64,
}

impl Response {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).context("the body isn't UTF-8")
    }
}

/// Opens a connection with time limits.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends one request on its own connection. Headers are whole lines without line ends.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
) -> Result<Response> {
    let mut stream = connect(address)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // An answer that came before the peer dropped the connection still counts.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => {}
        other => drop(other.with_context(|| format!("{method} {path} from {address}"))?),
    }
    let mut response = parse(&answer)?;
    response.request_bytes = head.len() as u64;
    Ok(response)
}

/// Sends a plain GET.
pub fn get(address: SocketAddr, path: &str) -> Result<Response> {
    request(address, "GET", path, &[])
}

/// Parses a whole answer.
pub fn parse(answer: &[u8]) -> Result<Response> {
    let end = find(answer, b"\r\n\r\n").context("the answer has no end of headers")?;
    let (head, rest) = answer.split_at(end);
    let mut lines = std::str::from_utf8(head)?.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status
        .strip_prefix("HTTP/1.1 ")
        .and_then(|text| text.get(..3));
    let code = code.with_context(|| format!("not an HTTP/1.1 status line: {status}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("bad header: {line}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response {
        status: code.parse()?,
        headers,
        body: rest.get(4..).unwrap_or_default().to_vec(),
        request_bytes: 0,
        response_bytes: answer.len() as u64,
    };
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = dechunk(&response.body)?;
    } else if let Some(length) = response.header("content-length") {
        let length: usize = length.parse()?;
        ensure!(
            response.body.len() == length,
            "the body is cut: {} of {length}",
            response.body.len()
        );
    }
    Ok(response)
}

/// Joins the chunks of a chunked body.
fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = find(rest, b"\r\n").context("a chunk has no size line")?;
        let (size, after) = rest.split_at(end);
        let size = usize::from_str_radix(std::str::from_utf8(size)?, 16).context("chunk size")?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(after.get(2..size + 2).context("a chunk is cut")?);
        rest = after.get(size + 4..).context("a chunk is cut")?;
    }
}

/// Where `needle` starts in `hay`.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|window| window == needle)
}
