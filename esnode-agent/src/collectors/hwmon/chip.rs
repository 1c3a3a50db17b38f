//! Chips: which there are, and what they are called.

use super::sensors::{self, Sensor};
use crate::{
    collectors::sysfs::{entries, text},
    error::ReadError,
    page::Names,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A chip's entry in `/sys/class/hwmon`. The number in its name can be another one after the next
/// boot, and go to another chip when a driver is loaded again: the target of the link then differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    target: Option<PathBuf>,
}

/// One chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chip {
    /// Its name on the page: by its device, which is the same after each boot.
    pub(super) id: String,
    /// What the driver calls it, such as `coretemp`.
    pub(super) name: Option<String>,
    pub(super) sensors: Vec<Sensor>,
}

/// The chips that the kernel has at the moment, in the order of their numbers.
pub(super) fn places(class: &Path) -> Result<Vec<Place>, ReadError> {
    let names = entries(class)?.unwrap_or_default();
    let place = |name: String| {
        let folder = class.join(name);
        let target = fs::read_link(&folder).ok();
        Place { folder, target }
    };
    Ok(names.into_iter().map(place).collect())
}

impl Chip {
    /// Looks up what the chip has of what `names` need. A chip that vanishes meanwhile has nothing.
    pub(super) fn look_up(folder: &Path, names: Names) -> Self {
        let name = text(&folder.join("name"))
            .ok()
            .filter(|name| !name.is_empty());
        Self {
            id: id_of_chip(folder, name.as_deref()),
            sensors: sensors::look_up(folder, names),
            name,
        }
    }
}

/// node_exporter's name of a chip: the last two folders of its device, or else its driver's name.
fn id_of_chip(folder: &Path, name: Option<&str>) -> String {
    let last = |path: &Path| path.file_name().map(|name| clean(&name.to_string_lossy()));
    if let Ok(device) = fs::canonicalize(folder.join("device")) {
        let parts = [device.parent().and_then(last), last(&device)];
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        let label = parts.collect::<Vec<_>>().join("_");
        if !label.is_empty() {
            return label;
        }
    }
    let name = name.map(clean).filter(|name| !name.is_empty());
    name.or_else(|| last(folder)).unwrap_or_default()
}

/// A text as node_exporter writes it in names: lower case, with `_` for what it does not allow.
pub(super) fn clean(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '_');
    let lower = text.to_lowercase();
    let replaced = lower.chars().map(|c| if allowed(c) { c } else { '_' });
    replaced.collect::<String>().trim_matches('_').to_owned()
}

/// Gives chips of one device (as the GPU and its tile of `i915`) names that differ: with the
/// driver's name, and if those are the same too, with the number.
pub(super) fn distinguish(chips: &mut [(Place, Chip)]) {
    let suffixes: [fn(&Place, &Chip) -> String; 2] = [
        |_, chip| chip.name.as_deref().map(clean).unwrap_or_default(),
        |place, _| {
            let name = place.folder.file_name().unwrap_or_default();
            clean(&name.to_string_lossy())
        },
    ];
    for suffix in suffixes {
        let labels: Vec<String> = chips.iter().map(|(_, it)| it.id.clone()).collect();
        for (place, chip) in &mut *chips {
            if labels.iter().filter(|label| **label == chip.id).count() > 1 {
                chip.id = format!("{}_{}", chip.id, suffix(place, chip));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::TestChip, *};
    use crate::collectors::fixture::Host;

    fn add(host: &Host, number: u32, device: &str, files: &[(&str, &str)]) {
        let chip = TestChip {
            device,
            label: "",
            files,
        };
        super::super::fixture::add(host, number, &chip);
    }

    fn look_up(host: &Host) -> Vec<Chip> {
        let places = places(&host.sysfs().join("class/hwmon")).expect("readable");
        let look_up = |place: Place| {
            let chip = Chip::look_up(&place.folder, Names::Own);
            (place, chip)
        };
        let mut chips: Vec<_> = places.into_iter().map(look_up).collect();
        distinguish(&mut chips);
        chips.into_iter().map(|(_, chip)| chip).collect()
    }

    #[test]
    fn chips_are_named_by_their_devices() {
        let host = Host::new(&[("sys/class/hwmon/hwmon9/name", "no Device\n")]);
        host.write("sys/class/hwmon/hwmon10/temp1_input", "1\n");
        for (number, device, name) in [
            (0, "platform/coretemp.0", "coretemp"),
            (1, "pci0000:00/0000:00:18.3", "k10temp"),
            (2, "pci0000:00/0000:00:1d.0/0000:3d:00.0/nvme/nvme0", "nvme"),
            (3, "LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00", "power_meter"),
            (4, "pci0000:00/0000:00:1f.4/i2c-0/0-0018", "jc42"),
            (5, "pci0000:00/0000:00:01.1/0000:01:00.0", "amdgpu"),
            (6, "virtual/thermal/thermal_zone0", "acpitz"),
        ] {
            add(&host, number, device, &[("name", name)]);
        }
        let labels: Vec<String> = look_up(&host).into_iter().map(|it| it.id).collect();
        assert_eq!(
            labels,
            [
                "platform_coretemp_0",
                "pci0000:00_0000:00:18_3",
                "nvme_nvme0",
                "lnxsybus:00_acpi000d:00",
                "i2c_0_0_0018",
                "0000:00:01_1_0000:01:00_0",
                "thermal_thermal_zone0",
                "no_device",
                "hwmon10",
            ]
        );
    }

    #[test]
    fn chips_of_one_device_differ() {
        let host = Host::new(&[]);
        for (number, name) in [(0, "i915"), (1, "i915_gt0"), (2, "twin"), (3, "twin")] {
            add(&host, number, "pci0000:00/0000:00:02.0", &[("name", name)]);
        }
        let labels: Vec<String> = look_up(&host).into_iter().map(|it| it.id).collect();
        let device = "pci0000:00_0000:00:02_0";
        assert_eq!(
            labels,
            ["i915", "i915_gt0", "twin_hwmon2", "twin_hwmon3"]
                .map(|name| format!("{device}_{name}"))
        );
    }
}
