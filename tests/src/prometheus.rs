//! A Prometheus of the tests' own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{http, tools, workload};

/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Prometheus; killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
}

/// A series, and its value when it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    labels: Value,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name)?.as_str()
    }
}

impl Prometheus {
    /// Starts it on a free loopback port in a folder of this run, with a configuration and whatever
    /// files that names.
    pub fn start(name: &str, files: &[(String, String)]) -> Result<Self> {
        let program = tools::find("prometheus")?;
        let folder = workload::directory()?.join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        for (file, text) in files {
            fs::write(folder.join(file), text)?;
        }
        // Whoever takes the port meanwhile makes this fail, and that's told.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let log = folder.join("log");
        let flag = |name: &str, path: &Path| {
            let mut flag = OsString::from(format!("--{name}="));
            flag.push(path);
            flag
        };
        let mut command = Command::new(program);
        command
            .arg(flag("config.file", &folder.join("prometheus.yml")))
            .arg(flag("storage.tsdb.path", &folder.join("data")))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut prometheus = Self { child, address };
        let start = Instant::now();
        while !prometheus.is_ready() {
            if let Some(status) = prometheus.child.try_wait()? {
                bail!("Prometheus ended ({status}): {}", fs::read_to_string(&log)?);
            }
            ensure!(start.elapsed() < PATIENCE, "Prometheus doesn't answer");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(prometheus)
    }

    fn is_ready(&self) -> bool {
        http::get(self.address, "/-/ready").is_ok_and(|response| response.status == 200)
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The series that a query gives now.
    pub fn query(&self, expr: &str) -> Result<Vec<Sample>> {
        self.ask(&format!("query={}", encoded(expr)), expr)
    }

    /// The series that a query gave at a time.
    pub fn query_at(&self, expr: &str, time: SystemTime) -> Result<Vec<Sample>> {
        let seconds = time.duration_since(UNIX_EPOCH)?.as_secs_f64();
        self.ask(&format!("time={seconds}&query={}", encoded(expr)), expr)
    }

    fn ask(&self, parameters: &str, expr: &str) -> Result<Vec<Sample>> {
        let path = format!("/api/v1/query?{parameters}");
        let response = http::get(self.address, &path)?;
        let text = response.text()?;
        ensure!(response.status == 200, "{expr}: {text}");
        let answer: Value = serde_json::from_str(text)?;
        let result = answer.pointer("/data/result").and_then(Value::as_array);
        let series = result.with_context(|| format!("{expr}: no result in {answer}"))?;
        series
            .iter()
            .map(|series| {
                let value = series.pointer("/value/1").and_then(Value::as_str);
                Ok(Sample {
                    labels: series.get("metric").cloned().unwrap_or_default(),
                    value: value.context("no value")?.parse()?,
                })
            })
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A text as it can stand in a URL.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("a{b=\"c d\"}"), "a%7Bb%3D%22c%20d%22%7D");
    }
}
