//! What `/proc` says of one process, for the census.

use super::{
    container::{Cgroup, cgroup},
    engine::arguments,
    reader::Reader,
    users::Users,
};
use std::{
    cell::RefCell,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// So much of a command line is read, and of an environment. The kernel's limit for both together is
/// a quarter of the stack, 2 MiB as a rule.
const LONGEST: u64 = 256 * 1024;

/// So much of a list of mappings is read: PyTorch has some thousand.
const LONGEST_MAPS: u64 = 4 * 1024 * 1024;

/// Reads below a root such as `/proc`. What can't be read is not known.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// For what can hang.
    reader: Reader,
    users: RefCell<Users>,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            reader: Reader::new(root.to_owned()),
            users: RefCell::new(Users::new(root)),
        }
    }

    /// The arguments of processes, in this order; `None` where they can't be read now.
    pub(super) fn arguments(&self, pids: &[u32]) -> Vec<Option<Vec<String>>> {
        let questions: Vec<_> = pids.iter().map(|pid| (*pid, "cmdline", LONGEST)).collect();
        let lines = self.reader.read_all(&questions).into_iter();
        lines
            .map(|bytes| bytes.map(|bytes| arguments(&bytes)))
            .collect()
    }

    /// Its control group.
    pub(super) fn cgroup(&self, pid: u32) -> Option<Cgroup> {
        cgroup::parse(&self.text(pid, "cgroup")?)
    }

    /// The paths of its control groups, one for each hierarchy.
    pub(super) fn cgroup_paths(&self, pid: u32) -> Option<Vec<String>> {
        let text = self.text(pid, "cgroup")?;
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        Some(paths.map(str::to_owned).collect())
    }

    /// Its effective user: the owner of its directory.
    pub(super) fn user(&self, pid: u32) -> Option<u32> {
        let directory = fs::metadata(self.root.join(pid.to_string())).ok()?;
        Some(directory.uid())
    }

    /// The name of a user.
    pub(super) fn name(&self, user: u32) -> Option<Arc<str>> {
        self.users.borrow_mut().name(user)
    }

    /// The directory that it works in.
    pub(super) fn working_directory(&self, pid: u32) -> Option<String> {
        let path = fs::read_link(self.root.join(format!("{pid}/cwd"))).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// A variable of its environment, as that was when the program began.
    pub(super) fn environment(&self, pid: u32, name: &str) -> Option<String> {
        let bytes = self.reader.read((pid, "environ", LONGEST))?;
        let mut variables = bytes.split(|byte| *byte == 0);
        variables.find_map(|variable| {
            let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }

    /// Whether it has a file mapped whose name, without directories, holds this text.
    pub(super) fn maps(&self, pid: u32, library: &str) -> bool {
        let Some(bytes) = self.reader.read((pid, "maps", LONGEST_MAPS)) else {
            return false;
        };
        let text = String::from_utf8_lossy(&bytes);
        text.lines().any(|line| {
            let path = line.splitn(6, ' ').nth(5).unwrap_or_default();
            let file = path.rsplit('/').next().unwrap_or_default();
            path.trim_start().starts_with('/') && file.contains(library)
        })
    }

    fn text(&self, pid: u32, name: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(format!("{pid}/{name}"))).ok()?;
        // A control group may be called anything.
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// Reads a line, and so lives until its input is closed.
    fn child() -> Child {
        Command::new("/bin/cat")
            .args(["-u", "-"])
            .env("ESNODE_TEST", "a=b")
            .current_dir("/usr")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cat is there")
    }

    #[test]
    fn a_process_says_who_it_is() {
        let files = Files::new(Path::new("/proc"));
        let mut child = child();
        let pid = child.id();
        let arguments = || files.arguments(&[pid]).pop().flatten().unwrap_or_default();
        while arguments().first().is_none_or(|it| it != "/bin/cat") {
            std::thread::yield_now();
        }
        assert_eq!(arguments(), ["/bin/cat", "-u", "-"]);
        assert_eq!(
            files.environment(pid, "ESNODE_TEST").as_deref(),
            Some("a=b")
        );
        assert_eq!(files.environment(pid, "ESNODE"), None);
        assert_eq!(files.working_directory(pid).as_deref(), Some("/usr"));
        assert_eq!(files.user(pid), Some(rustix::process::geteuid().as_raw()));
        // The dynamic linker is at work.
        while !files.maps(pid, "libc") {
            std::thread::yield_now();
        }
        assert!(!files.maps(pid, "libtorch"));
        let paths = files.cgroup_paths(pid).expect("cgroups");
        let cgroup = files.cgroup(pid).expect("cgroup");
        assert!(paths.contains(&cgroup.path), "{paths:?}");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(files.arguments(&[pid]), [None]);
        assert_eq!(files.user(pid), None);
    }
}
