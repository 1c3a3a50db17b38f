//! `cargo xtask gpu-check` from beginning to end, without a GPU: the real agent with the fake
//! NVML, next to a stand-in for nvidia-smi that says what the fake was told to say.
//! `cargo xtask test` builds both and names them.

use std::{
    env,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};

/// Answers from files beside it: `device-N` with lines `field=value`, `apps`, `pmon`.
const STAND_IN: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
for word in "$@"; do case "$word" in
--query-gpu=*)
    for gpu in device-*; do
        awk -v fields="${word#*=}" '
            { place = index($0, "="); value[substr($0, 1, place - 1)] = substr($0, place + 1) }
            END {
                count = split(fields, field, ",")
                for (i = 1; i <= count; i++) {
                    if (!(field[i] in value)) {
                        printf "Field \"%s\" is not a valid field to query.\n\n", field[i]
                        exit 2
                    }
                    line = line (i > 1 ? ", " : "") value[field[i]]
                }
                print line
            }' "$gpu" || exit 2
    done
    exit ;;
--query-compute-apps=*) cat apps; exit ;;
pmon) cat pmon; exit ;;
esac; done
exit 1
"#;

/// A GPU as the fake's script has it, but for its place and its process.
const DEVICE: &str = r#"{
    "uuid": "GPU-00000000-0000-0000-0000-00000000000@", "name": "NVIDIA H100 80GB HBM3",
    "pci_bus_id": "00000000:1@:00.0", "vbios": "96.00.74.00.01", "architecture": 9, "minor": @,
    "energy_millijoules": 1000000, "energy_milliwatts": 300000,
    "utilization": {"gpu": 80, "memory": 40}, "encoder": 1, "decoder": 2,
    "memory": {"total": 85899345920, "used": 8589934592, "free": 76235669504,
        "reserved": 1073741824},
    "temperature": 45, "power_milliwatts": 300000, "power_limit_milliwatts": 700000,
    "clocks": {"graphics": 1980, "sm": 1965, "memory": 2619, "video": 1545},
    "clocks_max": {"graphics": 1980, "sm": 1980, "memory": 2619, "video": 1545},
    "performance_state": 0, "throttle_supported": 511, "throttle": 4,
    "pcie": {"generation": 4, "generation_max": 5, "width": 8, "width_max": 16, "replays": 0},
    "ecc": {"corrected_volatile": 1, "uncorrected_volatile": 0,
        "corrected_aggregate": 3, "uncorrected_aggregate": 0},
    "fields": {"74": {"u64": 1500000000}, "82": {"u32": 60},
        "142": {"u32": 2}, "143": {"u32": 0}, "144": {"u32": 1}, "145": {"u32": 0}},
    "processes": [{"pid": PID, "memory": 1073741824, "sm": 40, "mem": 10}]
}"#;

/// The same, as nvidia-smi would put it. An older one: throttle reasons by their former name, and
/// no `clocks.current.…`.
const ANSWERS: &str = "\
index=@
uuid=GPU-00000000-0000-0000-0000-00000000000@
name=NVIDIA H100 80GB HBM3
driver_version=570.86.10
pci.bus_id=00000000:1@:00.0
vbios_version=96.00.74.00.01
utilization.gpu=80
utilization.memory=40
utilization.encoder=1
utilization.decoder=2
memory.total=81920
memory.used=8192
memory.free=72704
memory.reserved=1024
temperature.gpu=45
temperature.memory=60
fan.speed=[N/A]
power.draw=300.00
enforced.power.limit=700.00
clocks.sm=1965
clocks.mem=2619
clocks.gr=1980
clocks.video=1545
clocks.max.sm=1980
clocks.max.memory=2619
clocks.max.graphics=1980
pstate=P0
pcie.link.gen.current=4
pcie.link.gen.max=5
pcie.link.width.current=8
pcie.link.width.max=16
ecc.errors.corrected.volatile.total=1
ecc.errors.uncorrected.volatile.total=0
ecc.errors.corrected.aggregate.total=3
ecc.errors.uncorrected.aggregate.total=0
retired_pages.single_bit_ecc.count=[N/A]
retired_pages.double_bit.count=[N/A]
remapped_rows.correctable=2
remapped_rows.uncorrectable=0
remapped_rows.pending=Yes
remapped_rows.failure=No
clocks_throttle_reasons.gpu_idle=Not Active
clocks_throttle_reasons.applications_clocks_setting=Not Active
clocks_throttle_reasons.sw_power_cap=Active
clocks_throttle_reasons.hw_slowdown=Not Active
clocks_throttle_reasons.sync_boost=Not Active
clocks_throttle_reasons.sw_thermal_slowdown=Not Active
clocks_throttle_reasons.hw_thermal_slowdown=Not Active
clocks_throttle_reasons.hw_power_brake_slowdown=Not Active
clocks_event_reasons_counters.sw_power_cap=1500000
clocks_event_reasons_counters.sync_boost=[N/A]
";

