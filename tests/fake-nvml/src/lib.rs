//! NVML without a GPU: a shared library that answers what a script says.
//!
//! The agent loads it as it would load the driver's. `FAKE_NVML_SCRIPT` names the script, whose
//! form is [`script::Script`]; a test may replace it at any time (write beside it, then rename).
//! `FAKE_NVML_CALLS`, if set, names a file that tells how often each function was called.
//!
//! A device sees one version of the script for as long as calls on it follow one another within
//! 20 ms, see [`state`]. Locks are never held while a call hangs.
//!
//! Functions are in files by topic. [`call`] is what they all do first, [`abi`] is how values get
//! across; a panic there ends the process, as it can't cross the C ABI.

#![expect(
    unsafe_code,
    reason = "functions with C names everywhere; pointers of C in `abi` alone"
)]

mod abi;
mod call;
mod calls;
mod device;
mod events;
mod fields;
mod gpm;
mod links;
mod mig;
mod processes;
mod queue;
mod script;
mod state;
mod system;
