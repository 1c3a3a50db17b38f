//! The columns of the table: what stands in them, how wide they are, how one sorts by them.

use super::{
    frame::Worker,
    text::{bytes, known, percent, ranges, rate, watts, whole},
};
use clap::ValueEnum;
use std::cmp::Ordering;

/// A column of the table; as a name on the command line as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Column {
    /// Process id.
    Pid,
    /// User.
    User,
    /// Inference engine.
    Engine,
    /// Role in the engine, and rank.
    Role,
    /// Model.
    Model,
    /// Indices of the GPUs.
    Gpu,
    /// GPU usage; 100 is one GPU.
    GpuPercent,
    /// GPU memory.
    GpuMemory,
    /// Draw of its part of GPUs and processors.
    Watts,
    /// CPU usage; 100 is one CPU.
    CpuPercent,
    /// RSS.
    Rss,
    /// Bytes read and written per second.
    Disk,
    /// Bytes read per second.
    DiskRead,
    /// Bytes written per second.
    DiskWrite,
    /// Bytes received and sent per second.
    Network,
    /// Bytes received per second.
    NetworkReceive,
    /// Bytes sent per second.
    NetworkTransmit,
    /// Pod, or else container.
    Container,
    /// Command name.
    Command,
    /// Model, or else command name: one column for both, where there are few.
    #[value(skip)]
    What,
}

/// How a column sorts.
enum SortKey<'a> {
    Number(Option<f64>),
    Text(&'a str),
}

