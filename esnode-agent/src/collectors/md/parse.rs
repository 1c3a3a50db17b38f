//! Parses `/proc/mdstat`: a line that names the array and its devices, then indented lines on its
//! size, on what goes over it, and on its bitmap.

use super::{Array, Disks, STATES, Sync};
use crate::error::ParseError;

/// What stands before and after the arrays.
const OTHER_LINES: [&str; 2] = ["Personalities", "unused devices"];

/// What goes over an array, by the kernel's word for it and ours, which is one of [`STATES`].
const SYNCS: [(&str, &str); 4] = [
    ("recovery", "recovering"),
    ("resync", "resync"),
    ("check", "check"),
    ("reshape", "reshape"),
];

/// Levels that keep everything once. They have no word on how many devices are active, as all are.
const WITHOUT_REDUNDANCY: [&str; 2] = ["raid0", "linear"];

pub(super) fn parse(text: &str) -> Result<Vec<Array>, ParseError> {
    let mut arrays: Vec<Array> = Vec::new();
    // The array whose size is to come, and its line.
    let mut begun: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || OTHER_LINES.iter().any(|start| line.starts_with(start)) {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            ended(begun.take())?;
            let array = parse_array(number, line)?;
            let has_devices = line.split_ascii_whitespace().any(is_device);
            begun = has_devices.then(|| (number, array.name.clone()));
            arrays.push(array);
            continue;
        }
        let array = arrays.last_mut();
        let array = array.ok_or_else(|| ParseError::new(number, "the name of an array"))?;
        if begun.take().is_some() {
            parse_size(number, line, array)?;
        } else if let Some(sync) = parse_sync(number, line)? {
            array.sync = Some(sync);
        }
    }
    ended(begun)?;
    Ok(arrays)
}

/// An array with devices tells its size.
fn ended(begun: Option<(usize, String)>) -> Result<(), ParseError> {
    match begun {
        Some((number, name)) => {
            let expected = format!("the blocks of {name} in the next line");
            Err(ParseError::new(number, expected))
        }
        None => Ok(()),
    }
}

/// `md0 : active (read-only) raid1 sdb1[1](F) sda1[0]`.
fn parse_array(number: usize, line: &str) -> Result<Array, ParseError> {
    let (name, rest) = line
        .split_once(" :")
        .ok_or_else(|| ParseError::new(number, "the name of an array and a colon"))?;
    let word = rest.split_ascii_whitespace().next();
    let word = word.ok_or_else(|| ParseError::new(number, format!("the state of {name}")))?;
    let devices = || rest.split_ascii_whitespace().filter(|word| is_device(word));
    let marked = |mark: &str| count(devices().filter(|device| device.contains(mark)));
    let level = |word: &str| WITHOUT_REDUNDANCY.contains(&word);
    let all = rest.split_ascii_whitespace().any(level).then(|| Disks {
        required: count(devices()),
        active: count(devices()),
        redundant: false,
    });
    Ok(Array {
        name: name.to_owned(),
        activity: STATES.into_iter().find(|state| *state == word),
        sync: None,
        disks: all,
        failed: marked("(F)"),
        spare: marked("(S)"),
        blocks: None,
    })
}

/// `sdb1[1](F)`.
fn is_device(word: &str) -> bool {
    word.find('[').is_some_and(|place| place > 0)
}

fn count<'a>(words: impl Iterator<Item = &'a str>) -> u64 {
    words.map(|_| 1).sum()
}

/// `1953382464 blocks super 1.2 level 5, 64k chunk, algorithm 2 [3/2] [U_U]`.
fn parse_size(number: usize, line: &str, array: &mut Array) -> Result<(), ParseError> {
    let mut words = line.split_ascii_whitespace();
    let blocks = words.next().and_then(|word| word.parse().ok());
    let blocks = blocks.filter(|_| words.next() == Some("blocks"));
    array.blocks = Some(blocks.ok_or_else(|| {
        let expected = format!("the blocks of {}, such as 1000 blocks", array.name);
        ParseError::new(number, expected)
    })?);
    let of_devices = words.find(|word| word.starts_with('[') && word.contains('/'));
    if let (Some(word), None) = (of_devices, array.disks)
        && array.activity != Some("inactive")
    {
        let disks = pair(word, '[', ']')
            .ok_or_else(|| ParseError::new(number, "devices and active ones, such as [2/1]"))?;
        array.disks = Some(Disks {
            required: disks.0,
            active: disks.1,
            redundant: true,
        });
    }
    Ok(())
}

/// `[==>..]  recovery = 12.6% (37043392/292945152) finish=127.5min speed=33440K/sec`, `resync=PENDING`,
/// or a line on something else.
fn parse_sync(number: usize, line: &str) -> Result<Option<Sync>, ParseError> {
    let mut words = line.split_ascii_whitespace();
    let sync = words.find_map(|word| {
        let (word, waits) = match word.split_once('=') {
            Some((word, _)) => (word, true),
            None => (word, false),
        };
        let (_, state) = SYNCS.into_iter().find(|(name, _)| *name == word)?;
        Some((state, waits))
    });
    let Some((state, waits)) = sync else {
        return Ok(None);
    };
    if waits {
        return Ok(Some(Sync { state, done: None }));
    }
    let done = words.find_map(|word| pair(word, '(', ')'));
    let done = done.ok_or_else(|| {
        ParseError::new(
            number,
            "blocks that are done, and all of them, such as (1/2)",
        )
    })?;
    Ok(Some(Sync {
        state,
        done: Some(done),
    }))
}