/// Two GPUs with a process on each.
struct Host {
    folder: PathBuf,
    processes: [Child; 2],
}

impl Host {
    fn new(name: &str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gpu-check-{name}"));
        fs::create_dir_all(&folder)?;
        let sleep = || Command::new("sleep").arg("600").spawn();
        let host = Self {
            folder,
            processes: [sleep()?, sleep()?],
        };
        let (mut devices, mut apps) = (Vec::new(), String::new());
        let mut pmon = "# gpu         pid   type     sm    mem    enc    dec    command\n\
                        # Idx           #    C/G      %      %      %      %    name\n"
            .to_owned();
        for (index, process) in host.processes.iter().enumerate() {
            let (index, pid) = (index.to_string(), process.id().to_string());
            devices.push(DEVICE.replace('@', &index).replace("PID", &pid));
            host.write(&format!("device-{index}"), &ANSWERS.replace('@', &index))?;
            writeln!(
                apps,
                "GPU-00000000-0000-0000-0000-00000000000{index}, {pid}, 1024"
            )?;
            writeln!(
                pmon,
                "    {index} {pid:>10}      C     40     10      -      -    sleep"
            )?;
        }
        host.write(
            "script.json",
            &format!(
                r#"{{"driver_version": "570.86.10", "cuda_version": 12080, "devices": [{}]}}"#,
                devices.join(",")
            ),
        )?;
        host.write("apps", &apps)?;
        host.write("pmon", &pmon)?;
        host.write("nvidia-smi", STAND_IN)?;
        fs::set_permissions(
            host.folder.join("nvidia-smi"),
            fs::Permissions::from_mode(0o755),
        )?;
        Ok(host)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Has nvidia-smi say something else.
    fn replace(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.folder.join(file))?;
        ensure!(text.matches(from).count() == 1, "{from}");
        self.write(file, &text.replace(from, to))
    }

