//! For tests: a host made of files, and what the page says of facts.

use crate::page::{self, Encode, Names};
use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// Folders `proc` and `sys` of its own, which go with it.
pub(super) struct Host(PathBuf);

impl Host {
    /// With these files, by their paths below the root, such as `proc/stat`.
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("esnode-host-{}-{number}", process::id());
        let host = Self(std::env::temp_dir().join(name));
        for root in [host.procfs(), host.sysfs()] {
            fs::create_dir_all(root).expect("folder");
        }
        for (file, text) in files {
            host.write(file, text);
        }
        host
    }

    /// Writes a file anew, with the folders that it needs.
    pub(super) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.place(file), content).expect("file");
    }

    /// Makes a symbolic link to `target`, as the kernel does in `/sys/class`.
    pub(super) fn link(&self, file: &str, target: &str) {
        symlink(target, self.place(file)).expect("link");
    }

    /// Removes a folder with all that is in it.
    pub(super) fn remove(&self, folder: &str) {
        fs::remove_dir_all(self.0.join(folder)).expect("folder");
    }

    pub(super) fn procfs(&self) -> PathBuf {
        self.0.join("proc")
    }

    pub(super) fn sysfs(&self) -> PathBuf {
        self.0.join("sys")
    }

    fn place(&self, file: &str) -> PathBuf {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("folder");
        path
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// The samples on a page of these facts, by the agent's own names.
pub(super) fn samples(facts: impl Encode + Send + 'static) -> Vec<String> {
    lines(facts, Names::Own)
}

/// The samples on a page of these facts, by the names of node_exporter.
pub(super) fn node_exporter_samples(facts: impl Encode + Send + 'static) -> Vec<String> {
    let mut lines = lines(facts, Names::AndNodeExporter);
    lines.retain(|line| line.starts_with("node_"));
    lines
}

fn lines(facts: impl Encode + Send + 'static, names: Names) -> Vec<String> {
    let page = page::render(vec![Box::new(facts)], names, 0).expect("written");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(str::to_owned).collect()
}
