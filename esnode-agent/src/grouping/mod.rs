//! By what processes are put together into groups.

pub mod process_exporter;
