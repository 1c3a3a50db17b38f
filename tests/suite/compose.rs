//! The files below `docker/`: what users start the agent with, and look at it through.

mod config;
mod dashboards;
mod kubernetes;
mod opik;
mod rules;
mod service;

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    [
        config::cases(),
        rules::cases(),
        dashboards::cases(),
        opik::cases(),
        kubernetes::cases(),
        service::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
