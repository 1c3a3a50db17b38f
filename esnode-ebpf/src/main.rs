//! The BPF programs: they count what crosses sockets, and settle what a task used when it is
//! renamed or ends. They decide, look up and add; nothing is streamed to user space.
//!
//! - `network`: the two socket tracepoints, on the hot path of every send and receive.
//! - `functions`: the same by the functions below them, where the kernel has no such tracepoints.
//! - `splice`: what leaves TCP sockets without a receive, where functions can't be seen.
//! - `block`: latency of block devices, on request.
//! - `lifetime`: fork, rename, exit and free of tasks.
//! - `tasks`: the iterator that reads all tasks at the time of a scrape.

#![no_std]
#![no_main]
// `core` has no atomic types for BPF, only the intrinsic that they are made of.
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "see above")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::inline_always,
    clippy::multiple_unsafe_ops_per_block,
    clippy::needless_pass_by_value,
    reason = "sizes fit 32 bits; the verifier checks every index; a call is another function to \
              it; an offset and its load are one step; the macro passes contexts by value"
)]
#![allow(
    unsafe_code,
    reason = "each read of kernel memory and each map value is a raw pointer; the verifier checks what `unsafe` promises"
)]

mod baseline;
mod block;
mod functions;
mod kernel;
mod lifetime;
mod network;
mod splice;
mod tables;
mod tasks;

/// The kernel lets only programs with a GPL-compatible licence call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
