//! Choosing the rungs that BPF has: each signal gets the first that loads and attaches.

use super::{
    Bpf,
    attach::{Attached, Attacher},
    error::BpfError,
    hooks,
    layout::For,
    load::Missing,
};
use crate::ladder::{Refusal, Rung, Signal, Standing};
use aya::Btf;

impl Refusal {
    /// Of a rung that BPF has.
    #[must_use]
    pub fn by(rung: Rung, error: &BpfError) -> Self {
        Self {
            rung,
            reason: error.to_string(),
            remedy: error.remedy(),
        }
    }
}

/// The rungs of a signal that BPF has.
fn rungs(signal: Signal) -> impl Iterator<Item = Rung> {
    let rungs = signal.rungs().iter().copied();
    rungs.filter(|rung| !matches!(rung, Rung::Procfs | Rung::Taskstats | Rung::SockDiag))
}

/// Where every signal stands when BPF as a whole is refused.
#[must_use]
pub fn all_refused(error: &BpfError) -> Vec<Standing> {
    let standing = |signal| Standing {
        signal,
        rung: None,
        refused: rungs(signal).map(|rung| Refusal::by(rung, error)).collect(),
    };
    Signal::ALL.map(standing).into()
}

/// What has to work before a signal can be measured by BPF: what a thread has counted goes to its
/// group by the hooks on its end, and bytes that are spliced out are counted as bytes received.
fn needed(signal: Signal) -> Option<Signal> {
    match signal {
        Signal::ProcessTable => None,
        Signal::EndedProcesses | Signal::DiskLatency => Some(Signal::ProcessTable),
        Signal::Network => Some(Signal::EndedProcesses),
        Signal::SpliceReceive | Signal::SpliceReceiveUnix => Some(Signal::Network),
    }
}

impl Bpf {
    /// The rung that BPF has for a signal.
    #[must_use]
    pub fn rung(&self, signal: Signal) -> Option<Rung> {
        let mut standings = self.standings.iter();
        standings.find(|standing| standing.signal == signal)?.rung
    }

    /// Where every signal stands.
    #[must_use]
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// Climbs for every signal but the process table, which the iterator is there for.
    pub(super) fn climb_all(&mut self, btf: &Btf, missing: &[Missing]) {
        self.standings.push(Standing {
            signal: Signal::ProcessTable,
            rung: Some(Rung::IterTask),
            refused: Vec::new(),
        });
        for signal in Signal::ALL.into_iter().skip(1) {
            if signal == Signal::DiskLatency && !self.options.disk_latency {
                continue;
            }
            let mut standing = Standing {
                signal,
                rung: None,
                refused: Vec::new(),
            };
            for rung in rungs(signal) {
                match self.climb(signal, rung, btf, missing) {
                    Ok(attached) => {
                        self.attached.extend(attached);
                        standing.rung = Some(rung);
                        break;
                    }
                    Err(error) => standing.refused.push(Refusal::by(rung, &error)),
                }
            }
            self.standings.push(standing);
        }
    }

    /// Tries one rung.
    fn climb(
        &mut self,
        signal: Signal,
        rung: Rung,
        btf: &Btf,
        missing: &[Missing],
    ) -> Result<Vec<Attached>, BpfError> {
        if self.options.without.contains(&rung) {
            return Err(BpfError::Unwanted {
                hook: rung.to_string(),
            });
        }
        if let Some(needed) = needed(signal).filter(|needed| self.rung(*needed).is_none()) {
            return Err(BpfError::Needs { needed });
        }
        for map in hooks::maps_of(rung) {
            if let Some(missing) = missing.iter().find(|missing| missing.map == *map) {
                return Err(missing.error());
            }
        }
        for purpose in fields(signal, rung) {
            if let Some(field) = self.resolved.lacks(*purpose) {
                return Err(BpfError::NoField {
                    field: field.to_owned(),
                });
            }
        }
        let hooks = hooks::of(signal, rung);
        self.attacher(btf).attach_all(&hooks)
    }

    pub(super) fn attacher<'a>(&'a mut self, btf: &'a Btf) -> Attacher<'a> {
        Attacher {
            ebpf: &mut self.ebpf,
            btf,
            resolved: &self.resolved,
            probes: &mut self.probes,
            refuse: &self.options.refuse_hooks,
        }
    }
}

/// What a rung reads from the kernel.
fn fields(signal: Signal, rung: Rung) -> &'static [For] {
    match (signal, rung) {
        (
            Signal::Network | Signal::SpliceReceive | Signal::SpliceReceiveUnix,
            Rung::Fexit | Rung::Kprobe,
        ) => &[For::Network, For::Functions],
        (Signal::Network, _) => &[For::Network],
        (Signal::SpliceReceive, _) => &[For::Network, For::TcpSock],
        (Signal::DiskLatency, _) => &[For::Block],
        _ => &[],
    }
}
