//! What was told of containers, and when to ask again.

use crate::identity::container::{ContainerRef, Details, Runtime};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// When to ask again and what to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// After a first answer with gaps, a second, and so on.
    pub(super) back_off: [Duration; 4],
    /// After an answer without: a container can be renamed.
    pub(super) refresh: Duration,
    /// For how long a container is kept that nobody looks up.
    pub(super) forget: Duration,
    /// How many containers are kept.
    pub(super) most: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            back_off: [1, 5, 30, 300].map(Duration::from_secs),
            refresh: Duration::from_mins(5),
            forget: Duration::from_mins(5),
            most: 4096,
        }
    }
}

#[derive(Debug)]
pub(super) struct Cache {
    entries: HashMap<ContainerRef, Entry>,
    timing: Timing,
}

#[derive(Debug)]
struct Entry {
    details: Option<Arc<Details>>,
    /// When it was last looked up.
    seen: Instant,
    /// When to ask, unless it is being asked.
    due: Instant,
    asking: bool,
    /// Answers with gaps, one after another.
    gaps: usize,
}

impl Cache {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            entries: HashMap::new(),
            timing,
        }
    }

    /// What is known. Calls `ask` if it is time to, which says if the question was taken.
    pub(super) fn look_up(
        &mut self,
        container: &ContainerRef,
        now: Instant,
        ask: impl FnOnce() -> bool,
    ) -> Option<Arc<Details>> {
        if !self.entries.contains_key(container) {
            self.make_room(now);
            let entry = Entry::new(container, now);
            self.entries.insert(container.clone(), entry);
        }
        let entry = self.entries.get_mut(container)?;
        entry.seen = now;
        if !entry.asking && now >= entry.due {
            entry.asking = ask();
        }
        entry.details.clone()
    }

    /// Takes in an answer, which may be empty. What it lacks of what was known stays: an id is
    /// never given to another container.
    pub(super) fn store(
        &mut self,
        container: &ContainerRef,
        mut told: Details,
        complete: bool,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(container) else {
            return;
        };
        entry.asking = false;
        let pause = if complete {
            entry.gaps = 0;
            self.timing.refresh
        } else {
            let [.., longest] = self.timing.back_off;
            let pause = self.timing.back_off.get(entry.gaps).copied();
            entry.gaps = entry.gaps.saturating_add(1);
            pause.unwrap_or(longest)
        };
        entry.due = now + pause;
        if let Some(known) = &entry.details {
            told.fill(Details::clone(known));
        }
        if told != Details::default() {
            entry.details = Some(Arc::new(told));
        }
    }

    /// Forgets what nobody looked up for long.
    pub(super) fn clean(&mut self, now: Instant) {
        let forget = self.timing.forget;
        let recent = |entry: &Entry| now.saturating_duration_since(entry.seen) < forget;
        self.entries.retain(|_, entry| recent(entry));
        self.entries.shrink_to(self.entries.len().saturating_mul(2));
    }

    /// If there is no more room, forgets first what `clean` would, then the quarter that was not
    /// looked up for longest: one by one, each new container would cost a walk over all.
    fn make_room(&mut self, now: Instant) {
        let most = self.timing.most;
        if self.entries.len() < most {
            return;
        }
        self.clean(now);
        let keep = most - most.div_ceil(4);
        let Some(surplus) = self.entries.len().checked_sub(keep + 1) else {
            return;
        };
        let mut seen: Vec<_> = self.entries.values().map(|entry| entry.seen).collect();
        let (_, limit, _) = seen.select_nth_unstable(surplus);
        let limit = *limit;
        // Of those looked up at the very same moment, any may go.
        let mut going = surplus + 1;
        self.entries.retain(|_, entry| {
            let goes = entry.seen <= limit && going > 0;
            going -= usize::from(goes);
            !goes
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    /// Of machines and of LXC, the id is the name.
    fn new(container: &ContainerRef, now: Instant) -> Self {
        let named = matches!(container.runtime, Runtime::Nspawn | Runtime::Lxc);
        let details = named.then(|| Details {
            name: Some(container.id.clone()),
            ..Details::default()
        });
        Self {
            details: details.map(Arc::new),
            seen: now,
            due: now,
            asking: false,
            gaps: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(number: usize) -> ContainerRef {
        ContainerRef {
            runtime: Runtime::Docker,
            id: format!("{number:064x}"),
        }
    }

    fn called(name: &str) -> Details {
        Details {
            name: Some(name.to_owned()),
            ..Details::default()
        }
    }

    #[test]
    fn asks_again_only_after_a_while() {
        let mut cache = Cache::new(Timing::default());
        let container = container(1);
        let mut now = Instant::now();
        for pause in [1, 5, 30, 300, 300].map(Duration::from_secs) {
            let mut asked = 0;
            for _ in 0..3 {
                cache.look_up(&container, now, || {
                    asked += 1;
                    true
                });
            }
            assert_eq!(asked, 1);
            cache.store(&container, Details::default(), false, now);
            let early = pause.saturating_sub(Duration::from_millis(1));
            cache.look_up(&container, now + early, || unreachable!("too early"));
            now += pause;
        }
        cache.store(&container, called("web"), true, now);
        let early = now + Duration::from_secs(299);
        let known = cache.look_up(&container, early, || unreachable!("too early"));
        assert_eq!(known.expect("known").name.as_deref(), Some("web"));
        // Renamed, then gone.
        cache.store(&container, called("web-old"), true, now);
        cache.store(&container, Details::default(), false, now);
        let known = cache.look_up(&container, now, || unreachable!("too early"));
        assert_eq!(known.expect("known").name.as_deref(), Some("web-old"));
    }

    #[test]
    fn asks_at_the_next_time_if_the_queue_is_full() {
        let mut cache = Cache::new(Timing::default());
        let now = Instant::now();
        assert_eq!(cache.look_up(&container(1), now, || false), None);
        let mut asked = false;
        cache.look_up(&container(1), now, || {
            asked = true;
            true
        });
        assert!(asked);
    }

    #[test]
    fn forgets_what_nobody_looks_up() {
        let mut cache = Cache::new(Timing::default());
        let start = Instant::now();
        cache.look_up(&container(1), start, || true);
        cache.look_up(&container(2), start, || true);
        let later = start + Duration::from_secs(200);
        cache.look_up(&container(1), later, || true);
        cache.clean(start + Duration::from_secs(301));
        assert_eq!(cache.len(), 1);
        assert!(cache.entries.contains_key(&container(1)));
        // An answer for what was forgotten.
        cache.store(&container(2), called("late"), true, later);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn stays_small_and_keeps_what_is_looked_up() {
        let mut cache = Cache::new(Timing::default());
        let start = Instant::now();
        for number in 0..100_000_usize {
            let now = start + Duration::from_micros(number as u64);
            cache.look_up(&container(number), now, || true);
            cache.look_up(&container(0), now, || true);
            assert!(cache.len() <= 4096);
        }
        assert!(cache.len() > 3000);
        assert!(cache.entries.contains_key(&container(0)));
        assert!(cache.entries.contains_key(&container(99_999)));
        // All at the same moment.
        let mut cache = Cache::new(Timing::default());
        for number in 0..5_000 {
            cache.look_up(&container(number), start, || true);
        }
        assert!((3072..=4096).contains(&cache.len()), "{}", cache.len());
    }
}
