//! Times of block devices, which the kernel writes in 32 bits of milliseconds
//! (`diskstats_show` of block/genhd.c), carried on past 49.7 days.

use super::Disk;
use crate::collectors::wrapping::Wrapping;
use rustc_hash::FxHashMap;

/// How many times the kernel tells of a device.
const TIMES: usize = 6;

/// What is kept of the devices from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Times {
    devices: FxHashMap<String, Device>,
    pass: u64,
}

/// What is kept of one.
#[derive(Debug, Default)]
struct Device {
    times: [Wrapping; TIMES],
    completed: u64,
    pass: u64,
}

impl Times {
    /// Replaces the times of these devices by what they would be if the kernel had room for them.
    /// Forgets devices that are not among them.
    pub(super) fn carry(&mut self, disks: &mut [Disk]) {
        self.pass += 1;
        for disk in disks {
            if let Some(device) = self.devices.get_mut(&disk.name) {
                device.carry(disk, self.pass);
            } else {
                let mut device = Device::default();
                device.carry(disk, self.pass);
                self.devices.insert(disk.name.clone(), device);
            }
        }
        let pass = self.pass;
        self.devices.retain(|_, device| device.pass == pass);
    }
}

impl Device {
    fn carry(&mut self, disk: &mut Disk, pass: u64) {
        // Requests have 64 bits: if there are fewer of them, this is another device of that name.
        let completed = disk.read.completed.saturating_add(disk.written.completed);
        if completed < self.completed {
            *self = Self::default();
        }
        self.completed = completed;
        self.pass = pass;
        for (kept, time) in self.times.iter_mut().zip(disk.times()) {
            if let Some(time) = time {
                *time = kept.carry(*time);
            }
        }
    }
}

impl Disk {
    fn times(&mut self) -> [Option<&mut u64>; TIMES] {
        let discarded = self.discarded.as_mut();
        let flushed = self.flushed.as_mut();
        [
            Some(&mut self.read.milliseconds),
            Some(&mut self.written.milliseconds),
            Some(&mut self.io_milliseconds),
            Some(&mut self.weighted_milliseconds),
            discarded.map(|discarded| &mut discarded.milliseconds),
            flushed.map(|flushed| &mut flushed.milliseconds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::{
        disk::{DiskCollector, parse},
        filter::DeviceFilter,
        fixture::{Host, samples},
    };

    /// The times of one device after each of these lines, an empty one meaning that it is gone.
    fn carried(lines: &[&str]) -> Vec<[Option<u64>; TIMES]> {
        let mut times = Times::default();
        let of = |line: &&str| {
            let mut disks = parse(line).expect("valid");
            times.carry(&mut disks);
            let disk = disks.first_mut()?;
            Some(disk.times().map(|time| time.map(|time| *time)))
        };
        lines.iter().filter_map(of).collect()
    }

    const FULL: &str = "8 0 sda 9 0 0 4294967290 9 0 0 4294967291 0 4294967292 4294967293 \
        9 0 0 4294967294 9 4294967295\n";

    #[test]
    fn each_goes_on_by_itself() {
        let next = "8 0 sda 9 0 0 4 9 0 0 4294967291 0 2 3 9 0 0 1 9 0\n";
        let times = carried(&[FULL, next, next]);
        let expected = [
            4_294_967_300,
            4_294_967_291,
            4_294_967_298,
            4_294_967_299,
            4_294_967_297,
            4_294_967_296,
        ]
        .map(Some);
        assert_eq!(times[1..], [expected, expected]);
    }

    #[test]
    fn another_device_of_that_name_begins_anew() {
        // It came back between two passes, or was seen to be gone.
        let other = "8 0 sda 1 0 0 4 9 0 0 5 0 6 7 9 0 0 8 9 9\n";
        let same = "8 0 sda 9 0 0 4 9 0 0 5 0 6 7 9 0 0 8 9 9\n";
        let expected = [4, 5, 6, 7, 8, 9].map(Some);
        assert_eq!(carried(&[FULL, other])[1], expected);
        assert_eq!(carried(&[FULL, "", same])[1], expected);
        assert_ne!(carried(&[FULL, same])[1], expected);
    }

    #[test]
    fn older_kernels_tell_of_fewer() {
        let lines = [
            "8 0 sda 9 0 0 4294967290 9 0 0 1 0 2 3\n",
            "8 0 sda 9 0 0 4 9 0 0 1 0 2 3\n",
        ];
        let expected = [Some(4_294_967_300), Some(1), Some(2), Some(3), None, None];
        assert_eq!(carried(&lines)[1], expected);
    }

    #[test]
    fn the_page_goes_on() {
        let host = Host::new(&[("proc/diskstats", FULL)]);
        let mut collector = DiskCollector::new(&host.procfs(), DeviceFilter::default());
        collector.sample().expect("valid");
        host.write("proc/diskstats", FULL.replace("4294967292", "704"));
        let page = samples(collector.sample().expect("valid"));
        let line = r#"esnode_disk_io_seconds_total{device="sda"} 4294968.0"#;
        assert!(page.iter().any(|it| it == line), "{page:?}");
    }
}
