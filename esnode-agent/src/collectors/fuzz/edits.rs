//! Random damage to a file.

use proptest::{collection::vec, prelude::*, sample::Index};
use std::{fs, ops::Range, path::Path};

/// One thing that is done to a text.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// It ends here.
    Cut(Index),
    DropLine(Index),
    DoubleLine(Index),
    SwapLines(Index, Index),
    DropWord(Index),
    DoubleWord(Index),
    SwapWords(Index, Index),
    /// Another word takes the place of one.
    Word(Index, String),
    /// Another number takes the place of one, wherever it stands.
    Number(Index, String),
    Insert(Index, Vec<u8>),
    /// Nothing is left of it.
    All(Vec<u8>),
}

/// What is done to a file.
#[derive(Clone, Debug)]
pub(super) enum Edits {
    Text(Vec<Edit>),
    Gone,
    Folder,
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<u128>().prop_map(|number| number.to_string()),
        any::<u32>().prop_map(|number| format!("{number:08x}")),
        (0_u64..3).prop_map(|less| (u64::MAX - less).to_string()),
        (0_u64..3).prop_map(|less| (u64::MAX / 1024 + 1 - less).to_string()),
        (0_u64..3).prop_map(|less| (u64::MAX / 512 + 1 - less).to_string()),
        Just((i64::MAX).to_string()),
        Just((i64::MIN).to_string()),
        Just("-1".to_owned()),
        Just("+1".to_owned()),
        Just("0".to_owned()),
        Just("1e308".to_owned()),
        Just("nan".to_owned()),
        Just("-inf".to_owned()),
        Just("1".repeat(400)),
    ]
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        1 => at().prop_map(Edit::Cut),
        1 => at().prop_map(Edit::DropLine),
        1 => at().prop_map(Edit::DoubleLine),
        1 => (at(), at()).prop_map(|(a, b)| Edit::SwapLines(a, b)),
        1 => at().prop_map(Edit::DropWord),
        1 => at().prop_map(Edit::DoubleWord),
        1 => (at(), at()).prop_map(|(a, b)| Edit::SwapWords(a, b)),
        1 => (at(), any::<String>()).prop_map(|(at, word)| Edit::Word(at, word)),
        6 => (at(), number()).prop_map(|(at, number)| Edit::Number(at, number)),
        1 => (at(), any::<String>()).prop_map(|(at, text)| Edit::Insert(at, text.into_bytes())),
        1 => (at(), vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
    ]
}

pub(super) fn any_edits() -> impl Strategy<Value = Edits> {
    prop_oneof![
        40 => vec(any_edit(), 1..4).prop_map(Edits::Text),
        1 => any::<String>().prop_map(|text| Edits::Text(vec![Edit::All(text.into_bytes())])),
        1 => vec(any::<u8>(), 0..200).prop_map(|bytes| Edits::Text(vec![Edit::All(bytes)])),
        1 => Just(Edits::Gone),
        1 => Just(Edits::Folder),
    ]
}

impl Edits {
    /// Damages the file, which holds `whole`.
    pub(super) fn apply(&self, path: &Path, whole: &[u8]) {
        match self {
            Self::Gone => fs::remove_file(path).expect("removed"),
            Self::Folder => {
                fs::remove_file(path).expect("removed");
                fs::create_dir(path).expect("folder");
            }
            Self::Text(edits) => {
                let mut bytes = whole.to_vec();
                for edit in edits {
                    edit.apply(&mut bytes);
                }
                fs::write(path, bytes).expect("written");
            }
        }
    }
}

/// Makes the file as it was.
pub(super) fn mend(path: &Path, whole: &[u8]) {
    if path.is_dir() {
        fs::remove_dir(path).expect("removed");
    }
    fs::write(path, whole).expect("written");
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let line = |byte: u8| byte != b'\n';
        let word = |byte: u8| !byte.is_ascii_whitespace();
        let digit = |byte: u8| byte.is_ascii_digit();
        match self {
            Self::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Self::DropLine(at) => replace(bytes, line, *at, |_| Vec::new()),
            Self::DoubleLine(at) => replace(bytes, line, *at, |line| [line, b"\n", line].concat()),
            Self::SwapLines(a, b) => swap(bytes, line, *a, *b),
            Self::DropWord(at) => replace(bytes, word, *at, |_| Vec::new()),
            Self::DoubleWord(at) => replace(bytes, word, *at, |word| [word, b" ", word].concat()),
            Self::SwapWords(a, b) => swap(bytes, word, *a, *b),
            Self::Word(at, new) => replace(bytes, word, *at, |_| new.clone().into_bytes()),
            Self::Number(at, new) => replace(bytes, digit, *at, |_| new.clone().into_bytes()),
            Self::Insert(at, new) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::All(new) => new.clone_into(bytes),
        }
    }
}

/// The runs of such bytes.
fn runs(bytes: &[u8], of: fn(u8) -> bool) -> Vec<Range<usize>> {
    let mut end = 0;
    let chunks = bytes.chunk_by(|a, b| of(*a) == of(*b));
    let ranges = chunks.map(|chunk| {
        end += chunk.len();
        (of(chunk[0]), end - chunk.len()..end)
    });
    ranges.filter(|it| it.0).map(|it| it.1).collect()
}

fn replace(bytes: &mut Vec<u8>, of: fn(u8) -> bool, at: Index, by: impl Fn(&[u8]) -> Vec<u8>) {
    let runs = runs(bytes, of);
    if !runs.is_empty() {
        let range = at.get(&runs).clone();
        let new = by(&bytes[range.clone()]);
        bytes.splice(range, new);
    }
}

fn swap(bytes: &mut Vec<u8>, of: fn(u8) -> bool, a: Index, b: Index) {
    let runs = runs(bytes, of);
    if runs.is_empty() {
        return;
    }
    let (a, b) = (a.get(&runs).clone(), b.get(&runs).clone());
    let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
    let (head, tail) = (
        bytes[first.clone()].to_vec(),
        bytes[second.clone()].to_vec(),
    );
    bytes.splice(second, head);
    bytes.splice(first, tail);
}
