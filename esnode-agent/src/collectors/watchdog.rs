//! Calls that may hang in the kernel for ever, such as statvfs(2) on a file server that is gone.
//! They are made by a thread that can be left behind, so that whoever asks waits for a bounded
//! time, and only once.
//!
//! All calls of a pass are handed over at once, and one thread makes them one after the other. If
//! it hangs in one, it's left there, and the calls that it had not begun are made by others, side
//! by side. A call that hangs isn't made again before it has returned.

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// How long a call may take before its thread is left behind.
const PATIENCE: Duration = Duration::from_millis(300);

/// Threads that may be left behind. Where so many hang, calls of their kinds aren't made any more;
/// of another kind, at most one more hangs, which makes it such a kind as well.
const LEFT_BEHIND: usize = 16;

/// What the stack of a thread may grow to. What is not used takes no memory.
const STACK_BYTES: usize = 256 * 1024;

/// A call that may hang. Those that are equal are one: while one hangs, the other isn't made.
/// It's displayed as the subject of "does not answer".
pub(super) trait Call: PartialEq + fmt::Display + Send + Sync + 'static {
    /// What it returns.
    type Answer: Send + 'static;

    /// Makes it, in a thread that has nothing else to do.
    fn call(&self) -> Self::Answer;

    /// What it has in common with those that are likely to hang with it.
    fn kind(&self) -> &str;
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<A> {
    /// It returned.
    Answer(A),
    /// It hangs, or isn't made because too many of its kind hang.
    Hangs,
}

/// Makes calls. Dropping it leaves those alone that hang.
pub(super) struct Watchdog<C: Call> {
    name: &'static str,
    patience: Duration,
    left_behind: usize,
    office: Arc<Office<C>>,
    /// Whether the log knows that no more threads are left behind.
    told_full: bool,
}

/// Where the threads, called hands here, meet who asks.
struct Office<C: Call> {
    desk: Mutex<Desk<C>>,
    /// There are calls to make.
    begin: Condvar,
    /// All calls were made.
    done: Condvar,
}

struct Desk<C: Call> {
    /// Calls that no hand has begun, and the places of their replies.
    waiting: VecDeque<(usize, Arc<C>)>,
    /// Calls that hands are in.
    busy: Vec<Busy<C>>,
    /// Of this pass; a call that panicked has the reason.
    replies: Vec<Option<thread::Result<C::Answer>>>,
    /// Hands that were left behind.
    left: Vec<Left<C>>,
    /// Hands that were not.
    hands: usize,
    /// Hands so far.
    hired: u64,
    closed: bool,
}

struct Busy<C> {
    hand: u64,
    place: usize,
    call: Arc<C>,
    since: Instant,
}

struct Left<C> {
    hand: u64,
    call: Arc<C>,
    returned: bool,
}

impl<C: Call> Watchdog<C> {
    /// Its threads have this name. They start when they are needed.
    pub(super) fn new(name: &'static str) -> Self {
        let desk = Desk {
            waiting: VecDeque::new(),
            busy: Vec::new(),
            replies: Vec::new(),
            left: Vec::new(),
            hands: 0,
            hired: 0,
            closed: false,
        };
        Self {
            name,
            patience: PATIENCE,
            left_behind: LEFT_BEHIND,
            office: Arc::new(Office {
                desk: Mutex::new(desk),
                begin: Condvar::new(),
                done: Condvar::new(),
            }),
            told_full: false,
        }
    }

