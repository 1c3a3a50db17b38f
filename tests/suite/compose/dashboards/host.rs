//! This host, with the hardware that it may lack, and hosts that are made of files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use esnode_tests::agent::Agent;
use esnode_tests::gpu::{FakeNvml, device, host};
use esnode_tests::workload;
use serde_json::{Value, json};

use super::load::Load;
use crate::gpu::{cut, full};

/// Where the kernel is told to count what BPF programs take.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Where meters of processors are in `/sys`.
const ZONE: &str = "class/powercap/intel-rapl:";

/// A chip that no host of the fixtures has: one with a meter of energy, and a broken sensor.
const CHIP: [(&str, &str); 4] = [
    ("name", "ina219"),
    ("energy1_input", "5000000"),
    ("temp1_input", "40000"),
    ("temp1_fault", "1"),
];

/// The kernel's statistics of BPF programs, switched on until this is dropped.
pub(super) struct Statistics {
    before: String,
}

impl Statistics {
    pub(super) fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).context(SWITCH)?;
        fs::write(SWITCH, "1").context(SWITCH)?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!("{SWITCH} is still on: {error}");
        }
    }
}

/// This host: its own `/proc`, its own `/sys` with meters of energy, and GPUs.
pub(super) struct ThisHost {
    sysfs: PathBuf,
    /// What the meters say, in microjoules.
    energy: u64,
    fake: FakeNvml,
    script: Value,
    /// Critical errors so far.
    xids: u64,
}

impl ThisHost {
    pub(super) fn start(load: &Load) -> Result<Self> {
        let script = script(load);
        let mut this = Self {
            sysfs: workload::directory()?.join("dashboards-sys"),
            energy: 0,
            fake: FakeNvml::new(&script)?,
            script,
            xids: 0,
        };
        link_all("/sys".as_ref(), &this.sysfs, &["class"])?;
        link_all(
            "/sys/class".as_ref(),
            &this.sysfs.join("class"),
            &["powercap", "hwmon"],
        )?;
        for (file, text) in CHIP {
            this.write(&format!("class/hwmon/hwmon0/{file}"), text)?;
        }
        for (zone, name) in [("0", "package-0"), ("0:0", "dram"), ("1", "psys")] {
            let zone = format!("{ZONE}{zone}");
            this.write(&format!("{zone}/name"), name)?;
            this.write(&format!("{zone}/max_energy_range_uj"), "262143328850")?;
        }
        this.go_on()?;
        Ok(this)
    }

    /// By BPF with all that there is, and without.
    pub(super) fn agents(&self, load: &Load) -> Result<Vec<(&'static str, Agent)>> {
        let sysfs = self.sysfs.to_str().context("a path in UTF-8")?;
        let docker = load.docker().to_str().context("a path in UTF-8")?;
        let quick = [
            "--gpu-interval",
            "200ms",
            "--gpu-slow-interval",
            "1s",
            "--node-interval",
            "500ms",
            "--docker-socket",
            "/nonexistent",
            "--docker-data",
            docker,
        ];
        let with_bpf = ["--sysfs", sysfs, "--disk-latency", "--group-by", "engine"];
        let without = ["--no-bpf", "--group-by", "container"];
        Ok(vec![
            ("bpf", self.fake.start(&[&quick[..], &with_bpf].concat())?),
            ("no-bpf", Agent::start(&[&quick[..], &without].concat())?),
        ])
    }

    /// Lets the meters count, and a GPU report an error.
    pub(super) fn go_on(&mut self) -> Result<()> {
        self.energy += 20_000_000;
        for zone in ["0", "0:0", "1"] {
            self.write(&format!("{ZONE}{zone}/energy_uj"), &self.energy.to_string())?;
        }
        self.xids += 1;
        let device = self.script.pointer_mut("/devices/0");
        let device = device.and_then(Value::as_object_mut);
        let xid = json!([{ "xid": 31, "id": self.xids }, { "xid": 79, "id": self.xids + 1_000 }]);
        device.context("no device")?.insert("events".into(), xid);
        self.fake.set(&self.script)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.sysfs.join(file);
        fs::create_dir_all(path.parent().context("a file in a folder")?)?;
        // The agent may be reading it: never show it half a number.
        let beside = path.with_extension("new");
        fs::write(&beside, format!("{text}\n"))?;
        fs::rename(&beside, &path).with_context(|| path.display().to_string())
    }
}

/// Makes a folder in which all entries of another one are, but for some.
fn link_all(from: &Path, to: &Path, but: &[&str]) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let name = entry?.file_name();
        if !but.iter().any(|but| name == *but) {
            symlink(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// GPUs with every reading: one to a process, one that MIG has cut, one that two processes share.
fn script(load: &Load) -> Value {
    let process = |pid: u32, more: Value| {
        let mut process = json!({
            "pid": pid, "memory": 20_u64 << 30, "sm": 40, "mem": 20, "enc": 5, "dec": 5,
        });
        if let (Some(process), Value::Object(more)) = (process.as_object_mut(), more) {
            process.extend(more);
        }
        process
    };
    let [first, second, third] = load.on_gpus();
    let mut devices = [full(0), cut(1), device(2)];
    let activity = devices.first().and_then(|whole| whole.get("gpm")).cloned();
    for part in devices
        .iter_mut()
        .filter_map(|device| device.pointer_mut("/mig"))
    {
        let slots = part.as_array_mut().into_iter().flatten();
        for slot in slots.filter_map(Value::as_object_mut) {
            slot.insert("gpm".into(), activity.clone().unwrap_or_default());
        }
    }
    let whole = json!({});
    let part = json!({ "gpu_instance": 1, "compute_instance": 0 });
    let processes = [
        json!([process(first, whole.clone())]),
        json!([process(second, part)]),
        json!([process(second, whole.clone()), process(third, whole)]),
    ];
    for (device, processes) in devices.iter_mut().zip(processes) {
        if let Some(device) = device.as_object_mut() {
            device.insert("processes".into(), processes);
            device.insert("energy_milliwatts".into(), json!(300_000));
        }
    }
    host(&devices)
}

/// The agent on a host that is files; what it says of time is of this one.
pub(super) fn of_files(folder: &Path) -> Result<Agent> {
    let (procfs, sysfs) = (folder.join("proc"), folder.join("sys"));
    let [Some(procfs), Some(sysfs)] = [&procfs, &sysfs].map(|root| root.to_str()) else {
        anyhow::bail!("{} is not UTF-8", folder.display());
    };
    let flags = ["--procfs", procfs, "--sysfs", sysfs, "--no-bpf"];
    let node = [
        "--disable-collector",
        "process,gpu",
        "--node-interval",
        "500ms",
    ];
    Agent::start(&[&flags[..], &node].concat())
}
