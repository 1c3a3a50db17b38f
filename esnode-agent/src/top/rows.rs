//! Which workers are listed, in which order, and below whom.

use super::{
    column::Column,
    frame::{Frame, Key, Worker},
};
use crate::api::Process;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Ordering;

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where its worker is in the frame.
    pub(super) index: usize,
    /// Who it is.
    pub(super) key: Key,
    /// How many of its ancestors are listed above it, in a tree.
    pub(super) depth: usize,
}

/// What is listed, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// By which column; by GPUs, or else by CPUs, if nobody chose.
    pub(super) column: Option<Column>,
    /// Whether the order is the reverse of the column's usual one.
    pub(super) reversed: bool,
    /// Only those with this text in a name.
    pub(super) filter: String,
    /// Only those of an inference engine.
    pub(super) engines_only: bool,
    /// Children below their parents.
    pub(super) tree: bool,
}

impl Listing {
    /// By which column a frame is sorted.
    pub(super) fn column(&self, frame: &Frame) -> Column {
        self.column.unwrap_or(if frame.snapshot.gpus.is_empty() {
            Column::CpuPercent
        } else {
            Column::GpuPercent
        })
    }

    /// Whether the most comes first.
    pub(super) fn descends(&self, frame: &Frame) -> bool {
        self.column(frame).ascends() == self.reversed
    }

    /// The lines of a frame.
    pub(super) fn rows(&self, frame: &Frame) -> Vec<Row> {
        let (column, descending) = (self.column(frame), self.descends(frame));
        let mut listed: Vec<_> = frame.workers.iter().enumerate().collect();
        listed.sort_by(|(_, one), (_, other)| compare(column, descending, one, other));
        let wanted = self.wanted(frame);
        if self.tree {
            return Tree::new(frame, &listed).rows(&wanted);
        }
        listed.retain(|(index, _)| wanted.contains(index));
        listed
            .into_iter()
            .map(|(index, worker)| Row {
                index,
                key: Key::of(&worker.process),
                depth: 0,
            })
            .collect()
    }

    fn wanted(&self, frame: &Frame) -> FxHashSet<usize> {
        let needle = self.filter.to_lowercase();
        let wanted = |Worker { process, .. }: &Worker| {
            (!self.engines_only || !process.engine.is_empty())
                && (needle.is_empty() || matches(process, &needle))
        };
        let workers = frame.workers.iter().enumerate();
        workers
            .filter(|(_, worker)| wanted(worker))
            .map(|(index, _)| index)
            .collect()
    }
}

/// Equal ones are in the order of GPU, GPU memory, CPU, and last of their ids, so that lines do
/// not dance.
fn compare(column: Column, descending: bool, one: &Worker, other: &Worker) -> Ordering {
    let then = |column: Column| move || column.compare(one, other, !column.ascends());
    column
        .compare(one, other, descending)
        .then_with(then(Column::GpuPercent))
        .then_with(then(Column::GpuMemory))
        .then_with(then(Column::CpuPercent))
        .then_with(then(Column::Pid))
}

/// Whether a text, in lower case, is in a name of the process, or in its id.
fn matches(process: &Process, needle: &str) -> bool {
    process.pid.to_string().contains(needle)
        || [
            &process.comm,
            &process.user,
            &process.engine,
            &process.role,
            &process.rank,
            &process.model,
            &process.container,
            &process.container_id,
            &process.image,
            &process.pod,
            &process.namespace,
        ]
        .iter()
        .any(|name| name.to_lowercase().contains(needle))
}

/// Who is whose parent, among those of a frame.
struct Tree {
    /// Children in order, by where the parent is in the frame; `None` has no parent here.
    children: FxHashMap<Option<usize>, Vec<(usize, Key)>>,
    parents: FxHashMap<usize, usize>,
}

impl Tree {
    fn new(frame: &Frame, ordered: &[(usize, &Worker)]) -> Self {
        let by_pid: FxHashMap<_, _> = frame
            .workers
            .iter()
            .enumerate()
            .map(|(index, worker)| (worker.process.pid, index))
            .collect();
        // Its parent, or else, if that is not shown, the server that it works for.
        let parent = |index: usize, process: &Process| {
            let server = process.server_pid.unwrap_or_default();
            let mut known = [process.parent_pid, server]
                .into_iter()
                .filter_map(|pid| by_pid.get(&pid).copied());
            known.find(|parent| *parent != index)
        };
        let mut parents: FxHashMap<usize, usize> = FxHashMap::default();
        for &(index, worker) in ordered {
            if let Some(parent) = parent(index, &worker.process)
                && !is_below(&parents, parent, index)
            {
                parents.insert(index, parent);
            }
        }
        let mut children: FxHashMap<_, Vec<_>> = FxHashMap::default();
        for &(index, worker) in ordered {
            let siblings = children.entry(parents.get(&index).copied()).or_default();
            siblings.push((index, Key::of(&worker.process)));
        }
        Self { children, parents }
    }

