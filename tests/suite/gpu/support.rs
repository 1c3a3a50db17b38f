//! An agent beside a fake NVML, and what every page of it has to hold to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::gpu::{FakeNvml, device, host};
use esnode_tests::page::{Labels, Page};
use esnode_tests::workload::{Name, Workload};
use serde_json::{Value, json};

use crate::check::ensure_eq;

/// How long something may take that is to come by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flags that most tests want: many samples in a short time, and nothing that takes long to start.
pub(crate) const QUICK: [&str; 5] = [
    "--no-bpf",
    "--collectors",
    "gpu,process",
    "--gpu-interval",
    "100ms",
];

/// Flags for tests that do something between two samples.
pub(crate) const SELDOM: [&str; 5] = [
    "--no-bpf",
    "--collectors",
    "gpu,process",
    "--gpu-interval",
    "500ms",
];

/// An agent and the GPUs that it sees.
pub(crate) struct Rig {
    pub(crate) fake: FakeNvml,
    pub(crate) agent: Agent,
    script: RefCell<Value>,
    history: RefCell<History>,
    /// Pages that were read.
    pub(crate) pages: Cell<u32>,
}

impl Rig {
    /// An agent with [`QUICK`] and these flags, and a host with these GPUs.
    pub(crate) fn start(devices: &[Value], flags: &[&str]) -> Result<Self> {
        Self::start_with(devices, &[&QUICK, flags].concat())
    }

    /// An agent with these flags alone, and a host with these GPUs.
    pub(crate) fn start_with(devices: &[Value], flags: &[&str]) -> Result<Self> {
        let script = host(devices);
        let fake = FakeNvml::new(&script)?;
        Self::of(fake, script, flags)
    }

    /// An agent with these flags alone beside a library that is there.
    pub(crate) fn of(fake: FakeNvml, script: Value, flags: &[&str]) -> Result<Self> {
        Ok(Self {
            agent: fake.start(flags)?,
            fake,
            script: RefCell::new(script),
            history: RefCell::default(),
            pages: Cell::new(0),
        })
    }

    /// Changes the script.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut script = self.script.borrow_mut();
        change(&mut script);
        self.fake.set(&script)
    }

    /// Changes the script of a GPU: gives it these fields.
    pub(crate) fn put(&self, index: usize, fields: Value) -> Result<()> {
        self.change(|script| put(&mut script["devices"][index], fields))
    }

    /// Reads the page. It must be valid, energy must be conserved on it, and no counter of GPUs
    /// may have fallen, or vanished with its owner still there, since the last one.
    pub(crate) fn page(&self) -> Result<Page> {
        let page = self.agent.page()?;
        self.pages.set(self.pages.get() + 1);
        check_conserved(&page)?;
        self.history.borrow_mut().check(&page)?;
        Ok(page)
    }

    /// Reads pages until one is as it should be; fails as on the last one.
    pub(crate) fn until(&self, check: impl Fn(&Page) -> Result<()>) -> Result<Page> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.page()?;
            match check(&page) {
                Ok(()) => return Ok(page),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Waits until a value is this one.
    pub(crate) fn until_value(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) -> Result<Page> {
        self.until(|page| check_value(page, name, labels, Some(value)))
    }

    /// Waits until samples that began after now are on the page, of every GPU that is up.
    pub(crate) fn next_sample(&self) -> Result<Page> {
        let asked = Instant::now();
        self.until(|page| {
            let ages = page.select("esnode_gpu_sample_age_seconds", &[]);
            ensure!(!ages.is_empty(), "no GPU was sampled");
            // A sample that began as soon may still be by the old script.
            let elapsed = asked.elapsed().as_secs_f64() - 0.025;
            for age in ages {
                ensure!(age.value < elapsed, "no sample in {elapsed} s: {age:?}");
            }
            Ok(())
        })
    }
}

/// Gives an object these fields.
pub(crate) fn put(object: &mut Value, fields: Value) {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
}

/// A process that computes, as a script has it.
pub(crate) fn process(pid: u32, sm: u32) -> Value {
    json!({ "pid": pid, "memory": 1 << 30, "sm": sm })
}

/// Workers that wait, one for each stem.
pub(crate) fn workers<const COUNT: usize>(
    stems: [&str; COUNT],
) -> Result<[(Name, Workload); COUNT]> {
    let workers = stems.map(|stem| {
        let name = Name::new(stem)?;
        let workload = Workload::run(&name, &["idle"])?;
        Ok((name, workload))
    });
    let workers: Vec<_> = workers.into_iter().collect::<Result<_>>()?;
    workers
        .try_into()
        .map_err(|_| anyhow::anyhow!("as many as there are stems"))
}

/// A GPU with these processes, which the driver samples more often than the agent looks: seldom
/// enough that a sample more or less in an interval is no matter.
pub(crate) fn gpu(index: u8, processes: &[Value]) -> Value {
    let mut gpu = device(index);
    put(
        &mut gpu,
        json!({ "processes": processes, "sample_period_ms": 60 }),
    );
    gpu
}

/// Fails where the sum of the selected samples is another; `None` is that there are none.
pub(crate) fn check_value(
    page: &Page,
    name: &str,
    labels: &[(&str, &str)],
    expected: Option<f64>,
) -> Result<()> {
    let seen = page.value(name, labels);
    let same = match (seen, expected) {
        (Some(seen), Some(expected)) => (seen - expected).abs() <= 1e-9 * expected.abs(),
        (seen, expected) => seen.is_none() && expected.is_none(),
    };
    ensure!(
        same,
        "{name} {labels:?}: expected {expected:?}, seen {seen:?}"
    );
    Ok(())
}

