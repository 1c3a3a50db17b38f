//! What the suite is made of: an agent to start and scrape, a workload to run, a page to read.
//!
//! The tests are in `suite/`, the workload in `src/workload/`. Both sides share [`tally`], the
//! account of what was moved.

#![forbid(unsafe_code)]
#![expect(
    clippy::missing_errors_doc,
    reason = "an error here fails a test, and says why itself"
)]

pub mod agent;
pub mod compose;
pub mod container;
pub mod docker;
pub mod fixture;
pub mod gpu;
pub mod http;
pub mod log;
pub mod page;
pub mod prometheus;
pub mod pty;
pub mod puppet;
pub mod skip;
pub mod tally;
pub mod tools;
pub mod vm;
pub mod workload;
