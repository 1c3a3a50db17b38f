//! Which names queries may use, what labels these have, and of what type they are.

use std::collections::BTreeMap;

use super::{
    contract::{Family, Kind},
    labels::Labels,
};

/// What the parts of a histogram end in.
const OF_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Names that Prometheus makes itself.
const OF_PROMETHEUS: [&str; 6] = [
    "ALERTS",
    "ALERTS_FOR_STATE",
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "up",
];

/// Beginnings of names that the programs beside the agent export of themselves: what they have is
/// theirs to say, and only a running stack shows it.
const OF_OTHERS: [&str; 3] = ["grafana_", "otelcol_", "prometheus_"];

/// All families that there are.
#[derive(Debug, Default)]
pub(super) struct Families {
    exported: BTreeMap<String, Family>,
    recorded: BTreeMap<String, Labels>,
}

/// A name that queries may use.
pub(super) struct Found {
    pub(super) labels: Labels,
    pub(super) kind: Kind,
}

impl Families {
    pub(super) fn exported(exported: BTreeMap<String, Family>) -> Self {
        Self {
            exported,
            recorded: BTreeMap::new(),
        }
    }

    /// The names of the README.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.exported.keys().map(String::as_str)
    }

    /// All names that a series of these families can have, with the parts of histograms.
    pub(super) fn series(&self) -> impl Iterator<Item = String> {
        self.exported
            .iter()
            .flat_map(|(name, family)| match family.kind {
                Kind::Histogram => OF_HISTOGRAM.map(|part| format!("{name}{part}")).to_vec(),
                _ => vec![name.clone()],
            })
    }

    /// Adds what a rule records.
    pub(super) fn record(&mut self, name: &str, labels: Labels) {
        self.recorded.insert(name.to_owned(), labels);
    }

    /// The family of the README that a series belongs to.
    pub(super) fn family_of<'a>(&'a self, series: &'a str) -> Option<&'a str> {
        if let Some((name, family)) = self.exported.get_key_value(series) {
            return (family.kind != Kind::Histogram).then_some(name.as_str());
        }
        let parts = OF_HISTOGRAM.iter();
        let mut names = parts.filter_map(|part| series.strip_suffix(part));
        names.find(|name| {
            let family = self.exported.get(*name);
            family.is_some_and(|family| family.kind == Kind::Histogram)
        })
    }

    /// What is known of a name; none if nobody has such series.
    pub(super) fn find(&self, series: &str) -> Option<Found> {
        if let Some(labels) = self.recorded.get(series) {
            return Some(Found {
                labels: labels.clone(),
                kind: Kind::Unknown,
            });
        }
        let others = OF_OTHERS.iter().any(|prefix| series.starts_with(prefix));
        if others || OF_PROMETHEUS.contains(&series) {
            return Some(Found {
                labels: Labels::Any,
                kind: Kind::Unknown,
            });
        }
        let name = self.family_of(series)?;
        let family = self.exported.get(name)?;
        let mut labels = family.labels.clone();
        if series.ends_with("_bucket") {
            labels.insert("le");
        }
        let part = family.kind == Kind::Histogram;
        let kind = if part { Kind::Counter } else { family.kind };
        Some(Found { labels, kind })
    }
}