/// A number of joules in whole microjoules, in which the agent counts.
#[expect(clippy::cast_possible_truncation, reason = "rounded, and below 2^53")]
pub(crate) fn microjoules(joules: f64) -> i64 {
    (joules * 1e6).round() as i64
}

/// The sum over the selected samples in microjoules; absent is 0.
pub(crate) fn energy(page: &Page, name: &str, labels: &[(&str, &str)]) -> i64 {
    let samples = page.select(name, labels).into_iter();
    samples.map(|sample| microjoules(sample.value)).sum()
}

pub(crate) const DEVICE_ENERGY: &str = "esnode_gpu_energy_joules_total";
pub(crate) const NOBODYS_ENERGY: &str = "esnode_unattributed_gpu_energy_joules_total";
pub(crate) const GROUP_ENERGY: &str = "esnode_group_gpu_energy_joules_total";
pub(crate) const PROCESS_ENERGY: &str = "esnode_process_gpu_energy_joules_total";

/// Fails where the energy of a GPU isn't exactly what groups got and what nobody did, or where
/// processes got more than groups.
pub(crate) fn check_conserved(page: &Page) -> Result<()> {
    for gpu in page.label_values("esnode_gpu_info", &[], "uuid") {
        let labels = [("uuid", gpu)];
        let groups = energy(page, GROUP_ENERGY, &labels);
        let nobody = energy(page, NOBODYS_ENERGY, &labels);
        ensure_eq!(
            groups + nobody,
            energy(page, DEVICE_ENERGY, &labels),
            "µJ of {gpu}: {groups} of groups and {nobody} of nobody"
        );
        let processes = energy(page, PROCESS_ENERGY, &labels);
        ensure!(
            processes <= groups,
            "processes have {processes} µJ of {gpu}, and groups have {groups}"
        );
    }
    Ok(())
}

/// What earlier pages said.
#[derive(Default)]
struct History {
    counters: BTreeMap<(String, Labels), f64>,
    /// By process id and UUID.
    processes: BTreeMap<(String, String), Account>,
}

/// The energy of a process on a GPU.
struct Account {
    /// Label of `esnode_process_info`.
    start_time: String,
    /// By `/proc`, if it was still there.
    started: Option<String>,
    joules: f64,
}

impl History {
    /// Fails where a counter fell, or vanished with its owner still there.
    fn check(&mut self, page: &Page) -> Result<()> {
        self.check_counters(page)?;
        self.check_processes(page)
    }

    fn check_counters(&mut self, page: &Page) -> Result<()> {
        let prefixes = ["esnode_gpu_", "esnode_group_gpu_", NOBODYS_ENERGY];
        let is_ours = |name: &str| {
            name.ends_with("_total") && prefixes.iter().any(|prefix| name.starts_with(prefix))
        };
        let mut seen = BTreeSet::new();
        for sample in page.samples().filter(|sample| is_ours(&sample.name)) {
            let series = (sample.name.clone(), sample.labels.clone());
            if let Some(before) = self.counters.insert(series.clone(), sample.value) {
                ensure!(sample.value >= before, "fell from {before}: {sample:?}");
            }
            seen.insert(series);
        }
        // What else the device counts is a reading, which leaves the page with the device.
        let stays = [
            DEVICE_ENERGY,
            NOBODYS_ENERGY,
            GROUP_ENERGY,
            "esnode_gpu_xid_errors_total",
        ];
        for series in self.counters.keys() {
            let vanished = stays.contains(&series.0.as_str()) && !seen.contains(series);
            ensure!(!vanished, "vanished: {series:?}");
        }
        Ok(())
    }

    fn check_processes(&mut self, page: &Page) -> Result<()> {
        let mut now = BTreeMap::new();
        for sample in page.select(PROCESS_ENERGY, &[]) {
            let label = |name| {
                sample
                    .labels
                    .get(name)
                    .cloned()
                    .with_context(|| format!("{sample:?} has no {name}"))
            };
            let (pid, uuid) = (label("pid")?, label("uuid")?);
            let times = page.label_values("esnode_process_info", &[("pid", &pid)], "start_time");
            let start_time = times.first().with_context(|| format!("no info of {pid}"))?;
            let mut account = Account {
                start_time: (*start_time).to_owned(),
                started: None,
                joules: sample.value,
            };
            account.started = match self.processes.remove(&(pid.clone(), uuid.clone())) {
                Some(before) if before.start_time == account.start_time => {
                    ensure!(
                        sample.value >= before.joules,
                        "fell from {}: {sample:?}",
                        before.joules
                    );
                    before.started
                }
                _ => started(&pid),
            };
            now.insert((pid, uuid), account);
        }
        for ((pid, uuid), account) in &self.processes {
            let alive = account.started.is_some() && account.started == started(pid);
            ensure!(
                !alive,
                "{PROCESS_ENERGY} of {pid} on {uuid} vanished at {}, and it's alive",
                account.joules
            );
        }
        self.processes = now;
        Ok(())
    }
}

/// When a process started, in ticks; `None` if it has ended.
fn started(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18).map(str::to_owned))?
}
