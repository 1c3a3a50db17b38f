//! What a process used itself, by what its threads tell.

use super::Live;
use crate::process::{Disk, Usage};

/// What a process used itself, without the network, which is booked elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    cpu_nanoseconds: u64,
    disk: Option<Disk>,
}

impl Own {
    pub(super) fn of(usage: &Usage) -> Self {
        Self {
            cpu_nanoseconds: usage.cpu_nanoseconds,
            disk: usage.disk,
        }
    }

    pub(super) fn usage(self) -> Usage {
        Usage {
            cpu_nanoseconds: self.cpu_nanoseconds,
            disk: self.disk,
            network: None,
        }
    }

    /// Nothing, of all that is known there.
    pub(super) fn nothing(usage: &Usage) -> Self {
        Self::of(&usage.nothing())
    }

    pub(super) fn add(&mut self, part: &Usage) {
        let mut sum = self.usage();
        sum.add(part);
        *self = Self::of(&sum);
    }
}

/// The account of a process whose threads tell what they used when they end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Of threads that ended before anyone listened.
    base: Own,
    /// Of threads that ended since.
    ended: Own,
    /// What of all was booked.
    booked: Own,
    /// Whether a thread ended since.
    told: bool,
}

impl Kept {
    /// Of a process all of whose ended threads were heard of.
    pub(super) fn young(total: &Usage, ended: Option<Own>, live: &Live) -> Self {
        let nothing = Own::nothing(total);
        let mut kept = Self {
            base: nothing,
            ended: nothing,
            booked: Own::of(total),
            told: false,
        };
        if let Some(ended) = ended {
            kept.ended.add(&ended.usage());
        }
        kept.booked.disk = match live {
            Live::Used(live) if live.disk.is_some() => kept.with(live).disk_within(total),
            Live::Used(_) | Live::Unreadable => total.disk,
            Live::Gone => kept.ended.disk,
        };
        kept
    }

    /// Of a process that is older than the listening: what is not its live threads' is that of
    /// ended threads and children.
    pub(super) fn old(total: &Usage, live: &Live) -> Self {
        let nothing = Own::nothing(total);
        Self {
            base: match live {
                Live::Used(live) => Own::of(&total.beyond(live)),
                Live::Unreadable | Live::Gone => nothing,
            },
            ended: nothing,
            booked: Own::of(total),
            told: false,
        }
    }

    /// What was booked of it so far.
    pub(super) fn booked(&self) -> Usage {
        self.booked.usage()
    }

    /// All that the process used itself, with what its live threads did.
    pub(super) fn with(&self, live: &Usage) -> Usage {
        let mut own = self.base.usage();
        own.add(&self.ended.usage());
        own.add(live);
        own
    }

    /// Books what it used by now; gives what was not booked yet.
    pub(super) fn book(&mut self, own: &Usage) -> Usage {
        let mut booked = self.booked.usage();
        let due = own.beyond(&booked);
        booked.raise_to(own);
        self.booked = Own::of(&booked);
        self.told = false;
        due
    }

    /// A thread of it ended.
    pub(super) fn end_thread(&mut self, usage: &Usage) {
        self.ended.add(usage);
        self.told = true;
    }

    /// Whether a thread ended since it was booked.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// What is to be booked when all its threads have ended.
    pub(super) fn rest(&self) -> Usage {
        let mut total = self.base.usage();
        total.add(&self.ended.usage());
        total.beyond(&self.booked.usage())
    }
}
