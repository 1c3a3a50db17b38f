use super::*;
use crate::{
    api::{Disk, Gpu, Interface, Node, Process, ProcessGpu, Snapshot, Traffic},
    top::{clean::Charset, input::Action, rows::Listing},
};

const GIB: u64 = 1 << 30;

const PLAIN: Theme = Theme {
    color: false,
    charset: Charset::Unicode,
};

/// What a node with GPUs has after `n` seconds.
fn snapshot(n: u32, gpus: u32, workers: u32) -> Snapshot {
    Snapshot {
        time_seconds: 1_700_000_000.0 + f64::from(n),
        node: node(n),
        gpus: (0..gpus).map(gpu).collect(),
        processes: (0..workers).map(|rank| worker(rank, n)).collect(),
        processes_not_selected: Some(5),
        ..Snapshot::default()
    }
}

fn node(n: u32) -> Node {
    Node {
        hostname: "node-7".to_owned(),
        cores: Some(192),
        cpu_usage_percent: Some(50.0),
        cpu_load_avg: Some([12.5, 10.25, 9.0]),
        memory_total_bytes: Some(2048 * GIB),
        memory_available_bytes: Some(1536 * GIB),
        power_watts: Some(8410.0),
        uptime_seconds: Some(90_000.0),
        disks: vec![Disk {
            device: "nvme0n1".to_owned(),
            read_bytes_total: u64::from(n) * 3 * GIB,
            written_bytes_total: u64::from(n) * GIB,
        }],
        interfaces: vec![Interface {
            iface: "eth0".to_owned(),
            rx_bytes_total: u64::from(n) * 2048,
            tx_bytes_total: u64::from(n) * 1024,
        }],
        ..Node::default()
    }
}

fn gpu(gpu: u32) -> Gpu {
    Gpu {
        gpu,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        up: gpu != 3,
        utilization_percent: Some(90.0 + f64::from(gpu)),
        memory_used_bytes: Some(71 * GIB),
        memory_total_bytes: Some(80 * GIB),
        temperature_celsius: Some(64.0),
        power_watts: Some(698.0),
        power_limit_watts: Some(700.0),
        clock_sm_mhz: Some(1755.0),
        throttle_reasons: Some(match gpu {
            0 => vec!["sw_power_cap".to_owned(), "hw_thermal_slowdown".to_owned()],
            1 => vec!["gpu_idle".to_owned()],
            _ => Vec::new(),
        }),
        ..Gpu::default()
    }
}

fn worker(rank: u32, n: u32) -> Process {
    let seconds = f64::from(n);
    let moved = Traffic {
        receive_bytes_total: u64::from(n) * 10_240,
        transmit_bytes_total: 0,
    };
    Process {
        pid: 1000 + rank,
        parent_pid: if rank == 0 { 1 } else { 1000 },
        comm: format!("VLLM::Worker_TP{rank}"),
        user: "serving".to_owned(),
        engine: "vllm".to_owned(),
        role: "worker".to_owned(),
        rank: format!("TP{rank}"),
        model: "meta-llama/Llama-3.3-70B-Instruct".to_owned(),
        pod: "llama-0".to_owned(),
        cpu_seconds_total: seconds,
        resident_memory_bytes: Some(9 * GIB),
        disk_read_bytes_total: Some(u64::from(n) * 1024 * 1024),
        disk_write_bytes_total: Some(0),
        network: Some([("tcp".to_owned(), moved)].into()),
        gpus: vec![ProcessGpu {
            gpu: rank,
            memory_used_bytes: Some(70 * GIB),
            utilization_sm_percent: Some(80.0 + f64::from(rank)),
            energy_joules_total: Some(seconds * 600.0),
            ..ProcessGpu::default()
        }],
        ..Process::default()
    }
}

fn model(gpus: u32, workers: u32, charset: Charset) -> Model {
    let listing = Listing::default();
    let now = Instant::now();
    let mut model = Model::new(snapshot(1, gpus, workers), listing, charset, now);
    model.take(snapshot(3, gpus, workers), now);
    model
}

fn buffer(model: &mut Model, theme: Theme, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(model, theme, Instant::now(), area, &mut buffer);
    buffer
}

fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let buffer = buffer(model, PLAIN, width, height);
    text(&buffer).lines().map(str::to_owned).collect()
}