    /// Makes these calls; gives as many replies in the same order. A call that panics does so here.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn ask(&mut self, calls: &[Arc<C>]) -> io::Result<Vec<Reply<C::Answer>>> {
        let office = Arc::clone(&self.office);
        let mut desk = office.lock();
        desk.take_back();
        desk.put(calls);
        self.refuse(&mut desk);
        self.hire(&mut desk, 1)?;
        office.begin.notify_one();
        while !desk.is_done() {
            let now = Instant::now();
            if desk.leave_behind(now, self.patience) {
                self.refuse(&mut desk);
                let room = self.left_behind.saturating_sub(desk.left.len());
                self.hire(&mut desk, room)?;
                continue;
            }
            let begun = desk.busy.iter().map(|busy| busy.since).min();
            let wait = (begun.unwrap_or(now) + self.patience).saturating_duration_since(now);
            let woken = office.done.wait_timeout(desk, wait);
            desk = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let replies = std::mem::take(&mut desk.replies);
        drop(desk);
        let reply = |reply| match reply {
            Some(Ok(answer)) => Reply::Answer(answer),
            Some(Err(reason)) => panic::resume_unwind(reason),
            None => Reply::Hangs,
        };
        Ok(replies.into_iter().map(reply).collect())
    }

    /// Takes away the calls that must not be made as too many of their kind hang.
    fn refuse(&mut self, desk: &mut Desk<C>) {
        if desk.left.len() < self.left_behind {
            self.told_full = false;
            return;
        }
        let Desk { waiting, left, .. } = desk;
        let hangs = |kind: &str| left.iter().any(|left| left.call.kind() == kind);
        let before = waiting.len();
        waiting.retain(|(_, call)| !hangs(call.kind()));
        let refused = before - waiting.len();
        if refused > 0 && !self.told_full {
            self.told_full = true;
            let hanging = left.len();
            warn!(
                "{hanging} calls of the thread {} hang; {refused} more of their kinds are not made",
                self.name
            );
        }
    }

