//! The node by the names of node_exporter: its collectors uname, os, time and filefd, and the boot
//! time of its collector stat.

use super::{NodeFacts, seconds};
use crate::page::Page;
use std::fmt;

impl NodeFacts {
    /// Writes them, without I/O.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub(super) fn encode_by_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        let names = &self.names;
        let labels = [
            ("domainname", names.domain.as_str()),
            ("machine", &names.machine),
            ("nodename", &self.hostname),
            ("release", &names.kernel),
            ("sysname", "Linux"),
            ("version", &names.version),
        ];
        page.gauge(
            "node_uname_info",
            "The kernel as uname(2) has it, from /proc/sys/kernel; empty is unknown",
            [(labels, 1_u32)],
        )?;
        if let Some(os) = &names.os {
            page.gauge(
                "node_os_info",
                "The operating system, from os-release of process 1",
                [(os.labels(), 1_u32)],
            )?;
            let labels = ["id", "id_like", "name"].map(|label| (label, os.get(label)));
            let version = os.version().map(|version| (labels, version));
            page.gauge(
                "node_os_version",
                "Major and minor version of the operating system, from os-release of process 1",
                version,
            )?;
        }
        page.single_gauge(
            "node_boot_time_seconds",
            "When the kernel booted, in seconds since 1970, btime of /proc/stat",
            Some(self.boot_time),
        )?;
        page.single_gauge(
            "node_time_seconds",
            "The clock of the node when it was sampled, in seconds since 1970",
            seconds(self.time),
        )?;
        page.single_gauge(
            "node_filefd_allocated",
            "Open files, from /proc/sys/fs/file-nr",
            self.files.map(|files| files.open),
        )?;
        page.single_gauge(
            "node_filefd_maximum",
            "Files that can be open, from /proc/sys/fs/file-nr",
            self.files.map(|files| files.limit),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::NodeCollector;
    use crate::collectors::fixture::{Host, node_exporter_samples};

    #[test]
    fn names_times_and_files() {
        let host = Host::new(&[
            ("proc/stat", "btime 1795532522\n"),
            ("proc/sys/kernel/arch", "aarch64\n"),
            ("proc/sys/kernel/hostname", "a\n"),
            ("proc/sys/kernel/domainname", "(none)\n"),
            ("proc/sys/kernel/osrelease", "6.12.0\n"),
            ("proc/sys/kernel/version", "#1 SMP\n"),
            ("proc/sys/fs/file-nr", "313\t0\t9223372036854775807\n"),
            (
                "proc/1/root/etc/os-release",
                "ID=ubuntu\nID_LIKE=debian\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\n\
                 VERSION=\"24.04.1 LTS\"\nVERSION_CODENAME=noble\nPRETTY_NAME=\"Ubuntu 24.04.1\"\n",
            ),
        ]);
        let facts = NodeCollector::new(&host.procfs(), "m68k".to_owned()).sample();
        let mut page = node_exporter_samples(facts.expect("readable"));
        let clock = page
            .iter()
            .position(|line| line.starts_with("node_time_seconds "));
        page.remove(clock.expect("a clock"));
        page.retain(|line| !line.starts_with("node_timex_"));
        assert_eq!(
            page,
            [
                r##"node_uname_info{domainname="(none)",machine="aarch64",nodename="a",release="6.12.0",sysname="Linux",version="#1 SMP"} 1"##,
                r#"node_os_info{build_id="",id="ubuntu",id_like="debian",image_id="",image_version="",name="Ubuntu",pretty_name="Ubuntu 24.04.1",variant="",variant_id="",version="24.04.1 LTS",version_codename="noble",version_id="24.04"} 1"#,
                r#"node_os_version{id="ubuntu",id_like="debian",name="Ubuntu"} 24.04"#,
                "node_boot_time_seconds 1795532522",
                "node_filefd_allocated 313",
                "node_filefd_maximum 9223372036854775807",
            ]
        );
    }
}
