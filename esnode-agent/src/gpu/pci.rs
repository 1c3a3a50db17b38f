//! Whether a device that is lost is on the bus at all.

use std::{fs::File, io::Read, path::Path};

/// Whether the bus answers nothing for a device, as for one that fell off it: opening the library
/// again can't bring it back, and takes time from the others. `bus_id` is as the driver writes it.
#[must_use]
pub(super) fn is_off_the_bus(sysfs: &Path, bus_id: &str) -> bool {
    // The driver has eight digits for the domain, sysfs four.
    let bus_id = bus_id.to_ascii_lowercase();
    let name = match bus_id.split_once(':') {
        Some((domain, rest)) => {
            let domain = domain.trim_start_matches('0');
            format!("{domain:0>4}:{rest}")
        }
        None => return false,
    };
    let config = sysfs.join("bus/pci/devices").join(name).join("config");
    let mut vendor = [0; 2];
    let read = File::open(config).and_then(|mut file| file.read_exact(&mut vendor));
    read.is_ok() && vendor == [0xff; 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_device_without_a_vendor_is_off_the_bus() {
        let sysfs = std::env::temp_dir().join(format!("esnode-pci-{}", std::process::id()));
        let device = sysfs.join("bus/pci/devices/0000:1a:00.0");
        fs::create_dir_all(&device).expect("made");
        fs::write(device.join("config"), [0xff; 64]).expect("written");
        assert!(is_off_the_bus(&sysfs, "00000000:1A:00.0"));
        fs::write(device.join("config"), [0xde, 0x10, 0, 0]).expect("written");
        assert!(!is_off_the_bus(&sysfs, "00000000:1A:00.0"));
        // What is not known is not off.
        assert!(!is_off_the_bus(&sysfs, "00000001:1A:00.0"));
        assert!(!is_off_the_bus(&sysfs, "nonsense"));
        fs::remove_dir_all(&sysfs).expect("removed");
    }
}
