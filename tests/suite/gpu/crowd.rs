//! Workers that come, compute, and go or are killed, on two GPUs: on every page, energy is
//! conserved and counters don't fall.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::workload::{Name, Workload};
use serde_json::{Value, json};

use super::support::{DEVICE_ENERGY, GROUP_ENERGY, NOBODYS_ENERGY, QUICK, Rig, energy, gpu};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::crowd::conserved_on_every_page", || run(&QUICK, 1)),
        Case::new("gpu::crowd::conserved_with_few_groups", || {
            run(
                &[&QUICK[..], &["--group-limit", "2", "--process-limit", "1"]].concat(),
                2,
            )
        }),
    ]
}

/// How many times something happens, and how many pages are read after each.
const ROUNDS: u32 = 14;
const PAGES: u32 = 8;

/// A sequence of numbers that a seed decides (xorshift).
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % limit.max(1)
    }
}

/// A worker, and the percents of the GPUs that it takes.
struct Member {
    worker: Workload,
    percents: [Option<u32>; 2],
}

/// What the driver knows of the GPU with this index: nothing of when a worker ends.
fn listed(crowd: &[Member], index: usize) -> Vec<Value> {
    let entry = |member: &Member| {
        let sm = member.percents.get(index).copied().flatten()?;
        Some(json!({ "pid": member.worker.pid(), "memory": 1 << 20, "sm": sm }))
    };
    crowd.iter().filter_map(entry).collect()
}

fn run(flags: &[&str], seed: u32) -> Result<()> {
    let rig = Rig::start_with(&[gpu(0, &[]), gpu(1, &[])], flags)?;
    let names = ["crowd", "crowd", "crowd"].map(Name::new);
    let names = names.into_iter().collect::<Result<Vec<_>>>()?;
    let mut numbers = Numbers(0x9e37_79b9 ^ seed);
    let mut crowd: Vec<Member> = Vec::new();
    let mut millijoules = 0;
    for round in 0..ROUNDS {
        let alive = u32::try_from(crowd.len())?;
        if alive > 0 && (alive > 6 || numbers.below(3) == 0) {
            let place = usize::try_from(numbers.below(alive))?;
            let member = crowd.swap_remove(place);
            if numbers.below(2) == 0 {
                member.worker.release()?;
            } // Else it's killed.
        } else {
            let name = names
                .get(usize::try_from(numbers.below(3))?)
                .context("a name")?;
            let share = |taken: bool, percent: u32| taken.then_some(percent);
            let which = numbers.below(3);
            let percents = [
                share(which != 1, numbers.below(60)),
                share(which != 0, numbers.below(101)),
            ];
            let worker = Workload::run(name, &["idle"])?;
            crowd.push(Member { worker, percents });
        }
        // More than the power gives until the next round.
        millijoules += 100_000 + numbers.below(1_000_000);
        // Now and then the driver's list is late.
        let late = round % 4 == 3;
        rig.change(|script| {
            for index in 0..2 {
                let device = &mut script["devices"][index];
                device["energy_millijoules"] =
                    json!(millijoules + 7 * u32::try_from(index).unwrap_or(0));
                device["energy_milliwatts"] = json!(300_000);
                if !late {
                    device["processes"] = json!(listed(&crowd, index));
                }
            }
        })?;
        for _ in 0..PAGES {
            rig.page()?;
            thread::sleep(Duration::from_millis(20));
        }
    }
    let page = rig.next_sample()?;
    ensure!(
        rig.pages.get() > ROUNDS * PAGES,
        "{} pages",
        rig.pages.get()
    );
    for gpu in ["0", "1"] {
        let labels = [("gpu", gpu)];
        let total = energy(&page, DEVICE_ENERGY, &labels);
        ensure!(
            total >= i64::from(millijoules) * 1_000,
            "{total} µJ of GPU {gpu}"
        );
        let groups = energy(&page, GROUP_ENERGY, &labels);
        let idle = energy(&page, NOBODYS_ENERGY, &[("gpu", gpu), ("reason", "idle")]);
        ensure!(
            groups > 0 && idle > 0,
            "of GPU {gpu}, groups have {groups} µJ, and {idle} µJ are idle"
        );
        for reason in ["gap", "no_samples"] {
            let joules = energy(&page, NOBODYS_ENERGY, &[("gpu", gpu), ("reason", reason)]);
            ensure_eq!(joules, 0, "µJ of {reason}");
        }
    }
    Ok(())
}
