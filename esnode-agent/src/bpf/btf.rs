//! A reader of BTF, the kernel's description of its own types, for field offsets.
//!
//! It keeps one offset per type and nothing else: vmlinux describes some 150,000 types, and
//! libraries that build a model of them all take ten times as long and 40 MiB at every start.
//! Format: `Documentation/bpf/btf.rst` of the kernel.

use rustc_hash::FxHashSet;
use std::collections::HashMap;
use thiserror::Error;

const MAGIC: u16 = 0xeb9f;

/// Why BTF could not be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes end inside something, or a reference leads nowhere.
    #[error("BTF is malformed at byte {at}: {what}")]
    Malformed {
        /// Offset from the start of the data.
        at: usize,
        /// What was expected there.
        what: &'static str,
    },
}

/// BTF kinds that matter here, with the size of what follows the common 12 bytes.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const POINTER: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// How deep structs may nest, and qualifiers chain, before the data counts as malformed.
const DEPTH: usize = 32;

/// An index over BTF data.
#[derive(Debug)]
pub struct Btf<'a> {
    data: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins, by id; id 0 is `void`.
    types: Vec<u32>,
    /// Structs, enumerations and typedefs that were asked for, by name.
    named: HashMap<&'a str, u32>,
    /// Functions that were asked for, by name, and their prototypes.
    functions: HashMap<&'a str, u32>,
}

/// The head of a type: `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    count: u32,
    /// `BTF_INFO_KFLAG`: member offsets hold a bit field's size as well.
    flagged: bool,
    /// Size in bytes, or the type referred to.
    size_or_target: u32,
}

