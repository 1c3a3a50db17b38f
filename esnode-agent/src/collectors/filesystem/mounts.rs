//! The list of mounts, `/proc/PID/mounts` (proc_pid_mounts(5), fstab(5)).

use crate::{collectors::filter::DeviceFilter, error::ParseError};
use std::{collections::HashSet, ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Such as `/dev/sda1` or `server:/export`.
    pub(super) device: String,
    /// Where it's mounted, as its own namespace sees it.
    pub(super) point: String,
    /// Such as `ext4`.
    pub(super) fstype: String,
    pub(super) read_only: bool,
    /// The mount point as the agent reaches it.
    pub(super) path: PathBuf,
}

/// The mounts that are shown, and what is wrong with the first line that has a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    pub(super) fault: Option<ParseError>,
}

/// Which mounts are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct MountFilter {
    /// By mount points.
    pub(super) points: DeviceFilter,
    /// By types of filesystems.
    pub(super) types: DeviceFilter,
}

/// The columns of a line that matter, as the kernel escapes them.
struct Line<'a> {
    device: &'a [u8],
    point: &'a [u8],
    fstype: &'a [u8],
    options: &'a [u8],
}

/// Parses the list. `root` stands before the mount points to reach them.
///
/// A line that can't be parsed takes away nothing but itself.
pub(super) fn parse(list: &[u8], root: &[u8], filter: &MountFilter) -> Mounts {
    let lines = list.strip_suffix(b"\n").unwrap_or(list);
    let lines = lines.split(|byte| *byte == b'\n');
    let mut parsed = Mounts::default();
    if list.is_empty() {
        return parsed;
    }
    // What is mounted at a point covers what was mounted there before, and alone is reached by it.
    let mut covered = HashSet::new();
    let numbered: Vec<_> = (1..).zip(lines).collect();
    for (number, line) in numbered.into_iter().rev() {
        let mount = parse_line(number, line).and_then(|line| {
            if covered.insert(line.point) {
                line.mount(number, root, filter)
            } else {
                Ok(None)
            }
        });
        match mount {
            Ok(mount) => parsed.mounts.extend(mount),
            // Of several, the first line is told.
            Err(fault) => parsed.fault = Some(fault),
        }
    }
    parsed.mounts.reverse();
    parsed
}

/// Columns are parted by one space each; spaces in them are escaped. The device may be empty.
fn parse_line(number: usize, line: &[u8]) -> Result<Line<'_>, ParseError> {
    let expected = |what| move || ParseError::new(number, what);
    let mut columns = line.split(|byte| *byte == b' ');
    let mut next = || columns.next().filter(|column| !column.is_empty());
    let point = |column: &&[u8]| column.starts_with(b"/");
    Ok(Line {
        device: next().unwrap_or_default(),
        point: next().filter(point).ok_or_else(expected("a mount point"))?,
        fstype: next().ok_or_else(expected("the type of a filesystem"))?,
        options: next().ok_or_else(expected("the options of a mount"))?,
    })
}

impl Line<'_> {
    /// The mount, if it's shown.
    fn mount(
        &self,
        number: usize,
        root: &[u8],
        filter: &MountFilter,
    ) -> Result<Option<Mount>, ParseError> {
        let fstype = unescape(self.fstype);
        if !filter.types.shows(&String::from_utf8_lossy(&fstype)) {
            return Ok(None);
        }
        let point = unescape(self.point);
        if !filter.points.shows(&String::from_utf8_lossy(&point)) {
            return Ok(None);
        }
        let text = |bytes, what: &str| {
            let expected = |_| ParseError::new(number, format!("{what} in UTF-8"));
            String::from_utf8(bytes).map_err(expected)
        };
        let path = OsString::from_vec([root, &point].concat());
        Ok(Some(Mount {
            device: text(unescape(self.device), "a device")?,
            point: text(point, "a mount point")?,
            fstype: text(fstype, "the type of a filesystem")?,
            read_only: self
                .options
                .split(|byte| *byte == b',')
                .any(|it| it == b"ro"),
            path: path.into(),
        }))
    }
}

