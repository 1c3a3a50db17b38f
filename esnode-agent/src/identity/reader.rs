//! Reads files of processes that may hang.
//!
//! The kernel waits for a process's memory map before it gives out its command line, environment
//! or mappings, and a process that is stuck in a driver can hold that for good: `ps` hangs then. So
//! a thread reads. If it does not come back, it is left behind with that process, and another one
//! goes on.

use rustc_hash::FxHashMap;
use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};
use tracing::warn;

/// How long one file may take.
const PATIENCE: Duration = Duration::from_millis(100);

/// Threads that may be left behind. With so many processes stuck, the others are not read either.
const STUCK: usize = 8;

/// A file of a process: its id, the name below `/proc/PID`, and how much to read.
pub(super) type Question = (u32, &'static str, u64);

type Answer = io::Result<Vec<u8>>;

/// Reads files below a root such as `/proc`.
#[derive(Debug)]
pub(super) struct Reader {
    root: PathBuf,
    thread: RefCell<Option<Thread>>,
    /// Processes with which threads were left behind; true once such a thread came back.
    stuck: RefCell<FxHashMap<u32, Arc<AtomicBool>>>,
}

#[derive(Debug)]
struct Thread {
    questions: Sender<Vec<Question>>,
    answers: Receiver<Answer>,
    /// Set when it has come back from all that it was asked.
    back: Arc<AtomicBool>,
}

impl Reader {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            thread: RefCell::default(),
            stuck: RefCell::default(),
        }
    }

    /// One file; `None` if it can't be read now.
    pub(super) fn read(&self, question: Question) -> Option<Vec<u8>> {
        self.read_all(&[question]).pop().flatten()
    }

    /// Files, in this order; `None` for those that can't be read now.
    pub(super) fn read_all(&self, questions: &[Question]) -> Vec<Option<Vec<u8>>> {
        let mut stuck = self.stuck.borrow_mut();
        stuck.retain(|_, back| !back.load(Ordering::Relaxed));
        let mut answers: Vec<Option<Vec<u8>>> = Vec::with_capacity(questions.len());
        while let Some((_, rest)) = questions.split_at_checked(answers.len()) {
            let open = rest.iter().take_while(|(pid, ..)| !stuck.contains_key(pid));
            let open: Vec<_> = open.copied().collect();
            if open.is_empty() {
                if rest.is_empty() {
                    break;
                }
                answers.push(None);
                continue;
            }
            if stuck.len() >= STUCK {
                answers.resize_with(questions.len(), || None);
                break;
            }
            if let Some((pid, back)) = self.ask(&open, &mut answers) {
                if stuck.is_empty() {
                    warn!(
                        pid,
                        "a process is stuck so that its command line can't be read"
                    );
                }
                stuck.insert(pid, back);
            }
        }
        answers
    }

    /// Asks the thread, and gives what it answers. If it hangs, leaves it behind; gives the process
    /// that it hangs with, and what tells that it came back.
    fn ask(
        &self,
        questions: &[Question],
        answers: &mut Vec<Option<Vec<u8>>>,
    ) -> Option<(u32, Arc<AtomicBool>)> {
        let mut slot = self.thread.borrow_mut();
        let thread = match slot.take() {
            Some(thread) => thread,
            None => match Thread::start(self.root.clone()) {
                Ok(thread) => thread,
                Err(error) => {
                    warn!(%error, "cannot start a thread to read command lines");
                    answers.extend(questions.iter().map(|_| None));
                    return None;
                }
            },
        };
        thread.back.store(false, Ordering::Relaxed);
        // A thread that panicked hangs up, and is left behind as well.
        let _ = thread.questions.send(questions.to_vec());
        for (pid, ..) in questions {
            match thread.answers.recv_timeout(PATIENCE) {
                Ok(answer) => answers.push(answer.ok()),
                Err(_) => return Some((*pid, thread.back)),
            }
        }
        *slot = Some(thread);
        None
    }
}

impl Thread {
    fn start(root: PathBuf) -> io::Result<Self> {
        let (questions, asked) = channel::<Vec<Question>>();
        let (answered, answers) = channel();
        let back = Arc::new(AtomicBool::new(false));
        thread::Builder::new().name("census".to_owned()).spawn({
            let back = Arc::clone(&back);
            move || {
                while let Ok(questions) = asked.recv() {
                    for (pid, name, limit) in questions {
                        let answer = read(&root.join(format!("{pid}/{name}")), limit);
                        if answered.send(answer).is_err() {
                            // It was left behind.
                            break;
                        }
                    }
                    back.store(true, Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self {
            questions,
            answers,
            back,
        })
    }
}

fn read(path: &std::path::Path, limit: u64) -> Answer {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use std::{fs, time::Instant};

    const LIMIT: u64 = 100;

    /// Processes with a command line each; that of the second is a pipe that nobody writes to.
    fn host(name: &str) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("esnode-reader-{name}-{}", std::process::id()));
        for pid in [1, 2, 3] {
            let folder = root.join(pid.to_string());
            fs::create_dir_all(&folder).expect("folder");
            let file = folder.join("cmdline");
            if pid == 2 {
                mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).expect("pipe");
            } else {
                fs::write(file, format!("{pid}")).expect("file");
            }
        }
        root
    }

    fn read_lines(reader: &Reader) -> Vec<Option<Vec<u8>>> {
        reader.read_all(&[1, 2, 3, 4].map(|pid| (pid, "cmdline", LIMIT)))
    }

    #[test]
    fn one_that_is_stuck_holds_up_nobody_for_long() {
        let root = host("stuck");
        let reader = Reader::new(root.clone());
        let expected = [Some(b"1".to_vec()), None, Some(b"3".to_vec()), None];
        assert_eq!(read_lines(&reader), expected);
        // It is left alone from then on.
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(read_lines(&reader), expected);
        }
        assert!(begun.elapsed() < 20 * PATIENCE);
        assert_eq!(reader.stuck.borrow().len(), 1);
        // Until it answers.
        fs::write(root.join("2/cmdline"), "2").expect("written");
        while !reader.stuck.borrow()[&2].load(Ordering::Relaxed) {
            thread::yield_now();
        }
        fs::remove_file(root.join("2/cmdline")).expect("removed");
        fs::write(root.join("2/cmdline"), "two").expect("file");
        assert_eq!(read_lines(&reader)[1], Some(b"two".to_vec()));
        fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn threads_that_are_left_behind_are_few() {
        let root = host("many");
        for pid in 10..30 {
            let folder = root.join(pid.to_string());
            fs::create_dir_all(&folder).expect("folder");
            mkfifoat(CWD, folder.join("cmdline"), Mode::RUSR | Mode::WUSR).expect("pipe");
        }
        let reader = Reader::new(root.clone());
        let questions: Vec<_> = (10..30).map(|pid| (pid, "cmdline", LIMIT)).collect();
        assert_eq!(reader.read_all(&questions), vec![None; 20]);
        assert_eq!(reader.stuck.borrow().len(), STUCK);
        // Those that hang are let go.
        for pid in reader.stuck.borrow().keys() {
            fs::write(root.join(format!("{pid}/cmdline")), "").expect("written");
        }
        fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let root = host("limit");
        fs::write(root.join("1/cmdline"), vec![b'x'; 1000]).expect("file");
        let read = Reader::new(root.clone()).read((1, "cmdline", LIMIT));
        assert_eq!(read.map(|bytes| bytes.len()), Some(100));
        fs::remove_dir_all(&root).expect("removed");
    }
}