impl<'a> Btf<'a> {
    /// Indexes `data`, remembering the structs, enumerations, typedefs and functions called one of
    /// `names`.
    ///
    /// # Errors
    /// [`BtfError::Malformed`] if it is not little-endian BTF, or ends early.
    pub fn parse(data: &'a [u8], names: &[&str]) -> Result<Self, BtfError> {
        let malformed = |at, what| BtfError::Malformed { at, what };
        if read(data, 0, "the magic number")? & 0xffff != u32::from(MAGIC) {
            return Err(malformed(0, "not the magic number 0xeb9f"));
        }
        let header = |at| read(data, at, "a header field").map(|word| word as usize);
        let start = header(4)?;
        let (types_at, types_len) = (start + header(8)?, header(12)?);
        let (strings_at, strings_len) = (start + header(16)?, header(20)?);
        let strings = data
            .get(strings_at..strings_at + strings_len)
            .ok_or_else(|| malformed(strings_at, "the string section"))?;
        let mut btf = Self {
            data,
            strings,
            types: vec![0],
            named: HashMap::new(),
            functions: HashMap::new(),
        };
        let names: FxHashSet<&str> = names.iter().copied().collect();
        let mut at = types_at;
        while at < types_at + types_len {
            let r#type = btf.read_type(at)?;
            let id = u32::try_from(btf.types.len())
                .map_err(|_| malformed(at, "fewer than 2^32 types"))?;
            btf.types
                .push(u32::try_from(at).map_err(|_| malformed(at, "less than 4 GiB"))?);
            if matches!(
                r#type.kind,
                kind::STRUCT | kind::ENUM | kind::TYPEDEF | kind::FUNC
            ) {
                let name = btf.string(r#type.name);
                if names.contains(&name) {
                    if r#type.kind == kind::FUNC {
                        btf.functions.entry(name).or_insert(r#type.size_or_target);
                    } else {
                        btf.named.entry(name).or_insert(id);
                    }
                }
            }
            at += 12 + trailer(r#type).ok_or_else(|| malformed(at, "a known kind of type"))?;
        }
        Ok(btf)
    }

    /// Byte offset of a field, by a path such as `se.sum_exec_runtime` or `rss_stat[1].count`.
    ///
    /// Members of anonymous structs and unions are found as in C. `None` if the struct or the
    /// field does not exist, or the field does not begin on a byte.
    #[must_use]
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        let mut r#type = *self.named.get(structure)?;
        let mut bits = 0;
        for part in path.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => (name, Some(index.strip_suffix(']')?.parse::<u32>().ok()?)),
                None => (part, None),
            };
            let (member, at) = self.member(self.resolve(r#type)?, name, 0)?;
            r#type = member;
            bits += at;
            if let Some(index) = index {
                let (element, size) = self.element(self.resolve(r#type)?)?;
                r#type = element;
                bits += index * size * 8;
            }
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Value of a constant of an enumeration.
    #[must_use]
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let r#type = self.resolve(*self.named.get(enumeration)?)?;
        if r#type.kind != kind::ENUM {
            return None;
        }
        (0..r#type.count as usize).find_map(|index| {
            let at = r#type.at + 12 + index * 8;
            let constant = read(self.data, at, "an enumerator").ok()?;
            let value = read(self.data, at + 4, "an enumerator").ok()?;
            (self.string(constant) == name).then_some(value)
        })
    }

    /// Number of arguments of the function that a typedef points to.
    #[must_use]
    pub fn arguments(&self, typedef: &str) -> Option<u32> {
        let pointer = self.resolve(*self.named.get(typedef)?)?;
        let function = self.resolve(pointer.size_or_target)?;
        (pointer.kind == kind::POINTER && function.kind == kind::FUNC_PROTO)
            .then_some(function.count)
    }

    /// Number of arguments of a function of the kernel; `None` if it does not exist.
    #[must_use]
    pub fn function_arguments(&self, function: &str) -> Option<u32> {
        let prototype = self.resolve(*self.functions.get(function)?)?;
        (prototype.kind == kind::FUNC_PROTO).then_some(prototype.count)
    }

    /// Finds a member; gives its type and its offset in bits.
    fn member(&self, structure: Type, name: &str, depth: usize) -> Option<(u32, u32)> {
        if depth > DEPTH || !matches!(structure.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        (0..structure.count as usize).find_map(|index| {
            let at = structure.at + 12 + index * 12;
            let member = |field| read(self.data, at + field, "a member").ok();
            let (member_name, member_type) = (self.string(member(0)?), member(4)?);
            let mut offset = member(8)?;
            if structure.flagged {
                offset &= 0x00ff_ffff;
            }
            if member_name == name {
                Some((member_type, offset))
            } else if member_name.is_empty() {
                let (inner, within) = self.member(self.resolve(member_type)?, name, depth + 1)?;
                Some((inner, offset + within))
            } else {
                None
            }
        })
    }

    /// Element type of an array, and its size in bytes.
    fn element(&self, array: Type) -> Option<(u32, u32)> {
        if array.kind != kind::ARRAY {
            return None;
        }
        let element = read(self.data, array.at + 12, "an array").ok()?;
        let r#type = self.resolve(element)?;
        let sized = matches!(
            r#type.kind,
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64
        );
        match r#type.kind {
            kind::POINTER => Some((element, 8)),
            _ => sized.then_some((element, r#type.size_or_target)),
        }
    }

    /// Follows typedefs and qualifiers to the type itself.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEPTH {
            let at = *self.types.get(id as usize).filter(|_| id != 0)?;
            let r#type = self.read_type(at as usize).ok()?;
            match r#type.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = r#type.size_or_target;
                }
                _ => return Some(r#type),
            }
        }
        None
    }

    fn read_type(&self, at: usize) -> Result<Type, BtfError> {
        let info = read(self.data, at + 4, "a type")?;
        Ok(Type {
            at,
            name: read(self.data, at, "a type")?,
            kind: (info >> 24) & 0x1f,
            count: info & 0xffff,
            flagged: info >> 31 == 1,
            size_or_target: read(self.data, at + 8, "a type")?,
        })
    }

    fn string(&self, at: u32) -> &'a str {
        let bytes = self.strings.get(at as usize..).unwrap_or_default();
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        bytes
            .get(..end)
            .and_then(|bytes| str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

/// Bytes that follow the head of a type; `None` for a kind from the future.
fn trailer(r#type: Type) -> Option<usize> {
    let count = r#type.count as usize;
    Some(match r#type.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats, tags.
        0 | 2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn read(data: &[u8], at: usize, what: &'static str) -> Result<u32, BtfError> {
    data.get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Malformed { at, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BTF with the given types (each a list of words) and strings.
    fn btf(types: &[&[u32]], strings: &str) -> Vec<u8> {
        let types: Vec<u32> = types.concat();
        let types_len = u32::try_from(types.len() * 4).expect("small");
        let strings_len = u32::try_from(strings.len()).expect("small");
        let header = [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            types_len,
            types_len,
            strings_len,
        ];
        let words = header
            .iter()
            .chain(&types)
            .flat_map(|word| word.to_ne_bytes());
        words.chain(strings.bytes()).collect()
    }

    fn info(kind: u32, count: u32) -> u32 {
        kind << 24 | count
    }

    /// ```c
    /// typedef long l;                                  // 1: int, 2: typedef
    /// struct inner { l a; l b[3]; };                   // 3: array, 4: struct
    /// struct outer { l x; union { struct inner in; l y; }; };   // 5: union, 6: struct
    /// typedef void (*f)(l, l);                         // 7: proto, 8: pointer, 9: typedef
    /// enum e { c = 3, d };                             // 10: enum
    /// ```
    fn sample() -> Vec<u8> {
        let strings = "\0l\0inner\0a\0b\0outer\0x\0in\0y\0f\0e\0c\0d\0";
        let at = |name: &str| {
            u32::try_from(strings.find(&format!("\0{name}\0")).expect("present") + 1)
                .expect("small")
        };
        btf(
            &[
                &[0, info(kind::INT, 0), 8, 64],
                &[at("l"), info(kind::TYPEDEF, 0), 1],
                &[0, info(kind::ARRAY, 0), 0, 2, 1, 3],
                &[
                    at("inner"),
                    info(kind::STRUCT, 2),
                    32,
                    at("a"),
                    2,
                    0,
                    at("b"),
                    3,
                    64,
                ],
                &[0, info(kind::UNION, 2), 32, at("in"), 4, 0, at("y"), 2, 0],
                &[
                    at("outer"),
                    info(kind::STRUCT, 2),
                    40,
                    at("x"),
                    2,
                    0,
                    0,
                    5,
                    64,
                ],
                &[0, info(kind::FUNC_PROTO, 2), 0, 0, 2, 0, 2],
                &[0, info(kind::POINTER, 0), 7],
                &[at("f"), info(kind::TYPEDEF, 0), 8],
                &[at("e"), info(kind::ENUM, 2), 4, at("c"), 3, at("d"), 4],
            ],
            strings,
        )
    }

    #[test]
    fn finds_fields_by_path() {
        let data = sample();
        let btf = Btf::parse(&data, &["outer", "inner", "f", "e"]).expect("valid");
        assert_eq!(btf.offset_of("outer", "x"), Some(0));
        assert_eq!(btf.offset_of("outer", "y"), Some(8));
        assert_eq!(btf.offset_of("outer", "in.b[2]"), Some(8 + 8 + 16));
        assert_eq!(btf.offset_of("inner", "b"), Some(8));
        assert_eq!(btf.offset_of("outer", "none"), None);
        assert_eq!(btf.offset_of("outer", "x.deeper"), None);
        assert_eq!(btf.offset_of("nobody", "x"), None);
        assert_eq!(btf.arguments("f"), Some(2));
        assert_eq!(btf.arguments("outer"), None);
        assert_eq!(btf.enumerator("e", "d"), Some(4));
        assert_eq!(btf.enumerator("e", "x"), None);
        assert_eq!(btf.enumerator("outer", "c"), None);
    }

    #[test]
    fn says_where_the_data_breaks() {
        let data = sample();
        for length in 0..data.len() {
            assert!(
                Btf::parse(data.get(..length).expect("in range"), &[]).is_err(),
                "accepted {length} of {} bytes",
                data.len()
            );
        }
        let mut wrong = data;
        wrong[0] = 0;
        assert_eq!(
            Btf::parse(&wrong, &[]).expect_err("no BTF"),
            BtfError::Malformed {
                at: 0,
                what: "not the magic number 0xeb9f"
            }
        );
    }
}
