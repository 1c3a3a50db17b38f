//! Giving up rights once the programs are loaded and the sockets are bound.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use thiserror::Error;

/// Why rights could not be given up.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The kernel refused to change capabilities.
    #[error("cannot change capabilities: {0}")]
    Capabilities(#[from] CapsError),
    /// The kernel refused `no_new_privs`.
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivileges(#[from] rustix::io::Errno),
}

/// Keeps only what reading needs, of what there is: other users' `/proc/PID/io`, files of other
/// users, and (while `bpf` is used) the iterator and the maps.
///
/// Capabilities belong to threads: call it before there are others.
///
/// # Errors
/// If the kernel refuses; then some rights may be gone and others not.
pub fn drop(bpf: bool) -> Result<Vec<Capability>, PrivilegeError> {
    rustix::thread::set_no_new_privs(true)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut wanted = vec![Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
    if bpf {
        // Before CAP_BPF was split off, CAP_SYS_ADMIN was all of it.
        let modern = permitted.contains(&Capability::CAP_BPF);
        wanted.extend(if modern {
            [Capability::CAP_BPF, Capability::CAP_PERFMON]
        } else {
            [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_RESOURCE]
        });
    }
    wanted.retain(|capability| permitted.contains(capability));
    let kept: CapsHashSet = wanted.iter().copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    Ok(wanted)
}
