//! Who a process is: the inference engine that it works for, and the container that it runs in.

pub mod container;
pub mod engine;
