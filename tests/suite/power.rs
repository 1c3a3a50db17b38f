//! Power and energy: counters that a test advances, and who gets what of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent};
use esnode_tests::gpu::{FakeNvml, device, host};
use esnode_tests::page::Page;
use esnode_tests::workload::{self, Name, Workload};
use serde_json::json;

use crate::Case;
use crate::check::{ensure_eq, within_grace};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("power::energy_goes_to_who_computed", who_computed),
        Case::new("power::counters_that_wrap_around", wraps),
        Case::new("power::the_machine_by_its_best_meter", best_meter),
        Case::new("power::gpus_are_part_of_the_sum", gpus),
        Case::new("power::absent_without_a_meter", nothing),
        Case::new("power::a_counter_that_can_not_be_read", unreadable),
    ]
}

/// Where most counters begin anew, in microjoules.
const RANGE: u64 = 262_143_328_850;

/// In microjoules.
const JOULE: u64 = 1_000_000;

/// A folder that stands for `/sys`; BPF finds in it what it needs.
struct Machine(PathBuf);

impl Machine {
    fn new(stem: &str) -> Result<Self> {
        let machine = Self(workload::directory()?.join(stem));
        machine.write("devices/system/cpu/online", "0-1")?;
        symlink("/sys/kernel", machine.0.join("kernel"))?;
        Ok(machine)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().context("a file")?)?;
        // The agent may be reading it: never show it half a number.
        let beside = path.with_extension("new");
        fs::write(&beside, format!("{text}\n"))?;
        fs::rename(&beside, &path).with_context(|| path.display().to_string())
    }

    /// A zone of RAPL, such as `0` or `0:1`.
    fn zone(&self, number: &str, name: &str, microjoules: u64) -> Result<()> {
        let folder = format!("class/powercap/intel-rapl:{number}");
        self.write(&format!("{folder}/name"), name)?;
        self.write(&format!("{folder}/max_energy_range_uj"), &RANGE.to_string())?;
        self.set(number, microjoules)
    }

    fn set(&self, number: &str, microjoules: u64) -> Result<()> {
        let file = format!("class/powercap/intel-rapl:{number}/energy_uj");
        self.write(&file, &microjoules.to_string())
    }

    fn flags<'a>(&'a self, more: &[&'a str]) -> Result<Vec<&'a str>> {
        let sysfs = self.0.to_str().context("a path in UTF-8")?;
        Ok([&["--sysfs", sysfs, "--node-interval", "100ms"], more].concat())
    }

    fn start(&self, more: &[&str]) -> Result<Agent> {
        Agent::start(&self.flags(more)?)
    }
}

fn value(page: &Page, family: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let value = page.value(family, labels);
    value.with_context(|| format!("no {family} {labels:?}"))
}

fn ensure_close(seen: f64, expected: f64, what: &str) -> Result<()> {
    // Floating point, and sums of numbers that were rounded for the page.
    let close = (seen - expected).abs() <= 1e-6 * expected.abs().max(1.0);
    ensure!(close, "{what} is {seen}, expected {expected}");
    Ok(())
}

fn ensure_conserved(page: &Page) -> Result<()> {
    let groups = value(page, "esnode_group_cpu_energy_joules_total", &[])?;
    let rest = value(page, "esnode_unattributed_cpu_energy_joules_total", &[])?;
    let packages = value(page, "esnode_cpu_package_energy_joules_total", &[])?;
    ensure_close(groups + rest, packages, "energy of groups and of nobody")
}

