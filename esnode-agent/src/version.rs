//! What this binary is.

use crate::bpf;

/// Version of the crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit it was built from; `unknown` outside a git work tree.
pub const COMMIT: &str = env!("ESNODE_COMMIT");

/// Target it was built for.
pub const TARGET: &str = env!("ESNODE_TARGET");

/// One line for `--version`: version, commit, target, and whether BPF objects are inside.
#[must_use]
pub fn line() -> &'static str {
    if bpf::is_embedded() {
        concat!(
            env!("CARGO_PKG_VERSION"),
            " (commit ",
            env!("ESNODE_COMMIT"),
            ", ",
            env!("ESNODE_TARGET"),
            ", BPF objects inside)"
        )
    } else {
        concat!(
            env!("CARGO_PKG_VERSION"),
            " (commit ",
            env!("ESNODE_COMMIT"),
            ", ",
            env!("ESNODE_TARGET"),
            ", without BPF objects)"
        )
    }
}
