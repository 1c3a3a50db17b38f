//! The thread that takes in what the kernel tells of ended threads and freed sockets, so that
//! nothing depends on how often anyone scrapes.

use super::{
    ends::{Ends, Told},
    netlink::Netlink,
    sock_diag::SockDiag,
    taskstats::Taskstats,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};
use tracing::info;

/// How often the thread looks whether a network namespace is still in use.
const PERIOD: Duration = Duration::from_secs(1);

/// After records came, others may follow for so long before they are taken in together.
const GATHER: Duration = Duration::from_millis(20);

/// Something that the thread and the collector share.
pub type Shared<T> = Arc<Mutex<T>>;

/// Takes the lock, also of a thread that panicked: all counters are whole at any time.
pub fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that takes in what the kernel tells; it ends after the two were dropped.
///
/// # Errors
/// If the system refuses a thread.
pub fn listen(ends: &Shared<Ends>, sock_diag: Option<&Shared<SockDiag>>) -> io::Result<()> {
    let listener = Listener {
        ends: Arc::downgrade(ends),
        sock_diag: sock_diag.map(Arc::downgrade),
        taskstats: lock(ends).told().map(Told::taskstats).cloned(),
    };
    if listener.taskstats.is_none() && listener.sock_diag.is_none() {
        return Ok(());
    }
    info!("listening to the kernel for what ends between two scrapes");
    let thread = thread::Builder::new().name("listener".to_owned());
    thread.spawn(move || while listener.round().is_some() {})?;
    Ok(())
}

struct Listener {
    ends: Weak<Mutex<Ends>>,
    sock_diag: Option<Weak<Mutex<SockDiag>>>,
    taskstats: Option<Arc<Taskstats>>,
}

impl Listener {
    /// Waits for something to take in, and takes it in; `None` when nobody wants it any more.
    fn round(&self) -> Option<()> {
        let start = Instant::now();
        let destroyed: Vec<Arc<Netlink>> = match &self.sock_diag {
            Some(shared) => lock(&shared.upgrade()?).sources(),
            None => Vec::new(),
        };
        while start.elapsed() < PERIOD {
            let (ended, freed) = wait(self.taskstats.as_deref(), &destroyed);
            if ended {
                lock(&self.ends.upgrade()?).drain();
            }
            if freed && let Some(shared) = &self.sock_diag {
                lock(&shared.upgrade()?).drain();
            }
            thread::sleep(GATHER);
        }
        self.ends.upgrade()?;
        if let Some(shared) = &self.sock_diag {
            lock(&shared.upgrade()?).leave_unused();
        }
        Some(())
    }
}

/// Waits for records of ended threads, and of freed sockets; says which there are.
fn wait(taskstats: Option<&Taskstats>, destroyed: &[Arc<Netlink>]) -> (bool, bool) {
    let sockets: Vec<_> = taskstats.iter().flat_map(|it| it.sockets()).collect();
    let of_ended = sockets.len();
    let sockets = sockets
        .into_iter()
        .chain(destroyed.iter().map(AsRef::as_ref));
    let mut waiting: Vec<_> = sockets
        .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
        .collect();
    let patience = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    if poll(&mut waiting, Some(&patience)).is_err() {
        thread::sleep(PERIOD);
    }
    let ready: Vec<_> = waiting
        .iter()
        .map(|socket| !socket.revents().is_empty())
        .collect();
    let (ended, freed) = ready.split_at_checked(of_ended).unwrap_or_default();
    (ended.contains(&true), freed.contains(&true))
}