/// A process gets the part of the energy that it spent of the time of all cores; what adds up, adds
/// up.
fn who_computed() -> Result<()> {
    const SPENT: u64 = 1_000 * JOULE;
    let machine = Machine::new("who-computed")?;
    machine.zone("0", "package-0", 5 * JOULE)?;
    machine.zone("0:0", "dram", 0)?;
    machine.zone("1", "package-1", 0)?;
    let select = workload::select_all();
    let agent = machine.start(&["--select", &select, "--group-limit", "100000"])?;
    let before_first = Instant::now();
    let first = agent.page()?;
    let after_first = Instant::now();
    ensure_conserved(&first)?;
    let name = Name::new("joule")?;
    let workload = Workload::run(&name, &["cpu", "400"])?;
    machine.set("0", 5 * JOULE + SPENT / 4)?;
    machine.set("0:0", 7 * JOULE)?;
    machine.set("1", SPENT - SPENT / 4)?;
    let before_second = Instant::now();
    let page = agent.page()?;
    let after_second = Instant::now();
    ensure_conserved(&page)?;

    let packages = value(&page, "esnode_cpu_package_energy_joules_total", &[])?;
    ensure_close(packages, 1_000.0, "energy of the packages")?;
    let group = [("group", name.comm.as_str())];
    let used = value(&page, "esnode_group_cpu_seconds_total", &group)?;
    let energy = value(&page, "esnode_group_cpu_energy_joules_total", &group)?;
    ensure!(used > 0.02, "the workload computed for {used} s");
    // Two cores, between two looks that lie somewhere in these scrapes. If more was computed than
    // that (clocks are not read at once), it's shared in proportion, so the lower bound is lower.
    let shortest = before_second.duration_since(after_first).as_secs_f64();
    let longest = after_second.duration_since(before_first).as_secs_f64();
    let most = 1_000.0 * (used / (2.0 * shortest)).min(1.0);
    let least = 1_000.0 * used / (2.0 * longest) * 0.8;
    ensure!(
        (least..=most + 1e-6).contains(&energy),
        "{energy} J for {used} s, expected {least} to {most}"
    );

    // Half of it was a child that ended (unseen without a rung for ends); the process itself has the part
    // for its own time.
    let pid = workload.pid().to_string();
    let process = [("pid", pid.as_str())];
    let own = value(&page, "esnode_process_cpu_seconds_total", &process)?;
    let of_process = value(&page, "esnode_process_cpu_energy_joules_total", &process)?;
    // Others compute as well: it gets less than the time for which it tries.
    ensure!(own > 0.01 && own <= used, "{own} s of {used} s are its own");
    let expected = energy * own / used;
    ensure!(
        (of_process - expected).abs() <= expected * 0.01,
        "{of_process} J for the process, expected {expected}"
    );
    page.check_monotonic(&first, "esnode_group_cpu_energy")?;
    page.check_monotonic(&first, "esnode_unattributed_cpu_energy")?;

    // The dead keep it in their group.
    workload.release()?;
    let after = agent.page()?;
    ensure_conserved(&after)?;
    let kept = value(&after, "esnode_group_cpu_energy_joules_total", &group)?;
    ensure_close(kept, energy, "energy of the group after its end")
}

/// A counter goes on where that of the hardware begins anew, also if nobody scrapes meanwhile.
fn wraps() -> Result<()> {
    let machine = Machine::new("wraps")?;
    machine.zone("0", "package-0", RANGE - 10 * JOULE)?;
    let agent = machine.start(&["--collectors", "power"])?;
    let energy = || -> Result<f64> {
        value(
            &agent.page()?,
            "esnode_cpu_package_energy_joules_total",
            &[],
        )
    };
    ensure_close(energy()?, 0.0, "energy at the start")?;
    machine.set("0", RANGE - JOULE)?;
    ensure_close(energy()?, 9.0, "energy before the wrap")?;
    // Some ticks of the agent later: no machine takes more than 2 J in between.
    thread::sleep(Duration::from_millis(300));
    machine.set("0", JOULE)?;
    ensure_close(energy()?, 11.0, "energy after the wrap")?;
    let page = agent.page()?;
    ensure_close(
        value(
            &page,
            "esnode_node_energy_joules_total",
            &[("source", "cpu")],
        )?,
        11.0,
        "energy of the machine",
    )
}

/// A meter of the machine's supply comes before what is wired to the processor, and that before sums.
fn best_meter() -> Result<()> {
    let machine = Machine::new("best-meter")?;
    machine.zone("0", "package-0", 0)?;
    let only = |expected: &str| -> Result<f64> {
        let page = with_power(&machine.start(&["--collectors", "power"])?)?;
        let sources = page.label_values("esnode_node_power_watts", &[], "source");
        ensure_eq!(
            sources.into_iter().collect::<Vec<_>>(),
            [expected],
            "sources"
        );
        value(&page, "esnode_node_power_watts", &[])
    };
    ensure_close(only("cpu")?, 0.0, "power of what takes none")?;
    machine.zone("0:0", "dram", 0)?;
    only("cpu+dram")?;
    machine.zone("1", "psys", 0)?;
    only("psys")?;
    machine.write("class/hwmon/hwmon0/name", "coretemp")?;
    machine.write("class/hwmon/hwmon0/power1_input", "999000000")?;
    only("psys")?;
    machine.write("class/hwmon/hwmon1/name", "power_meter")?;
    machine.write("class/hwmon/hwmon1/power1_average", "412250000")?;
    ensure_close(only("acpi_power_meter")?, 412.25, "power of the supply")
}

