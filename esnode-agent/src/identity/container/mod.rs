//! Containers and pods, by control group.
//!
//! [`cgroup`] tells from `/proc/PID/cgroup` which container a process runs in.

pub mod cgroup;

pub use cgroup::{Cgroup, ContainerRef, Runtime};
