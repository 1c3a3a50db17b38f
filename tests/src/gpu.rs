//! GPUs that don't exist: the fake NVML of `tests/fake-nvml`, scripted by a test, for an agent to
//! load in place of the driver's.
//!
//! A script is a [`Value`]; `tests/fake-nvml/src/script.rs` says what may be in it. [`host`] and
//! [`device`] make one with all readings, for a test to change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, io};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::agent::{Agent, command};
use crate::{skip, workload};

/// The variable that names the library.
const LIBRARY: &str = "ESNODE_FAKE_NVML";

/// What cargo calls the library.
const FILE: &str = "libfake_nvml.so";

/// A fake NVML with a script of its own.
#[derive(Debug)]
pub struct FakeNvml {
    library: PathBuf,
    folder: PathBuf,
}

impl FakeNvml {
    /// A library that answers what this script says. Skips where no program can load one.
    pub fn new(script: &Value) -> Result<Self> {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let library = library()?;
        let folder = workload::directory()?.join(format!("nvml-{number}"));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let fake = Self { library, folder };
        fake.set(script)?;
        Ok(fake)
    }

    /// Replaces the script. Who is in the middle of a sample still finishes that by the old one.
    pub fn set(&self, script: &Value) -> Result<()> {
        let path = self.script();
        let beside = path.with_extension("new");
        fs::write(&beside, script.to_string())?;
        fs::rename(&beside, &path).with_context(|| path.display().to_string())
    }

    /// Lets the library be one that lacks these functions, as that of an older driver does.
    /// For agents that start later.
    pub fn without_symbols(mut self, names: &[&str]) -> Result<Self> {
        let mut image = fs::read(&self.library)?;
        for name in names {
            ensure!(rename(&mut image, name) > 0, "{FILE} has no {name}");
        }
        let copy = self.folder.join(FILE);
        fs::write(&copy, image).with_context(|| copy.display().to_string())?;
        self.library = copy;
        Ok(self)
    }

    /// The library itself.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Flags of an agent that is to load it.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let library = self.library.to_string_lossy();
        vec!["--nvml-library".to_owned(), library.into_owned()]
    }

    /// What has to be in the environment of whoever loads it.
    #[must_use]
    pub fn env(&self) -> [(&'static str, OsString); 2] {
        [
            ("FAKE_NVML_SCRIPT", self.script().into()),
            ("FAKE_NVML_CALLS", self.counts().into()),
        ]
    }

    /// Calls of each function since the library was loaded, up to some 50 ms ago; functions that
    /// were never called are missing.
    pub fn calls(&self) -> Result<BTreeMap<String, u64>> {
        let text = match fs::read_to_string(self.counts()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error).context("read the number of calls"),
        };
        Ok(serde_json::from_str(&text)?)
    }

    /// Starts an agent that loads it, with these flags as well, and waits until it serves.
    pub fn start(&self, flags: &[&str]) -> Result<Agent> {
        let mut command = command()?;
        command
            .args(["--listen-address", "127.0.0.1:0"])
            .args(self.flags())
            .args(flags)
            .envs(self.env());
        Agent::launch(command, 1)
    }

    fn script(&self) -> PathBuf {
        self.folder.join("script.json")
    }

    fn counts(&self) -> PathBuf {
        self.folder.join("calls.json")
    }
}

/// A script for a host with these devices.
#[must_use]
pub fn host(devices: &[Value]) -> Value {
    json!({
        "driver_version": "570.86.10",
        "cuda_version": 12080,
        "devices": devices,
    })
}

/// The UUID of the device with this index, as [`device`] makes it.
#[must_use]
pub fn uuid(index: u8) -> String {
    format!("GPU-00000000-0000-0000-0000-0000000000{index:02x}")
}

