//! What stands in for BPF where it gives no rung: sock_diag for network bytes, taskstats for
//! processes that end. Opened at start, while there are rights.

use super::{
    ledger::{Listening, Moment},
    procfs::{Procfs, Units},
    sock_diag::SockDiag,
    taskstats::Taskstats,
};
use crate::ladder::{Refusal, Rung, Signal, Standing};
use std::path::Path;

/// The rungs that were opened.
#[derive(Debug, Default)]
pub struct Fallback {
    /// Network bytes.
    pub sock_diag: Option<SockDiag>,
    /// Ends of processes.
    pub taskstats: Option<(Taskstats, Listening)>,
}

impl Fallback {
    /// Opens what is below BPF for those of `standings` that have no rung, except the rungs in
    /// `without`; then they have it, or one more that refused.
    #[must_use]
    pub fn open(procfs: &Path, sysfs: &Path, without: &[Rung], standings: &mut [Standing]) -> Self {
        let mut fallback = Self::default();
        let open = standings
            .iter_mut()
            .filter(|standing| standing.rung.is_none());
        // In the order of the signals, the network comes before what is spliced.
        for standing in open {
            match standing.signal {
                Signal::ProcessTable => standing.rung = Some(Rung::Procfs),
                Signal::EndedProcesses => {
                    let opened = unless(without, Rung::Taskstats, || listener(procfs, sysfs));
                    fallback.taskstats = keep(standing, Rung::Taskstats, opened);
                }
                Signal::Network => {
                    let opened = unless(without, Rung::SockDiag, || sockets(procfs));
                    fallback.sock_diag = keep(standing, Rung::SockDiag, opened);
                }
                // What is read from there includes what was spliced.
                Signal::SpliceReceive if fallback.sock_diag.is_some() => {
                    standing.rung = Some(Rung::SockDiag);
                }
                Signal::SpliceReceive | Signal::SpliceReceiveUnix | Signal::DiskLatency => {}
            }
        }
        fallback
    }

    /// Whether network namespaces are to be entered later on.
    #[must_use]
    pub fn enters_namespaces(&self) -> bool {
        self.sock_diag.is_some()
    }
}

/// Why a rung was refused, and what to do about it.
type Why = (String, &'static str);

fn listener(procfs: &Path, sysfs: &Path) -> Result<(Taskstats, Listening), Why> {
    // What begins while this is being opened is heard of.
    let since = Moment::now().boot_nanoseconds;
    let since_nanoseconds = Units::of_this_kernel().round_down(since);
    Taskstats::open(procfs, sysfs)
        .map(|opened| (opened, Listening { since_nanoseconds }))
        .map_err(|error| (error.to_string(), error.remedy()))
}

fn sockets(procfs: &Path) -> Result<SockDiag, Why> {
    let processes = Procfs::new(procfs, Units::of_this_kernel()).processes();
    let processes = processes.map(|found| found.processes).unwrap_or_default();
    SockDiag::open(procfs, &processes).map_err(|error| (error.to_string(), error.remedy()))
}

/// Notes what was opened, or why it was not.
fn keep<T>(standing: &mut Standing, rung: Rung, opened: Result<T, Refusal>) -> Option<T> {
    match opened {
        Ok(opened) => {
            standing.rung = Some(rung);
            Some(opened)
        }
        Err(refusal) => {
            standing.refused.push(refusal);
            None
        }
    }
}

/// Opens a rung, unless it is to be done without.
fn unless<T>(
    without: &[Rung],
    rung: Rung,
    open: impl FnOnce() -> Result<T, Why>,
) -> Result<T, Refusal> {
    let refuse = |(reason, remedy): Why| Refusal {
        rung,
        reason,
        remedy: remedy.to_owned(),
    };
    if without.contains(&rung) {
        return Err(refuse((
            format!("left out by --without {rung}"),
            "leave out that flag",
        )));
    }
    open().map_err(refuse)
}
