//! Decodes what the task iterator writes: a pass over all tasks, folded into processes.

use super::BpfError;
use esnode_ebpf::{Account, LeaderRecord, Name, Network, PROTOCOLS, Traffic, flag, mark, record};
use rustc_hash::{FxBuildHasher, FxHashMap};

/// One process, as the iterator met its threads.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of each other"
)]
pub struct TaskProcess {
    /// Process id.
    pub tgid: u32,
    /// Process id of the parent; 0 for those that the kernel made.
    pub parent_tgid: u32,
    /// Start time, nanoseconds on the boot clock.
    pub start_boottime_nanoseconds: u64,
    /// Command name.
    pub name: Name,
    /// The group that it is in.
    pub group: Name,
    /// Number of its control group; `None` if it is not known.
    pub cgroup: Option<u64>,
    /// What the kernel knows the process by.
    pub signal: u64,
    /// Address of its memory, another one after each exec.
    pub memory: u64,
    /// Whether it is a kernel thread.
    pub kernel: bool,
    /// Whether it has ended and waits for its parent.
    pub dead: bool,
    /// Threads that the kernel counted.
    pub threads: u32,
    /// Resident memory in pages.
    pub resident_pages: u64,
    /// CPU and disk of all its threads, the ended ones too.
    pub account: Account,
    /// Its traffic, if it has any.
    pub traffic: Option<Box<TaskTraffic>>,
    /// The part of `account` of threads alive that no group has got yet.
    pub unsettled: Account,
    /// A thread came or went between the visits to this process's threads, so that one may have
    /// been counted twice or not at all in `account`.
    pub torn: bool,
    seen: u32,
    led: bool,
    /// What its ended threads have left was read.
    left: bool,
}

/// Traffic of one process. Few processes have any, so it is kept apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskTraffic {
    /// Of all its threads, the ended ones too.
    pub network: Network,
    /// The part of threads alive that no group has got yet.
    pub unsettled: Network,
}

/// Everything that one pass read.
#[derive(Debug, Default)]
pub struct Pass {
    /// The processes, in order of their lowest thread id.
    pub processes: Vec<TaskProcess>,
    /// Threads that have an entry in the map of threads.
    pub tracked_threads: u64,
    /// Processes that have an entry in the map of processes.
    pub tracked_processes: u64,
}