impl Column {
    /// What stands above it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Pid => "PID",
            Self::User => "USER",
            Self::Engine => "ENGINE",
            Self::Role => "ROLE",
            Self::Model => "MODEL",
            Self::Gpu => "GPU",
            Self::GpuPercent => "GPU%",
            Self::GpuMemory => "GMEM",
            Self::Watts => "W",
            Self::CpuPercent => "CPU%",
            Self::Rss => "RSS",
            Self::Disk => "DISK",
            Self::DiskRead => "READ",
            Self::DiskWrite => "WRITE",
            Self::Network => "NET",
            Self::NetworkReceive => "RX",
            Self::NetworkTransmit => "TX",
            Self::Container => "CONTAINER/POD",
            Self::Command => "COMMAND",
            Self::What => "MODEL/COMMAND",
        }
    }

    /// The fewest columns of the screen that hold its usual values.
    pub(super) fn width(self) -> u16 {
        match self {
            Self::Gpu | Self::Watts => 4,
            Self::GpuPercent
            | Self::GpuMemory
            | Self::CpuPercent
            | Self::Rss
            | Self::Disk
            | Self::DiskRead
            | Self::Network
            | Self::NetworkReceive
            | Self::NetworkTransmit => 5,
            Self::DiskWrite => 6,
            Self::Pid | Self::Engine => 7,
            Self::User => 8,
            Self::Role => 10,
            Self::What => 12,
            Self::Model | Self::Container | Self::Command => 15,
        }
    }

    /// The most columns of the screen that it gets before the last one gets all.
    pub(super) fn most(self) -> u16 {
        match self {
            Self::Model | Self::Container => 48,
            Self::Command | Self::What => 64,
            Self::User | Self::Role | Self::Engine => 16,
            Self::Gpu => 10,
            _ => self.width(),
        }
    }

    /// Whether it holds text, which stands at the left.
    pub(super) fn is_text(self) -> bool {
        matches!(
            self,
            Self::User
                | Self::Engine
                | Self::Role
                | Self::Model
                | Self::Gpu
                | Self::Container
                | Self::Command
                | Self::What
        )
    }

    /// Whether the first is the most: names and ids run from the first on, amounts from the most.
    pub(super) fn ascends(self) -> bool {
        self.is_text() || self == Self::Pid
    }

    /// Whether it is empty on a node without GPUs.
    pub(super) fn needs_gpus(self) -> bool {
        matches!(self, Self::Gpu | Self::GpuPercent | Self::GpuMemory)
    }

    /// What a worker has in it.
    pub(super) fn cell(self, worker: &Worker) -> String {
        let (process, usage) = (&worker.process, &worker.usage);
        match self {
            Self::Pid => process.pid.to_string(),
            Self::Role => joined(&process.role, &process.rank),
            // Workers of one model differ in their ranks.
            Self::What => joined(&process.rank, self.name(worker)),
            Self::Gpu => ranges(process.gpus.iter().map(|gpu| gpu.gpu)),
            Self::GpuPercent => known(usage.gpu_percent, whole),
            Self::GpuMemory => known(usage.gpu_memory_used_bytes, bytes),
            Self::Watts => known(usage.watts, watts),
            Self::CpuPercent => known(usage.cpu_percent, percent),
            Self::Rss => known(process.resident_memory_bytes, bytes),
            Self::Disk
            | Self::DiskRead
            | Self::DiskWrite
            | Self::Network
            | Self::NetworkReceive
            | Self::NetworkTransmit => known(self.number(worker), rate),
            Self::User | Self::Engine | Self::Model | Self::Container | Self::Command => {
                self.name(worker).to_owned()
            }
        }
    }

    /// The text that it holds as it is.
    fn name(self, Worker { process, .. }: &Worker) -> &str {
        match self {
            Self::User => &process.user,
            Self::Engine => &process.engine,
            Self::Role => &process.role,
            Self::Model => &process.model,
            Self::Container if process.pod.is_empty() => match process.container.as_str() {
                "" => &process.container_id,
                name => name,
            },
            Self::Container => &process.pod,
            Self::What if !process.model.is_empty() => last_part(&process.model),
            _ => &process.comm,
        }
    }

    /// The number that it holds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes are exact up to 8 PiB, and beyond they sort all the same"
    )]
    fn number(self, worker: &Worker) -> Option<f64> {
        let (process, usage) = (&worker.process, &worker.usage);
        match self {
            Self::Pid => Some(process.pid.into()),
            Self::Gpu => process.gpus.iter().map(|gpu| gpu.gpu).min().map(f64::from),
            Self::GpuPercent => usage.gpu_percent,
            Self::GpuMemory => usage.gpu_memory_used_bytes.map(|bytes| bytes as f64),
            Self::Watts => usage.watts,
            Self::CpuPercent => usage.cpu_percent,
            Self::Rss => process.resident_memory_bytes.map(|bytes| bytes as f64),
            Self::Disk => usage.disk(),
            Self::DiskRead => usage.disk_read_bytes_per_second,
            Self::DiskWrite => usage.disk_write_bytes_per_second,
            Self::Network => usage.network(),
            Self::NetworkReceive => usage.network_receive_bytes_per_second,
            Self::NetworkTransmit => usage.network_transmit_bytes_per_second,
            _ => None,
        }
    }

    fn sort_key(self, worker: &Worker) -> SortKey<'_> {
        if self.is_text() && self != Self::Gpu {
            SortKey::Text(self.name(worker))
        } else {
            SortKey::Number(self.number(worker))
        }
    }

    /// Orders two workers; what is not known comes last, whichever way it runs.
    pub(super) fn compare(self, one: &Worker, other: &Worker, descending: bool) -> Ordering {
        let turn = |order: Ordering| if descending { order.reverse() } else { order };
        match (self.sort_key(one), self.sort_key(other)) {
            (SortKey::Number(one), SortKey::Number(other)) => match (one, other) {
                (Some(one), Some(other)) => turn(one.total_cmp(&other)),
                (one, other) => other.is_some().cmp(&one.is_some()),
            },
            (SortKey::Text(one), SortKey::Text(other)) => match (one, other) {
                ("", "") => Ordering::Equal,
                ("", _) => Ordering::Greater,
                (_, "") => Ordering::Less,
                (one, other) => turn(one.cmp(other)),
            },
            _ => Ordering::Equal,
        }
    }
}

/// Two names, each if it is known.
fn joined(one: &str, other: &str) -> String {
    let space = if one.is_empty() || other.is_empty() {
        ""
    } else {
        " "
    };
    format!("{one}{space}{other}")
}

/// Of a path or a repository, what tells it from others.
pub(super) fn last_part(model: &str) -> &str {
    let mut parts = model.rsplit('/');
    parts.find(|part| !part.is_empty()).unwrap_or(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Process;

    #[test]
    fn unknown_comes_last_both_ways() {
        let worker = |rss, model: &str| Worker {
            process: Process {
                resident_memory_bytes: rss,
                model: model.to_owned(),
                ..Process::default()
            },
            ..Worker::default()
        };
        let (known, unknown) = (worker(Some(1), "m"), worker(None, ""));
        for descending in [false, true] {
            for column in [Column::Rss, Column::Model] {
                assert_eq!(column.compare(&known, &unknown, descending), Ordering::Less);
                assert_eq!(
                    column.compare(&unknown, &known, descending),
                    Ordering::Greater
                );
            }
        }
        let more = worker(Some(2), "n");
        assert_eq!(Column::Rss.compare(&known, &more, true), Ordering::Greater);
        assert_eq!(Column::Model.compare(&known, &more, false), Ordering::Less);
    }
}
