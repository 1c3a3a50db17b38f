//! A GPU that has everything, and what the page has to say of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use esnode_tests::gpu::device;
use esnode_tests::page::{Page, Sample};
use serde_json::{Value, json};

use super::support::put;

const GIB: u64 = 1 << 30;

/// A GPU that has everything but MIG, with numbers that no two readings and no two devices share
/// where their range allows it.
pub(crate) fn full(index: u8) -> Value {
    let step = u64::from(index);
    let mut gpu = device(index);
    put(
        &mut gpu,
        json!({
            "name": format!("NVIDIA H100 number {index}"),
            "vbios": format!("96.00.74.00.{index:02}"),
            "energy_millijoules": 1_234_567 + step,
            "utilization": { "gpu": 21 + step, "memory": 41 + step },
            "encoder": 61 + step,
            "decoder": 81 + step,
            "memory": {
                "total": 80 * GIB + step, "used": 50 * GIB + step,
                "free": 29 * GIB + step, "reserved": GIB + step,
            },
            "bar1": { "total": 128 * GIB + step, "used": 3 * GIB + step, "free": 125 * GIB },
            "temperature": 31 + step,
            "fans": [11 + step, 13 + step],
            "power_milliwatts": 345_678 + step,
            "power_limit_milliwatts": 700_500 + step,
            "clocks": {
                "graphics": 1110 + step, "sm": 1220 + step,
                "memory": 1330 + step, "video": 1440 + step,
            },
            "clocks_max": {
                "graphics": 2110 + step, "sm": 2220 + step,
                "memory": 2330 + step, "video": 2440 + step,
            },
            "performance_state": 2 + step,
            "throttle_supported": 0x1ff,
            "throttle": 0x0a4,
            "pcie": {
                "generation": 1 + step, "generation_max": 5 + step,
                "width": 8 + step, "width_max": 16 + step, "replays": 71 + step,
            },
            "ecc": {
                "corrected_volatile": 101 + step, "uncorrected_volatile": 102 + step,
                "corrected_aggregate": 1101 + step, "uncorrected_aggregate": 1102 + step,
            },
            "nvlinks": [
                { "up": true, "replay": 201 + step, "recovery": 301 + step, "crc": 401 + step },
                { "up": true, "replay": 202 + step, "recovery": 302 + step, "crc": 402 + step },
                { "up": false, "replay": 203, "recovery": 303, "crc": 403 },
            ],
            "fields": fields(step),
            "gpm": {
                "1": 50.0, "2": 51.25 + f64::from(index), "3": 52.5, "4": 53.0, "5": 54.0,
                "10": 55.0, "11": 56.0, "12": 57.0, "13": 58.5,
            },
        }),
    );
    gpu
}

/// Fields, of both types that drivers have for each.
fn fields(step: u64) -> Value {
    json!({
        "82": { "u32": 47 + step },
        // Bytes over PCIe, and ns that clocks were held down.
        "197": { "u64": 5_000_000_001_u64 + step },
        "198": { "u64": 6_000_000_001_u64 + step },
        "74": { "u64": 1_500_000_000 + step },
        "76": { "u64": 2_500_000_000_u64 + step },
        "251": { "u64": 3_500_000_000_u64 + step },
        "252": { "u64": 4_500_000_000_u64 + step },
        "253": { "u64": 5_500_000_000_u64 + step },
        // The first NVLink has KiB alone, the second bytes as well; the third is down.
        "138@0": { "u64": 7_001 + step },
        "139@0": { "u64": 8_001 + step },
        "138@1": { "u64": 1 },
        "139@1": { "u64": 1 },
        "202@1": { "u64": 9_001 + step },
        "204@1": { "u64": 9_501 + step },
        "138@2": { "u64": 1 },
        "202@2": { "u64": 1 },
        // Memory out of use.
        "29": { "u32": 3 + step },
        "30": { "u32": 5 + step },
        "142": { "u32": 7 + step },
        "143": { "u32": 9 + step },
        "144": { "u32": 1 },
        "145": { "u32": 0 },
    })
}

