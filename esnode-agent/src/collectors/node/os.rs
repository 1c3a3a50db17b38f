//! What the operating system is called, from os-release(5).

use crate::error::read_file;
use std::path::Path;

/// The variables that are kept, and the labels under which node_exporter shows them, in its order.
const VARIABLES: [(&str, &str); 12] = [
    ("BUILD_ID", "build_id"),
    ("ID", "id"),
    ("ID_LIKE", "id_like"),
    ("IMAGE_ID", "image_id"),
    ("IMAGE_VERSION", "image_version"),
    ("NAME", "name"),
    ("PRETTY_NAME", "pretty_name"),
    ("VARIANT", "variant"),
    ("VARIANT_ID", "variant_id"),
    ("VERSION", "version"),
    ("VERSION_CODENAME", "version_codename"),
    ("VERSION_ID", "version_id"),
];

/// The variables by their labels; one that is not set is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OsRelease([(&'static str, String); VARIABLES.len()]);

impl OsRelease {
    /// That of process 1, which is the host's if the agent is in a container with the host's
    /// processes; where that may not be looked at, the agent's own.
    pub(super) fn read(procfs: &Path) -> Option<Self> {
        let roots = ["1/root", "self/root"].map(|root| procfs.join(root));
        let files = roots
            .iter()
            .flat_map(|root| ["etc/os-release", "usr/lib/os-release"].map(|file| root.join(file)));
        files
            .filter_map(|file| read_file(&file).ok())
            .find_map(|text| parse(&text))
    }

    /// All of them.
    pub(super) fn labels(&self) -> &[(&'static str, String)] {
        &self.0
    }

    /// One of them.
    pub(super) fn get(&self, label: &str) -> &str {
        let mut labels = self.0.iter();
        let found = labels.find(|(known, _)| *known == label);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Major and minor version as a number, 22.04 of Ubuntu; none where systems roll.
    pub(super) fn version(&self) -> Option<f64> {
        let text = self.get("version_id");
        let digits = |text: &str| {
            let end = text.find(|character: char| !character.is_ascii_digit());
            end.unwrap_or(text.len())
        };
        let mut end = digits(text);
        if end == 0 {
            return None;
        }
        if let Some(minor) = text.get(end..)?.strip_prefix('.') {
            end += 1 + digits(minor);
        }
        text.get(..end)?
            .parse()
            .ok()
            .filter(|version| *version > 0.0)
    }
}

/// Assignments of a shell whose values may be quoted; `None` if none of them is known.
fn parse(text: &str) -> Option<OsRelease> {
    let mut variables = VARIABLES.map(|(_, label)| (label, String::new()));
    let mut known = false;
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once('=') else {
            continue;
        };
        let mut slots = VARIABLES.iter().zip(&mut variables);
        if let Some((_, (_, slot))) = slots.find(|((variable, _), _)| *variable == name) {
            *slot = unquote(value);
            known = true;
        }
    }
    known.then_some(OsRelease(variables))
}

fn unquote(value: &str) -> String {
    let quoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let mut plain = String::new();
    let mut characters = quoted.unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    #[test]
    fn values_are_those_of_a_shell() {
        for (text, name) in [
            (
                "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
                "Debian GNU/Linux 13 (trixie)",
            ),
            ("PRETTY_NAME='A B'\n", "A B"),
            ("PRETTY_NAME=Plain\n", "Plain"),
            (r#"PRETTY_NAME="a \"b\" \\ \$c""#, r#"a "b" \ $c"#),
            ("PRETTY_NAME=\"half", "\"half"),
            ("PRETTY_NAME=\\", ""),
            ("PRETTY_NAME=", ""),
            ("PRETTY_NAME=\"", "\""),
            ("PRETTY_NAME=a\nPRETTY_NAME=b\n", "b"),
            ("# PRETTY_NAME=a\nNAME=x\n", ""),
        ] {
            let os = parse(text).expect(text);
            assert_eq!(os.get("pretty_name"), name, "{text}");
        }
        assert_eq!(parse("no assignment\nNICKNAME=x\n"), None);
    }

    #[test]
    fn versions_are_numbers_where_they_are() {
        for (id, version) in [
            ("12", Some(12.0)),
            ("22.04", Some(22.04)),
            ("9.4.1", Some(9.4)),
            ("7.x", Some(7.0)),
            ("0", None),
            ("", None),
            (".5", None),
            ("rolling", None),
        ] {
            let os = parse(&format!("VERSION_ID=\"{id}\"\n")).expect("known");
            assert_eq!(os.version(), version, "{id}");
        }
    }

    #[test]
    fn the_host_is_where_process_1_is() {
        let host = Host::new(&[("proc/self/root/usr/lib/os-release", "ID=own\n")]);
        let id = || OsRelease::read(&host.procfs()).map(|os| os.get("id").to_owned());
        assert_eq!(id().as_deref(), Some("own"));
        host.write("proc/1/root/etc/os-release", "ID=host\n");
        assert_eq!(id().as_deref(), Some("host"));
        assert_eq!(OsRelease::read(Path::new("/nonexistent")), None);
    }
}
