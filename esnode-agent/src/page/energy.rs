//! Families of what processes and groups took of the energy of processors.

use super::{Page, joules};
use crate::process::energy::EnergyShares;
use std::fmt;

/// Writes them; `names` are id and command name of the processes that are shown, in their order.
pub(super) fn encode(
    page: &mut Page<'_>,
    shares: &EnergyShares,
    names: &[(String, String)],
) -> fmt::Result {
    page.counter(
        "esnode_process_cpu_energy_joules",
        "Energy of the processor packages that was used for the process, in joules, since the \
         agent started: the counters of RAPL, shared by CPU time",
        names
            .iter()
            .zip(&shares.processes)
            .map(|((pid, comm), part)| ([("pid", pid.as_str()), ("comm", comm)], joules(*part))),
    )?;
    page.counter(
        "esnode_group_cpu_energy_joules",
        "Energy of the processor packages that was used for all processes of the group, ended ones \
         too, in joules, since the agent started: the counters of RAPL, shared by CPU time",
        shares
            .groups
            .iter()
            .map(|(label, part)| ([("group", label.as_str())], joules(*part))),
    )?;
    page.counter(
        "esnode_unattributed_cpu_energy_joules",
        "Energy of the processor packages that no group got, in joules, by reason; with the groups \
         it adds up to esnode_cpu_package_energy_joules_total",
        shares
            .unattributed
            .iter()
            .map(|(reason, part)| ([("reason", *reason)], joules(*part))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{self, Encode, Names};

    struct Shares(EnergyShares);

    impl Encode for Shares {
        fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
            encode(page, &self.0, &[("42".to_owned(), "vllm".to_owned())])
        }
    }

    #[test]
    fn joules_by_process_group_and_reason() {
        let shares = EnergyShares {
            processes: vec![1],
            groups: vec![("a\"b".to_owned(), 2_500_000)],
            unattributed: vec![("idle", 0)],
        };
        let page = page::render(vec![Box::new(Shares(shares))], Names::Own, 0).expect("written");
        let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                r#"esnode_process_cpu_energy_joules_total{pid="42",comm="vllm"} 0.000001"#,
                r#"esnode_group_cpu_energy_joules_total{group="a\"b"} 2.5"#,
                r#"esnode_unattributed_cpu_energy_joules_total{reason="idle"} 0.0"#,
            ]
        );
    }
}
