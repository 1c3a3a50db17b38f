//! Attributes of interfaces, from `/sys/class/net/` (Documentation/ABI/testing/sysfs-class-net).

use super::interfaces::Interface;
use crate::{
    collectors::sysfs::{attribute, number, text},
    error::{ParseError, ReadError},
    page::Names,
};
use rustc_hash::FxHashMap;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// RFC 2863 operational states, as sysfs writes them.
const STATES: [&str; 7] = [
    "unknown",
    "notpresent",
    "down",
    "lowerlayerdown",
    "testing",
    "dormant",
    "up",
];

/// Whole numbers that only node_exporter shows: the files, and what follows `node_network_`.
pub(super) const NUMBERS: [(&str, &str); 13] = [
    ("addr_assign_type", "address_assign_type"),
    ("carrier", "carrier"),
    ("dev_id", "device_id"),
    ("dormant", "dormant"),
    ("flags", "flags"),
    ("ifindex", "iface_id"),
    ("iflink", "iface_link"),
    ("link_mode", "iface_link_mode"),
    ("mtu", "mtu_bytes"),
    ("name_assign_type", "name_assign_type"),
    ("netdev_group", "net_dev_group"),
    ("tx_queue_len", "transmit_queue_length"),
    ("type", "protocol_type"),
];

/// What hardly ever changes while the link stays as it is, is read this often.
const KEEP: Duration = Duration::from_mins(1);

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) state: Option<&'static str>,
    pub(super) carrier_changes: Option<u64>,
    /// Packets that no protocol took; only for node_exporter.
    pub(super) without_handler: Option<u64>,
    pub(super) properties: Arc<Properties>,
}

/// What hardly ever changes.
#[derive(Debug, Default)]
pub(super) struct Properties {
    /// Mbit/s. What the driver does not know is -1, once unsigned.
    pub(super) speed: Option<i64>,
    /// Only for node_exporter.
    pub(super) more: Option<More>,
}

/// What only node_exporter shows.
#[derive(Debug)]
pub(super) struct More {
    pub(super) numbers: [Option<i64>; NUMBERS.len()],
    /// Linux 4.16.
    pub(super) carrier_up: Option<u64>,
    pub(super) carrier_down: Option<u64>,
    pub(super) address: String,
    pub(super) broadcast: String,
    pub(super) duplex: String,
    pub(super) ifalias: String,
}

/// Reads the attributes of interfaces, and keeps some from pass to pass.
pub(super) struct Classes {
    folder: PathBuf,
    names: Names,
    /// The interfaces of the last pass, and whether sysfs knew all of them.
    seen: (Vec<String>, bool),
    kept: FxHashMap<String, Kept>,
    pass: u64,
}

struct Kept {
    state: Option<&'static str>,
    carrier_changes: Option<u64>,
    properties: Arc<Properties>,
    read: Instant,
    pass: u64,
}

impl Classes {
    /// Of this folder, for these families.
    pub(super) fn new(folder: PathBuf, names: Names) -> Self {
        Self {
            folder,
            names,
            seen: (Vec::new(), false),
            kept: FxHashMap::default(),
            pass: 0,
        }
    }

    /// Whether sysfs knows these interfaces. It belongs to the network namespace of whoever mounted
    /// it, perhaps another one whose `eth0` is not this `eth0`: it lacks interfaces that are here.
    pub(super) fn know(&mut self, interfaces: &[Interface]) -> bool {
        let names = || interfaces.iter().map(|interface| &interface.name);
        let (seen, known) = &mut self.seen;
        if !names().eq(seen.iter()) {
            *known = names().all(|name| self.folder.join(name).exists());
            *seen = names().cloned().collect();
        }
        *known
    }

    /// Reads the attributes of all these interfaces.
    pub(super) fn look_up(&mut self, interfaces: &mut [Interface]) -> Result<(), ReadError> {
        self.pass += 1;
        for interface in interfaces {
            interface.class = Some(self.class(&interface.name)?);
        }
        let pass = self.pass;
        self.kept.retain(|_, kept| kept.pass == pass);
        Ok(())
    }

    fn class(&mut self, name: &str) -> Result<Class, ReadError> {
        let folder = self.folder.join(name);
        let state = attribute(&folder.join("operstate"), parse_state)?;
        let carrier_changes = number(&folder.join("carrier_changes"))?;
        let without_handler = match self.names {
            Names::Own => None,
            Names::AndNodeExporter => number(&folder.join("statistics/rx_nohandler"))?,
        };
        let of = |properties: &Arc<Properties>| Class {
            state,
            carrier_changes,
            without_handler,
            properties: Arc::clone(properties),
        };
        if let Some(kept) = self.kept.get_mut(name) {
            let same = (kept.state, kept.carrier_changes) == (state, carrier_changes);
            if same && kept.read.elapsed() < KEEP {
                kept.pass = self.pass;
                return Ok(of(&kept.properties));
            }
        }
        let properties = Arc::new(Properties {
            speed: attribute(&folder.join("speed"), parse_speed)?,
            more: match self.names {
                Names::Own => None,
                Names::AndNodeExporter => Some(more(&folder)?),
            },
        });
        let class = of(&properties);
        let kept = Kept {
            state,
            carrier_changes,
            properties,
            read: Instant::now(),
            pass: self.pass,
        };
        self.kept.insert(name.to_owned(), kept);
        Ok(class)
    }
}

