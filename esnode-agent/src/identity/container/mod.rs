//! Containers and pods, by control group.
