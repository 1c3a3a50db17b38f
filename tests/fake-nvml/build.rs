//! Keeps the library in the process that loaded it: what it has counted and delivered has to
//! outlive a `dlclose`, as the driver's own state does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
