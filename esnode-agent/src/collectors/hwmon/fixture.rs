//! For tests: chips as they are on real hosts.

use crate::collectors::fixture::Host;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::path::PathBuf;

/// A chip, and how it must be called.
pub(super) struct TestChip<'a> {
    /// Below `/sys/devices`.
    pub(super) device: &'a str,
    pub(super) label: &'a str,
    pub(super) files: &'a [(&'a str, &'a str)],
}

/// Gives the host a chip of this number.
pub(super) fn add(host: &Host, number: u32, chip: &TestChip<'_>) {
    let folder = format!("devices/{}/hwmon/hwmon{number}", chip.device);
    for (file, text) in chip.files {
        host.write(&format!("sys/{folder}/{file}"), format!("{text}\n"));
    }
    host.link(&format!("sys/{folder}/device"), "../..");
    let target = format!("../../{folder}");
    host.link(&format!("sys/class/hwmon/hwmon{number}"), &target);
}

/// A file that can't be read before somebody writes to it: a sensor that does not answer.
pub(super) fn add_silent_file(host: &Host, file: &str) -> PathBuf {
    let path = host.sysfs().join(file);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
    path
}

pub(super) const CORETEMP: TestChip<'_> = TestChip {
    device: "platform/coretemp.0",
    label: "platform_coretemp_0",
    files: &[
        ("name", "coretemp"),
        ("temp1_crit", "100000"),
        ("temp1_crit_alarm", "0"),
        ("temp1_input", "45850"),
        ("temp1_label", "Package id 0"),
        ("temp1_max", "80000"),
        ("temp2_crit", "100000"),
        ("temp2_crit_alarm", "1"),
        ("temp2_input", "-5500"),
        ("temp2_label", "Core 0"),
        ("temp2_max", "80000"),
    ],
};

pub(super) const K10TEMP: TestChip<'_> = TestChip {
    device: "pci0000:00/0000:00:18.3",
    label: "pci0000:00_0000:00:18_3",
    files: &[
        ("name", "k10temp"),
        ("temp1_input", "44375"),
        ("temp1_label", "Tctl"),
        ("temp3_input", "40000"),
        ("temp3_label", "Tccd"),
        ("temp4_input", "41250"),
        ("temp4_label", "Tccd"),
    ],
};

pub(super) const NVME: TestChip<'_> = TestChip {
    device: "pci0000:00/0000:00:1d.0/0000:3d:00.0/nvme/nvme0",
    label: "nvme_nvme0",
    files: &[
        ("name", "nvme"),
        ("temp1_alarm", "0"),
        ("temp1_crit", "84850"),
        ("temp1_fault", "0"),
        ("temp1_input", "30850"),
        ("temp1_label", "Composite"),
        ("temp1_min", "-273150"),
        ("temp2_fault", "1"),
        ("temp2_input", "65261850"),
        ("temp2_label", "Sensor 2"),
    ],
};

pub(super) const POWER_METER: TestChip<'_> = TestChip {
    device: "LNXSYSTM:00/LNXSYBUS:00/ACPI000D:00",
    label: "lnxsybus:00_acpi000d:00",
    files: &[
        ("name", "power_meter"),
        ("power1_accuracy", "90.0%"),
        ("power1_alarm", "0"),
        ("power1_average", "344000000"),
        ("power1_average_interval", "1500"),
        ("power1_cap", "1000000"),
        ("power1_is_battery", "0"),
        ("power1_model_number", "Intel(R) Node Manager"),
    ],
};

pub(super) const JC42: TestChip<'_> = TestChip {
    device: "pci0000:00/0000:00:1f.4/i2c-0/0-0018",
    label: "i2c_0_0_0018",
    files: &[("name", "jc42"), ("temp1_input", "33500")],
};

pub(super) const AMDGPU: TestChip<'_> = TestChip {
    device: "pci0000:00/0000:00:01.1/0000:01:00.0",
    label: "0000:00:01_1_0000:01:00_0",
    files: &[
        ("name", "amdgpu"),
        ("fan1_enable", "0"),
        ("fan1_input", "1200"),
        ("fan1_max", "3300"),
        ("fan1_target", "1300"),
        ("freq1_input", "1800000000"),
        ("freq1_label", "sclk"),
        ("in0_input", "1300"),
        ("in0_label", "vddgfx"),
        ("power1_average", "18500000"),
        ("power1_input", "19000000"),
        ("power1_label", "PPT"),
        ("pwm1", "128"),
        ("pwm1_enable", "2"),
        ("temp1_emergency", "105000"),
        ("temp1_input", "35000"),
        ("temp1_label", "edge"),
    ],
};

pub(super) const INA3221: TestChip<'_> = TestChip {
    device: "platform/c240000.i2c/i2c-1/1-0040",
    label: "i2c_1_1_0040",
    files: &[
        ("name", "ina3221"),
        ("curr1_crit", "32760"),
        ("curr1_crit_alarm", "0"),
        ("curr1_input", "1464"),
        ("in1_input", "5072"),
        ("in1_label", "VDD_IN"),
    ],
};

/// What boards of servers have, and a little of everything that is rare.
pub(super) const BOARD: TestChip<'_> = TestChip {
    device: "platform/nct6775.656",
    label: "platform_nct6775_656",
    files: &[
        ("name", "nct6775"),
        ("beep_enable", "1"),
        ("cpu0_vid", "1100"),
        ("energy1_input", "1234567890"),
        ("fan1_alarm", "0"),
        ("fan1_div", "4"),
        ("fan1_input", "8550"),
        ("fan1_min", "500"),
        ("fan2_input", "0"),
        ("fan2_min_alarm", "1"),
        ("humidity1_input", "45000"),
        ("in1_beep", "0"),
        ("in1_label", ""),
        ("intrusion0_alarm", "1"),
        ("pwm2", "255"),
        ("pwm2_auto_point1_temp", "40000"),
        ("temp1_lcrit_alarm", "0"),
        ("temp1_type", "4"),
        ("update_interval", "1500"),
        ("vrm", "110"),
    ],
};