fn more(folder: &Path) -> Result<More, ReadError> {
    let mut numbers = [None; NUMBERS.len()];
    for (slot, (file, _)) in numbers.iter_mut().zip(NUMBERS) {
        *slot = attribute(&folder.join(file), parse_number)?;
    }
    // What the device does not have is empty there too.
    let of = |file: &str| text(&folder.join(file)).unwrap_or_default();
    Ok(More {
        numbers,
        carrier_up: number(&folder.join("carrier_up_count"))?,
        carrier_down: number(&folder.join("carrier_down_count"))?,
        address: of("address"),
        broadcast: of("broadcast"),
        duplex: of("duplex"),
        ifalias: of("ifalias"),
    })
}

fn parse_state(text: &str) -> Result<&'static str, ParseError> {
    let mut states = STATES.into_iter();
    let known = states.find(|state| *state == text.trim_end());
    known.ok_or_else(|| ParseError::new(1, "the state of an interface, such as up"))
}

fn parse_speed(text: &str) -> Result<i64, ParseError> {
    let speed = text.trim_end().parse();
    speed.map_err(|_| ParseError::new(1, "a speed in Mbit/s"))
}

/// Decimal, or hexadecimal after `0x`.
fn parse_number(text: &str) -> Result<i64, ParseError> {
    let text = text.trim_end();
    let number = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| ParseError::new(1, "a whole number"))
}

impl Class {
    /// Unknown where neither driver nor user say so (`lo`, tunnels).
    pub(super) fn up(&self) -> Option<bool> {
        match self.state? {
            "unknown" => None,
            state => Some(state == "up"),
        }
    }

    /// Bytes per second. Who is down has none.
    pub(super) fn speed(&self) -> Option<u64> {
        let megabits = self.properties.speed?;
        let known = (1..i64::from(u32::MAX)).contains(&megabits) && self.up() != Some(false);
        let megabits = u64::try_from(megabits).ok().filter(|_| known);
        Some(megabits? * (1_000_000 / 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    fn class(state: &'static str, speed: i64) -> Class {
        Class {
            state: Some(state),
            carrier_changes: None,
            without_handler: None,
            properties: Arc::new(Properties {
                speed: Some(speed),
                more: None,
            }),
        }
    }

    #[test]
    fn states_and_speeds() {
        assert_eq!(parse_state("up\n"), Ok("up"));
        assert!(parse_state("sideways").is_err());
        assert_eq!(class("up", 25_000).up(), Some(true));
        assert_eq!(class("lowerlayerdown", 25_000).up(), Some(false));
        assert_eq!(class("unknown", 25_000).up(), None);
        assert_eq!(class("up", 25_000).speed(), Some(3_125_000_000));
        assert_eq!(class("unknown", 10).speed(), Some(1_250_000));
        assert_eq!(class("down", 10).speed(), None);
        for unknown in [-1, 0, 4_294_967_295, i64::MAX] {
            assert_eq!(class("up", unknown).speed(), None, "{unknown}");
        }
        let error = ParseError::new(1, "a speed in Mbit/s");
        assert_eq!(parse_speed("fast"), Err(error.clone()));
        assert_eq!(parse_speed("99999999999999999999"), Err(error));
        assert_eq!(parse_speed("-1\n"), Ok(-1));
    }

    #[test]
    fn numbers_in_both_bases() {
        assert_eq!(parse_number("0x1003\n"), Ok(4099));
        assert_eq!(parse_number("1500\n"), Ok(1500));
        let error = Err(ParseError::new(1, "a whole number"));
        for text in ["", "0x", "0xfffffffffffffffff", "ten"] {
            assert_eq!(parse_number(text), error, "{text}");
        }
    }

    #[test]
    fn what_hardly_changes_is_read_again_when_the_link_changes() {
        let host = Host::new(&[
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/carrier_changes", "2\n"),
            ("sys/class/net/eth0/speed", "1000\n"),
        ]);
        let mut classes = Classes::new(host.sysfs().join("class/net"), Names::Own);
        let mut speed = || classes.class("eth0").expect("valid").properties.speed;
        assert_eq!(speed(), Some(1000));
        host.write("sys/class/net/eth0/speed", "100\n");
        assert_eq!(speed(), Some(1000));
        host.write("sys/class/net/eth0/carrier_changes", "4\n");
        assert_eq!(speed(), Some(100));
        host.write("sys/class/net/eth0/speed", "10\n");
        host.write("sys/class/net/eth0/operstate", "down\n");
        assert_eq!(speed(), Some(10));
    }

    #[test]
    fn an_interface_that_is_gone_is_forgotten() {
        let host = Host::new(&[("sys/class/net/eth0/speed", "1000\n")]);
        let mut classes = Classes::new(host.sysfs().join("class/net"), Names::Own);
        let mut interfaces = vec![Interface::named("eth0")];
        classes.look_up(&mut interfaces).expect("valid");
        assert_eq!(classes.kept.len(), 1);
        classes.look_up(&mut []).expect("valid");
        assert_eq!(classes.kept.len(), 0);
    }
}
