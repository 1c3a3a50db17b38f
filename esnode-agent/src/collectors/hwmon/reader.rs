//! The thread that reads sensors. A sensor can take long (an NVMe drive, a meter behind IPMI or
//! I²C: up to 100 ms) and a broken one for ever, which nothing but another thread can leave alone.
//!
//! A pass is asked for by each scrape and by nothing else. It reads the chips in the order of how
//! long they took before. The scrape waits for those that are quick together; the others are read
//! behind its back, and the next scrape has what they said. A thread that is stuck with a chip is
//! left to it: another one takes its place and leaves out the chip until the first comes back.

use super::{
    chip::{Chip, Place, distinguish},
    shared::{Dismissed, Reading, Shared, State},
    values::{self, Values},
};
use crate::page::Names;
use std::{
    io,
    sync::{Arc, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tracing::warn;

/// The chips that are read within this time of a pass are waited for.
const QUICK: Duration = Duration::from_millis(5);

/// Names, labels and limits are looked up again after this time.
const LOOKED_UP: Duration = Duration::from_mins(1);

/// What the thread needs is little.
const STACK_BYTES: usize = 128 * 1024;

/// The other end of the thread; without it, that ends.
pub(super) struct Reader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    names: Names,
    /// A chip that takes longer does not answer.
    patience: Duration,
}

impl Reader {
    /// No thread is started before something is asked for.
    pub(super) fn new(names: Names, patience: Duration) -> Self {
        Self {
            shared: Arc::default(),
            thread: None,
            names,
            patience,
        }
    }

    /// Has the chips at these places read; waits for the quick ones, but for `wait` at most. Gives
    /// what is known of all, in their order.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(super) fn read(
        &mut self,
        places: Vec<Place>,
        wait: Duration,
    ) -> io::Result<Vec<Option<Reading>>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        state.set_places(places);
        self.attend(&mut state)?;
        state.asked += 1;
        let asked = state.asked;
        shared.changed.notify_all();
        let state = shared
            .changed
            .wait_timeout_while(state, wait, |state| state.served < asked)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let readings = state.chips.iter().map(|(_, reading)| reading.clone());
        Ok(readings.collect())
    }

    /// Starts a thread if there is none, or if it is stuck.
    fn attend(&mut self, state: &mut State) -> io::Result<()> {
        if let Some(place) = state.give_up(self.patience) {
            warn!(
                chip = %place.folder.display(),
                "does not answer: its sensors are left out until it does"
            );
            self.thread = None;
        }
        // After a panic there is none, which would be a defect.
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (shared, names) = (Arc::clone(&self.shared), self.names);
            let number = state.put_in_charge();
            let thread = thread::Builder::new()
                .name("hwmon".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || serve(&shared, number, names))?;
            self.thread = Some(thread);
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
    }
}

/// A chip as the thread knows it.
struct Known {
    place: Place,
    chip: Arc<Chip>,
    /// The last values since it was looked up.
    values: Option<Arc<Values>>,
    took: Duration,
}

/// The thread.
fn serve(shared: &Shared, thread: u64, names: Names) {
    let mut known: Vec<Known> = Vec::new();
    let mut looked_up = Instant::now();
    let mut served = 0;
    let mut pass = || -> Result<(), Dismissed> {
        let (number, places) = shared.next(thread, served)?;
        let same = known.len() == places.len()
            && places
                .iter()
                .all(|place| known.iter().any(|it| it.place == *place));
        if !same {
            known = look_up(shared, thread, names, &places, &known)?;
            looked_up = Instant::now();
        }
        read(shared, thread, number, &mut known)?;
        if looked_up.elapsed() > LOOKED_UP {
            known = look_up(shared, thread, names, &places, &known)?;
            looked_up = Instant::now();
        }
        served = number;
        Ok(())
    };
    while pass().is_ok() {}
}

/// Looks all chips up anew; how long they took is kept.
fn look_up(
    shared: &Shared,
    thread: u64,
    names: Names,
    places: &[Place],
    before: &[Known],
) -> Result<Vec<Known>, Dismissed> {
    let mut chips = Vec::with_capacity(places.len());
    for place in places {
        let chip = shared.with(thread, place, || Chip::look_up(&place.folder, names))?;
        chips.push((place.clone(), chip));
    }
    distinguish(&mut chips);
    let known = chips.into_iter().map(|(place, chip)| Known {
        took: before
            .iter()
            .find(|it| it.place == place)
            .map(|it| it.took)
            .unwrap_or_default(),
        place,
        chip: Arc::new(chip),
        values: None,
    });
    Ok(known.collect())
}

