//! Counters that only rise.

use super::{Core, IDLE};

/// Idle time that falls by as many seconds says that the core was taken away and came back.
const BEGAN_ANEW: u64 = 3;

/// What the last page said. The kernel estimates the idle time of a core that sleeps, and takes back
/// what was too much: a counter that falls by a hundredth looks to Prometheus as if it had begun
/// anew, and all of it as new.
#[derive(Default)]
pub(super) struct Held(Vec<Core>);

impl Held {
    /// Lifts these readings to the highest that were seen, as node_exporter does.
    pub(super) fn hold(&mut self, cores: &mut [Core], ticks_per_second: u64) {
        let limit = BEGAN_ANEW.saturating_mul(ticks_per_second);
        for (index, core) in cores.iter_mut().enumerate() {
            let is_it = |before: &&Core| before.name == core.name;
            let at = self.0.get(index).filter(is_it);
            let Some(before) = at.or_else(|| self.0.iter().find(is_it)) else {
                continue;
            };
            let idle = |core: &Core| core.ticks.get(IDLE).copied().unwrap_or_default();
            if idle(before).saturating_sub(idle(core)) >= limit {
                continue;
            }
            let guests = before.guest.iter().flatten();
            let held = before.ticks.iter().chain(guests);
            let guests = core.guest.iter_mut().flatten();
            for (now, before) in core.ticks.iter_mut().chain(guests).zip(held) {
                *now = (*now).max(*before);
            }
        }
        self.0 = cores.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(name: &str, user: u64, idle: u64, iowait: u64, guest: u64) -> Core {
        Core {
            name: name.to_owned(),
            ticks: [user, 0, 0, idle, iowait, 0, 0, 0],
            guest: Some([guest, 0]),
        }
    }

    fn hold(held: &mut Held, cores: &[Core]) -> Vec<Core> {
        let mut cores = cores.to_vec();
        held.hold(&mut cores, 100);
        cores
    }

    #[test]
    fn what_falls_stays() {
        let mut held = Held::default();
        let first = [core("0", 10, 1000, 50, 5), core("1", 1, 2, 3, 4)];
        assert_eq!(hold(&mut held, &first), first);
        let fell = [core("0", 11, 701, 49, 3), core("1", 0, 3, 0, 0)];
        let seen = [core("0", 11, 1000, 50, 5), core("1", 1, 3, 3, 4)];
        assert_eq!(hold(&mut held, &fell), seen);
        assert_eq!(hold(&mut held, &fell), seen);
    }

    #[test]
    fn a_core_that_came_back_begins_anew() {
        let mut held = Held::default();
        hold(
            &mut held,
            &[core("0", 10, 1000, 50, 5), core("1", 7, 7, 7, 7)],
        );
        let back = [core("0", 5, 700, 5, 0)];
        assert_eq!(hold(&mut held, &back), back);
        // The other one was not seen meanwhile, and the first is another line now.
        let both = [core("1", 1, 1, 1, 1), core("0", 6, 699, 5, 0)];
        let seen = [core("1", 1, 1, 1, 1), core("0", 6, 700, 5, 0)];
        assert_eq!(hold(&mut held, &both), seen);
    }
}