    /// Sees to it that there are hands for what is waiting: at least one, at most so many.
    fn hire(&self, desk: &mut Desk<C>, most: usize) -> io::Result<()> {
        let wanted = most.max(1).min(desk.waiting.len());
        while desk.hands < wanted {
            let (office, hand) = (Arc::clone(&self.office), desk.hired);
            let hired = thread::Builder::new()
                .name(self.name.to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || office.work(hand));
            match hired {
                Ok(_) => {
                    desk.hired += 1;
                    desk.hands += 1;
                }
                // The others make them.
                Err(_) if desk.hands > 0 => break,
                Err(error) => {
                    desk.waiting.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl<C: Call> Drop for Watchdog<C> {
    fn drop(&mut self) {
        self.office.lock().closed = true;
        self.office.begin.notify_all();
    }
}

impl<C: Call> Office<C> {
    fn lock(&self) -> MutexGuard<'_, Desk<C>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a hand does. Of those that have nothing to do, one stays.
    fn work(&self, hand: u64) {
        let mut desk = self.lock();
        loop {
            if let Some((place, call)) = desk.waiting.pop_front() {
                desk.busy.push(Busy {
                    hand,
                    place,
                    call: Arc::clone(&call),
                    since: Instant::now(),
                });
                drop(desk);
                let answer = panic::catch_unwind(AssertUnwindSafe(|| call.call()));
                desk = self.lock();
                if !desk.take(hand, answer) {
                    return;
                }
                if desk.is_done() {
                    self.done.notify_one();
                }
            } else if desk.closed || desk.hands > 1 {
                desk.hands -= 1;
                return;
            } else {
                let woken = self.begin.wait(desk);
                desk = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl<C: Call> Desk<C> {
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.busy.is_empty()
    }

    /// Forgets those that returned.
    fn take_back(&mut self) {
        self.left.retain(|left| {
            if left.returned {
                info!("{} answers again", left.call);
            }
            !left.returned
        });
    }

    /// Lays out what is to be done, but for what hangs.
    fn put(&mut self, calls: &[Arc<C>]) {
        self.replies.clear();
        self.replies.resize_with(calls.len(), || None);
        let left = &self.left;
        let hangs = |call: &Arc<C>| left.iter().any(|left| left.call == *call);
        let calls = calls.iter().enumerate();
        let calls = calls.filter(|(_, call)| !hangs(call));
        self.waiting
            .extend(calls.map(|(place, call)| (place, Arc::clone(call))));
    }

    /// Takes the answer that a hand has got, unless the hand was left behind.
    fn take(&mut self, hand: u64, answer: thread::Result<C::Answer>) -> bool {
        if let Some(left) = self.left.iter_mut().find(|left| left.hand == hand) {
            left.returned = true;
            return false;
        }
        if let Some(index) = self.busy.iter().position(|busy| busy.hand == hand) {
            let Busy { place, .. } = self.busy.swap_remove(index);
            if let Some(reply) = self.replies.get_mut(place) {
                *reply = Some(answer);
            }
        }
        true
    }

    /// Leaves behind the hands that are in one call for so long. Says whether there are any.
    fn leave_behind(&mut self, now: Instant, patience: Duration) -> bool {
        let hangs = |busy: &mut Busy<C>| now.saturating_duration_since(busy.since) >= patience;
        let before = self.left.len();
        for Busy { hand, call, .. } in self.busy.extract_if(.., hangs) {
            warn!("{call} does not answer, and is not asked again before it does");
            self.left.push(Left {
                hand,
                call,
                returned: false,
            });
        }
        let hanging = self.left.len() - before;
        self.hands -= hanging;
        hanging > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Weak,
        atomic::{AtomicUsize, Ordering},
    };

    /// What may keep a call.
    #[derive(Default)]
    struct Gate {
        closed: Mutex<bool>,
        opened: Condvar,
        calls: AtomicUsize,
    }

    impl Gate {
        fn set(&self, closed: bool) {
            *self.closed.lock().expect("no panic") = closed;
            self.opened.notify_all();
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::Relaxed)
        }
    }

    /// Gives its number and the thread that it was made in.
    struct Knock {
        number: usize,
        kind: &'static str,
        gate: Arc<Gate>,
    }

    impl PartialEq for Knock {
        fn eq(&self, other: &Self) -> bool {
            self.number == other.number
        }
    }

    impl fmt::Display for Knock {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "call {}", self.number)
        }
    }

    impl Call for Knock {
        type Answer = (usize, thread::ThreadId);

        fn call(&self) -> Self::Answer {
            self.gate.calls.fetch_add(1, Ordering::Relaxed);
            assert_ne!(self.number, 666, "a call that panics");
            let mut closed = self.gate.closed.lock().expect("no panic");
            while *closed {
                closed = self.gate.opened.wait(closed).expect("no panic");
            }
            (self.number, thread::current().id())
        }

        fn kind(&self) -> &str {
            self.kind
        }
    }

    /// Calls of one kind with gates of their own.
    fn calls(kind: &'static str, numbers: std::ops::Range<usize>) -> Vec<Arc<Knock>> {
        let call = |number| Knock {
            number,
            kind,
            gate: Arc::default(),
        };
        numbers.map(call).map(Arc::new).collect()
    }

    fn watchdog() -> Watchdog<Knock> {
        let mut watchdog = Watchdog::new("knocking");
        watchdog.patience = Duration::from_millis(100);
        watchdog
    }

    /// The numbers of those that answered.
    fn answered(watchdog: &mut Watchdog<Knock>, calls: &[Arc<Knock>]) -> Vec<usize> {
        let replies = watchdog.ask(calls).expect("threads");
        assert_eq!(replies.len(), calls.len());
        let mut numbers = Vec::new();
        for (reply, call) in replies.into_iter().zip(calls) {
            if let Reply::Answer((number, _)) = reply {
                assert_eq!(number, call.number, "replies are in the order of the calls");
                numbers.push(number);
            }
        }
        numbers
    }

    /// Waits until something is so.
    fn eventually(what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn hands(watchdog: &Watchdog<Knock>) -> usize {
        watchdog.office.lock().hands
    }

    #[test]
    fn one_thread_makes_all_calls_of_all_passes() {
        let mut watchdog = watchdog();
        let calls = calls("a", 0..100);
        let mut threads = Vec::new();
        for _ in 0..50 {
            for reply in watchdog.ask(&calls).expect("threads") {
                let Reply::Answer((_, thread)) = reply else {
                    panic!("none hangs");
                };
                threads.push(thread);
            }
        }
        threads.dedup();
        assert_eq!(threads.len(), 1);
        assert_ne!(threads, [thread::current().id()]);
        assert!(watchdog.ask(&[]).expect("no thread").is_empty());
    }

    #[test]
    fn what_hangs_is_waited_for_once_and_asked_again_when_it_returned() {
        let mut watchdog = watchdog();
        let calls = calls("a", 0..4);
        let gate = Arc::clone(&calls[1].gate);
        gate.set(true);
        assert_eq!(answered(&mut watchdog, &calls), [0, 2, 3]);
        watchdog.patience = Duration::from_mins(1);
        for _ in 0..10 {
            assert_eq!(answered(&mut watchdog, &calls), [0, 2, 3]);
        }
        assert_eq!(gate.calls(), 1, "it is not asked while it hangs");
        gate.set(false);
        eventually("it returns", || {
            watchdog.office.lock().left.iter().all(|left| left.returned)
        });
        assert_eq!(answered(&mut watchdog, &calls), [0, 1, 2, 3]);
        assert_eq!(gate.calls(), 2);
        assert!(watchdog.office.lock().left.is_empty());
        assert_eq!(hands(&watchdog), 1);
    }

    #[test]
    fn those_that_hang_together_are_waited_for_together() {
        let mut watchdog = watchdog();
        let calls = calls("a", 0..30);
        for call in calls.iter().step_by(3) {
            call.gate.set(true);
        }
        let begun = Instant::now();
        let answering: Vec<_> = (0..30).filter(|number| number % 3 != 0).collect();
        assert_eq!(answered(&mut watchdog, &calls), answering);
        // The first alone, then the others.
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(watchdog.office.lock().left.len(), 10);
        eventually("one thread is left", || hands(&watchdog) <= 1);
        for call in &calls {
            call.gate.set(false);
        }
    }

    #[test]
    fn the_number_of_threads_left_behind_is_bounded() {
        let mut watchdog = watchdog();
        watchdog.left_behind = 3;
        let mut all = calls("dead", 0..40);
        all.extend(calls("fine", 40..50));
        for call in &all[..40] {
            call.gate.set(true);
        }
        let fine: Vec<_> = (40..50).collect();
        for _ in 0..3 {
            assert_eq!(answered(&mut watchdog, &all), fine);
        }
        let begun = all[..40].iter().filter(|call| call.gate.calls() > 0);
        assert_eq!(begun.count(), 3);
        // One of another kind may still hang, and takes its kind with it.
        all[41].gate.set(true);
        all[43].gate.set(true);
        let answering = answered(&mut watchdog, &all);
        assert_eq!(answering, [40]);
        assert_eq!(watchdog.office.lock().left.len(), 4);
        for call in &all {
            call.gate.set(false);
        }
        eventually("all return", || {
            watchdog.office.lock().left.iter().all(|left| left.returned)
        });
        assert_eq!(answered(&mut watchdog, &all).len(), 50);
    }

    #[test]
    fn a_call_that_panics_does_so_where_it_was_asked_for() {
        let mut watchdog = watchdog();
        // Writing where it panicked takes time.
        watchdog.patience = Duration::from_mins(1);
        let bad = calls("a", 665..668);
        let caught = panic::catch_unwind(AssertUnwindSafe(|| watchdog.ask(&bad)));
        let reason = caught.expect_err("a panic");
        let reason = reason.downcast::<String>().expect("words");
        assert!(reason.contains("a call that panics"), "{reason}");
        assert_eq!(answered(&mut watchdog, &calls("a", 0..2)), [0, 1]);
    }

    #[test]
    fn its_thread_ends_with_it() {
        let mut watchdog = watchdog();
        let calls = calls("a", 0..2);
        calls[1].gate.set(true);
        assert_eq!(answered(&mut watchdog, &calls), [0]);
        let office = Arc::downgrade(&watchdog.office);
        drop(watchdog);
        assert!(office.upgrade().is_some(), "one hangs still");
        calls[1].gate.set(false);
        eventually("the office closes", || Weak::strong_count(&office) == 0);
    }
}
