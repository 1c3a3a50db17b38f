//! What the whole machine takes: from the best single meter there is, or else from the sum of its
//! parts that are measured, by name.

use super::platform::Reading;
use std::collections::HashMap;

/// Power and energy that something takes. `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Taken {
    pub(super) watts: Option<f64>,
    /// Since the agent started.
    pub(super) microjoules: Option<u64>,
}

impl Taken {
    /// The sum of these; unknown if one of them is, or if there are none.
    pub(super) fn sum(parts: &[Self]) -> Self {
        let sum = |sum: Self, part: &Self| Self {
            watts: sum.watts.zip(part.watts).map(|(a, b)| a + b),
            microjoules: sum
                .microjoules
                .zip(part.microjoules)
                .map(|(a, b)| a.saturating_add(b)),
        };
        match parts {
            [] => Self::default(),
            [first, rest @ ..] => rest.iter().fold(*first, sum),
        }
    }
}

/// What a source says of the machine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodePower<T> {
    /// A meter, or the parts that were added up, such as `cpu+dram+gpu`.
    pub(super) source: String,
    pub(super) value: T,
}

/// The parts that can be added up, in the order of their names on the page. `None` is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) cpu: Option<Taken>,
    pub(super) dram: Option<Taken>,
    pub(super) gpu: Taken,
}

impl Parts {
    fn sum<T: Copy + std::iter::Sum>(&self, of: fn(&Taken) -> Option<T>) -> Option<NodePower<T>> {
        let mut known = Vec::new();
        for (name, part) in [("cpu", &self.cpu), ("dram", &self.dram)] {
            if let Some(taken) = part {
                // Without one that is there, the sum is wrong.
                known.push((name, of(taken)?));
            }
        }
        known.extend(of(&self.gpu).map(|value| ("gpu", value)));
        (!known.is_empty()).then(|| {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            NodePower {
                source: names.join("+"),
                value: known.iter().map(|(_, value)| *value).sum(),
            }
        })
    }
}

/// Watts of the machine: a meter of its supply, or else what its maker wired to the processor
/// (`psys`), or else the sum of parts.
pub(super) fn watts(
    platform: &[Reading],
    psys: Option<Taken>,
    parts: &Parts,
) -> Option<NodePower<f64>> {
    #[expect(clippy::cast_precision_loss, reason = "microwatts of a machine")]
    let of = |reading: &Reading| reading.microwatts.map(|microwatts| microwatts as f64 / 1e6);
    of_meters(platform, of)
        .or_else(|| of_psys(psys?.watts))
        .or_else(|| parts.sum(|taken| taken.watts))
}

/// Microjoules of the machine, likewise, of what has a counter. Power times time is none.
pub(super) fn microjoules(
    platform: &[Reading],
    psys: Option<Taken>,
    parts: &Parts,
) -> Option<NodePower<u64>> {
    of_meters(platform, |reading| reading.microjoules)
        .or_else(|| of_psys(psys?.microjoules))
        .or_else(|| parts.sum(|taken| taken.microjoules))
}

fn of_meters<T>(platform: &[Reading], of: impl Fn(&Reading) -> Option<T>) -> Option<NodePower<T>> {
    platform.iter().find_map(|it| {
        Some(NodePower {
            source: it.source.to_owned(),
            value: of(it)?,
        })
    })
}

fn of_psys<T>(value: Option<T>) -> Option<NodePower<T>> {
    Some(NodePower {
        source: "psys".to_owned(),
        value: value?,
    })
}

/// Counters by their source that never fall, also where a part of a sum goes.
#[derive(Debug, Default)]
pub(super) struct Published(HashMap<String, u64>);

impl Published {
    pub(super) fn raise(&mut self, mut counter: NodePower<u64>) -> NodePower<u64> {
        let floor = self.0.entry(counter.source.clone()).or_default();
        *floor = (*floor).max(counter.value);
        counter.value = *floor;
        counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(source: &'static str, watts: Option<u64>, joules: Option<u64>) -> Reading {
        Reading {
            source,
            microwatts: watts.map(|watts| watts * 1_000_000),
            microjoules: joules.map(|joules| joules * 1_000_000),
        }
    }

    fn taken(watts: f64, microjoules: Option<u64>) -> Taken {
        Taken {
            watts: Some(watts),
            microjoules,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as what is tested gives it")]
    fn named<T>(source: &str, value: T) -> Option<NodePower<T>> {
        Some(NodePower {
            source: source.to_owned(),
            value,
        })
    }

    #[test]
    fn one_meter_of_all_is_better_than_a_sum() {
        let parts = Parts {
            cpu: Some(taken(100.0, Some(5))),
            gpu: taken(300.0, Some(7)),
            ..Parts::default()
        };
        let psys = Some(taken(450.0, Some(9)));
        let acpi = [meter("acpi_power_meter", Some(500), None)];
        assert_eq!(watts(&acpi, psys, &parts), named("acpi_power_meter", 500.0));
        // It has no counter: the next best has.
        assert_eq!(microjoules(&acpi, psys, &parts), named("psys", 9));
        assert_eq!(watts(&[], psys, &parts), named("psys", 450.0));
        assert_eq!(watts(&[], None, &parts), named("cpu+gpu", 400.0));
        assert_eq!(microjoules(&[], None, &parts), named("cpu+gpu", 12));
        assert_eq!(watts(&[], None, &Parts::default()), None);
    }

    #[test]
    fn a_sum_says_what_is_in_it() {
        let mut parts = Parts {
            cpu: Some(taken(100.0, Some(5))),
            dram: Some(taken(20.0, Some(1))),
            gpu: taken(300.0, None),
        };
        assert_eq!(watts(&[], None, &parts), named("cpu+dram+gpu", 420.0));
        assert_eq!(microjoules(&[], None, &parts), named("cpu+dram", 6));
        parts.gpu.watts = None;
        assert_eq!(watts(&[], None, &parts), named("cpu+dram", 120.0));
        parts.dram = Some(taken(20.0, None));
        assert_eq!(watts(&[], None, &parts), named("cpu+dram", 120.0));
        assert_eq!(microjoules(&[], None, &parts), None, "one is unknown");
        parts.dram = None;
        assert_eq!(microjoules(&[], None, &parts), named("cpu", 5));
        let two = [taken(1.0, Some(1)), Taken::default()];
        assert_eq!(Taken::sum(&two), Taken::default());
    }

    #[test]
    fn counters_do_not_fall() {
        let mut published = Published::default();
        let mut raise = |source, value| published.raise(named(source, value).expect("some")).value;
        assert_eq!(raise("gpu", 7), 7);
        assert_eq!(raise("gpu", 5), 7);
        assert_eq!(raise("cpu+gpu", 6), 6);
    }
}
