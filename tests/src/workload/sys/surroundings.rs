//! What the kernel grants to this process, and to the program that it becomes.

use std::io;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::skip;

/// From here on bpf(2) is answered by EPERM, as a container's seccomp profile does it.
pub(crate) fn refuse_bpf() -> Result<()> {
    // Classic BPF, on `struct seccomp_data`, which begins with the number of the system call.
    let instruction = |code: u32, skipped_if_not: u8, k: u32| -> Result<libc::sock_filter> {
        Ok(libc::sock_filter {
            code: u16::try_from(code)?,
            jt: 0,
            jf: skipped_if_not,
            k,
        })
    };
    let returned = libc::BPF_RET | libc::BPF_K;
    let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM)?;
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)?,
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            u32::try_from(libc::SYS_bpf)?,
        )?,
        instruction(returned, 0, refusal)?,
        instruction(returned, 0, libc::SECCOMP_RET_ALLOW)?,
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program and its filter, which live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    ensure!(result == 0, "seccomp: {}", io::Error::last_os_error());
    // SAFETY: the filter answers before any argument is looked at.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) };
    let error = io::Error::last_os_error();
    ensure!(
        answer == -1 && error.raw_os_error() == Some(libc::EPERM),
        "bpf(2) is answered by {answer}, {error}"
    );
    Ok(())
}

/// Takes this process, which has one thread, into a mount namespace of its own.
pub(crate) fn enter_new_mounts() -> Result<()> {
    // SAFETY: takes and gives numbers only.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if result != 0 {
        skip!("no mount namespace: {}", io::Error::last_os_error());
    }
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("make the mounts private")
}
