//! `esnode-core`: the node agent that says which process used what.
//!
//! Data flows one way: `bpf` and `/proc` are read by `process` and `collectors` into plain facts,
//! `gpu` samples NVML in threads of its own, `page` writes facts as families, `server` hands the page out. `sampler` turns the crank.

pub mod agent;
pub mod api;
pub mod bpf;
pub mod check;
pub mod cli;
pub mod collectors;
pub mod error;
pub mod gpu;
pub mod grouping;
pub mod health;
pub mod http_client;
pub mod identity;
pub mod ladder;
pub mod page;
pub mod privileges;
pub mod process;
pub mod sampler;
pub mod server;
pub mod top;
pub mod version;
