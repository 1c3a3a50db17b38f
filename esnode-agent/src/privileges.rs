//! Giving up rights once the programs are loaded and the sockets are bound.

use crate::{bpf::Bpf, process::fallback::Fallback};
use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// Raises the limit of open files as far as it may be: network namespaces take two each.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // It stays as it is where that is refused.
    let _ = setrlimit(Resource::Nofile, raised);
}

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

/// What is still to be done that takes rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Reading the iterator and the maps of BPF.
    pub bpf: bool,
    /// Entering network namespaces that come later.
    pub namespaces: bool,
    /// Reading what NVIDIA's driver tells administrators only.
    pub driver: bool,
}

/// What makes an administrator for NVIDIA's driver: it gives performance counters, and the
/// processes of MIG devices, to nobody else by default.
const DRIVER: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_PERFMON];

impl Needs {
    /// What these two need.
    #[must_use]
    pub fn of(bpf: Option<&Bpf>, fallback: &Fallback) -> Self {
        Self {
            bpf: bpf.is_some(),
            namespaces: fallback.enters_namespaces(),
            driver: false,
        }
    }
}

/// Keeps only what reading needs, of what there is: other users' `/proc/PID/io`, files of other
/// users, and what `needs` says. What only namespaces and drivers need is not in effect until one is
/// entered, or [`raise_for_driver`] is called.
///
/// Capabilities belong to threads: call it before there are others.
///
/// # Errors
/// If the kernel refuses; then some rights may be gone and others not.
pub fn drop(needs: Needs) -> Result<Vec<Capability>, PrivilegeError> {
    rustix::thread::set_no_new_privs(true)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut effective = vec![Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
    if needs.bpf {
        // Before CAP_BPF was split off, CAP_SYS_ADMIN was all of it.
        if permitted.contains(&Capability::CAP_BPF) {
            effective.extend([Capability::CAP_BPF, Capability::CAP_PERFMON]);
        } else {
            effective.push(Capability::CAP_SYS_ADMIN);
        }
    }
    effective.retain(|capability| permitted.contains(capability));
    let mut kept: CapsHashSet = effective.iter().copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &kept)?;
    if needs.namespaces && permitted.contains(&Capability::CAP_SYS_ADMIN) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    if needs.driver {
        kept.extend(DRIVER.iter().filter(|it| permitted.contains(it)));
    }
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    Ok(kept.into_iter().collect())
}

/// Puts into effect, for the calling thread, what a driver asks for, of what the thread may have.
///
/// # Errors
/// If the kernel refuses.
pub fn raise_for_driver() -> Result<(), PrivilegeError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    for capability in DRIVER.into_iter().filter(|it| permitted.contains(it)) {
        caps::raise(None, CapSet::Effective, capability)?;
    }
    Ok(())
}
