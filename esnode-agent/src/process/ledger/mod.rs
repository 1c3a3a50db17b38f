//! The accounts of groups, which outlive their processes.
//!
//! There is a ledger for each way to know of ended processes: [`KernelLedger`] where the kernel's
//! hooks add them up, [`ListeningLedger`] where the kernel sends a record of every ended thread,
//! [`ObservedLedger`] where there is only one look at the processes after the other.

mod ended;
#[cfg(test)]
mod fixtures;
mod groups;
mod kept;
mod kernel;
mod listening;
mod observed;

pub use ended::Moment;
pub use kernel::KernelLedger;
pub use listening::{Listening, ListeningLedger, Live, LiveThreads};
pub use observed::ObservedLedger;