/// Decodes the records of one pass.
///
/// # Errors
/// [`BpfError::Record`] if the bytes are not what the contract says.
pub fn decode(bytes: &[u8]) -> Result<Pass, BpfError> {
    let most = bytes.len() / size_of::<LeaderRecord>();
    let mut pass = Pass {
        processes: Vec::with_capacity(most),
        ..Pass::default()
    };
    let mut index = FxHashMap::with_capacity_and_hasher(most, FxBuildHasher);
    let mut reader = Reader { bytes, at: 0 };
    while reader.at < bytes.len() {
        reader
            .record(&mut pass, &mut index)
            .ok_or(BpfError::Record {
                at: reader.at,
                len: bytes.len(),
            })?;
    }
    pass.processes.retain_mut(|process| {
        process.torn |= process.seen != process.threads;
        process.led
    });
    Ok(pass)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn record(&mut self, pass: &mut Pass, index: &mut FxHashMap<u32, usize>) -> Option<()> {
        let (kind, tgid) = (self.u32()?, self.u32()?);
        let place = *index.entry(tgid).or_insert_with(|| {
            pass.processes.push(TaskProcess {
                tgid,
                ..TaskProcess::default()
            });
            pass.processes.len() - 1
        });
        let process = pass.processes.get_mut(place)?;
        match kind {
            record::THREAD => pass.tracked_threads += self.thread(process)?,
            record::LEADER => pass.tracked_threads += self.leader(process)?,
            record::THREAD_NETWORK => self.thread_network(process)?,
            record::PROCESS_NETWORK => {
                self.u64()?;
                let left = self.network()?;
                // The first is older than every thread's; see the program.
                if !process.left {
                    process.left = true;
                    pass.tracked_processes += 1;
                    add_network(&mut traffic_of(process).network, &left);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// The rest of a `ThreadRecord`; 1 if the thread is tracked.
    fn thread(&mut self, process: &mut TaskProcess) -> Option<u64> {
        let (threads, flags) = (self.u32()?, self.u32()?);
        let (account, settled) = (self.account()?, self.account()?);
        process.torn |= process.seen > 0 && process.threads != threads;
        process.threads = threads;
        process.seen += 1;
        process.kernel |= flags & flag::KERNEL != 0;
        process.dead |= flags & flag::DEAD != 0;
        add_account(&mut process.account, &account);
        // What is not settled and not paid for will be when the kernel frees the thread.
        if flags & flag::PAID == 0 {
            let due = subtract_account(&account, &settled);
            add_account(&mut process.unsettled, &due);
        }
        Some(u64::from(flags & flag::TRACKED != 0))
    }

    /// The rest of a `LeaderRecord`; 1 if the thread is tracked.
    fn leader(&mut self, process: &mut TaskProcess) -> Option<u64> {
        let tracked = self.thread(process)?;
        add_account(&mut process.account, &self.account()?);
        process.start_boottime_nanoseconds = self.u64()?;
        process.resident_pages = self.u64()?;
        process.name = self.name()?;
        process.group = self.name()?;
        process.cgroup = Some(self.u64()?).filter(|id| *id != 0);
        process.signal = self.u64()?;
        process.memory = self.u64()?;
        process.parent_tgid = self.u32()?;
        self.u32()?;
        process.led = true;
        Some(tracked)
    }

    /// The rest of a `NetworkHeader`, and `network` and `settled_network` of a `ThreadUse`.
    fn thread_network(&mut self, process: &mut TaskProcess) -> Option<()> {
        let marks = self.u64()?;
        let (network, settled) = (self.network()?, self.network()?);
        let traffic = traffic_of(process);
        if marks & mark::LEFT_PROCESS == 0 {
            add_network(&mut traffic.network, &network);
        }
        add_network(
            &mut traffic.unsettled,
            &subtract_network(&network, &settled),
        );
        Some(())
    }

    fn account(&mut self) -> Option<Account> {
        Some(Account {
            cpu_nanoseconds: self.u64()?,
            disk_read_bytes: self.u64()?,
            disk_write_bytes: self.u64()?,
            disk_cancelled_write_bytes: self.u64()?,
        })
    }

    fn network(&mut self) -> Option<Network> {
        let mut network = Network::default();
        for traffic in &mut network {
            *traffic = Traffic {
                receive_bytes: self.u64()?,
                transmit_bytes: self.u64()?,
                receives: self.u64()?,
                transmits: self.u64()?,
            };
        }
        Some(network)
    }

    fn name(&mut self) -> Option<Name> {
        self.take().map(Name::from_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*taken)
    }
}

fn traffic_of(process: &mut TaskProcess) -> &mut TaskTraffic {
    process.traffic.get_or_insert_default()
}

/// Adds one account to another.
pub fn add_account(sum: &mut Account, part: &Account) {
    sum.cpu_nanoseconds += part.cpu_nanoseconds;
    sum.disk_read_bytes += part.disk_read_bytes;
    sum.disk_write_bytes += part.disk_write_bytes;
    sum.disk_cancelled_write_bytes += part.disk_cancelled_write_bytes;
}

/// Adds one set of traffic to another.
pub fn add_network(sum: &mut Network, part: &Network) {
    for (sum, part) in sum.iter_mut().zip(part) {
        sum.receive_bytes += part.receive_bytes;
        sum.transmit_bytes += part.transmit_bytes;
        sum.receives += part.receives;
        sum.transmits += part.transmits;
    }
}

/// `a − b`; 0 where a settlement on another CPU was read after the account it settled.
fn subtract_account(a: &Account, b: &Account) -> Account {
    Account {
        cpu_nanoseconds: a.cpu_nanoseconds.saturating_sub(b.cpu_nanoseconds),
        disk_read_bytes: a.disk_read_bytes.saturating_sub(b.disk_read_bytes),
        disk_write_bytes: a.disk_write_bytes.saturating_sub(b.disk_write_bytes),
        disk_cancelled_write_bytes: a
            .disk_cancelled_write_bytes
            .saturating_sub(b.disk_cancelled_write_bytes),
    }
}

fn subtract_network(a: &Network, b: &Network) -> Network {
    let mut rest = [Traffic::default(); PROTOCOLS];
    for ((rest, a), b) in rest.iter_mut().zip(a).zip(b) {
        *rest = Traffic {
            receive_bytes: a.receive_bytes.saturating_sub(b.receive_bytes),
            transmit_bytes: a.transmit_bytes.saturating_sub(b.transmit_bytes),
            receives: a.receives.saturating_sub(b.receives),
            transmits: a.transmits.saturating_sub(b.transmits),
        };
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Writer(Vec<u8>);

    impl Writer {
        fn u32s(mut self, words: &[u32]) -> Self {
            self.0
                .extend(words.iter().flat_map(|word| word.to_ne_bytes()));
            self
        }

        fn u64s(mut self, words: &[u64]) -> Self {
            self.0
                .extend(words.iter().flat_map(|word| word.to_ne_bytes()));
            self
        }

        fn thread(self, tgid: u32, threads: u32, account: [u64; 4], settled: [u64; 4]) -> Self {
            self.u32s(&[record::THREAD, tgid, threads, flag::TRACKED])
                .u64s(&account)
                .u64s(&settled)
        }

        fn leader(self, tgid: u32, threads: u32, own: [u64; 4], released: [u64; 4]) -> Self {
            let mut written = self
                .u32s(&[record::LEADER, tgid, threads, 0])
                .u64s(&own)
                .u64s(&[0; 4])
                .u64s(&released)
                .u64s(&[77, 12]);
            written.0.extend(b"server\0\0\0\0\0\0\0\0\0\0");
            written.0.extend(b"group\0\0\0\0\0\0\0\0\0\0\0");
            written.u64s(&[55, 66, 0]).u32s(&[1, 0])
        }
    }

    #[test]
    fn threads_fold_into_their_process() {
        let bytes = Writer::default()
            .leader(10, 2, [1, 2, 3, 4], [100, 200, 300, 400])
            .thread(10, 2, [10, 20, 30, 40], [5, 5, 5, 5])
            .0;
        let pass = decode(&bytes).expect("valid");
        let [process] = pass.processes.as_slice() else {
            panic!("one process")
        };
        assert_eq!(
            (process.tgid, process.parent_tgid, process.resident_pages),
            (10, 1, 12)
        );
        assert_eq!(process.start_boottime_nanoseconds, 77);
        assert_eq!(&process.name.to_bytes(), b"server\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&process.group.to_bytes()[..6], b"group\0");
        assert_eq!((process.cgroup, process.signal), (Some(55), 66));
        assert!(!process.torn);
        assert_eq!(pass.tracked_threads, 1);
        assert_eq!(process.account.cpu_nanoseconds, 111);
        assert_eq!(process.account.disk_cancelled_write_bytes, 444);
        assert_eq!(process.unsettled.disk_read_bytes, 2 + 15);
    }

    #[test]
    fn an_ending_thread_without_an_entry_may_have_been_paid_for() {
        let ending = |flags| {
            Writer::default()
                .u32s(&[record::THREAD, 10, 2, flags])
                .u64s(&[5; 4])
                .u64s(&[1; 4])
                .leader(10, 2, [0; 4], [0; 4])
                .0
        };
        let unsettled = |bytes: &[u8]| decode(bytes).expect("valid").processes[0].unsettled;
        assert_eq!(
            unsettled(&ending(flag::EXITING | flag::PAID)).disk_read_bytes,
            0
        );
        assert_eq!(
            unsettled(&ending(flag::EXITING | flag::TRACKED)).disk_read_bytes,
            4
        );
        assert_eq!(unsettled(&ending(flag::EXITING)).disk_read_bytes, 4);
    }

    #[test]
    fn a_missing_thread_is_noticed() {
        let bytes = Writer::default().leader(10, 2, [0; 4], [0; 4]).0;
        assert!(decode(&bytes).expect("valid").processes[0].torn);
    }

    #[test]
    fn traffic_of_a_thread_that_left_counts_once() {
        let traffic: Vec<u64> = (1..=16).collect();
        let bytes = Writer::default()
            .leader(10, 1, [0; 4], [0; 4])
            .u32s(&[record::PROCESS_NETWORK, 10])
            .u64s(&[0])
            .u64s(&traffic)
            .u32s(&[record::THREAD_NETWORK, 10])
            .u64s(&[1])
            .u64s(&traffic)
            .u64s(&[0; 16])
            .0;
        let pass = decode(&bytes).expect("valid");
        let traffic = pass.processes[0].traffic.as_ref().expect("has traffic");
        assert_eq!(traffic.network[0].receive_bytes, 1);
        assert_eq!(traffic.unsettled[3].transmits, 16);
        assert_eq!(pass.tracked_processes, 1);
    }

    #[test]
    fn threads_without_a_leader_are_not_a_process() {
        let bytes = Writer::default().thread(9, 1, [1; 4], [0; 4]).0;
        assert!(decode(&bytes).expect("valid").processes.is_empty());
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = Writer::default().leader(10, 1, [0; 4], [0; 4]).0;
        for length in 1..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
        assert!(decode(&99_u32.to_ne_bytes().repeat(40)).is_err());
    }
}
