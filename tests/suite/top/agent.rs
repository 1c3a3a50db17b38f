//! An agent that says what a test tells it to say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// What to answer to the n-th request; null is that there is nothing of that name.
pub(super) type Script = fn(u32) -> Value;

/// An agent that answers by a script; gone when dropped.
pub(super) struct FakeAgent {
    pub(super) address: SocketAddr,
    /// Requests so far; it goes on where another one left off.
    pub(super) asked: Arc<AtomicU32>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    pub(super) fn start(script: Script) -> Result<Self> {
        Self::start_at("127.0.0.1:0".parse()?, script, Arc::default())
    }

    pub(super) fn start_at(
        address: SocketAddr,
        script: Script,
        asked: Arc<AtomicU32>,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).context("listen as an agent")?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (count, stop) = (Arc::clone(&asked), Arc::clone(&ended));
        let last = Mutex::new(());
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let _turn = last.lock().unwrap_or_else(PoisonError::into_inner);
                // Who hangs up gets no answer.
                let _ = answer(stream, script, &count);
            }
        });
        Ok(Self {
            address,
            asked,
            ended,
            thread: Some(thread),
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes who waits for a connection, so that the port is free again.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, script: Script, count: &AtomicU32) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, body) = if request.starts_with("GET /api/v1/processes ") {
        let n = count.fetch_add(1, Ordering::SeqCst);
        match script(n) {
            Value::Null => ("404 Not Found", String::new()),
            answer => ("200 OK", answer.to_string()),
        }
    } else {
        ("404 Not Found", String::new())
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

/// Bytes of a GiB.
const GIB: u64 = 1 << 30;

/// A node of 8 GPUs after `2 n` seconds: vLLM on all of them, and a shell.
pub(super) fn node(n: u32) -> Value {
    let seconds = f64::from(n) * 2.0;
    let mut processes = vec![
        process(
            100,
            1,
            "vllm",
            0.25 * seconds,
            json!({"engine": "vllm", "role": "server"}),
        ),
        process(
            900,
            1,
            "bash",
            0.0,
            json!({"user": "ada", "container": "toolbox"}),
        ),
    ];
    processes.extend((0..8).map(|rank| worker(rank, n)));
    json!({
        "version": "0.1.0",
        "time_seconds": 1_700_000_000.0 + seconds,
        "node": {
            "hostname": "gpu-node-7",
            "cores": 128,
            "cpu_usage_percent": 37.5,
            "cpu_load_avg": [12.5, 10.0, 8.0],
            "memory_total_bytes": 1024 * GIB,
            "memory_available_bytes": 768 * GIB,
            "power_watts": 6500.0,
            "uptime_seconds": 93_600.0,
            "disks": [{"device": "nvme0n1", "read_bytes_total": u64::from(n) * 4 * GIB,
                "written_bytes_total": 0}],
            "interfaces": [{"iface": "eth0", "rx_bytes_total": 0,
                "tx_bytes_total": u64::from(n) * 6144}],
        },
        "gpus": (0..8).map(gpu).collect::<Vec<_>>(),
        "processes": processes,
        "processes_not_selected": 3,
    })
}

fn gpu(gpu: u32) -> Value {
    let reasons = if gpu == 5 {
        vec!["sw_thermal_slowdown"]
    } else {
        vec!["gpu_idle"]
    };
    json!({
        "gpu": gpu, "uuid": format!("GPU-{gpu}"), "name": "NVIDIA H100 80GB HBM3", "up": true,
        "utilization_percent": 80 + gpu, "memory_used_bytes": 60 * GIB,
        "memory_total_bytes": 80 * GIB, "temperature_celsius": 55 + gpu, "power_watts": 400 + gpu,
        "power_limit_watts": 700, "clock_sm_mhz": 1980, "throttle_reasons": reasons,
    })
}

/// A worker whose rank says what it uses: TP7 the most of the GPU, and the least of the CPU.
fn worker(rank: u32, n: u32) -> Value {
    let seconds = f64::from(n) * 2.0;
    process(
        101 + rank,
        100,
        &format!("VLLM::Worker_TP{rank}"),
        seconds * f64::from(8 - rank) / 10.0,
        json!({
            "engine": "vllm", "role": "worker", "rank": format!("TP{rank}"),
            "model": "meta-llama/Llama-3.3-70B-Instruct", "server_pid": 100,
            "disk_read_bytes_total": u64::from(n) * 2 * 1024 * 1024,
            "disk_write_bytes_total": 0,
            "network": {"tcp": {"receive_bytes_total": u64::from(n) * 4096,
                "transmit_bytes_total": 0}},
            "gpus": [{"gpu": rank, "uuid": format!("GPU-{rank}"), "memory_used_bytes": 58 * GIB,
                "utilization_sm_percent": 70 + rank,
                "energy_joules_total": seconds * f64::from(300 + rank)}],
        }),
    )
}

/// A process with what else is known of it.
pub(super) fn process(pid: u32, parent: u32, comm: &str, cpu: f64, more: Value) -> Value {
    let mut process = json!({
        "pid": pid, "parent_pid": parent, "comm": comm, "start_time_seconds": 1_699_990_000.0,
        "user": "serving", "group": comm, "threads": 9, "cpu_seconds_total": cpu,
        "resident_memory_bytes": 5 * GIB,
    });
    if let (Some(process), Value::Object(more)) = (process.as_object_mut(), more) {
        process.extend(more);
    }
    process
}

/// A node whose one process has `n` GiB of memory at request `n`, so that each answer differs.
pub(super) fn growing(n: u32) -> Value {
    let mut process = process(77, 1, "grower", 0.0, json!({}));
    if let Some(fields) = process.as_object_mut() {
        fields.insert(
            "resident_memory_bytes".to_owned(),
            json!(u64::from(n + 1) * GIB),
        );
    }
    json!({
        "time_seconds": 1_700_000_000.0 + f64::from(n) * 2.0,
        "node": {"hostname": "node-of-one"},
        "processes": [process],
    })
}

/// A node whose names would take over a terminal that obeyed them.
pub(super) fn hostile(n: u32) -> Value {
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[31m\u{9b}5mEVIL\r\n\u{202e}";
    json!({
        "time_seconds": 1_700_000_000.0 + f64::from(n) * 2.0,
        "node": {"hostname": evil},
        "gpus": [{"gpu": 0, "name": evil, "up": true, "throttle_reasons": [evil]}],
        "processes": [
            process(66, 1, evil, 0.0, json!({"user": evil, "engine": evil, "model": evil,
                "container": evil, "role": evil})),
            process(67, 1, "模型服务", 0.0, json!({"model": "通义千问"})),
        ],
    })
}
