//! Calls that hang, are slow, or panic.

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
    takes: Duration,
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
        thread::sleep(self.takes);
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
    slow_calls(kind, numbers, Duration::ZERO)
}

fn slow_calls(
    kind: &'static str,
    numbers: std::ops::Range<usize>,
    takes: Duration,
) -> Vec<Arc<Knock>> {
    let call = |number| Knock {
        number,
        kind,
        gate: Arc::default(),
        takes,
    };
    numbers.map(call).map(Arc::new).collect()
}

fn watchdog() -> Watchdog<Knock> {
    let mut watchdog = Watchdog::new("knocking");
    watchdog.patience = Duration::from_millis(100);
    watchdog.late = Duration::ZERO;
    watchdog
}

/// Calls that are under way.
fn running(watchdog: &Watchdog<Knock>) -> usize {
    watchdog.office.lock().running(Duration::ZERO)
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

/// Threads that are in no call.
fn hands(watchdog: &Watchdog<Knock>) -> usize {
    let desk = watchdog.office.lock();
    desk.hands - desk.running(Duration::ZERO)
}

#[test]
fn one_thread_makes_all_calls_of_all_passes() {
    let mut watchdog = watchdog();
    watchdog.patience = Duration::from_mins(1);
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
    eventually("it returns", || running(&watchdog) == 0);
    watchdog.late = Duration::from_mins(1);
    assert_eq!(answered(&mut watchdog, &calls), [0, 1, 2, 3]);
    eventually("it is asked again", || gate.calls() == 2);
    eventually("one thread is left", || hands(&watchdog) == 1);
}

#[test]
fn nobody_waits_for_what_was_slow_the_last_time() {
    let mut watchdog = watchdog();
    watchdog.patience = Duration::from_mins(1);
    watchdog.late = Duration::from_mins(1);
    let mut all = calls("a", 0..3);
    all.extend(slow_calls("a", 3..6, SLOW * 3 / 2));
    let slow = Arc::clone(&all[5].gate);
    let expected: Vec<_> = (0..6).collect();
    assert_eq!(answered(&mut watchdog, &all), expected);
    for pass in 2..5 {
        // Three of them would take longer than that.
        let begun = Instant::now();
        assert_eq!(answered(&mut watchdog, &all), expected);
        assert!(begun.elapsed() < SLOW * 3 / 2, "{:?}", begun.elapsed());
        eventually("each is made again", || {
            slow.calls() == pass && running(&watchdog) == 0
        });
    }
}

#[test]
fn many_that_take_their_time_are_made_side_by_side() {
    let mut watchdog = watchdog();
    watchdog.patience = PATIENCE;
    let calls = slow_calls("a", 0..20, Duration::from_millis(80));
    let begun = Instant::now();
    let answers = answered(&mut watchdog, &calls);
    // One after the other they take 1.6 s.
    assert!(begun.elapsed() < PATIENCE * 3, "{:?}", begun.elapsed());
    assert!(answers.len() > 10, "{answers:?}");
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
    assert_eq!(running(&watchdog), 10);
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
    assert_eq!(running(&watchdog), 4);
    for call in &all {
        call.gate.set(false);
    }
    eventually("all return", || running(&watchdog) == 0);
    watchdog.late = Duration::from_mins(1);
    watchdog.patience = Duration::from_mins(1);
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