/// Every sample that the page has of the GPU [`full(0)`](full), but those that are times of the
/// agent's own: fields of the script without which it's absent; name and labels; the script's
/// number, and how the page's follows from it. `full(1)` has one more everywhere but at `=`.
const TABLE: &str = "
-                      esnode_gpu_info                                        1 =
-                      esnode_gpu_up                                          1 =
/energy_millijoules    esnode_gpu_energy_joules_total                   1234567 thousandths
/energy_millijoules    esnode_unattributed_gpu_energy_joules_total,reason=before_agent 1234567 thousandths
/energy_millijoules    esnode_unattributed_gpu_energy_joules_total,reason=idle 0 =
/energy_millijoules    esnode_unattributed_gpu_energy_joules_total,reason=unknown_process 0 =
/energy_millijoules    esnode_unattributed_gpu_energy_joules_total,reason=reused_pid 0 =
/energy_millijoules    esnode_unattributed_gpu_energy_joules_total,reason=no_samples 0 =
/energy_millijoules    esnode_unattributed_gpu_energy_joules_total,reason=gap 0 =
/utilization           esnode_gpu_utilization_percent                        21
/utilization           esnode_gpu_memory_utilization_percent                 41
/encoder               esnode_gpu_encoder_utilization_percent                61
/decoder               esnode_gpu_decoder_utilization_percent                81
/memory                esnode_gpu_memory_total_bytes                85899345920
/memory                esnode_gpu_memory_used_bytes                 53687091200
/memory                esnode_gpu_memory_free_bytes                 31138512896
/memory                esnode_gpu_memory_reserved_bytes              1073741824
/bar1                  esnode_gpu_bar1_total_bytes                 137438953472
/bar1                  esnode_gpu_bar1_used_bytes                    3221225472
/temperature           esnode_gpu_temperature_celsius,sensor=gpu             31
/fields/82             esnode_gpu_temperature_celsius,sensor=memory          47
/fans                  esnode_gpu_fan_speed_percent,fan=0                    11
/fans                  esnode_gpu_fan_speed_percent,fan=1                    13
/power_milliwatts      esnode_gpu_power_watts                            345678 thousandths
/power_limit_milliwatts esnode_gpu_power_limit_watts                     700500 thousandths
/clocks/sm             esnode_gpu_clock_sm_mhz                             1220
/clocks/memory         esnode_gpu_clock_memory_mhz                         1330
/clocks/graphics       esnode_gpu_clock_graphics_mhz                       1110
/clocks/video          esnode_gpu_clock_video_mhz                          1440
/clocks_max/sm         esnode_gpu_clock_max_mhz,clock=sm                   2220
/clocks_max/memory     esnode_gpu_clock_max_mhz,clock=memory               2330
/clocks_max/graphics   esnode_gpu_clock_max_mhz,clock=graphics             2110
/clocks_max/video      esnode_gpu_clock_max_mhz,clock=video                2440
/performance_state     esnode_gpu_performance_state                           2
/throttle              esnode_gpu_throttle_reason,reason=gpu_idle             0 =
/throttle              esnode_gpu_throttle_reason,reason=applications_clocks_setting 0 =
/throttle              esnode_gpu_throttle_reason,reason=sw_power_cap         1 =
/throttle              esnode_gpu_throttle_reason,reason=hw_slowdown          0 =
/throttle              esnode_gpu_throttle_reason,reason=sync_boost           0 =
/throttle              esnode_gpu_throttle_reason,reason=sw_thermal_slowdown  1 =
/throttle              esnode_gpu_throttle_reason,reason=hw_thermal_slowdown  0 =
/throttle              esnode_gpu_throttle_reason,reason=hw_power_brake_slowdown 1 =
/throttle              esnode_gpu_throttle_reason,reason=display_clock_setting 0 =
/fields/74             esnode_gpu_throttle_seconds_total,reason=sw_power_cap 1500000000 billionths
/fields/76             esnode_gpu_throttle_seconds_total,reason=sync_boost 2500000000 billionths
/fields/251            esnode_gpu_throttle_seconds_total,reason=sw_thermal_slowdown 3500000000 billionths
/fields/252            esnode_gpu_throttle_seconds_total,reason=hw_thermal_slowdown 4500000000 billionths
/fields/253            esnode_gpu_throttle_seconds_total,reason=hw_power_brake_slowdown 5500000000 billionths
/fields/197            esnode_gpu_pcie_tx_bytes_total                5000000001
/fields/198            esnode_gpu_pcie_rx_bytes_total                6000000001
/pcie/replays          esnode_gpu_pcie_replays_total                         71
/pcie/generation       esnode_gpu_pcie_link_generation,limit=current          1
/pcie/generation_max   esnode_gpu_pcie_link_generation,limit=max              5
/pcie/width            esnode_gpu_pcie_link_width,limit=current               8
/pcie/width_max        esnode_gpu_pcie_link_width,limit=max                  16
/nvlinks               esnode_gpu_nvlink_up,link=0                            1 =
/nvlinks               esnode_gpu_nvlink_up,link=1                            1 =
/nvlinks               esnode_gpu_nvlink_up,link=2                            0 =
/nvlinks,/fields/138@0 esnode_gpu_nvlink_tx_bytes_total,link=0             7001 kibi
/nvlinks,/fields/139@0 esnode_gpu_nvlink_rx_bytes_total,link=0             8001 kibi
/nvlinks               esnode_gpu_nvlink_tx_bytes_total,link=1             9001
/nvlinks               esnode_gpu_nvlink_rx_bytes_total,link=1             9501
/nvlinks,/nvlinks/*/replay   esnode_gpu_nvlink_errors_total,link=0,kind=replay   201
/nvlinks,/nvlinks/*/recovery esnode_gpu_nvlink_errors_total,link=0,kind=recovery 301
/nvlinks,/nvlinks/*/crc      esnode_gpu_nvlink_errors_total,link=0,kind=crc      401
/nvlinks,/nvlinks/*/replay esnode_gpu_nvlink_errors_total,link=1,kind=replay    202
/nvlinks,/nvlinks/*/recovery esnode_gpu_nvlink_errors_total,link=1,kind=recovery  302
/nvlinks,/nvlinks/*/crc esnode_gpu_nvlink_errors_total,link=1,kind=crc       402
/ecc,/ecc/corrected_volatile    esnode_gpu_ecc_errors_total,kind=corrected,scope=volatile    101
/ecc,/ecc/uncorrected_volatile  esnode_gpu_ecc_errors_total,kind=uncorrected,scope=volatile  102
/ecc,/ecc/corrected_aggregate   esnode_gpu_ecc_errors_total,kind=corrected,scope=aggregate   1101
/ecc,/ecc/uncorrected_aggregate esnode_gpu_ecc_errors_total,kind=uncorrected,scope=aggregate 1102
/fields/29             esnode_gpu_retired_pages,cause=single_bit_ecc          3
/fields/30             esnode_gpu_retired_pages,cause=double_bit_ecc          5
/fields/142            esnode_gpu_remapped_rows,cause=corrected               7
/fields/143            esnode_gpu_remapped_rows,cause=uncorrected             9
/fields/144            esnode_gpu_row_remap_pending                           1 =
/fields/145            esnode_gpu_row_remap_failed                            0 =
/processes             esnode_gpu_processes                                   0 =
/processes             esnode_gpu_unknown_processes                           0 =
/gpm,/gpm/1            esnode_gpu_graphics_active_percent                   50 =
/gpm,/gpm/2            esnode_gpu_sm_active_percent                       51.25
/gpm,/gpm/3            esnode_gpu_sm_occupancy_percent                     52.5 =
/gpm,/gpm/4            esnode_gpu_int_active_percent                         53 =
/gpm,/gpm/5            esnode_gpu_tensor_active_percent                      54 =
/gpm,/gpm/10           esnode_gpu_dram_active_percent                        55 =
/gpm,/gpm/11           esnode_gpu_fp64_active_percent                        56 =
/gpm,/gpm/12           esnode_gpu_fp32_active_percent                        57 =
/gpm,/gpm/13           esnode_gpu_fp16_active_percent                      58.5 =
";

