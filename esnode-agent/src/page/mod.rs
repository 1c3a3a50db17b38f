//! The page: families written to text. Nothing here reads anything.

mod agent;
mod process;
pub mod text;

pub use agent::{AgentFacts, ScrapeCounts};

use crate::collectors::{Encode, Sample};
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
    },
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};
use std::{fmt, sync::Mutex};

/// Writes families, one call each. A family without samples is left out.
pub struct Page<'a>(DescriptorEncoder<'a>);

type NoExemplar<'a> = Option<&'a Exemplar<NoLabelSet, f64>>;

/// No labels.
pub(crate) type Unlabelled = [(&'static str, &'static str); 0];

impl Page<'_> {
    /// Writes a counter. `name` goes without `_total`, which OpenMetrics adds to the samples.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub fn counter<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.family(
            name,
            help,
            MetricType::Counter,
            samples,
            |mut metric, value| metric.encode_counter(&value, NoExemplar::None),
        )
    }

    /// Writes a gauge.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub fn gauge<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.family(
            name,
            help,
            MetricType::Gauge,
            samples,
            |mut metric, value| metric.encode_gauge(&value),
        )
    }

    fn family<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (L, V)>,
        write: impl Fn(prometheus_client::encoding::MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            write(family.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}

/// Everything that one pass found, on its way to text.
struct Snapshot {
    samples: Vec<Sample>,
    agent: AgentFacts,
}

impl Encode for Snapshot {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        for sample in &self.samples {
            if let Ok(facts) = &sample.facts {
                facts.encode(page)?;
            }
        }
        let named = |sample: &Sample| [("collector", sample.collector.to_string())];
        page.gauge(
            "esnode_collector_success",
            "Whether the collector could read its source in this scrape; if not, its families are \
             absent",
            self.samples
                .iter()
                .map(|sample| (named(sample), u32::from(sample.facts.is_ok()))),
        )?;
        page.gauge(
            "esnode_collector_duration_seconds",
            "Time the collector took to read its source in this scrape",
            self.samples
                .iter()
                .map(|sample| (named(sample), sample.duration.as_secs_f64())),
        )?;
        self.agent.encode(page)
    }
}

/// Lets the registry of prometheus-client, made for one page, call the snapshot.
struct Once(Mutex<Snapshot>);

impl fmt::Debug for Once {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Once")
    }
}

impl Collector for Once {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.lock().map_err(|_| fmt::Error)?;
        snapshot.encode(&mut Page(encoder))
    }
}

/// Renders a pass as OpenMetrics 1.0.0 text.
///
/// # Errors
/// Only those of the formatter.
pub fn render(samples: Vec<Sample>, agent: AgentFacts) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Once(Mutex::new(Snapshot { samples, agent }))));
    let mut page = String::with_capacity(64 * 1024);
    prometheus_client::encoding::text::encode(&mut page, &registry)?;
    Ok(page)
}