/// A page with the power of the machine, which takes an interval.
fn with_power(agent: &Agent) -> Result<Page> {
    within_grace(|| {
        let page = agent.page()?;
        value(&page, "esnode_node_power_watts", &[])?;
        Ok(page)
    })
}

/// GPUs tell what they take.
fn gpus() -> Result<()> {
    let machine = Machine::new("gpus")?;
    machine.zone("0", "package-0", 0)?;
    let gpu = |index: u8, watts: u32, joules: u64| {
        let mut gpu = device(index);
        if let Some(readings) = gpu.as_object_mut() {
            readings.insert("power_milliwatts".into(), json!(watts * 1_000));
            readings.insert("energy_millijoules".into(), json!(joules * 1_000));
        }
        gpu
    };
    let set = |joules: u64| host(&[gpu(0, 70, joules), gpu(1, 300, joules)]);
    let fake = FakeNvml::new(&set(1_000))?;
    let flags = machine.flags(&["--collectors", "gpu,power", "--gpu-interval", "100ms"])?;
    let agent = fake.start(&flags)?;
    let source = [("source", "cpu+gpu")];
    within_grace(|| {
        let page = agent.page()?;
        let watts = value(&page, "esnode_node_power_watts", &source)?;
        ensure_close(watts, 370.0, "power of two GPUs and a package")?;
        // What the devices had counted before is not the agent's.
        let energy = value(&page, "esnode_node_energy_joules_total", &source)?;
        ensure_close(energy, 0.0, "joules at the start")
    })?;
    fake.set(&set(1_025))?;
    machine.set("0", 30 * JOULE)?;
    within_grace(|| {
        let energy = value(&agent.page()?, "esnode_node_energy_joules_total", &source)?;
        ensure_close(energy, 80.0, "joules of two GPUs and a package")
    })
}

/// Nothing is said of what can't be measured, and `check` says why.
fn nothing() -> Result<()> {
    let machine = Machine::new("nothing")?;
    let agent = machine.start(&[])?;
    let page = agent.page()?;
    let about_power = |name: &str| name.contains("power") || name.contains("energy");
    let named: Vec<_> = page.families.iter().map(|it| it.name.as_str()).collect();
    ensure!(!named.iter().any(|name| about_power(name)), "{named:?}");
    let collector = [("collector", "power")];
    ensure_eq!(
        page.value("esnode_collector_success", &collector),
        None,
        "success"
    );
    let flags = machine.flags(&[])?;
    let report = agent::run(&[&["check"], flags.as_slice()].concat())?;
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    let line = report.lines().find(|line| line.starts_with("power "));
    let line = line.with_context(|| report.clone())?;
    ensure!(
        line.contains("off: nothing here measures power: no RAPL"),
        "{line}"
    );
    Ok(())
}

/// One counter that makes no sense is a failure that names it; the others count on.
fn unreadable() -> Result<()> {
    let machine = Machine::new("unreadable")?;
    machine.zone("0", "package-0", 0)?;
    machine.zone("1", "package-1", 0)?;
    machine.write("class/powercap/intel-rapl:1/energy_uj", "plenty")?;
    let agent = machine.start(&["--collectors", "power,load"])?;
    machine.set("0", 3 * JOULE)?;
    let page = agent.page()?;
    let success = |name: &str| page.value("esnode_collector_success", &[("collector", name)]);
    ensure_eq!(success("power"), Some(0.0), "success of power");
    ensure_eq!(success("load"), Some(1.0), "success of load");
    let package = |number: &str| {
        let labels = [("package", number)];
        page.value("esnode_cpu_package_energy_joules_total", &labels)
    };
    ensure_eq!(package("0"), Some(3.0), "package 0");
    ensure_eq!(package("1"), None, "package 1");
    let named = "intel-rapl:1/energy_uj, line 1: expected microjoules";
    within_grace(|| {
        let lines = agent.log.lines();
        ensure!(lines.iter().any(|line| line.contains(named)), "{lines:?}");
        Ok(())
    })
}