/// Families of a GPU whose values are times of the agent's own.
const OWN_TIMES: [&str; 2] = [
    "esnode_gpu_sample_age_seconds",
    "esnode_gpu_sample_duration_seconds",
];

/// Name and labels of a sample of a GPU, as in [`TABLE`], and its value.
pub(crate) type Rows = BTreeMap<String, f64>;

/// What the page is to say of the GPU of [`full`] with this index, whose script lacks a field.
pub(crate) fn expected(index: u8, missing: Option<&str>) -> Result<Rows> {
    let mut rows = Rows::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [sources, series, number, rest @ ..] = &*words else {
            anyhow::bail!("a bad line: {line}");
        };
        if sources.split(',').any(|source| Some(source) == missing) {
            continue;
        }
        let number: f64 = number.parse().with_context(|| line)?;
        let stepped = number + f64::from(index);
        let value = match rest {
            [] => stepped,
            ["="] => number,
            ["thousandths"] => stepped / 1e3,
            ["billionths"] => stepped / 1e9,
            ["kibi"] => stepped * 1024.0,
            _ => anyhow::bail!("a bad line: {line}"),
        };
        rows.insert((*series).to_owned(), value);
    }
    Ok(rows)
}

/// The fields of a script that the page has something of.
pub(crate) fn sources() -> BTreeSet<&'static str> {
    let words = TABLE
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let sources = words.flat_map(|sources| sources.split(','));
    sources.filter(|source| *source != "-").collect()
}

/// What a page says of a GPU: without labels that every series of it has, and those of its info.
pub(crate) fn seen(page: &Page, gpu: &str) -> Rows {
    let samples = page.samples().filter(|sample| sample.has(&[("gpu", gpu)]));
    samples
        .filter(|sample| !OWN_TIMES.contains(&sample.name.as_str()))
        .map(|sample| (series(sample), sample.value))
        .collect()
}

/// As in [`TABLE`], where labels are in the order of the page.
fn series(sample: &Sample) -> String {
    let order = [
        "link", "kind", "scope", "sensor", "fan", "clock", "reason", "limit", "cause",
    ];
    let labels = order
        .iter()
        .filter_map(|label| Some((label, sample.labels.get(*label)?)));
    let labels = labels.map(|(label, value)| format!(",{label}={value}"));
    [sample.name.clone()].into_iter().chain(labels).collect()
}

/// Fails where rows differ, and says in which.
pub(crate) fn check_rows(seen: &Rows, expected: &Rows, what: &str) -> Result<()> {
    let names: BTreeSet<_> = seen.keys().chain(expected.keys()).collect();
    let mut wrong = Vec::new();
    for name in names {
        let same = match (seen.get(name), expected.get(name)) {
            (Some(seen), Some(expected)) => (seen - expected).abs() <= 1e-9 * expected.abs(),
            _ => false,
        };
        if !same {
            let (seen, expected) = (seen.get(name), expected.get(name));
            wrong.push(format!("{name}: expected {expected:?}, seen {seen:?}"));
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{what}: {}", wrong.join("\n"));
    Ok(())
}