/// Reads all chips, the quick ones first.
fn read(shared: &Shared, thread: u64, pass: u64, known: &mut [Known]) -> Result<(), Dismissed> {
    let begun = Instant::now();
    known.sort_by_key(|chip| chip.took);
    for chip in known {
        if begun.elapsed() + chip.took > QUICK {
            shared.served(pass);
        }
        let at = Instant::now();
        let before = chip.values.as_deref();
        let values = shared.with(thread, &chip.place, || values::read(&chip.chip, before))?;
        chip.took = at.elapsed();
        let values = values.map(Arc::new);
        chip.values = values.as_ref().ok().map(Arc::clone);
        let reading = Reading {
            chip: Arc::clone(&chip.chip),
            values,
            at,
        };
        shared.lock().set(&chip.place, Some(reading));
    }
    shared.served(pass);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{chip::places, fixture::*},
        *,
    };
    use crate::collectors::fixture::Host;
    use std::{
        fs::{self, OpenOptions},
        path::PathBuf,
    };

    const LONG: Duration = Duration::from_secs(30);

    /// A host whose first chip has a sensor that does not answer, and its second one does.
    fn host() -> (Host, PathBuf) {
        let host = Host::new(&[]);
        let silent = TestChip {
            files: &[("name", "slow")],
            ..POWER_METER
        };
        add(&host, 0, &silent);
        add(&host, 1, &JC42);
        let file = add_silent_file(&host, "class/hwmon/hwmon0/temp1_input");
        (host, file)
    }

    /// First values of both chips.
    fn read(reader: &mut Reader, host: &Host, wait: Duration) -> [Option<f64>; 2] {
        let places = places(&host.sysfs().join("class/hwmon")).expect("listed");
        let readings = reader.read(places, wait).expect("a thread");
        let first = |reading: &Reading| *reading.values.as_ref().ok()?.first()?.first()?;
        let values: Vec<_> = readings
            .iter()
            .map(|reading| reading.as_ref().and_then(first))
            .collect();
        values.try_into().expect("two chips")
    }

    /// Answers, but not quickly.
    fn answer(file: &PathBuf, text: &str) {
        thread::sleep(2 * QUICK);
        fs::write(file, text).expect("written");
    }

    #[test]
    fn what_is_slow_is_told_by_the_next_scrape() {
        let (host, file) = host();
        let mut reader = Reader::new(Names::Own, LONG);
        let begun = Instant::now();
        let unknown = read(&mut reader, &host, 4 * QUICK);
        assert_eq!(unknown, [None, None]);
        assert!(begun.elapsed() < LONG / 2, "it was waited for");
        answer(&file, "42000\n");
        // The slow one, which is last now, is asked again and not waited for.
        assert_eq!(
            read(&mut reader, &host, LONG),
            [Some(42000.0), Some(33500.0)]
        );
        host.write("sys/class/hwmon/hwmon1/temp1_input", "34000\n");
        answer(&file, "43000\n");
        assert_eq!(
            read(&mut reader, &host, LONG),
            [Some(43000.0), Some(34000.0)]
        );
        answer(&file, "44000\n");
    }

    #[test]
    fn who_does_not_answer_is_left_out_until_it_does() {
        let (host, file) = host();
        let patience = Duration::from_millis(500);
        let mut reader = Reader::new(Names::Own, patience);
        assert_eq!(
            read(&mut reader, &host, Duration::from_millis(20)),
            [None, None]
        );
        thread::sleep(patience + QUICK);
        let others = [None, Some(33500.0)];
        assert_eq!(read(&mut reader, &host, LONG), others);
        assert_eq!(read(&mut reader, &host, LONG), others);
        assert_eq!(reader.shared.lock().thread, 2);
        // The old thread gets an answer, which is too late. The next one is not.
        let late = OpenOptions::new().write(true).open(&file).expect("opened");
        fs::remove_file(&file).expect("removed");
        answer(&file, "42000\n");
        drop(late);
        let begun = Instant::now();
        while read(&mut reader, &host, LONG) != [Some(42000.0), Some(33500.0)] {
            assert!(begun.elapsed() < LONG, "it did not come back");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(reader.shared.lock().thread, 2);
    }

    #[test]
    fn nothing_is_read_without_a_scrape_and_the_thread_ends() {
        let host = Host::new(&[]);
        add(&host, 0, &JC42);
        add(&host, 1, &NVME);
        let mut reader = Reader::new(Names::Own, LONG);
        assert!(reader.thread.is_none());
        assert_eq!(read(&mut reader, &host, LONG), [Some(33500.0), Some(0.0)]);
        let thread = reader.thread.take().expect("started");
        let shared = Arc::clone(&reader.shared);
        drop(reader);
        thread.join().expect("ended");
        assert_eq!(shared.lock().asked, 1);
    }
}
