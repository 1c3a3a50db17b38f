//! Names that are fit for a terminal: without control characters, and of what it can draw.

use crate::api::{Gpu, Node, Process, Snapshot};
use std::collections::BTreeMap;

/// Characters of a name that are kept: nobody reads more, and a name must not cost a screen.
const NAME_CHARS: usize = 512;

/// Which characters a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// All of Unicode.
    Unicode,
    /// ASCII alone.
    Ascii,
}

impl Charset {
    /// What the locale's variables ask for, the first that is set deciding (setlocale(3)).
    pub(super) fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(variable)
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Self::Unicode
        } else {
            Self::Ascii
        }
    }
}

/// A name that moves no cursor, colours nothing and reorders nothing: each character that might
/// is a `?`.
pub(super) fn clean(name: &str, charset: Charset) -> String {
    let shown = |char: char| {
        let harmless = !char.is_control() && !reorders(char);
        if harmless && (charset == Charset::Unicode || char.is_ascii()) {
            char
        } else {
            '?'
        }
    };
    name.chars().take(NAME_CHARS).map(shown).collect()
}

/// Marks of direction, separators of lines and the mark of byte order, which are no controls by
/// category but change how a line is laid out.
fn reorders(char: char) -> bool {
    matches!(
        char,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// Cleans every name of a snapshot.
pub(super) fn clean_snapshot(snapshot: &mut Snapshot, charset: Charset) {
    let wash = |names: &mut [&mut String]| {
        for name in names {
            **name = clean(name, charset);
        }
    };
    let Node {
        hostname,
        disks,
        interfaces,
        ..
    } = &mut snapshot.node;
    wash(&mut [&mut snapshot.version, hostname]);
    for disk in disks {
        wash(&mut [&mut disk.device]);
    }
    for interface in interfaces {
        wash(&mut [&mut interface.iface]);
    }
    for Gpu {
        uuid,
        name,
        throttle_reasons,
        ..
    } in &mut snapshot.gpus
    {
        wash(&mut [uuid, name]);
        for reason in throttle_reasons.iter_mut().flatten() {
            wash(&mut [reason]);
        }
    }
    for process in &mut snapshot.processes {
        clean_process(process, charset);
    }
}

fn clean_process(process: &mut Process, charset: Charset) {
    for name in [
        &mut process.comm,
        &mut process.user,
        &mut process.engine,
        &mut process.role,
        &mut process.rank,
        &mut process.model,
        &mut process.group,
        &mut process.container_id,
        &mut process.container,
        &mut process.image,
        &mut process.runtime,
        &mut process.pod,
        &mut process.namespace,
    ] {
        *name = clean(name, charset);
    }
    for gpu in &mut process.gpus {
        gpu.uuid = clean(&gpu.uuid, charset);
    }
    if let Some(network) = process.network.take() {
        let named = network
            .into_iter()
            .map(|(protocol, traffic)| (clean(&protocol, charset), traffic));
        process.network = Some(named.collect::<BTreeMap<_, _>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_command_no_terminal() {
        let evil = "a\u{1b}[31mb\rc\u{9b}2Jd\u{202e}e\u{7f}\n\u{200b}";
        let clean_name = "a?[31mb?c?2Jd?e???";
        assert_eq!(clean(evil, Charset::Unicode), clean_name);
        assert_eq!(
            clean("Qwen-\u{4e2d}\u{6587}", Charset::Unicode),
            "Qwen-中文"
        );
        assert_eq!(clean("Qwen-\u{4e2d}\u{6587}", Charset::Ascii), "Qwen-??");
        assert_eq!(clean(&"x".repeat(9999), Charset::Ascii).len(), NAME_CHARS);
    }

    #[test]
    fn every_name_of_a_snapshot_is_cleaned() {
        let json = r#"{"version":"\u001b","node":{"hostname":"\u001b","disks":[{"device":"\u001b"}],
            "interfaces":[{"iface":"\u001b"}]},"gpus":[{"uuid":"\u001b","name":"\u001b",
            "throttle_reasons":["\u001b"]}],"processes":[{"comm":"\u001b","user":"\u001b",
            "engine":"\u001b","role":"\u001b","rank":"\u001b","model":"\u001b","group":"\u001b",
            "container_id":"\u001b","container":"\u001b","image":"\u001b","runtime":"\u001b","pod":"\u001b",
            "namespace":"\u001b","network":{"\u001b":{}},"gpus":[{"uuid":"\u001b"}]}]}"#;
        let mut snapshot: Snapshot = serde_json::from_str(json).expect("valid");
        clean_snapshot(&mut snapshot, Charset::Unicode);
        let written = serde_json::to_string(&snapshot).expect("serializable");
        assert!(!written.contains("u001b"), "{written}");
        assert_eq!(written.matches('?').count(), json.matches("u001b").count());
    }

    #[test]
    fn the_locale_says_what_can_be_drawn() {
        let of = |pairs: &[(&str, &str)]| {
            Charset::of_locale(|name| {
                let pair = pairs.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[("LANG", "en_US.UTF-8")]), Charset::Unicode);
        assert_eq!(
            of(&[("LANG", "de_DE.utf8"), ("LC_ALL", "C")]),
            Charset::Ascii
        );
        assert_eq!(of(&[("LANG", "C.UTF-8"), ("LC_ALL", "")]), Charset::Unicode);
        assert_eq!(of(&[]), Charset::Ascii);
    }
}
