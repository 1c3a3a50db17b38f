//! Which GPUs are wanted: by `--gpu-devices`, or as the container runtime says it.

use std::{collections::HashSet, env, fmt, str::FromStr};

/// The variable of NVIDIA's container runtime.
pub const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// One device, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Index among the devices of NVML.
    Index(u32),
    /// `GPU-…`, or as much of it as tells it from others.
    Uuid(String),
    /// A MIG device: `MIG-…`.
    MigUuid(String),
    /// A MIG device by the index of its GPU and its own.
    MigIndex(u32, u32),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |prefix| text.len() > 4 && text.starts_with(prefix);
        if named("GPU-") {
            return Ok(Self::Uuid(text.to_owned()));
        }
        // Before driver 470: the GPU, then the ids of its instances.
        if let Some(("GPU", _)) = text.strip_prefix("MIG-").and_then(|it| it.split_once('-')) {
            let uuid = text.trim_start_matches("MIG-");
            let uuid = uuid.split_once('/').map_or(uuid, |(uuid, _)| uuid);
            return Ok(Self::Uuid(uuid.to_owned()));
        }
        if named("MIG-") {
            return Ok(Self::MigUuid(text.to_owned()));
        }
        let parsed = match text.split_once(':') {
            None => text.parse().ok().map(Self::Index),
            Some((gpu, mig)) => gpu
                .parse()
                .and_then(|gpu| Ok(Self::MigIndex(gpu, mig.parse()?)))
                .ok(),
        };
        parsed.ok_or_else(|| {
            "expected an index such as 0, a MIG device such as 0:1, or a UUID such as GPU-… or \
             MIG-…"
                .to_owned()
        })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(formatter, "{index}"),
            Self::Uuid(uuid) | Self::MigUuid(uuid) => formatter.write_str(uuid),
            Self::MigIndex(gpu, mig) => write!(formatter, "{gpu}:{mig}"),
        }
    }
}

/// A GPU that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Index among the devices of NVML.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// Index and UUID of its MIG devices.
    pub mig: Vec<(u32, String)>,
}

/// The GPUs that are sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// These.
    These(Vec<Wanted>),
    /// These, of a machine of which the container runtime may already show us no others.
    Visible(Vec<Wanted>),
}

impl Filter {
    /// What the flag says, or else the variable of the container runtime. Where that makes no
    /// sense, all; and the reason.
    #[must_use]
    pub fn of(flag: &[Wanted]) -> (Self, Option<String>) {
        if !flag.is_empty() {
            return (Self::These(flag.to_vec()), None);
        }
        match env::var(VISIBLE_DEVICES) {
            Ok(text) => Self::visible(&text),
            Err(_) => (Self::All, None),
        }
    }

    fn visible(text: &str) -> (Self, Option<String>) {
        match text {
            // "void" and nothing say that the runtime has no part in this container.
            "all" | "void" | "" => (Self::All, None),
            "none" => (Self::None, None),
            list => match entries(list).map(str::parse).collect() {
                Ok(wanted) => (Self::Visible(wanted), None),
                Err(expected) => (
                    Self::All,
                    Some(format!("{VISIBLE_DEVICES}={text} is ignored: {expected}")),
                ),
            },
        }
    }

    /// Whether a device is wanted. `present` is how many there are, `mig` index and UUID of
    /// its MIG devices.
    #[must_use]
    pub fn takes(&self, present: u32, index: u32, uuid: &str, mig: &[(u32, String)]) -> bool {
        let wanted = match self {
            Self::All => return true,
            Self::None => return false,
            // The runtime shows no others, and has numbered them anew.
            Self::Visible(wanted) if gpus(wanted) >= present as usize => return true,
            Self::These(wanted) | Self::Visible(wanted) => wanted,
        };
        wanted.iter().any(|wanted| match wanted {
            Wanted::Index(wanted) | Wanted::MigIndex(wanted, _) => *wanted == index,
            Wanted::Uuid(prefix) => uuid.starts_with(prefix.as_str()),
            Wanted::MigUuid(wanted) => mig.iter().any(|(_, uuid)| uuid == wanted),
        })
    }

    /// Whether a MIG device of a wanted GPU is wanted: all are, unless some are named.
    #[must_use]
    pub fn takes_mig(&self, gpu: u32, gpu_uuid: &str, index: u32, uuid: &str) -> bool {
        let (Self::These(wanted) | Self::Visible(wanted)) = self else {
            return true;
        };
        let named: Vec<_> = wanted
            .iter()
            .filter(|wanted| match wanted {
                Wanted::MigIndex(of, _) => *of == gpu,
                Wanted::MigUuid(_) => true,
                Wanted::Index(_) | Wanted::Uuid(_) => false,
            })
            .collect();
        let whole = wanted.iter().any(|wanted| match wanted {
            Wanted::Index(wanted) => *wanted == gpu,
            Wanted::Uuid(prefix) => gpu_uuid.starts_with(prefix.as_str()),
            Wanted::MigIndex(..) | Wanted::MigUuid(_) => false,
        });
        whole
            || named.is_empty()
            || named.iter().any(|wanted| match wanted {
                Wanted::MigIndex(_, wanted) => *wanted == index,
                Wanted::MigUuid(wanted) => wanted == uuid,
                Wanted::Index(_) | Wanted::Uuid(_) => false,
            })
    }

