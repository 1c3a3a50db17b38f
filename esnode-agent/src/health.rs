//! `esnode-core health`: whether the agent on this host answers, for container engines, which have
//! nothing else to ask with in an image without a shell.

use crate::{
    cli::HealthOptions,
    http_client::{self, HttpError, Peer},
};
use anyhow::{Context, Result};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};
use thiserror::Error;
use tokio::runtime::Builder;

const PATH: &str = "/healthz";

/// Longest answer that is read: it is two letters.
const LIMIT: usize = 1024;

/// Why the agent is not well.
#[derive(Debug, Error)]
pub enum HealthError {
    /// The flag, or its variable, names no port to ask.
    #[error("the agent takes a free port for {0}: name the one that its log tells")]
    NoPort(SocketAddr),
    /// No answer, or one that says something went wrong.
    #[error("no agent answers at http://{address}{PATH}: {error}")]
    Silent {
        /// Who was asked.
        address: SocketAddr,
        /// What came of it.
        error: HttpError,
    },
    /// An answer of something else.
    #[error("what answers at http://{0}{PATH} is no esnode-core")]
    Foreign(SocketAddr),
}

/// Asks every address that the agent was told to serve on.
///
/// # Errors
/// If one of them has no agent that answers in time.
pub fn run(options: &HealthOptions) -> Result<ExitCode> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    for &address in &options.serving.listen_address {
        runtime.block_on(ask(address, options))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(address: SocketAddr, options: &HealthOptions) -> Result<(), HealthError> {
    if address.port() == 0 {
        return Err(HealthError::NoPort(address));
    }
    let address = reachable(address);
    let peer = Peer::Tcp(address.to_string());
    match http_client::get(&peer, PATH, options.timeout, LIMIT).await {
        Ok(body) if body.trim_ascii() == b"ok" => Ok(()),
        Ok(_) => Err(HealthError::Foreign(address)),
        Err(error) => Err(HealthError::Silent { address, error }),
    }
}

/// Who listens on all addresses is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        for (given, asked) in [
            ("0.0.0.0:9100", "127.0.0.1:9100"),
            ("[::]:9100", "[::1]:9100"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("[fe80::7]:80", "[fe80::7]:80"),
        ] {
            let given: SocketAddr = given.parse().expect("address");
            assert_eq!(reachable(given).to_string(), asked);
        }
    }
}
