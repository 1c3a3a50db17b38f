//! What each worker used in the last samples.

use super::frame::{Frame, Key, Usage};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Samples that are kept.
pub(super) const SAMPLES: usize = 120;

/// The last samples of each worker that lives.
#[derive(Debug, Default)]
pub(super) struct History {
    workers: FxHashMap<Key, VecDeque<Usage>>,
}

impl History {
    /// Adds a frame; forgets those who are not in it.
    pub(super) fn add(&mut self, frame: &Frame) {
        let mut earlier = std::mem::take(&mut self.workers);
        for worker in &frame.workers {
            let key = Key::of(&worker.process);
            let mut samples = earlier.remove(&key).unwrap_or_default();
            if samples.len() >= SAMPLES {
                samples.pop_front();
            }
            samples.push_back(worker.usage);
            self.workers.insert(key, samples);
        }
    }

    /// One of the values of a worker, the newest last.
    pub(super) fn of(
        &self,
        key: Key,
        value: fn(&Usage) -> Option<f64>,
    ) -> impl DoubleEndedIterator<Item = Option<f64>> {
        self.workers.get(&key).into_iter().flatten().map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Process, ProcessGpu, Snapshot};

    fn frame(pid: u32, percent: u32) -> Frame {
        Frame::first(Snapshot {
            processes: vec![Process {
                pid,
                gpus: vec![ProcessGpu {
                    utilization_sm_percent: Some(percent.into()),
                    ..ProcessGpu::default()
                }],
                ..Process::default()
            }],
            ..Snapshot::default()
        })
    }

    #[test]
    fn the_last_samples_are_kept_of_those_who_live() {
        let mut history = History::default();
        for percent in 0..150 {
            history.add(&frame(1, percent));
        }
        let key = Key::of(&frame(1, 0).workers[0].process);
        let values: Vec<_> = history.of(key, |usage| usage.gpu_percent).collect();
        assert_eq!(values.len(), SAMPLES);
        assert_eq!((values[0], values[119]), (Some(30.0), Some(149.0)));
        history.add(&frame(2, 0));
        assert_eq!(history.of(key, |usage| usage.gpu_percent).count(), 0);
    }
}
