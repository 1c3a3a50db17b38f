//! Who runs this, and who they can become.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Whether sudo is installed.
pub(crate) fn has_sudo() -> bool {
    succeeds(Command::new("sudo").arg("--version"))
}

/// Whether sudo makes us root without asking anything.
pub(crate) fn has_free_sudo() -> bool {
    succeeds(Command::new("sudo").args(["-n", "true"]))
}

/// The argument that makes sudo keep the agent's variables, and `more`. Sudo minds none that
/// are not set.
pub(crate) fn preserve_env<const N: usize>(more: [&str; N]) -> String {
    let set: Vec<String> = env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("ESNODE_"))
        .collect();
    let names: BTreeSet<&str> = set.iter().map(String::as_str).chain(more).collect();
    let names: Vec<&str> = names.into_iter().collect();
    format!("--preserve-env={}", names.join(","))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
