//! Calls that may hang in the kernel for ever, such as statvfs(2) on a file server that is gone.
//! They are made by threads that can be left behind, so that whoever asks waits for a bounded time.
//!
//! All calls of a pass are handed over at once, and one thread makes them one after the other. If it
//! is held up, others help it; if the patience of the pass is over, they are left with what they are
//! in. A call that is running isn't made again, and nobody waits for one that was slow the last time:
//! it is made between two passes, and its answer is given to the next.

use std::{
    any::Any,
    collections::VecDeque,
    fmt, io, mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// How long a pass waits for calls that it made; twice as long for those that no thread has begun.
const PATIENCE: Duration = Duration::from_millis(300);

/// A call that takes longer is not waited for the next time.
const SLOW: Duration = Duration::from_millis(100);

/// How long a call may be under way before an older answer does not stand for it any more.
const LATE: Duration = Duration::from_secs(5);

/// Threads that may hang. Where so many do, calls of their kinds aren't made any more; of another kind,
/// at most one more hangs, which makes it such a kind as well.
const LEFT_BEHIND: usize = 16;

/// What the stack of a thread may grow to. What is not used takes no memory.
const STACK_BYTES: usize = 256 * 1024;

/// A call that may hang. Those that are equal are one: while one runs, the other isn't made.
/// It's displayed as the subject of "does not answer".
pub(super) trait Call: PartialEq + fmt::Display + Send + Sync + 'static {
    /// What it returns.
    type Answer: Clone + Send + 'static;

    /// Makes it, in a thread that has nothing else to do.
    fn call(&self) -> Self::Answer;

    /// What it has in common with those that are likely to hang with it.
    fn kind(&self) -> &str;
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<A> {
    /// It returned; of a slow one, this is what it returned for the pass before.
    Answer(A),
    /// It hangs, or isn't made because too many of its kind hang.
    Hangs,
}

/// Makes calls. Dropping it leaves those alone that hang.
pub(super) struct Watchdog<C: Call> {
    name: &'static str,
    patience: Duration,
    late: Duration,
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
    /// Nobody has to be waited for any more.
    done: Condvar,
}

struct Desk<C: Call> {
    /// The calls of the last pass, in its order.
    files: Vec<File<C>>,
    /// Calls that hang and were not asked for any more.
    gone: Vec<File<C>>,
    /// Calls that no hand has begun: the number and the place of their files.
    waiting: VecDeque<(u64, usize)>,
    /// Calls that the pass waits for.
    awaited: usize,
    /// Hands, those that hang too, and those that have nothing to do.
    hands: usize,
    idle: usize,
    /// Files so far.
    numbered: u64,
    bound: Bound,
    closed: bool,
}

/// How many hands may be held up, for how long, before their kinds are left alone.
#[derive(Clone, Copy, Debug)]
struct Bound {
    hands: usize,
    held_up: Duration,
}

/// What is known of a call.
struct File<C: Call> {
    number: u64,
    call: Arc<C>,
    stage: Stage,
    /// Whether the pass waits for it.
    awaited: bool,
    /// Whether it took long, the last time.
    slow: bool,
    answer: Option<C::Answer>,
    panic: Option<Box<dyn Any + Send>>,
    /// Whether the log knows that it hangs.
    told: bool,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It's not under way.
    Rests,
    /// It's to be made, since then.
    Waits(Instant),
    /// A hand is in it, since then.
    Runs(Instant),
    /// It's not to be made, as too many of its kind hang.
    Refused,
}

impl<C: Call> Watchdog<C> {
    /// Its threads have this name. They start when they are needed.
    pub(super) fn new(name: &'static str) -> Self {
        let desk = Desk {
            files: Vec::new(),
            gone: Vec::new(),
            waiting: VecDeque::new(),
            awaited: 0,
            hands: 0,
            idle: 0,
            numbered: 0,
            bound: Bound {
                hands: LEFT_BEHIND,
                held_up: PATIENCE,
            },
            closed: false,
        };
        Self {
            name,
            patience: PATIENCE,
            late: LATE,
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
        desk.open(calls);
        desk.bound = Bound {
            hands: self.left_behind,
            held_up: self.held_up(),
        };
        self.put(&mut desk);
        self.hire(&mut desk, 1)?;
        let begun = Instant::now();
        let mut help_at = begun + self.held_up();
        while desk.awaited > 0 {
            let now = Instant::now();
            // Who has begun has had the time; those behind a call that hangs have not.
            let patience = self.patience * if desk.is_one_to_begin() { 2 } else { 1 };
            let end = begun + patience;
            if now >= end {
                break;
            }
            if now >= help_at {
                let room = self
                    .left_behind
                    .saturating_sub(desk.running(self.held_up()));
                // Then there is one for each of the kinds that do not hang.
                let most = if room > 0 {
                    room
                } else {
                    desk.kinds_to_begin()
                };
                self.hire(&mut desk, most)?;
                help_at = now + self.held_up();
            }
            let wait = end.min(help_at).saturating_duration_since(now);
            let woken = office.done.wait_timeout(desk, wait);
            desk = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let refused = desk.refuse();
        if refused > 0 {
            self.tell_full(desk.running(self.held_up()), refused);
        }
        Ok(self.replies(&mut desk))
    }

    /// How long a hand may be in a call before another one helps.
    fn held_up(&self) -> Duration {
        self.patience / 6
    }

    /// Lays out what is to be made: first what the pass waits for.
    fn put(&mut self, desk: &mut Desk<C>) {
        let now = Instant::now();
        let full = desk.running(self.patience) >= self.left_behind;
        let hanging: Vec<_> = desk.hanging(self.patience).cloned().collect();
        let hangs = |call: &Arc<C>| full && is_among(call, &hanging);
        let (mut refused, mut first) = (0, Vec::new());
        for (place, file) in desk.files.iter_mut().enumerate() {
            match file.stage {
                Stage::Rests | Stage::Refused if hangs(&file.call) => {
                    file.stage = Stage::Refused;
                    refused += 1;
                }
                Stage::Rests | Stage::Refused => {
                    file.stage = Stage::Waits(now);
                    if file.slow {
                        desk.waiting.push_back((file.number, place));
                    } else {
                        file.awaited = true;
                        desk.awaited += 1;
                        first.push((file.number, place));
                    }
                }
                Stage::Waits(_) | Stage::Runs(_) => {}
            }
        }
        for job in first.into_iter().rev() {
            desk.waiting.push_front(job);
        }
        self.tell_full(hanging.len(), refused);
    }

    fn tell_full(&mut self, hanging: usize, refused: usize) {
        if refused > 0 && !self.told_full {
            warn!(
                "{hanging} calls of the thread {} hang; {refused} more of their kinds are not made",
                self.name
            );
        }
        self.told_full = refused > 0;
    }

    /// Sees to it that so many hands, and at least one, are there for what is waiting.
    fn hire(&self, desk: &mut Desk<C>, most: usize) -> io::Result<()> {
        let wanted = most.max(1).min(desk.waiting.len());
        let mut working = desk.hands.saturating_sub(desk.running(self.held_up()));
        while working < wanted {
            let office = Arc::clone(&self.office);
            let hired = thread::Builder::new()
                .name(self.name.to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || office.work());
            match hired {
                Ok(_) => {
                    desk.hands += 1;
                    working += 1;
                }
                // The others make them.
                Err(_) if working > 0 => break,
                Err(error) => {
                    desk.give_up();
                    return Err(error);
                }
            }
        }
        self.office.begin.notify_all();
        Ok(())
    }

    /// What there is of each call.
    fn replies(&self, desk: &mut Desk<C>) -> Vec<Reply<C::Answer>> {
        desk.awaited = 0;
        for file in &mut desk.files {
            file.awaited = false;
        }
        let now = Instant::now();
        let reply = |file: &mut File<C>| {
            if let Some(reason) = file.panic.take() {
                panic::resume_unwind(reason);
            }
            let in_time = match file.stage {
                Stage::Rests => true,
                Stage::Waits(since) | Stage::Runs(since) => {
                    now.saturating_duration_since(since) < self.late
                }
                Stage::Refused => false,
            };
            let answer = file.answer.clone().filter(|_| in_time);
            // Those that are refused are told together.
            let hangs = answer.is_none() && file.stage != Stage::Refused;
            if hangs && !file.told {
                warn!(
                    "{} does not answer, and is not waited for any more",
                    file.call
                );
            } else if answer.is_some() && file.told {
                info!("{} answers again", file.call);
            }
            file.told = hangs || (file.told && answer.is_none());
            answer.map_or(Reply::Hangs, Reply::Answer)
        };
        desk.files.iter_mut().map(reply).collect()
    }
}

impl<C: Call> Drop for Watchdog<C> {
    fn drop(&mut self) {
        let mut desk = self.office.lock();
        desk.closed = true;
        desk.waiting.clear();
        self.office.begin.notify_all();
    }
}

impl<C: Call> Office<C> {
    fn lock(&self) -> MutexGuard<'_, Desk<C>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a hand does. Of those that have nothing to do, one stays.
    fn work(&self) {
        let mut desk = self.lock();
        loop {
            if let Some((number, place)) = desk.next() {
                let Some(call) = desk.begin(number, place) else {
                    continue;
                };
                drop(desk);
                let begun = Instant::now();
                let answer = panic::catch_unwind(AssertUnwindSafe(|| call.call()));
                let took = begun.elapsed();
                desk = self.lock();
                if desk.end(number, place, answer, took) {
                    self.done.notify_one();
                }
            } else if desk.closed || desk.idle > 0 {
                desk.hands -= 1;
                return;
            } else {
                desk.idle += 1;
                let woken = self.begin.wait(desk);
                desk = woken.unwrap_or_else(PoisonError::into_inner);
                desk.idle -= 1;
            }
        }
    }
}

impl<C: Call> Desk<C> {
    /// Has a file for each of these calls, in their order, and keeps others only while they hang.
    fn open(&mut self, calls: &[Arc<C>]) {
        let mut before: Vec<_> = mem::take(&mut self.files).into_iter().map(Some).collect();
        before.extend(mem::take(&mut self.gone).into_iter().map(Some));
        for (place, call) in calls.iter().enumerate() {
            // Mostly they are the same in the same order.
            let same = |file: &Option<File<C>>| {
                file.as_ref()
                    .is_some_and(|file| Arc::ptr_eq(&file.call, call))
            };
            let equal = |file: &Option<File<C>>| file.as_ref().is_some_and(|it| it.call == *call);
            let there = match before.get(place) {
                Some(file) if same(file) => Some(place),
                _ => before.iter().position(equal),
            };
            let there = there.and_then(|there| before.get_mut(there)?.take());
            let file = there.unwrap_or_else(|| self.new_file(call));
            self.files.push(file);
        }
        let rest = before.into_iter().flatten();
        self.gone = rest
            .filter(|file| matches!(file.stage, Stage::Runs(_)))
            .collect();
        let files: Vec<_> = self.files.iter().map(|file| file.number).collect();
        self.waiting.retain(|(number, _)| files.contains(number));
    }

    fn new_file(&mut self, call: &Arc<C>) -> File<C> {
        self.numbered += 1;
        File {
            number: self.numbered,
            call: Arc::clone(call),
            stage: Stage::Rests,
            awaited: false,
            slow: false,
            answer: None,
            panic: None,
            told: false,
        }
    }

    /// The file of this number; it was at this place once.
    fn file(&mut self, number: u64, place: usize) -> Option<&mut File<C>> {
        let is_there = self
            .files
            .get(place)
            .is_some_and(|file| file.number == number);
        if is_there {
            return self.files.get_mut(place);
        }
        let mut files = self.files.iter_mut().chain(&mut self.gone);
        files.find(|file| file.number == number)
    }

    /// Kinds that are left alone for now, as too many hands are held up.
    fn blocked(&self) -> Vec<Arc<C>> {
        if self.hands < self.bound.hands {
            return Vec::new();
        }
        let held_up: Vec<_> = self.hanging(self.bound.held_up).cloned().collect();
        if held_up.len() < self.bound.hands {
            return Vec::new();
        }
        held_up
    }

    /// Takes the first call that is to be made.
    fn next(&mut self) -> Option<(u64, usize)> {
        let blocked = self.blocked();
        if blocked.is_empty() {
            return self.waiting.pop_front();
        }
        let is_free = |(number, _): &(u64, usize)| {
            let file = self.files.iter().find(|file| file.number == *number);
            file.is_none_or(|file| !is_among(&file.call, &blocked))
        };
        let place = self.waiting.iter().position(is_free)?;
        self.waiting.remove(place)
    }

    /// Refuses what the pass waited for and nobody will begin. Says how many these are.
    fn refuse(&mut self) -> usize {
        let blocked = self.blocked();
        let mut refused = 0;
        if blocked.is_empty() {
            return refused;
        }
        for file in &mut self.files {
            let waits = matches!(file.stage, Stage::Waits(_));
            if waits && is_among(&file.call, &blocked) {
                file.stage = Stage::Refused;
                refused += 1;
            }
        }
        let files = &self.files;
        self.waiting.retain(|(number, _)| {
            let mut files = files.iter();
            files.any(|file| file.number == *number && file.stage != Stage::Refused)
        });
        refused
    }

    fn begin(&mut self, number: u64, place: usize) -> Option<Arc<C>> {
        let file = self.file(number, place)?;
        file.stage = Stage::Runs(Instant::now());
        Some(Arc::clone(&file.call))
    }

    /// Takes what a call gave. Says whether nobody has to be waited for any more.
    fn end(
        &mut self,
        number: u64,
        place: usize,
        answer: thread::Result<C::Answer>,
        took: Duration,
    ) -> bool {
        let Some(file) = self.file(number, place) else {
            return false;
        };
        file.stage = Stage::Rests;
        // It has to be much faster than that to be waited for again.
        let limit = if file.slow { SLOW / 2 } else { SLOW };
        file.slow = took >= limit;
        match answer {
            Ok(answer) => file.answer = Some(answer),
            Err(reason) => file.panic = Some(reason),
        }
        if mem::take(&mut file.awaited) {
            self.awaited = self.awaited.saturating_sub(1);
            return self.awaited == 0;
        }
        false
    }

    /// Nobody makes what waits.
    fn give_up(&mut self) {
        self.waiting.clear();
        self.awaited = 0;
        for file in &mut self.files {
            file.awaited = false;
            if let Stage::Waits(_) = file.stage {
                file.stage = Stage::Rests;
            }
        }
    }

    /// Calls that have been running for so long.
    fn hanging(&self, time: Duration) -> impl Iterator<Item = &Arc<C>> {
        let now = Instant::now();
        let hangs = move |file: &&File<C>| match file.stage {
            Stage::Runs(since) => now.saturating_duration_since(since) >= time,
            _ => false,
        };
        let files = self.files.iter().chain(&self.gone);
        files.filter(hangs).map(|file| &file.call)
    }

    fn running(&self, time: Duration) -> usize {
        self.hanging(time).count()
    }

    /// Calls that the pass waits for and that a hand has yet to begin.
    fn to_begin(&self) -> impl Iterator<Item = &File<C>> {
        let blocked = self.blocked();
        let waits = move |file: &&File<C>| {
            let waits = file.awaited && matches!(file.stage, Stage::Waits(_));
            waits && !is_among(&file.call, &blocked)
        };
        self.files.iter().filter(waits)
    }

    fn is_one_to_begin(&self) -> bool {
        self.to_begin().next().is_some()
    }

    fn kinds_to_begin(&self) -> usize {
        let mut kinds: Vec<_> = self.to_begin().map(|file| file.call.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.len()
    }
}

/// Whether one of these is of the same kind.
fn is_among<C: Call>(call: &Arc<C>, others: &[Arc<C>]) -> bool {
    others.iter().any(|other| other.kind() == call.kind())
}

#[cfg(test)]
mod tests;
