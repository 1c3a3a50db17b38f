//! Processes as the table for tools has them.

use super::{is_used, protocol_label};
use crate::{
    api::{self, Traffic},
    identity::Identity,
    page::{gpu::describe_process, joules},
    process::{Process, collector::ProcessFacts, label},
};
use esnode_ebpf::{Network, Protocol};
use std::collections::BTreeMap;

/// Those that have series of their own, in the order of the page.
pub(super) fn describe(facts: &ProcessFacts) -> Vec<api::Process> {
    let shown = facts.shown.iter().enumerate();
    let mut processes: Vec<_> = shown
        .map(|(place, process)| one(facts, place, process))
        .collect();
    for (place, gpu, used) in &facts.gpus.processes {
        if let Some(process) = processes.get_mut(*place) {
            process.gpus.push(describe_process(gpu, used));
        }
    }
    processes
}

fn one(facts: &ProcessFacts, place: usize, process: &Process) -> api::Process {
    let usage = &process.usage;
    let energy = facts.energy.as_ref();
    let energy = energy.and_then(|shares| shares.processes.get(place));
    let nobody = Identity::default();
    let identity = facts.identities.get(place).unwrap_or(&nobody);
    let [engine, role, model] = identity.work().map(str::to_owned);
    let [container_id, container, pod, namespace] = identity.place().map(str::to_owned);
    let group = facts.labels.get(place);
    api::Process {
        pid: process.key.pid,
        parent_pid: process.parent,
        comm: label(process.name),
        start_time_seconds: facts.start_time_seconds(process),
        user: identity.user.as_deref().unwrap_or_default().to_owned(),
        engine,
        role,
        rank: identity.rank().to_owned(),
        model,
        server_pid: identity.worker.as_deref().and_then(|worker| worker.server),
        container_id,
        container,
        image: identity.image().to_owned(),
        runtime: identity
            .container()
            .map_or("", |container| container.runtime.name())
            .to_owned(),
        pod,
        namespace,
        group: group.map(ToString::to_string).unwrap_or_default(),
        threads: process.threads,
        cpu_seconds_total: super::seconds(usage.cpu_nanoseconds),
        resident_memory_bytes: process.resident_bytes,
        disk_read_bytes_total: usage.disk.map(|disk| disk.read_bytes),
        disk_write_bytes_total: usage.disk.map(|disk| disk.write_bytes),
        disk_cancelled_write_bytes_total: usage.disk.map(|disk| disk.cancelled_write_bytes),
        network: usage.network.as_ref().map(traffic),
        cpu_energy_joules_total: energy.map(|microjoules| joules(*microjoules)),
        gpus: Vec::new(),
    }
}

/// By protocol, of those that were ever used.
fn traffic(network: &Network) -> BTreeMap<String, Traffic> {
    let used = network.iter().zip(Protocol::ALL);
    let used = used.filter(|(traffic, _)| is_used(traffic));
    used.map(|(traffic, protocol)| {
        let traffic = Traffic {
            receive_bytes_total: traffic.receive_bytes,
            transmit_bytes_total: traffic.transmit_bytes,
        };
        (protocol_label(protocol).to_owned(), traffic)
    })
    .collect()
}