    /// Those of a flag that are nowhere among the devices.
    #[must_use]
    pub fn missing(&self, present: &[Present]) -> Vec<String> {
        let Self::These(wanted) = self else {
            return Vec::new();
        };
        let is = |wanted: &Wanted, gpu: &Present| match wanted {
            Wanted::Index(index) => gpu.index == *index,
            Wanted::Uuid(prefix) => gpu.uuid.starts_with(prefix),
            Wanted::MigUuid(wanted) => gpu.mig.iter().any(|(_, uuid)| uuid == wanted),
            Wanted::MigIndex(index, mig) => {
                gpu.index == *index && gpu.mig.iter().any(|(index, _)| index == mig)
            }
        };
        let is_missing = |wanted: &&Wanted| !present.iter().any(|gpu| is(wanted, gpu));
        wanted
            .iter()
            .filter(is_missing)
            .map(ToString::to_string)
            .collect()
    }
}

/// The entries of a list, as people write one.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

/// How many GPUs a list names. MIG devices are found by their own UUID, of which GPU they may be.
fn gpus(wanted: &[Wanted]) -> usize {
    let gpu = |wanted: &Wanted| match wanted {
        Wanted::Index(gpu) | Wanted::MigIndex(gpu, _) => Some(gpu.to_string()),
        Wanted::Uuid(uuid) => Some(uuid.clone()),
        Wanted::MigUuid(_) => None,
    };
    let gpus: HashSet<_> = wanted.iter().filter_map(gpu).collect();
    gpus.len()
}

impl fmt::Display for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |wanted: &[Wanted]| {
            let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            names.join(",")
        };
        match self {
            Self::All => formatter.write_str("all"),
            Self::None => write!(formatter, "{VISIBLE_DEVICES}=none"),
            Self::These(wanted) => write!(formatter, "--gpu-devices {}", list(wanted)),
            Self::Visible(wanted) => write!(formatter, "{VISIBLE_DEVICES}={}", list(wanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these(list: &str) -> Filter {
        Filter::These(
            list.split(',')
                .map(|text| text.parse().expect("valid"))
                .collect(),
        )
    }

    #[test]
    fn by_index_and_uuid() {
        let filter = these("1,GPU-ab");
        assert!(filter.takes(4, 1, "GPU-00", &[]));
        assert!(filter.takes(4, 3, "GPU-abcdef", &[]));
        assert!(!filter.takes(4, 0, "GPU-00", &[]));
        let present = [Present {
            index: 0,
            uuid: "GPU-00".to_owned(),
            mig: vec![(2, "MIG-a".to_owned())],
        }];
        assert_eq!(filter.missing(&present), ["1", "GPU-ab"]);
        let filter = these("0,0:1,0:2,1:2,MIG-a,MIG-b");
        assert_eq!(filter.missing(&present), ["0:1", "1:2", "MIG-b"]);
        assert!(!Filter::None.takes(1, 0, "GPU-00", &[]));
    }

    #[test]
    fn what_the_container_runtime_says() {
        let of = |text| Filter::visible(text).0;
        assert_eq!(of("all"), Filter::All);
        assert_eq!(of("void"), Filter::All);
        assert_eq!(of("none"), Filter::None);
        // All devices of the host are there.
        assert!(!of("2,3").takes(4, 0, "GPU-00", &[]));
        assert!(of("2,3").takes(4, 2, "GPU-02", &[]));
        // The runtime shows the two only, as 0 and 1.
        assert!(of("2,3").takes(2, 0, "GPU-02", &[]));
        // Several parts of one GPU are one.
        for list in ["0,0,0", "0:0,0:1,0:2", "MIG-a,MIG-b,MIG-c"] {
            assert!(!of(list).takes(3, 1, "GPU-01", &[]), "{list}");
        }
        assert!(of("MIG-b,MIG-x").takes(2, 1, "GPU-01", &[(0, "MIG-b".to_owned())]));
        let legacy = of("MIG-GPU-02/1/0");
        assert!(legacy.takes(4, 2, "GPU-02", &[]) && !legacy.takes(4, 1, "GPU-01", &[]));
        assert_eq!(of(" 0, 1,"), of("0,1"));
        let (filter, complaint) = Filter::visible("first");
        assert_eq!(filter, Filter::All);
        assert!(complaint.is_some_and(|text| text.contains("NVIDIA_VISIBLE_DEVICES=first")));
    }

    #[test]
    fn mig_devices() {
        let mig = [(0, "MIG-a".to_owned()), (1, "MIG-b".to_owned())];
        let filter = these("MIG-b");
        assert!(filter.takes(2, 0, "GPU-0", &mig));
        assert!(!filter.takes(2, 1, "GPU-1", &[]));
        assert!(filter.takes_mig(0, "GPU-0", 1, "MIG-b"));
        assert!(!filter.takes_mig(0, "GPU-0", 0, "MIG-a"));
        let filter = these("0:1");
        assert!(filter.takes(2, 0, "GPU-0", &mig));
        assert!(!filter.takes_mig(0, "GPU-0", 0, "MIG-a"));
        assert!(filter.takes_mig(0, "GPU-0", 1, "MIG-b"));
        assert!(these("0").takes_mig(0, "GPU-0", 0, "MIG-a"));
    }

    #[test]
    fn nonsense_is_told() {
        for text in ["", "GPU-", "x", "1:", "-1", "0:1:2"] {
            let error = text.parse::<Wanted>().expect_err("invalid");
            assert!(error.contains("expected an index"), "{text}");
        }
    }
}
