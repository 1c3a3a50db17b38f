//! The modules that a virtual machine needs, out of a kernel's package.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// What is asked for. Kernels have some of it built in, and some have it not at all: then a test
/// says what it misses.
const WANTED: [&str; 12] = [
    // a disk with a real file system
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "crc32c-cryptoapi",
    "ext4",
    // what sock_diag(7) asks; nobody in the machine loads modules on demand
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    "netlink_diag",
    "mptcp_diag",
    // entropy, without which programs wait at their start
    "virtio-rng",
];

/// Copies modules and what they depend on into a folder, unpacked, under names that say in which
/// order they load.
pub(super) fn collect(tree: &Path, to: &Path) -> Result<()> {
    let mut known = BTreeMap::new();
    find(&tree.join("kernel"), &mut known)?;
    let mut loaded = Vec::new();
    for name in WANTED {
        add(&normal(name), &known, &mut loaded)?;
    }
    fs::create_dir_all(to)?;
    for (number, (name, content)) in loaded.iter().enumerate() {
        fs::write(to.join(format!("{number:02}-{name}.ko")), content)?;
    }
    Ok(())
}

/// Finds the files of all modules, by name.
fn find(folder: &Path, known: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, known)?;
        } else if let Some((name, _)) = path
            .file_name()
            .and_then(|name| name.to_str()?.split_once(".ko"))
        {
            known.insert(normal(name), path);
        }
    }
    Ok(())
}

/// Adds a module after those that it depends on. One that is no file is built in.
fn add(
    name: &str,
    known: &BTreeMap<String, PathBuf>,
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let Some(path) = known.get(name) else {
        return Ok(());
    };
    if loaded.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let content = unpack(path)?;
    for other in depends(&content) {
        add(&normal(&other), known, loaded)?;
    }
    loaded.push((name.to_owned(), content));
    Ok(())
}

/// File names and module names differ in this.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The field `depends` in the section `.modinfo`, where each field ends in a zero byte.
fn depends(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(start) = module
        .windows(FIELD.len())
        .position(|window| window == FIELD)
    else {
        return Vec::new();
    };
    let rest = module.get(start + FIELD.len()..).unwrap_or_default();
    let value = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| path.display().to_string()),
    };
    let output = Command::new(tool)
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output()
        .with_context(|| format!("cannot run {tool}"))?;
    ensure!(
        output.status.success(),
        "{tool} cannot unpack {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_module_depends_on() {
        let module = b"ELF\0license=GPL\0depends=jbd2,mbcache,crc16\0retpoline=Y\0";
        assert_eq!(depends(module), ["jbd2", "mbcache", "crc16"]);
        assert_eq!(depends(b"ELF\0depends=\0name=crc16\0"), [""; 0]);
        assert_eq!(depends(b"ELF"), [""; 0]);
    }
}
