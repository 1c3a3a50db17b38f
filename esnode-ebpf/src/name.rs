//! Command names.

/// Length of a command name in the kernel (`TASK_COMM_LEN`), NUL included.
pub const NAME_LEN: usize = 16;

/// A command name; the bytes are whatever the process chose.
///
/// Kept as two words, in memory order: a BPF program handles 16 single bytes badly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Name([u64; 2]);

impl Name {
    /// No name at all.
    pub const EMPTY: Self = Self([0; 2]);

    /// From the bytes as the kernel holds them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; NAME_LEN]) -> Self {
        let mut name = Self::EMPTY;
        let (words, _) = bytes.as_chunks();
        for (to, from) in name.0.iter_mut().zip(words) {
            *to = u64::from_ne_bytes(*from);
        }
        name
    }

    /// The bytes as the kernel holds them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; NAME_LEN] {
        let mut bytes = [0; NAME_LEN];
        let (words, _) = bytes.as_chunks_mut();
        for (to, from) in words.iter_mut().zip(self.0) {
            *to = from.to_ne_bytes();
        }
        bytes
    }

    /// The group of a process with this command name: the name up to its end, padded with
    /// zeros (older kernels leave remains of longer names behind the end).
    ///
    /// Kernel threads are one of many per CPU or device (`kworker/3:1`, `ksoftirqd/3`): their
    /// group is the part of the name before the slash.
    #[inline(always)]
    #[must_use]
    pub fn group(self, kernel_thread: bool) -> Self {
        let [first, second] = self.0;
        let keep = keep_mask(first, kernel_thread);
        let second = if keep == u64::MAX {
            second & keep_mask(second, kernel_thread)
        } else {
            0
        };
        Self([first & keep, second])
    }

    /// The group of a control group, by the number that the kernel has for it. No command name is
    /// the same: what follows the end of a name is zero.
    #[inline(always)]
    #[must_use]
    pub const fn of_cgroup(id: u64) -> Self {
        Self([tag(b'c'), id])
    }

    /// The number of the control group, if this is the group of one.
    #[must_use]
    pub const fn cgroup(self) -> Option<u64> {
        let [tagged, id] = self.0;
        if tagged == tag(b'c') { Some(id) } else { None }
    }

    /// A group that the agent numbers.
    #[must_use]
    pub const fn of_number(number: u64) -> Self {
        Self([tag(b'n'), number])
    }

    /// The group of a single process, until it is known which one it is in.
    #[must_use]
    pub const fn of_process(pid: u32, start_nanoseconds: u64) -> Self {
        Self([
            tag(b'p') | u64::from_le((pid as u64) << 32),
            start_nanoseconds,
        ])
    }

    /// Whether this is a command name, and not one of the above.
    #[must_use]
    pub const fn is_command(self) -> bool {
        self.0[0].to_le() & 0xff != 0 || self.is_empty()
    }

    /// Whether there is no name.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0[0] == 0
    }
}

/// First word of what is no command name: a zero, and then a letter.
const fn tag(letter: u8) -> u64 {
    u64::from_le((letter as u64) << 8)
}

/// Mask of the bytes of a word before the first zero (or slash). Without a branch per byte,
/// each of which the BPF verifier would follow both ways.
#[inline(always)]
fn keep_mask(word: u64, slash_too: bool) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The classic test for a zero byte: the lowest bit it sets is always right.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let word = u64::from_le(word);
    let mut ends = zeros(word);
    if slash_too {
        ends |= zeros(word ^ (ONES * u64::from(b'/')));
    }
    let first_end = ends & ends.wrapping_neg();
    u64::from_le((first_end >> 7).wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &[u8; NAME_LEN], kernel_thread: bool) -> [u8; NAME_LEN] {
        Name::from_bytes(*name).group(kernel_thread).to_bytes()
    }

    #[test]
    fn kernel_threads_are_grouped_before_the_slash() {
        assert_eq!(
            &group(b"kworker/3:1H\0\0\0\0", true),
            b"kworker\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &group(b"kworker/3:1H\0\0\0\0", false),
            b"kworker/3:1H\0\0\0\0"
        );
        assert_eq!(
            &group(b"migration/0\0\0\0\0\0", true),
            b"migration\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &group(b"irq/24-nvme0q0\0\0", true),
            b"irq\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn groups_of_other_kinds_are_no_command_names() {
        for other in [
            Name::of_cgroup(0),
            Name::of_number(0),
            Name::of_process(0, 0),
            Name::of_process(u32::MAX, 7),
        ] {
            assert!(!other.is_command() && !other.is_empty());
            assert_eq!(other.to_bytes()[0], 0);
        }
        assert!(Name::EMPTY.is_command());
        assert!(Name::from_bytes(*b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0").is_command());
        assert_eq!(Name::of_cgroup(77).cgroup(), Some(77));
        assert_eq!(Name::of_number(77).cgroup(), None);
        assert_ne!(Name::of_process(1, 7), Name::of_process(2, 7));
    }

    #[test]
    fn nothing_follows_the_end_of_a_name() {
        assert_eq!(
            &group(b"sh\0garbage......", false),
            b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &group(b"12345678\0garbage", false),
            b"12345678\0\0\0\0\0\0\0\0"
        );
        assert_eq!(&group(b"123456789abcdef\0", false), b"123456789abcdef\0");
        assert_eq!(
            &group(b"\xff\x01\x80 \n\"\\\0\0\0\0\0\0\0\0\0", false),
            b"\xff\x01\x80 \n\"\\\0\0\0\0\0\0\0\0\0"
        );
    }
}
