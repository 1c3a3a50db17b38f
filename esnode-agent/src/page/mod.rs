//! The page: families written to text. Nothing here reads anything.

mod agent;
pub mod dcgm;
mod energy;
mod gpu;
mod identity;
mod latency;
mod process;
pub mod text;

pub use agent::{AgentFacts, ScrapeCounts};

use crate::api::Snapshot;
use latency::Histogram;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
        NoLabelSet,
    },
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};
use std::{collections::HashMap, fmt, sync::Mutex};

/// Writes families, one call each. A family without samples is left out.
pub struct Page<'a>(DescriptorEncoder<'a>);

type NoExemplars<'a> = Option<&'a HashMap<usize, Exemplar<NoLabelSet, f64>>>;
type NoExemplar<'a> = Option<&'a Exemplar<NoLabelSet, f64>>;

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

    /// Writes a family whose type has no name in OpenMetrics, such as a counter that does not end
    /// in `_total`.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub fn unknown<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.family(
            name,
            help,
            MetricType::Unknown,
            samples,
            |mut metric, value| metric.encode_gauge(&value),
        )
    }

    /// Writes a histogram.
    fn histogram<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, Histogram)>,
    ) -> fmt::Result {
        self.family(
            name,
            help,
            MetricType::Histogram,
            samples,
            |mut metric,
             Histogram {
                 sum,
                 count,
                 buckets,
             }| { metric.encode_histogram(sum, count, &buckets, NoExemplars::None) },
        )
    }

    /// Writes a counter that has one series without labels, if its value is known.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub fn single_counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        value: Option<V>,
    ) -> fmt::Result {
        self.single(
            name,
            help,
            MetricType::Counter,
            value,
            |mut metric, value| metric.encode_counter(&value, NoExemplar::None),
        )
    }

    /// Writes a gauge that has one series without labels, if its value is known.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub fn single_gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        value: Option<V>,
    ) -> fmt::Result {
        self.single(name, help, MetricType::Gauge, value, |mut metric, value| {
            metric.encode_gauge(&value)
        })
    }

    /// Writes a family of unknown type that has one series without labels, if its value is known.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub fn single_unknown<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        value: Option<V>,
    ) -> fmt::Result {
        let kind = MetricType::Unknown;
        self.single(name, help, kind, value, |mut metric, value| {
            metric.encode_gauge(&value)
        })
    }

    fn single<V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        value: Option<V>,
        write: impl FnOnce(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let Some(value) = value else {
            return Ok(());
        };
        write(self.0.encode_descriptor(name, help, None, kind)?, value)
    }

    fn family<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (L, V)>,
        write: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
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

/// Joules of microjoules.
#[expect(
    clippy::cast_precision_loss,
    reason = "microjoules of years are below 2^53"
)]
pub(crate) fn joules(microjoules: u64) -> f64 {
    microjoules as f64 / 1e6
}

/// Facts that know their families.
pub trait Encode {
    /// Writes the families. No I/O.
    ///
    /// # Errors
    /// Only those of the formatter.
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result;

    /// Writes the families that node_exporter has of these facts, by its names, labels and units.
    /// No I/O.
    ///
    /// # Errors
    /// Only those of the formatter.
    fn encode_node_exporter(&self, _page: &mut Page<'_>) -> fmt::Result {
        Ok(())
    }

    /// Fills in what the table for tools has of these facts. No I/O.
    fn describe(&self, _snapshot: &mut Snapshot) {}
}

/// By which names facts are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Those of this agent.
    #[default]
    Own,
    /// Those of node_exporter as well.
    AndNodeExporter,
}

/// Facts on their way to the page.
pub type Facts = Box<dyn Encode + Send>;

impl Encode for Facts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        (**self).encode(page)
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        (**self).encode_node_exporter(page)
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        (**self).describe(snapshot);
    }
}

/// Lets the registry of prometheus-client, made for one page, call the facts.
struct Once(Mutex<Vec<Facts>>, Names);

impl fmt::Debug for Once {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Once")
    }
}

impl Collector for Once {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let facts = self.0.lock().map_err(|_| fmt::Error)?;
        let mut page = Page(encoder);
        for facts in facts.iter() {
            facts.encode(&mut page)?;
        }
        if self.1 == Names::AndNodeExporter {
            for facts in facts.iter() {
                facts.encode_node_exporter(&mut page)?;
            }
        }
        Ok(())
    }
}

/// Renders all facts of a pass, in this order, as OpenMetrics 1.0.0 text, of about so many bytes.
///
/// # Errors
/// Only those of the formatter.
pub fn render(facts: Vec<Facts>, names: Names, bytes: usize) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Once(Mutex::new(facts), names)));
    let mut page = String::with_capacity(bytes);
    prometheus_client::encoding::text::encode(&mut page, &registry)?;
    Ok(page)
}