    /// Those that are wanted, and their ancestors, each below its parent.
    fn rows(&self, wanted: &FxHashSet<usize>) -> Vec<Row> {
        let mut shown = FxHashSet::default();
        for &index in wanted {
            let mut next = Some(index);
            while let Some(index) = next.filter(|index| shown.insert(*index)) {
                next = self.parents.get(&index).copied();
            }
        }
        let of = |parent| self.children.get(&parent).into_iter().flatten().rev();
        let mut rows = Vec::new();
        let mut stack: Vec<_> = of(None).map(|child| (*child, 0)).collect();
        while let Some(((index, key), depth)) = stack.pop() {
            if shown.contains(&index) {
                rows.push(Row { index, key, depth });
                stack.extend(of(Some(index)).map(|child| (*child, depth + 1)));
            }
        }
        rows
    }
}

/// Whether `one` is `other`, or below it: as its child that would close a circle.
fn is_below(parents: &FxHashMap<usize, usize>, one: usize, other: usize) -> bool {
    let mut next = Some(one);
    while let Some(index) = next {
        if index == other {
            return true;
        }
        next = parents.get(&index).copied();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Snapshot, Traffic};

    fn process(pid: u32, parent_pid: u32, cpu: f64, comm: &str) -> Process {
        Process {
            pid,
            parent_pid,
            comm: comm.to_owned(),
            cpu_seconds_total: cpu,
            ..Process::default()
        }
    }

    fn frame(processes: Vec<Process>) -> Frame {
        let snapshot = |time_seconds, processes| Snapshot {
            time_seconds,
            processes,
            ..Snapshot::default()
        };
        let mut idle = processes.clone();
        for process in &mut idle {
            process.cpu_seconds_total = 0.0;
        }
        let before = Frame::first(snapshot(1.0, idle));
        Frame::after(&before, snapshot(2.0, processes))
    }

    fn pids(listing: &Listing, frame: &Frame) -> Vec<(u32, usize)> {
        let rows = listing.rows(frame);
        rows.iter().map(|row| (row.key.pid, row.depth)).collect()
    }

    #[test]
    fn the_busiest_first_and_reversed_the_idlest() {
        let frame = frame(vec![
            process(1, 0, 0.1, "a"),
            process(2, 0, 0.9, "b"),
            process(3, 0, 0.5, "c"),
        ]);
        let mut listing = Listing::default();
        assert_eq!(pids(&listing, &frame), [(2, 0), (3, 0), (1, 0)]);
        listing.reversed = true;
        assert_eq!(pids(&listing, &frame), [(1, 0), (3, 0), (2, 0)]);
        listing.column = Some(Column::Pid);
        assert_eq!(pids(&listing, &frame), [(3, 0), (2, 0), (1, 0)]);
    }

    #[test]
    fn a_filter_looks_into_names_and_ids() {
        let mut processes = vec![process(11, 0, 0.0, "Python"), process(22, 0, 0.0, "nginx")];
        processes[1].pod = "web-7".to_owned();
        processes[0].engine = "vllm".to_owned();
        processes[0].network = Some([("tcp".to_owned(), Traffic::default())].into());
        let frame = frame(processes);
        let mut listing = Listing::default();
        for (filter, expected) in [("pyTHON", 11), ("WEB", 22), ("22", 22), ("vllm", 11)] {
            filter.clone_into(&mut listing.filter);
            assert_eq!(pids(&listing, &frame), [(expected, 0)], "{filter}");
        }
        "tcp".clone_into(&mut listing.filter);
        assert_eq!(pids(&listing, &frame), []);
        listing.filter.clear();
        listing.engines_only = true;
        assert_eq!(pids(&listing, &frame), [(11, 0)]);
    }

    #[test]
    fn a_tree_has_children_below_parents_and_matches_below_ancestors() {
        let mut worker = process(40, 9999, 0.3, "worker");
        worker.server_pid = Some(10);
        let frame = frame(vec![
            process(30, 20, 0.9, "grandchild"),
            process(10, 1, 0.1, "server"),
            process(20, 10, 0.2, "child"),
            worker,
            process(50, 0, 0.5, "other"),
        ]);
        let mut listing = Listing {
            tree: true,
            ..Listing::default()
        };
        assert_eq!(
            pids(&listing, &frame),
            [(50, 0), (10, 0), (40, 1), (20, 1), (30, 2)]
        );
        "grandchild".clone_into(&mut listing.filter);
        assert_eq!(pids(&listing, &frame), [(10, 0), (20, 1), (30, 2)]);
    }

    #[test]
    fn circles_of_parents_are_listed_once() {
        let frame = frame(vec![
            process(1, 2, 0.1, "a"),
            process(2, 3, 0.2, "b"),
            process(3, 1, 0.3, "c"),
            process(4, 4, 0.4, "own parent"),
        ]);
        let listing = Listing {
            tree: true,
            ..Listing::default()
        };
        let mut seen: Vec<_> = pids(&listing, &frame)
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4]);
    }
}
