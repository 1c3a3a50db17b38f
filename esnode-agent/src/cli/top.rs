//! Flags of `top`.

use super::{GpuFlags, IdentityFlags, Sources, values::duration};
use crate::top::Column;
use clap::{Args, builder::FalseyValueParser};
use std::time::Duration;

/// Where an agent listens if nobody says otherwise.
const DEFAULT_PORT: u16 = 9100;

/// Flags of `top`.
#[derive(Args, Debug)]
pub struct TopOptions {
    /// Show what a running agent says, such as http://localhost:9100, instead of reading this
    /// host's kernel
    #[arg(long, env = "ESNODE_TOP_URL", value_name = "URL", value_parser = agent_url)]
    pub url: Option<AgentUrl>,

    /// Sample this often: 1s to 1m
    #[arg(long, env = "ESNODE_TOP_INTERVAL", value_name = "DURATION", default_value = "2s",
        value_parser = interval)]
    pub interval: Duration,

    /// Take two samples one interval apart, print a table, and end
    #[arg(long)]
    pub once: bool,

    /// Take two samples one interval apart, print them as JSON with rates per second, and end
    #[arg(long)]
    pub json: bool,

    /// Sort by this column, the largest first, names and ids from the first on
    #[arg(long, env = "ESNODE_TOP_SORT", value_name = "COLUMN")]
    pub sort: Option<Column>,

    /// Show only processes with this text in pid, user, command, engine, role, model, container,
    /// image, pod or namespace, in either case
    #[arg(
        long,
        env = "ESNODE_TOP_FILTER",
        value_name = "TEXT",
        default_value = ""
    )]
    pub filter: String,

    /// Columns of the table of --once; otherwise those of the terminal, or 200
    #[arg(long, env = "ESNODE_TOP_WIDTH", value_name = "N",
        value_parser = clap::value_parser!(u16).range(40..=1000))]
    pub width: Option<u16>,

    /// How it looks.
    #[command(flatten)]
    pub looks: Looks,

    /// Where to read, without --url.
    #[command(flatten)]
    pub sources: Sources,

    /// How to sample GPUs, without --url.
    #[command(flatten)]
    pub gpu: GpuFlags,

    /// Who processes are, without --url.
    #[command(flatten)]
    pub identity: IdentityFlags,
}

/// Flags on looks.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Looks")]
pub struct Looks {
    /// Do without colour; so does NO_COLOR, and a terminal that is dumb
    #[arg(long, env = "ESNODE_TOP_NO_COLOR", value_parser = FalseyValueParser::new())]
    pub no_color: bool,

    /// Draw with ASCII alone; so does a locale other than UTF-8
    #[arg(long, env = "ESNODE_TOP_ASCII", value_parser = FalseyValueParser::new())]
    pub ascii: bool,
}

/// Where an agent serves: `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUrl {
    /// `HOST:PORT`; an IPv6 address in brackets.
    pub authority: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_secs(1)..=Duration::from_mins(1)).contains(&interval) {
        Ok(interval)
    } else {
        Err("expected 1s to 1m".to_owned())
    }
}

/// `http://HOST` or `http://HOST:PORT`.
fn agent_url(text: &str) -> Result<AgentUrl, String> {
    if text.starts_with("https://") {
        return Err(
            "TLS is not spoken here: expected http://HOST:PORT, perhaps through `ssh -L`"
                .to_owned(),
        );
    }
    let expected = || "expected http://HOST:PORT, such as http://localhost:9100".to_owned();
    let rest = text.strip_prefix("http://").ok_or_else(expected)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err("expected http://HOST:PORT without a path".to_owned());
    }
    // What follows the colon of a port; those of an IPv6 address are in brackets.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let may_be_in = |char: char| {
        char.is_ascii_alphanumeric() || "-._".contains(char) || bracketed && "[]:%".contains(char)
    };
    if host.is_empty() || !host.chars().all(may_be_in) {
        return Err(expected());
    }
    let port = port.map_or(Ok(DEFAULT_PORT), |port| {
        port.parse().map_err(|_| expected())
    })?;
    Ok(AgentUrl {
        authority: format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(arguments: &[&str]) -> Result<TopOptions, String> {
        let arguments = ["esnode-core", "top"].iter().chain(arguments);
        match Cli::try_parse_from(arguments).map(|cli| cli.command) {
            Ok(Some(Command::Top(options))) => Ok(*options),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn urls_name_a_host_and_perhaps_a_port() {
        for (url, authority) in [
            ("http://node-7:9100", "node-7:9100"),
            ("http://10.0.0.1/", "10.0.0.1:9100"),
            ("http://[::1]:80", "[::1]:80"),
            ("http://[::1]", "[::1]:9100"),
        ] {
            let options = parse(&["--url", url]).expect("valid");
            assert_eq!(options.url.expect("given").authority, authority);
        }
        for (url, expected) in [
            ("https://node-7:9100", "ssh -L"),
            ("node-7:9100", "http://HOST:PORT"),
            ("http://node-7:9100/metrics", "without a path"),
            ("http://user@node-7", "http://HOST:PORT"),
            ("http://node-7:port", "http://HOST:PORT"),
            ("http://", "http://HOST:PORT"),
        ] {
            let error = parse(&["--url", url]).expect_err("invalid");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn values_are_held_to_their_ranges() {
        let options = parse(&["--interval", "1s", "--sort", "gpu-memory"]).expect("valid");
        assert_eq!(options.interval, Duration::from_secs(1));
        assert_eq!(options.sort, Some(Column::GpuMemory));
        for (arguments, expected) in [
            (["--interval", "500ms"], "1s to 1m"),
            (["--interval", "2m"], "1s to 1m"),
            (["--sort", "beauty"], "possible values: pid"),
            (["--width", "10"], "40..=1000"),
        ] {
            let error = parse(&arguments).expect_err("invalid");
            assert!(error.contains(expected), "{error}");
        }
    }
}