/// Two numbers with a slash between.
fn pair(word: &str, open: char, close: char) -> Option<(u64, u64)> {
    let word = word.strip_prefix(open)?.strip_suffix(close)?;
    let (first, second) = word.split_once('/')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Array {
        let mut arrays = parse(text).expect("valid");
        assert_eq!(arrays.len(), 1, "{arrays:?}");
        arrays.remove(0)
    }

    #[test]
    fn devices_and_what_they_are() {
        let array = only(
            "Personalities : [raid6] [raid5] [raid4] \n\
             md7 : active (auto-read-only) raid6 sdb1[0] sde1[3] sdd1[2](W) sdc1[1](F) sdf1[4](S)\n      \
             7813735424 blocks super 1.2 level 6, 512k chunk, algorithm 2 [4/3] [U_UU]\n      \
             bitmap: 0/30 pages [0KB], 65536KB chunk\n\n\
             unused devices: <none>\n",
        );
        let expected = Array {
            name: "md7".to_owned(),
            activity: Some("active"),
            sync: None,
            disks: Some(Disks {
                required: 4,
                active: 3,
                redundant: true,
            }),
            failed: 1,
            spare: 1,
            blocks: Some(7_813_735_424),
        };
        assert_eq!(array, expected);
    }

    #[test]
    fn what_goes_over_an_array() {
        let of = |line: &str| {
            let text = format!(
                "md_d1 : active raid1 sdb[1] sda[0]\n      9 blocks [2/2] [UU]\n      {line}\n      \
                 bitmap: 1/1 pages [4KB], 65536KB chunk\n"
            );
            only(&text).sync.expect("one")
        };
        let running = "[=>...]  check =  5.7% (4/9) finish=0.2min speed=114176K/sec";
        for (line, state, done) in [
            (running.to_owned(), "check", Some((4, 9))),
            (running.replace("check", "reshape"), "reshape", Some((4, 9))),
            (running.replace("check", "resync"), "resync", Some((4, 9))),
            (
                running.replace("check =  5", "recovery =100"),
                "recovering",
                Some((4, 9)),
            ),
            ("\tresync=PENDING".to_owned(), "resync", None),
            ("recovery=DELAYED".to_owned(), "recovering", None),
        ] {
            assert_eq!(of(&line), Sync { state, done }, "{line}");
        }
    }

    #[test]
    fn levels_without_redundancy_and_arrays_without_devices() {
        let linear = only("md9 : broken linear sdc2[1] sdd2[0]\n      5 blocks 0k rounding\n");
        assert_eq!(linear.activity, Some("broken"));
        let disks = linear.disks.expect("known");
        assert_eq!((disks.required, disks.redundant), (2, false));
        let inactive = only("md4 : inactive sda3[0](F) sdb3[1](S)\n      5 blocks [2/2] [UU]\n");
        assert_eq!(inactive.disks, None);
        assert_eq!((inactive.failed, inactive.spare), (1, 1));
        // The kernel writes no blocks then, nor the end of the line before them.
        let empty = only("md5 : active raid1 super 1.2 [2/0] [__]\n      \n");
        assert_eq!((empty.blocks, empty.disks), (None, None));
        let other = only("md6 : frozen raid1 sda[0]\n      5 blocks [2/1] [U_]\n");
        assert_eq!(other.activity, None);
    }

    #[test]
    fn says_where_it_breaks() {
        let blocks = "the blocks of md0, such as 1000 blocks";
        let done = "blocks that are done, and all of them, such as (1/2)";
        for (text, line, expected) in [
            ("md0", 1, "the name of an array and a colon"),
            ("md0 : ", 1, "the state of md0"),
            ("      9 blocks", 1, "the name of an array"),
            (
                "md0 : active raid1 a[0]",
                1,
                "the blocks of md0 in the next line",
            ),
            (
                "md0 : active raid1 a[0]\n\nmd1 : inactive",
                1,
                "the blocks of md0 in the next line",
            ),
            ("md0 : active raid1 a[0]\n  bitmap: 1/1 pages", 2, blocks),
            ("md0 : active raid1 a[0]\n  9", 2, blocks),
            (
                "md0 : active raid1 a[0]\n  18446744073709551616 blocks",
                2,
                blocks,
            ),
            (
                "md0 : active raid1 a[0]\n  9 blocks [2/",
                2,
                "devices and active ones, such as [2/1]",
            ),
            (
                "md0 : active raid1 a[0]\n  9 blocks [2/1]\n  resync",
                3,
                done,
            ),
            (
                "md0 : active raid1 a[0]\n  9 blocks [2/1]\n  check = 5% (99999999999999999999/1)",
                3,
                done,
            ),
        ] {
            assert_eq!(parse(text), Err(ParseError::new(line, expected)), "{text}");
        }
    }
}
