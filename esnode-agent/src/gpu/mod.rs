//! GPUs, by NVIDIA's management library (NVML).
//!
//! `supervisor` opens the library (`library`), again if the driver was lost, and starts a thread
//! that samples (`worker`, which asks each `device` for everything by way of `ask`) and one for
//! errors (`events`). If a call hangs, another thread takes over the other devices (`roster`). Who a process id is, `people` knows; what processes did in an interval,
//! `usage` says; `energy` and `counter` are accounts that outlive the driver. All of it lands on
//! the `board`, where a scrape reads [`facts`] and calls nothing. Unsafe code is in `sys`.

mod ask;
mod board;
pub mod book;
pub mod collector;
mod counter;
mod device;
mod energy;
mod epoch;
mod events;
pub mod facts;
pub mod filter;
mod gpus;
mod library;
mod pci;
mod people;
mod roster;
mod supervisor;
mod sys;
mod usage;
mod watch;
mod worker;

pub use board::{Intervals, Standing};
pub use gpus::{GpuOptions, Gpus};
