//! Names of users, from passwd(5).

use rustc_hash::FxHashMap;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// The file is read again at most so often, for numbers that it did not have.
const PAUSE: Duration = Duration::from_mins(1);

/// Names by number. Users of directory services have none here: they go by their number.
#[derive(Debug)]
pub(super) struct Users {
    /// The host's, and that of the agent.
    files: [PathBuf; 2],
    names: FxHashMap<u32, Arc<str>>,
    read: Option<Instant>,
}

impl Users {
    /// Those of the host, as process 1 below `procfs` sees them; if that may not be read, those of
    /// the agent's own root.
    pub(super) fn new(procfs: &Path) -> Self {
        let host = procfs.join("1/root/etc/passwd");
        Self {
            files: [host, PathBuf::from("/etc/passwd")],
            names: FxHashMap::default(),
            read: None,
        }
    }

    /// The name of a user; `None` if it has none.
    pub(super) fn name(&mut self, number: u32) -> Option<Arc<str>> {
        let is_new = !self.names.contains_key(&number);
        if is_new && self.read.is_none_or(|read| read.elapsed() >= PAUSE) {
            self.read = Some(Instant::now());
            let mut texts = self.files.iter().map(fs::read_to_string);
            if let Some(text) = texts.find_map(Result::ok) {
                self.names = parse(&text);
            }
        }
        self.names.get(&number).cloned()
    }
}

/// Lines `NAME:PASSWORD:UID:…`; the first of a number counts, others are passed over.
fn parse(text: &str) -> FxHashMap<u32, Arc<str>> {
    let mut names = FxHashMap::default();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, number) = (fields.next(), fields.nth(1));
        if let (Some(name), Some(Ok(number))) = (name, number.map(str::parse)) {
            names.entry(number).or_insert_with(|| Arc::from(name));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_number() {
        let text = "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:\n+::::::\nnobody\nweb:x:33:33";
        let names = parse(text);
        assert_eq!(names.len(), 2);
        assert_eq!(names[&0], "root".into());
        assert_eq!(names[&33], "web".into());
    }

    #[test]
    fn a_number_without_a_name_is_looked_up_once_in_a_while() {
        let root = std::env::temp_dir().join(format!("esnode-users-{}", std::process::id()));
        fs::create_dir_all(root.join("1/root/etc")).expect("folder");
        let file = root.join("1/root/etc/passwd");
        fs::write(&file, "a:x:1:").expect("written");
        let mut users = Users::new(&root);
        assert_eq!(users.name(1), Some("a".into()));
        fs::write(&file, "a:x:1:\nb:x:2:").expect("written");
        assert_eq!(users.name(2), None);
        users.read = None;
        assert_eq!(users.name(2), Some("b".into()));
        fs::remove_dir_all(&root).expect("removed");
    }
}