#[test]
fn eighty_by_twentyfour_has_node_gpus_workers_and_keys() {
    let lines = screen(&mut model(8, 8, Charset::Unicode), 80, 24);
    assert_eq!(
        lines[0],
        "node-7  22:13:23 UTC  up 1d01h  cores 192  load 12.50 10.25 9.00"
    );
    assert_eq!(
        lines[1],
        "CPU [███████▌       ]  50.0%  MEM [███▊           ]   512G/2.0T  SWAP -"
    );
    assert_eq!(
        lines[2],
        "POWER 8.4kW  DISK read 3.0G/s write 1.0G/s  NET rx 2.0K/s tx 1.0K/s"
    );
    assert_eq!(
        lines[3],
        " 0 H100 [████████▏]  90% [████████ ] 71.0G/80.0G  64C 698/700W 1755MHz PWR HOT"
    );
    assert!(
        lines[4].ends_with("1755MHz"),
        "an idle GPU has no mark: {}",
        lines[4]
    );
    assert!(lines[6].ends_with("1755MHz DOWN"), "{}", lines[6]);
    assert_eq!(
        lines[11],
        "     PID ENGINE  GPU  GPU%▼  GMEM    W  CPU%   RSS  DISK   NET MODEL/COMMAND"
    );
    assert_eq!(
        lines[12],
        ">   1007 vllm    7       87 70.0G  600   100  9.0G  1.0M 10.0K TP7 Llama-3.3-70…"
    );
    assert_eq!(
        lines[22],
        "8 of 8 processes, 5 more without series by GPU%▼"
    );
    assert!(
        lines[23].starts_with("q quit ? help / filter <> sort"),
        "{}",
        lines[23]
    );
    assert_eq!(lines.len(), 24);
}

#[test]
fn two_hundred_columns_show_all() {
    let lines = screen(&mut model(8, 8, Charset::Unicode), 200, 50);
    for title in [
        "USER",
        "ROLE",
        "MODEL",
        "READ",
        "WRITE",
        "RX",
        "TX",
        "CONTAINER/POD",
        "COMMAND",
    ] {
        assert!(lines[11].contains(title), "{title} in {}", lines[11]);
    }
    for value in [
        "serving",
        "worker TP7",
        "meta-llama/Llama-3.3-70B-Instruct",
        "llama-0",
        "VLLM::Worker_TP7",
    ] {
        assert!(lines[12].contains(value), "{value} in {}", lines[12]);
    }
    assert!(lines[3].contains("H100 80GB HBM3"), "{}", lines[3]);
}

#[test]
fn more_gpus_take_no_more_room() {
    let mut many = model(16, 3, Charset::Unicode);
    let lines = screen(&mut many, 80, 24);
    assert!(
        lines[3].contains(" 0 [") && lines[3].contains(" 8 ["),
        "{}",
        lines[3]
    );
    assert!(lines[10].contains("15 ["), "{}", lines[10]);
    assert!(lines[3].contains("PWR HOT "), "{}", lines[3]);
    many.update(Action::Gpus, Instant::now());
    let lines = screen(&mut many, 80, 24);
    assert!(
        lines[15].starts_with(" 12 H100") || lines[15].starts_with("12 H100"),
        "{}",
        lines[15]
    );
    assert!(lines[16].starts_with("3 more GPUs"), "{}", lines[16]);
    many.update(Action::Gpus, Instant::now());
    let lines = screen(&mut many, 80, 24);
    assert_eq!(
        lines[3].split("  ").collect::<Vec<_>>()[..1],
        ["16 GPUs [█████▉]"],
    );
    for part in [
        "98%",
        "MEM 1.1T/1.2T",
        "POWER 11.2kW",
        "MAX 64C",
        "DOWN:1",
        "PWR:1",
    ] {
        assert!(lines[3].contains(part), "{part} in {}", lines[3]);
    }
}

