//! Flags on the devices of the node, GPUs among them.

use super::values::{expression, gpu_interval, gpu_slow_interval};
use crate::{
    collectors::{disk, filesystem, filter::DeviceFilter, network},
    gpu::{Intervals, filter::Wanted},
};
use clap::Args;
use regex::Regex;
use std::{path::PathBuf, time::Duration};

/// Flags on the devices of the node.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Devices")]
pub struct DeviceFlags {
    /// Do not show block devices whose name matches this regular expression; an empty one shows
    /// all. Otherwise it is memory, loops, floppy disks and partitions that are not shown
    #[arg(long, env = "ESNODE_DISK_DEVICE_EXCLUDE", value_name = "REGEX", value_parser = expression,
        conflicts_with = "disk_device_include")]
    pub disk_device_exclude: Option<Regex>,

    /// Show only block devices whose name matches this regular expression
    #[arg(long, env = "ESNODE_DISK_DEVICE_INCLUDE", value_name = "REGEX", value_parser = expression)]
    pub disk_device_include: Option<Regex>,

    /// Do not show network interfaces whose name matches this regular expression; an empty one
    /// shows all. Otherwise it is the host's ends of links to containers that are not shown
    #[arg(long, env = "ESNODE_NETWORK_DEVICE_EXCLUDE", value_name = "REGEX",
        value_parser = expression, conflicts_with = "network_device_include")]
    pub network_device_exclude: Option<Regex>,

    /// Show only network interfaces whose name matches this regular expression
    #[arg(long, env = "ESNODE_NETWORK_DEVICE_INCLUDE", value_name = "REGEX",
        value_parser = expression)]
    pub network_device_include: Option<Regex>,

    /// Do not show filesystems whose mount point matches this regular expression; an empty one
    /// shows all. Otherwise it is those below /dev, /proc and /sys, and those of containers and
    /// pods that are not shown
    #[arg(long, env = "ESNODE_MOUNT_EXCLUDE", value_name = "REGEX", value_parser = expression,
        conflicts_with = "mount_include")]
    pub mount_exclude: Option<Regex>,

    /// Show only filesystems whose mount point matches this regular expression
    #[arg(long, env = "ESNODE_MOUNT_INCLUDE", value_name = "REGEX", value_parser = expression)]
    pub mount_include: Option<Regex>,

    /// Do not show filesystems whose type matches this regular expression; an empty one shows all.
    /// Otherwise it is those of the kernel, overlays, and images such as squashfs that are not
    /// shown
    #[arg(long, env = "ESNODE_FSTYPE_EXCLUDE", value_name = "REGEX", value_parser = expression,
        conflicts_with = "fstype_include")]
    pub fstype_exclude: Option<Regex>,

    /// Show only filesystems whose type matches this regular expression
    #[arg(long, env = "ESNODE_FSTYPE_INCLUDE", value_name = "REGEX", value_parser = expression)]
    pub fstype_include: Option<Regex>,
}

impl DeviceFlags {
    /// Which block devices are shown.
    #[must_use]
    pub fn disks(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.disk_device_exclude.as_ref(),
            self.disk_device_include.as_ref(),
            disk::DEFAULT_EXCLUDE,
        )
    }

    /// Which network interfaces are shown.
    #[must_use]
    pub fn interfaces(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.network_device_exclude.as_ref(),
            self.network_device_include.as_ref(),
            network::DEFAULT_EXCLUDE,
        )
    }

    /// Which filesystems are shown, by their mount points.
    #[must_use]
    pub fn mounts(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.mount_exclude.as_ref(),
            self.mount_include.as_ref(),
            filesystem::DEFAULT_MOUNT_EXCLUDE,
        )
    }

    /// Which filesystems are shown, by their types.
    #[must_use]
    pub fn fstypes(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.fstype_exclude.as_ref(),
            self.fstype_include.as_ref(),
            filesystem::DEFAULT_FSTYPE_EXCLUDE,
        )
    }
}

/// Flags on GPUs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "GPUs")]
pub struct GpuFlags {
    /// Sample GPUs this often: 100ms to 5s, as the driver keeps samples of processes for 10 s
    #[arg(long, env = "ESNODE_GPU_INTERVAL", value_name = "DURATION", default_value = "1s",
        value_parser = gpu_interval)]
    pub gpu_interval: Duration,

    /// Read what changes seldom this often: limits, links, ECC errors, rows; at least 100ms
    #[arg(long, env = "ESNODE_GPU_SLOW_INTERVAL", value_name = "DURATION", default_value = "30s",
        value_parser = gpu_slow_interval)]
    pub gpu_slow_interval: Duration,

    /// Sample only these GPUs: index, UUID or the beginning of it, MIG device as 0:1 or MIG-…
    /// (repeat, or separate by commas). Otherwise NVIDIA_VISIBLE_DEVICES says which
    #[arg(
        long,
        env = "ESNODE_GPU_DEVICES",
        value_name = "DEVICE",
        value_delimiter = ','
    )]
    pub gpu_devices: Vec<Wanted>,

    /// NVIDIA's management library, if it is not libnvidia-ml.so.1 where the system looks for it
    #[arg(long, env = "ESNODE_NVML_LIBRARY", value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
}

impl GpuFlags {
    /// How often is sampled.
    #[must_use]
    pub fn intervals(&self) -> Intervals {
        Intervals {
            fast: self.gpu_interval,
            slow: self.gpu_slow_interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn devices_are_shown_or_left_out() {
        let disks = |arguments: &[&str]| parse(arguments).map(|it| it.sources.devices.disks());
        let filter = disks(&[]).expect("valid");
        assert!(filter.shows("sda") && !filter.shows("sda1"));
        let filter = disks(&["--disk-device-exclude", "^sd"]).expect("valid");
        assert!(filter.shows("loop0") && !filter.shows("sda"));
        let filter = disks(&["--disk-device-include", "1$"]).expect("valid");
        assert!(filter.shows("sda1") && !filter.shows("sda"));
        let both = ["--disk-device-include", "a", "--disk-device-exclude", "b"];
        assert!(disks(&both).is_err());
        let flags = ["--network-device-exclude", ""];
        let devices = parse(&flags).expect("valid").sources.devices;
        assert!(devices.interfaces().shows("veth0") && !devices.disks().shows("sda1"));
        let flags = ["--mount-include", "^/dev/", "--fstype-exclude", "^nfs"];
        let devices = parse(&flags).expect("valid").sources.devices;
        assert!(devices.mounts().shows("/dev/shm") && !devices.mounts().shows("/"));
        assert!(devices.fstypes().shows("proc") && !devices.fstypes().shows("nfs4"));
    }
}
