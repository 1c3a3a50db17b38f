//! What the GPU collector takes when nobody scrapes: the agent with an NVML that answers at once,
//! next to the same agent without the collector, at the same time.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{BATCH, Idle, exporter::Exporter, median};

const GPUS: usize = 8;
const PROCESSES: usize = 64;

/// How long both are left alone. In it, the collector samples as often as it always does.
const QUIET: Duration = Duration::from_secs(25);
/// What they get before that to grow to their size.
const SETTLING: Duration = Duration::from_secs(5);
/// Times that each is scraped [`BATCH`] times after that.
const BATCHES: usize = 10;

/// What was found.
pub(super) struct Cost {
    /// Of a core.
    pub(super) cpu_percent: f64,
    /// Added to resident memory, the library's own file not counted.
    pub(super) resident_mb: f64,
    pub(super) report: Vec<String>,
}

/// Means and medians of one agent.
#[derive(Default)]
struct Seen {
    cpu_percent: f64,
    resident_mb: f64,
    /// Of that, the library's file.
    library_mb: f64,
    anonymous_mb: f64,
    scrape_ms: f64,
    page_kb: f64,
}

/// A number to show.
type Line = fn(&Seen) -> f64;

/// Measures both agents.
pub(super) fn measure(agent: &Path, fake_nvml: &Path) -> Result<Cost> {
    let workers = Idle::start(PROCESSES)?;
    let pids: Vec<u32> = workers.0.iter().map(process::Child::id).collect();
    let script = Script::write(&pids)?;
    let mut with = Command::new(agent);
    with.arg("--nvml-library")
        .arg(fake_nvml)
        .env("FAKE_NVML_SCRIPT", &script.0)
        .env_remove("FAKE_NVML_CALLS")
        .stderr(Stdio::null());
    let agents = [
        Exporter::agent_by(with)?,
        Exporter::agent(agent, &["--disable-collector=gpu"])?,
    ];
    // Both have made a page by then, which is when they are largest.
    thread::sleep(SETTLING);
    let page = agents
        .first()
        .map_or_else(|| Ok(String::new()), Exporter::scrape)?;
    check(&page)?;
    for agent in agents.iter().skip(1) {
        agent.scrape()?;
    }
    thread::sleep(SETTLING);

    let seen = look(&agents, fake_nvml)?;
    let [with, without] = &seen;
    let lines: [(&str, Line); 6] = [
        ("unscraped, % of a core", |seen| seen.cpu_percent),
        ("resident memory, MB", |seen| seen.resident_mb),
        ("of it the library's file, MB", |seen| seen.library_mb),
        ("of it no file's (RssAnon), MB", |seen| seen.anonymous_mb),
        ("CPU ms per scrape", |seen| seen.scrape_ms),
        ("page, kB", |seen| seen.page_kb),
    ];
    let mut report = vec![format!(
        "{:<34} {:>10} {:>10} {:>12}",
        format!("{GPUS} GPUs, {PROCESSES} processes on them"),
        "collector",
        "without it",
        "difference"
    )];
    for (what, value) in lines {
        let (a, b) = (value(with), value(without));
        report.push(format!("{what:<34} {a:>10.3} {b:>10.3} {:>12.3}", a - b));
    }
    Ok(Cost {
        cpu_percent: with.cpu_percent - without.cpu_percent,
        resident_mb: with.resident_mb - with.library_mb - without.resident_mb,
        report,
    })
}