    /// Runs the check; says whether it succeeds, and what it prints.
    fn check(&self) -> Result<(bool, String)> {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["gpu-check", "--load=none", "--duration=3s", "--agent"])
            .arg(built("ESNODE_CORE", "esnode-core")?)
            .arg("--nvml-library")
            .arg(built("ESNODE_FAKE_NVML", "libfake_nvml.so")?)
            .arg("--nvidia-smi")
            .arg(self.folder.join("nvidia-smi"))
            .env("FAKE_NVML_SCRIPT", self.folder.join("script.json"))
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("ESNODE_NO_BPF", "1")
            .env_remove("NVIDIA_VISIBLE_DEVICES")
            .stdin(Stdio::null())
            .output()?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), text))
    }

    /// Checks, and expects only this to be wrong.
    fn check_wrong(&self, series: &str) -> Result<()> {
        let (success, text) = self.check()?;
        ensure!(!success, "{text}");
        let verdict = format!("1 series are wrong: {series}\n");
        ensure!(text.contains(&verdict), "not: {verdict}{text}");
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// What the environment names, or what lies in the release folder.
fn built(variable: &str, file: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map(PathBuf::from);
    let beside = || {
        let profile = Path::new(env!("CARGO_BIN_EXE_xtask")).parent()?;
        Some(profile.parent()?.join("release").join(file))
    };
    let path = path.or_else(beside).context("xtask is nowhere")?;
    ensure!(
        path.is_file(),
        "no {}: `cargo xtask test` builds it",
        path.display()
    );
    Ok(path)
}

#[test]
fn a_page_that_agrees() -> Result<()> {
    let (success, text) = Host::new("agrees")?.check()?;
    assert!(success, "{text}");
    assert!(text.contains(" series agree with nvidia-smi.\n"), "{text}");
    for family in ["esnode_process_gpu_utilization_percent sm", "as mean watts"] {
        assert!(text.contains(family), "{text}");
    }
    Ok(())
}

/// A difference, and what has to be found wrong because of it; nothing else may be.
struct Difference {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    wrong: &'static str,
}

const DIFFERENCES: [Difference; 8] = [
    Difference {
        file: "device-1",
        from: "temperature.gpu=45",
        to: "temperature.gpu=48",
        wrong: "esnode_gpu_temperature_celsius gpu of GPU 1",
    },
    Difference {
        file: "device-0",
        from: "temperature.memory=60",
        to: "temperature.memory=N/A",
        wrong: "esnode_gpu_temperature_celsius memory of GPU 0",
    },
    Difference {
        file: "device-0",
        from: "fan.speed=[N/A]",
        to: "fan.speed=30",
        wrong: "esnode_gpu_fan_speed_percent 0 of GPU 0",
    },
    Difference {
        file: "device-1",
        from: "enforced.power.limit=700.00",
        to: "enforced.power.limit=650.00",
        wrong: "esnode_gpu_power_limit_watts of GPU 1",
    },
    Difference {
        file: "device-0",
        from: "name=NVIDIA H100 80GB HBM3",
        to: "name=NVIDIA H200",
        wrong: "esnode_gpu_info name of GPU 0",
    },
    Difference {
        file: "device-0",
        from: "clocks_throttle_reasons.sw_power_cap=Active",
        to: "clocks_throttle_reasons.sw_power_cap=Not Active",
        wrong: "esnode_gpu_throttle_reason sw_power_cap of GPU 0",
    },
    Difference {
        file: "script.json",
        from: r#""minor": 1,
    "energy_millijoules": 1000000, "energy_milliwatts": 300000"#,
        to: r#""minor": 1,
    "energy_millijoules": 1000000, "energy_milliwatts": 360000"#,
        wrong: "esnode_gpu_energy_joules_total, as mean watts of GPU 1",
    },
    Difference {
        file: "apps",
        from: "0, PID0, 1024",
        to: "0, PID0, 1027",
        wrong: "esnode_process_gpu_memory_used_bytes PID0 of GPU 0",
    },
];

#[test]
fn each_difference_is_found() -> Result<()> {
    // Side by side, as each mostly waits.
    let checks = DIFFERENCES.iter().enumerate().map(|(number, difference)| {
        thread::spawn(move || {
            let host = Host::new(&format!("difference-{number}"))?;
            let pid = host.processes.first().context("no process")?.id();
            let text = |text: &str| text.replace("PID0", &pid.to_string());
            let Difference {
                file,
                from,
                to,
                wrong,
            } = difference;
            host.replace(file, &text(from), &text(to))?;
            host.check_wrong(&text(wrong))
        })
    });
    let checks: Vec<_> = checks.collect();
    for check in checks {
        check.join().map_err(|_| anyhow!("a check panicked"))??;
    }
    Ok(())
}

#[test]
fn without_nvidia_smi_nothing_is_checked() -> Result<()> {
    let host = Host::new("missing")?;
    fs::remove_file(host.folder.join("nvidia-smi"))?;
    let (success, text) = host.check()?;
    assert!(!success, "{text}");
    assert!(text.contains("error: nothing was checked"), "{text}");
    assert!(text.contains("is the NVIDIA driver installed?"), "{text}");
    Ok(())
}
