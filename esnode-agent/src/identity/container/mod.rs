//! Containers and pods, by control group.
//!
//! [`cgroup`] tells from `/proc/PID/cgroup` which container a process runs in; [`Directory`] tells
//! what a container is called. The first is exact and needs nothing else; the second asks in a
//! thread of its own whoever may know, and does without where nobody does.

pub mod cgroup;
mod complaint;
mod details;
mod directory;
mod error;
mod host;
mod options;
mod source;

pub use cgroup::{Cgroup, ContainerRef, Runtime};
pub use complaint::Complaint;
pub use details::Details;
pub use directory::Directory;
pub use error::Error;
pub use options::{KubeletUrl, KubeletUrlError, Options};
pub use source::Source;

#[cfg(test)]
mod fixture;
