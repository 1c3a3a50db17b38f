//! Flags of `health`.

use super::{LogOptions, Serving, values::duration};
use clap::Args;
use std::time::Duration;

/// Flags of `health`.
#[derive(Args, Debug)]
pub struct HealthOptions {
    /// How long each answer may take
    #[arg(long, env = "ESNODE_HEALTH_TIMEOUT", value_name = "DURATION", default_value = "2s",
        value_parser = timeout)]
    pub timeout: Duration,

    /// Where the agent serves: as it was told, by the same variable.
    #[command(flatten)]
    pub serving: Serving,
    /// What to log.
    #[command(flatten)]
    pub log: LogOptions,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout.is_zero() {
        return Err("expected more than nothing".to_owned());
    }
    Ok(timeout)
}
