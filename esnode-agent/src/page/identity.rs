//! Families of who processes are.

use super::Page;
use crate::identity::Identity;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// Who a process is, for its labels.
pub(super) struct Row<'a> {
    pub(super) pid: &'a str,
    pub(super) comm: &'a str,
    pub(super) group: &'a str,
    pub(super) identity: &'a Identity,
    pub(super) start_time: String,
}

/// Writes who processes are.
pub(super) fn encode_processes<'a>(
    page: &mut Page<'_>,
    rows: impl Iterator<Item = Row<'a>>,
) -> fmt::Result {
    page.gauge(
        "esnode_process_info",
        "Who the process is, by its command line, its ancestors and its control group; empty labels \
         are unknown, start_time is in seconds since 1970; always 1",
        rows.map(|row| {
            let [engine, role, model] = row.identity.work();
            let [container_id, container, pod, namespace] = row.identity.place();
            let labels = [
                ("pid", row.pid),
                ("comm", row.comm),
                ("engine", engine),
                ("role", role),
                ("rank", row.identity.rank()),
                ("model", model),
                ("group", row.group),
                ("container_id", container_id),
                ("container", container),
                ("pod", pod),
                ("namespace", namespace),
                ("start_time", &row.start_time),
            ];
            (labels.map(|(name, value)| (name, value.to_owned())), 1_u32)
        }),
    )
}

/// Writes who is in the groups, where these are not called by the command name.
pub(super) fn encode_groups(
    page: &mut Page<'_>,
    members: &BTreeMap<Arc<str>, Identity>,
) -> fmt::Result {
    page.gauge(
        "esnode_group_info",
        "Whom the processes of a group work for and where they run, with --group-by engine or \
         container; empty labels are unknown; always 1",
        members.iter().map(|(group, identity)| {
            // Of a container, processes may work for several.
            let [engine, _, model] = match identity.container() {
                Some(_) => [""; 3],
                None => identity.work(),
            };
            let [container_id, container, pod, namespace] = identity.place();
            let labels = [
                ("group", &**group),
                ("engine", engine),
                ("model", model),
                ("container_id", container_id),
                ("container", container),
                ("pod", pod),
                ("namespace", namespace),
            ];
            (labels, 1_u32)
        }),
    )
}

/// Writes what is known of the containers that these run in.
pub(super) fn encode_containers<'a>(
    page: &mut Page<'_>,
    identities: impl Iterator<Item = &'a Identity>,
) -> fmt::Result {
    let containers: BTreeSet<_> = identities
        .filter_map(|identity| {
            let runtime = identity.container()?.runtime.name();
            Some((identity.place(), identity.image(), runtime))
        })
        .collect();
    page.gauge(
        "esnode_container_info",
        "A container of processes with series of their own, from its runtime and the kubelet; empty \
         labels are unknown; always 1",
        containers.into_iter().map(|(place, image, runtime)| {
            let [container_id, container, pod, namespace] = place;
            let labels = [
                ("container_id", container_id),
                ("container", container),
                ("image", image),
                ("runtime", runtime),
                ("pod", pod),
                ("namespace", namespace),
            ];
            (labels, 1_u32)
        }),
    )
}
