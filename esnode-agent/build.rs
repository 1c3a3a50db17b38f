//! Tells the crate which commit it is built from and whether BPF objects go inside.
//!
//! `ESNODE_BPF_OBJECT` names the object that `cargo xtask build-ebpf` made. Without it the
//! agent is built without BPF: it says so at start and uses `/proc`.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(bpf_object)");
    println!("cargo::rerun-if-env-changed=ESNODE_BPF_OBJECT");
    if let Some(object) = env::var_os("ESNODE_BPF_OBJECT") {
        let object = Path::new(&object);
        assert!(
            object.is_file(),
            "ESNODE_BPF_OBJECT names {}, which is no file: run `cargo xtask build-ebpf`, or unset it",
            object.display()
        );
        println!("cargo::rerun-if-changed={}", object.display());
        println!("cargo::rustc-env=ESNODE_BPF_OBJECT={}", object.display());
        println!("cargo::rustc-cfg=bpf_object");
    }

    if env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("musl") {
        link_without_libdl();
    }

    println!(
        "cargo::rustc-env=ESNODE_COMMIT={}",
        commit().as_deref().unwrap_or("unknown")
    );
    println!(
        "cargo::rustc-env=ESNODE_TARGET={}",
        env::var("TARGET").as_deref().unwrap_or("unknown")
    );
}

/// libloading asks for libdl, which rustup's musl does not have: its functions are in libc. An empty
/// archive of that name is enough.
fn link_without_libdl() {
    let folder = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&folder).join("libdl.a"), "!<arch>\n").expect("OUT_DIR can be written");
    println!("cargo::rustc-link-search=native={folder}");
}

/// The commit that is checked out, if this is a git work tree.
fn commit() -> Option<String> {
    // The reflog grows with every commit and checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
