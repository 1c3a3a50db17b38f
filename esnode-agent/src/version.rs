//! What this binary is.

use crate::bpf;
use std::sync::LazyLock;

/// Version of the crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit it was built from; `unknown` outside a git work tree.
pub const COMMIT: &str = env!("ESNODE_COMMIT");

/// Target it was built for.
pub const TARGET: &str = env!("ESNODE_TARGET");

/// One line for `--version`: version, commit, target, and whether BPF objects are inside.
#[must_use]
pub fn line() -> &'static str {
    static LINE: LazyLock<String> = LazyLock::new(|| {
        let objects = if bpf::is_embedded() {
            "BPF objects inside"
        } else {
            "without BPF objects"
        };
        format!("{VERSION} (commit {COMMIT}, {TARGET}, {objects})")
    });
    &LINE
}