/// That the collector does what it is measured for.
fn check(page: &str) -> Result<()> {
    let count = |family: &str| page.lines().filter(|line| line.starts_with(family)).count();
    for (family, expected) in [
        ("esnode_gpu_energy_joules_total{", GPUS),
        ("esnode_process_gpu_energy_joules_total{", PROCESSES),
    ] {
        let seen = count(family);
        ensure!(
            seen == expected,
            "{family}…}} has {seen} series, not {expected}"
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
fn look(agents: &[Exporter; 2], library: &Path) -> Result<[Seen; 2]> {
    let mut seen = [Seen::default(), Seen::default()];
    let mut memory = [const { (Vec::new(), Vec::new()) }; 2];
    let mut before = Vec::new();
    for agent in agents {
        before.push((Instant::now(), agent.cpu_nanoseconds()?));
    }
    let end = Instant::now() + QUIET;
    while Instant::now() < end {
        thread::sleep(Duration::from_secs(1));
        for (agent, (resident, anonymous)) in agents.iter().zip(&mut memory) {
            resident.push(agent.resident_mb()?);
            anonymous.push(agent.anonymous_mb()?);
        }
    }
    for ((agent, (at, cpu)), seen) in agents.iter().zip(before).zip(&mut seen) {
        let nanoseconds = agent.cpu_nanoseconds()? - cpu;
        seen.cpu_percent = nanoseconds as f64 / 1e7 / at.elapsed().as_secs_f64();
    }
    let mut costs = [const { Vec::new() }; 2];
    for _ in 0..BATCHES {
        for (agent, costs) in agents.iter().zip(&mut costs) {
            costs.push(agent.scrape_cost(BATCH)?);
        }
    }
    let measured = agents.iter().zip(&mut seen).zip(memory).zip(&mut costs);
    for (((agent, seen), (mut resident, mut anonymous)), costs) in measured {
        seen.resident_mb = median(&mut resident);
        seen.anonymous_mb = median(&mut anonymous);
        seen.library_mb = agent.library_mb(library)?;
        seen.scrape_ms = median(costs);
        seen.page_kb = agent.page_kb()?;
    }
    Ok(seen)
}

/// The file that tells the library what to answer; removed when dropped.
struct Script(PathBuf);

impl Script {
    fn write(pids: &[u32]) -> Result<Self> {
        let path = env::temp_dir().join(format!("esnode-bench-nvml-{}.json", process::id()));
        let devices: Vec<String> = pids
            .chunks(PROCESSES / GPUS)
            .enumerate()
            .map(|(index, pids)| Device { index, pids }.to_string())
            .collect();
        let script = format!(
            r#"{{"driver_version": "570.86.10", "cuda_version": 12080, "devices": [{}]}}"#,
            devices.join(",")
        );
        fs::write(&path, script).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("warning: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A GPU that has all that one can have: 18 NVLinks, ECC, activity sampled by the chip.
struct Device<'a> {
    index: usize,
    pids: &'a [u32],
}

impl fmt::Display for Device<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, pids } = self;
        let list = |entries: Vec<String>| entries.join(",");
        let process = |pid: &u32| {
            format!(r#"{{"pid":{pid},"memory":1073741824,"sm":10,"mem":5,"enc":1,"dec":1}}"#)
        };
        let link = r#"{"up":true,"rx_bytes":1,"tx_bytes":1,"replay":0,"recovery":0,"crc":0}"#;
        let fields = [
            29, 30, 74, 76, 82, 142, 143, 144, 145, 197, 198, 251, 252, 253,
        ];
        let field = |id: &u32| format!(r#""{id}":{{"u32":60}}"#);
        let metric = |id: u32| format!(r#""{id}":50.0"#);
        write!(
            f,
            r#"{{
    "uuid":"GPU-00000000-0000-0000-0000-{index:012}","name":"NVIDIA H100 80GB HBM3",
    "pci_bus_id":"00000000:{bus:02X}:00.0","vbios":"96.00.74.00.01","architecture":9,
    "minor":{index},"energy_millijoules":1000000,"energy_milliwatts":300000,
    "utilization":{{"gpu":80,"memory":40}},"encoder":1,"decoder":2,
    "memory":{{"total":85899345920,"used":8589934592,"free":76235669504,"reserved":1073741824}},
    "bar1":{{"total":137438953472,"used":0,"free":137438953472}},
    "temperature":45,"fans":[30],"power_milliwatts":300000,"power_limit_milliwatts":700000,
    "clocks":{clocks},"clocks_max":{clocks},"performance_state":0,
    "throttle_supported":511,"throttle":4,
    "pcie":{{"generation":5,"generation_max":5,"width":16,"width_max":16,"replays":0}},
    "ecc":{{"corrected_volatile":0,"uncorrected_volatile":0,
        "corrected_aggregate":0,"uncorrected_aggregate":0}},
    "nvlinks":[{links}],"fields":{{{fields}}},"gpm":{{{gpm}}},"processes":[{processes}]}}"#,
            bus = index + 16,
            clocks = r#"{"graphics":1980,"sm":1980,"memory":2619,"video":1545}"#,
            links = [link; 18].join(","),
            fields = list(fields.iter().map(field).collect()),
            gpm = list((1..32).map(metric).collect()),
            processes = list(pids.iter().map(process).collect()),
        )
    }
}