/// A script for a device that is idle, and has everything but NVLink, GPM and MIG.
#[must_use]
pub fn device(index: u8) -> Value {
    const GIB: u64 = 1 << 30;
    json!({
        "uuid": uuid(index),
        "name": "NVIDIA H100 80GB HBM3",
        "pci_bus_id": format!("00000000:{:02X}:00.0", 0x10 + index),
        "vbios": "96.00.74.00.01",
        "architecture": 9,
        "minor": index,
        "energy_millijoules": 0,
        "utilization": { "gpu": 0, "memory": 0 },
        "encoder": 0,
        "decoder": 0,
        "memory": { "total": 80 * GIB, "used": 0, "free": 79 * GIB, "reserved": GIB },
        "bar1": { "total": 128 * GIB, "used": 0, "free": 128 * GIB },
        "temperature": 30,
        "fans": [30],
        "power_milliwatts": 70_000,
        "power_limit_milliwatts": 700_000,
        "clocks": { "graphics": 345, "sm": 345, "memory": 2619, "video": 765 },
        "clocks_max": { "graphics": 1980, "sm": 1980, "memory": 2619, "video": 1545 },
        "performance_state": 0,
        "throttle_supported": 0x1ff,
        "throttle": 1,
        "pcie": {
            "generation": 5, "generation_max": 5, "width": 16, "width_max": 16, "replays": 0,
        },
        "ecc": {
            "corrected_volatile": 0, "uncorrected_volatile": 0,
            "corrected_aggregate": 0, "uncorrected_aggregate": 0,
        },
        "fields": {
            "142": { "u32": 0 }, "143": { "u32": 0 }, "144": { "u32": 0 }, "145": { "u32": 0 },
        },
        "processes": [],
    })
}

/// Where the library is: where the environment says, or beside this program, where cargo puts
/// it, or where `cargo build --release` does.
fn library() -> Result<PathBuf> {
    if let Some(path) = env::var_os(LIBRARY) {
        let path = PathBuf::from(path);
        return path
            .canonicalize()
            .with_context(|| format!("{LIBRARY} is {}", path.display()));
    }
    if cfg!(target_env = "musl") {
        skip!("programs without shared libraries can't load the fake NVML");
    }
    let program = env::current_exe()?;
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    let mut folders: Vec<&Path> = program.ancestors().skip(1).take(2).collect();
    folders.reverse();
    folders.push(&release);
    let mut paths = folders.iter().map(|folder| folder.join(FILE));
    let found = paths.find(|path| path.is_file());
    found
        .with_context(|| {
            format!(
                "no {FILE} near {}: `cargo build --release --package esnode-fake-nvml` makes it, \
                 or {LIBRARY} names one",
                program.display()
            )
        })?
        .canonicalize()
        .context(FILE)
}

/// Gives a symbol of a shared library another name, so that it isn't found; says how often its
/// name was there. Hash tables keep the old name's hash, which leads nowhere then.
fn rename(image: &mut [u8], symbol: &str) -> usize {
    let name: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    let is = |(place, bytes): (usize, &[u8])| (bytes == name).then_some(place + 1);
    let windows = image.windows(name.len()).enumerate();
    let places: Vec<usize> = windows.filter_map(is).collect();
    for &place in &places {
        if let Some(first) = image.get_mut(place) {
            *first = b'!';
        }
    }
    places.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_renamed_and_no_longer_one() {
        let mut image = *b"\0nvmlInit\0nvmlInit_v2\0xnvmlInit\0";
        assert_eq!(rename(&mut image, "nvmlInit"), 1);
        assert_eq!(&image, b"\0!vmlInit\0nvmlInit_v2\0xnvmlInit\0");
        assert_eq!(rename(&mut image, "nvmlInit"), 0);
    }

    #[test]
    fn devices_differ() {
        assert_ne!(device(0)["uuid"], device(1)["uuid"]);
        assert_eq!(
            host(&[device(0)])["devices"][0]["pci_bus_id"],
            "00000000:10:00.0"
        );
    }
}
