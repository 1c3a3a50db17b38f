//! CPUs by the names of node_exporter: its collectors cpu, cpufreq and stat.

use super::{CpuFacts, STATES, frequency::Frequency};
use crate::page::Page;
use std::fmt;

impl CpuFacts {
    /// Writes them, without I/O.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub(super) fn encode_by_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.encode_time(page)?;
        self.encode_events(page)?;
        self.encode_throttles(page)?;
        self.encode_frequencies(page)
    }

    fn encode_time(&self, page: &mut Page<'_>) -> fmt::Result {
        let modes = |names: &'static [&str], of: fn(&super::Core) -> &[u64]| {
            self.cores.iter().flat_map(move |core| {
                let of_core = names.iter().zip(of(core));
                of_core.map(|(mode, ticks)| {
                    let labels = [("cpu", core.name.as_str()), ("mode", *mode)];
                    (labels, self.seconds(*ticks))
                })
            })
        };
        page.counter(
            "node_cpu_seconds",
            "Time that the CPU spent in a mode, from /proc/stat; guests count as user",
            modes(&STATES, |core| &core.ticks),
        )?;
        page.counter(
            "node_cpu_guest_seconds",
            "Time that the CPU spent in guests, part of the modes user and nice, from /proc/stat",
            modes(&["user", "nice"], |core| {
                core.guest.as_ref().map_or(&[], |guest| guest)
            }),
        )?;
        page.gauge(
            "node_cpu_isolated",
            "Whether the scheduler leaves the CPU alone, isolated of /sys/devices/system/cpu",
            self.devices
                .isolated
                .iter()
                .map(|core| ([("cpu", *core)], 1_u32)),
        )
    }

    fn encode_events(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_counter(
            "node_context_switches",
            "Times that a CPU went from one task to another, ctxt of /proc/stat",
            self.events.context_switches,
        )?;
        page.single_counter(
            "node_intr",
            "Interrupts that were served, intr of /proc/stat",
            self.events.interrupts,
        )?;
        page.single_counter(
            "node_forks",
            "Processes and threads that were started, processes of /proc/stat",
            self.events.forks,
        )?;
        page.single_gauge(
            "node_procs_running",
            "Tasks that run or could run, procs_running of /proc/stat",
            self.events.running,
        )?;
        page.single_gauge(
            "node_procs_blocked",
            "Tasks that wait for a block device, procs_blocked of /proc/stat",
            self.events.blocked,
        )
    }

    fn encode_throttles(&self, page: &mut Page<'_>) -> fmt::Result {
        let placed = || {
            let throttles = self.devices.throttles.iter();
            throttles.filter_map(|throttle| Some((throttle, throttle.place?)))
        };
        page.counter(
            "node_cpu_core_throttles",
            "Times that the core was slowed down because it got too hot, core_throttle_count of \
             /sys/devices/system/cpu",
            placed().filter_map(|(throttle, (package, core))| {
                Some(([("package", package), ("core", core)], throttle.of_core?))
            }),
        )?;
        page.counter(
            "node_cpu_package_throttles",
            "Times that the package was slowed down because it got too hot, \
             package_throttle_count of /sys/devices/system/cpu",
            placed().filter_map(|(throttle, (package, _))| {
                Some(([("package", package)], throttle.of_package?))
            }),
        )
    }

    fn encode_frequencies(&self, page: &mut Page<'_>) -> fmt::Result {
        type Family = (&'static str, &'static str, fn(&Frequency) -> Option<u64>);
        let families: [Family; 5] = [
            (
                "node_cpu_frequency_min_hertz",
                "Lowest frequency of the CPU, cpuinfo_min_freq of cpufreq",
                |core| core.hardware.min,
            ),
            (
                "node_cpu_frequency_max_hertz",
                "Highest frequency of the CPU, cpuinfo_max_freq of cpufreq",
                |core| core.hardware.max,
            ),
            (
                "node_cpu_scaling_frequency_hertz",
                "Frequency of the CPU when it was last read, scaling_cur_freq of cpufreq or cpu \
                 MHz of /proc/cpuinfo",
                |core| core.current,
            ),
            (
                "node_cpu_scaling_frequency_min_hertz",
                "Lowest frequency that the governor may choose, scaling_min_freq of cpufreq",
                |core| core.scaling.min,
            ),
            (
                "node_cpu_scaling_frequency_max_hertz",
                "Highest frequency that the governor may choose, scaling_max_freq of cpufreq",
                |core| core.scaling.max,
            ),
        ];
        for (name, help, kilohertz) in families {
            let hertz = |core: &Frequency| {
                let hertz = kilohertz(core)?.checked_mul(1000)?;
                Some(([("cpu", core.core)], hertz))
            };
            page.gauge(
                name,
                help,
                self.devices.frequencies.iter().filter_map(hertz),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::CpuCollector;
    use crate::collectors::fixture::{Host, node_exporter_samples};
    use std::time::Duration;

    #[test]
    fn by_its_names_and_units() {
        let cpu = |file: &str| format!("sys/devices/system/cpu/cpu3/{file}");
        let host = Host::new(&[
            (
                "proc/stat",
                "cpu3 100 200 300 400 500 600 700 800 900 1000\nintr 77\nctxt 5\nprocesses 9\n\
                 procs_running 2\nprocs_blocked 1\n",
            ),
            ("sys/devices/system/cpu/isolated", "2-3\n"),
            (&cpu("cpufreq/scaling_cur_freq"), "2245780\n"),
            (&cpu("cpufreq/scaling_min_freq"), "900000\n"),
            (&cpu("cpufreq/scaling_max_freq"), "2600000\n"),
            (&cpu("cpufreq/cpuinfo_min_freq"), "800000\n"),
            (&cpu("cpufreq/cpuinfo_max_freq"), "3700000\n"),
            (&cpu("topology/physical_package_id"), "1\n"),
            (&cpu("topology/core_id"), "7\n"),
            (&cpu("thermal_throttle/core_throttle_count"), "3\n"),
            (&cpu("thermal_throttle/package_throttle_count"), "4\n"),
        ]);
        let hour = Duration::from_hours(1);
        let collector = CpuCollector::new(&host.procfs(), &host.sysfs(), 100, hour);
        let facts = collector.expect("a thread").sample().expect("readable");
        assert_eq!(
            node_exporter_samples(facts),
            [
                r#"node_cpu_seconds_total{cpu="3",mode="user"} 1.0"#,
                r#"node_cpu_seconds_total{cpu="3",mode="nice"} 2.0"#,
                r#"node_cpu_seconds_total{cpu="3",mode="system"} 3.0"#,
                r#"node_cpu_seconds_total{cpu="3",mode="idle"} 4.0"#,
                r#"node_cpu_seconds_total{cpu="3",mode="iowait"} 5.0"#,
                r#"node_cpu_seconds_total{cpu="3",mode="irq"} 6.0"#,
                r#"node_cpu_seconds_total{cpu="3",mode="softirq"} 7.0"#,
                r#"node_cpu_seconds_total{cpu="3",mode="steal"} 8.0"#,
                r#"node_cpu_guest_seconds_total{cpu="3",mode="user"} 9.0"#,
                r#"node_cpu_guest_seconds_total{cpu="3",mode="nice"} 10.0"#,
                r#"node_cpu_isolated{cpu="3"} 1"#,
                "node_context_switches_total 5",
                "node_intr_total 77",
                "node_forks_total 9",
                "node_procs_running 2",
                "node_procs_blocked 1",
                r#"node_cpu_core_throttles_total{package="1",core="7"} 3"#,
                r#"node_cpu_package_throttles_total{package="1"} 4"#,
                r#"node_cpu_frequency_min_hertz{cpu="3"} 800000000"#,
                r#"node_cpu_frequency_max_hertz{cpu="3"} 3700000000"#,
                r#"node_cpu_scaling_frequency_hertz{cpu="3"} 2245780000"#,
                r#"node_cpu_scaling_frequency_min_hertz{cpu="3"} 900000000"#,
                r#"node_cpu_scaling_frequency_max_hertz{cpu="3"} 2600000000"#,
            ]
        );
    }
}