/// Three octal digits behind a backslash are a byte (`mangle_path` of fs/seq_file.c): space, tab,
/// newline, backslash, and `#` of devices.
fn unescape(column: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(column.len());
    let mut rest = column;
    loop {
        rest = match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                tail
            }
            [] => return bytes,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(points: &str, types: &str) -> MountFilter {
        MountFilter {
            points: DeviceFilter::new(None, None, points),
            types: DeviceFilter::new(None, None, types),
        }
    }

    /// The mounts of a list, nothing filtered, with their devices and types.
    fn seen(list: &[u8]) -> (Vec<[String; 3]>, Option<ParseError>) {
        let Mounts { mounts, fault } = parse(list, b"", &MountFilter::default());
        let names = |it: Mount| [it.device, it.point, it.fstype];
        (mounts.into_iter().map(names).collect(), fault)
    }

    #[test]
    fn columns_of_a_mount() {
        let list = b"/dev/sda1 / ext4 rw,relatime,errors=remount-ro 0 0\n\
            nas:/a\\040b /mnt/a nfs4 ro,vers=4.2 0 0\n";
        let Mounts { mounts, fault } = parse(list, b"/proc/1/root", &MountFilter::default());
        assert_eq!(fault, None);
        let [root, nas] = &mounts[..] else {
            panic!("{mounts:?}");
        };
        assert_eq!(
            (root.path.as_os_str(), root.read_only),
            ("/proc/1/root/".as_ref(), false)
        );
        let expected = Mount {
            device: "nas:/a b".to_owned(),
            point: "/mnt/a".to_owned(),
            fstype: "nfs4".to_owned(),
            read_only: true,
            path: "/proc/1/root/mnt/a".into(),
        };
        assert_eq!(*nas, expected);
        assert_eq!(parse(b"", b"", &MountFilter::default()), Mounts::default());
    }

    #[test]
    fn escapes_are_undone() {
        for (column, text) in [
            (r"/a\040b\011c\012d\134e", "/a b\tc\nd\\e"),
            (r"/\134040", r"/\040"),
            (r"/\043\000\377", "/#\0\u{fffd}"),
            // The kernel writes none of these.
            (r"/\04", r"/\04"),
            (r"/\", r"/\"),
            (r"/\400\08", r"/\400\08"),
        ] {
            let bytes = unescape(column.as_bytes());
            assert_eq!(String::from_utf8_lossy(&bytes), text, "{column}");
        }
    }

    #[test]
    fn a_device_may_have_no_name() {
        let (mounts, fault) = seen(b" /mnt tmpfs rw 0 0\n");
        assert_eq!(
            (mounts, fault),
            (vec![["", "/mnt", "tmpfs"].map(str::to_owned)], None)
        );
    }

    #[test]
    fn what_is_mounted_last_covers_the_rest() {
        let list = b"rootfs / rootfs rw 0 0\n/dev/a / ext4 rw 0 0\nauto /m autofs rw 0 0\n\
            tmpfs /t tmpfs rw 0 0\nnas:/m /m nfs rw 0 0\n";
        let (mounts, _) = seen(list);
        let devices: Vec<_> = mounts.iter().map(|[device, ..]| device).collect();
        assert_eq!(devices, ["/dev/a", "tmpfs", "nas:/m"]);
    }

    #[test]
    fn what_is_covered_is_not_shown_in_place_of_what_covers_it() {
        let list = b"tmpfs /t tmpfs rw 0 0\noverlay /t overlay rw 0 0\n";
        let mounts = parse(list, b"", &filter("^$", "^overlay$")).mounts;
        assert_eq!(mounts, []);
    }

    #[test]
    fn a_bad_line_takes_away_itself_alone() {
        let good = b"/dev/a / ext4 rw 0 0\n";
        for (line, expected) in [
            (&b""[..], "a mount point"),
            (b"/dev/b", "a mount point"),
            (b"/dev/b mnt ext4 rw 0 0", "a mount point"),
            (b"/dev/b  /mnt ext4 rw 0 0", "a mount point"),
            (b"/dev/b /m", "the type of a filesystem"),
            (b"/dev/b /m ", "the type of a filesystem"),
            (b"/dev/b /m ext4", "the options of a mount"),
            (b"/dev/b /m\xff ext4 rw 0 0", "a mount point in UTF-8"),
            (b"/dev/b /m\\377 ext4 rw 0 0", "a mount point in UTF-8"),
            (b"/dev/\xc3 /m ext4 rw 0 0", "a device in UTF-8"),
            (
                b"/dev/b /m ext\xfe rw 0 0",
                "the type of a filesystem in UTF-8",
            ),
        ] {
            let list = [&good[..], line, b"\n/dev/c /c ext4 rw 0 0\nx\n"].concat();
            let (mounts, fault) = seen(&list);
            let points: Vec<_> = mounts.iter().map(|[_, point, _]| point).collect();
            assert_eq!(points, ["/", "/c"], "{}", line.escape_ascii());
            assert_eq!(
                fault,
                Some(ParseError::new(2, expected)),
                "{}",
                line.escape_ascii()
            );
        }
    }

    #[test]
    fn what_is_not_shown_may_have_any_name() {
        let filter = filter("^/run/", "^proc$");
        let list = b"a /run/\xff tmpfs rw 0 0\nb /\xff proc rw 0 0\n";
        assert_eq!(parse(list, b"", &filter), Mounts::default());
    }

    #[test]
    fn nothing_panics() {
        // A generator of Knuth's, so that every run tries the same.
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        };
        let alphabet = b" /\\\n\t0147,ro\xff\xc3\xa4";
        for _ in 0..20_000 {
            let length = next() % 60;
            let byte = |_| alphabet[usize::try_from(next()).expect("small") % alphabet.len()];
            let list: Vec<u8> = (0..length).map(byte).collect();
            let lines = list.split(|byte| *byte == b'\n').count();
            let parsed = parse(&list, b"/r", &MountFilter::default());
            assert!(parsed.mounts.len() <= lines);
            assert!(
                parsed
                    .fault
                    .is_none_or(|fault| (1..=lines).contains(&fault.line))
            );
        }
    }
}