#[test]
fn a_tree_has_branches_and_details_have_sparklines() {
    let mut model = model(2, 2, Charset::Unicode);
    model.update(Action::Tree, Instant::now());
    let lines = screen(&mut model, 80, 24);
    assert!(lines[7].contains("└ TP1 Llama"), "{}", lines[7]);
    model.update(Action::Details, Instant::now());
    let text = screen(&mut model, 80, 24).join("\n");
    for part in [
        "Process 1000  VLLM::Worker_TP0",
        "engine vllm  role worker TP0  model meta-llama/Llama-3.3-70B-Instruct",
        "pod llama-0",
        "GPU power 600W  CPU power -",
        "disk read 1.0M/s  written 0/s  network rx 10.0K/s  tx 0/s",
        "tcp in all 30.0K in, 0 out",
        "GPU 0  SM 80%  memory held 70.0G",
        "GPU %            80  max 80",
        "watts           600  max 600",
        "Esc back",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(text.contains('█'), "{text}");
}

#[test]
fn ascii_is_ascii() {
    let theme = Theme {
        color: false,
        charset: Charset::Ascii,
    };
    let mut model = model(8, 8, Charset::Ascii);
    model.update(Action::Tree, Instant::now());
    let table = text(&buffer(&mut model, theme, 80, 24));
    model.update(Action::Details, Instant::now());
    let details = text(&buffer(&mut model, theme, 80, 24));
    model.update(Action::Help, Instant::now());
    let help = text(&buffer(&mut model, theme, 80, 24));
    for screen in [table, details, help] {
        assert!(screen.is_ascii(), "{screen}");
    }
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    let mut model = model(8, 8, Charset::Unicode);
    let coloured = |buffer: &Buffer| {
        let mut cells = buffer.content().iter();
        cells.any(|cell| (cell.fg, cell.bg) != Default::default())
    };
    assert!(!coloured(&buffer(&mut model, PLAIN, 80, 24)));
    let theme = Theme {
        color: true,
        ..PLAIN
    };
    assert!(coloured(&buffer(&mut model, theme, 80, 24)));
}

#[test]
fn a_screen_may_be_of_any_size() {
    let mut model = model(16, 9, Charset::Unicode);
    for action in [Action::Accept, Action::Details, Action::Help] {
        model.update(action, Instant::now());
        for (width, height) in [
            (0, 0),
            (1, 1),
            (39, 24),
            (40, 10),
            (41, 11),
            (500, 3),
            (300, 100),
        ] {
            let text = screen(&mut model, width, height).join("\n");
            let small = width < 40 || height < 10;
            assert_eq!(
                text.contains("too small"),
                small && width >= 10 && height > 0,
                "{text}"
            );
        }
    }
}

#[test]
fn wide_names_keep_the_columns_in_place() {
    let mut wide = snapshot(3, 1, 1);
    "模型".repeat(30).clone_into(&mut wide.processes[0].model);
    let mut model = model(1, 1, Charset::Unicode);
    model.take(
        Snapshot {
            time_seconds: 1_700_000_009.0,
            ..wide
        },
        Instant::now(),
    );
    let lines = screen(&mut model, 200, 24);
    let from_right = |line: &str, part: &str| {
        let before = line
            .split(part)
            .next()
            .map(Span::raw)
            .map(|span| span.width());
        before.unwrap_or_default()
    };
    assert!(lines[5].contains("模型"), "{}", lines[5]);
    assert_eq!(
        from_right(&lines[4], "COMMAND"),
        from_right(&lines[5], "VLLM::"),
        "{lines:#?}"
    );
}

#[test]
fn a_lost_connection_and_a_frozen_screen_are_told() {
    let mut model = model(1, 1, Charset::Unicode);
    model.update(Action::Freeze, Instant::now());
    assert!(screen(&mut model, 80, 24)[22].starts_with("FROZEN 0s ago"));
    model.lose("no answer from\u{1b}[2J there");
    let status = &screen(&mut model, 80, 24)[22];
    assert_eq!(
        status,
        "NO CONNECTION, shown is 0s old: no answer from?[2J there"
    );
}

#[test]
fn five_hundred_processes_are_drawn_in_time() {
    let mut model = model(16, 512, Charset::Unicode);
    let start = Instant::now();
    for _ in 0..20 {
        model.update(Action::Reverse, Instant::now());
        assert_eq!(screen(&mut model, 200, 50).len(), 50);
    }
    // A few milliseconds each when optimized; this is neither that nor alone on the machine.
    assert!(
        start.elapsed().as_millis() < 20 * 250,
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_model_that_does_not_fit_loses_its_owner_first() {
    let lines = screen(&mut model(8, 8, Charset::Unicode), 120, 24);
    assert!(lines[11].contains(" MODEL "), "{}", lines[11]);
    assert!(lines[12].contains(" Llama-3.3-70B"), "{}", lines[12]);
}
