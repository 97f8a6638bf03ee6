//! Reads where members stand in the running kernel's structures, from its own description (BTF).
//!
//! Invariant: an offset comes from the description or is an error; bytes that are no BTF end in an error, never in a
//! panic or an endless walk. The format: <https://docs.kernel.org/bpf/btf.html>.

use std::fs;
use std::path::Path;

/// Where the kernel describes itself.
pub(super) const KERNEL: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type`, and of `struct btf_member`.
const TYPE: usize = 12;
const MEMBER: usize = 12;
const STRUCT: u32 = 4;
const FORWARD: u32 = 7;
const FUNCTION: u32 = 12;
/// So many members are looked at for one offset: the kernel's largest structs have some hundred.
const MOST_MEMBERS: u32 = 100_000;
/// How deep anonymous structs and unions may stand in each other.
const DEPTH: u32 = 4;

/// Why an offset is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BtfError {
    #[error("`{KERNEL}` can't be read: {0}")]
    Unreadable(String),
    #[error("the description is damaged: {0}")]
    Damaged(&'static str),
    #[error("the description has types of kind {0}, which this version doesn't know")]
    UnknownKind(u32),
    #[error("`{0}` has no member `{1}` at a whole byte")]
    NoMember(&'static str, &'static str),
}

/// A kernel's description: the bytes, and where each type begins in them.
pub(super) struct Btf {
    bytes: Vec<u8>,
    /// By type number; 0 is `void`.
    types: Vec<u32>,
    /// Where the strings begin and end.
    strings: (usize, usize),
}

/// One `struct btf_type`.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Bytes behind the header.
    fn tail(self) -> Result<usize, BtfError> {
        Ok(match self.kind() {
            // int, var, decl_tag; array; struct and union; enum, function prototype; datasec and enum64.
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 => self.count() * MEMBER,
            6 | 13 => self.count() * 8,
            15 | 19 => self.count() * 12,
            2 | 7..=12 | 16 | 18 => 0,
            unknown => return Err(BtfError::UnknownKind(unknown)),
        })
    }
}

impl Btf {
    /// The running kernel's.
    pub(super) fn of_kernel() -> Result<Self, BtfError> {
        let bytes = fs::read(Path::new(KERNEL)).map_err(|cause| BtfError::Unreadable(cause.to_string()))?;
        Self::parse(bytes)
    }

    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        if half(&bytes, 0) != Some(MAGIC) {
            return Err(BtfError::Damaged("it doesn't begin with BTF's magic number"));
        }
        let cut = || BtfError::Damaged("it is cut short");
        let field = |at| word(&bytes, at).map(|word| word as usize).ok_or_else(cut);
        let header = field(4)?;
        let section = |offset: usize, length: usize| {
            let begin = header.checked_add(offset)?;
            let end = begin.checked_add(length)?;
            (end <= bytes.len()).then_some((begin, end))
        };
        let (mut at, end) = section(field(8)?, field(12)?).ok_or_else(cut)?;
        let strings = section(field(16)?, field(20)?).ok_or_else(cut)?;
        let mut types = vec![0];
        while at < end {
            types.push(u32::try_from(at).map_err(|_too_large| BtfError::Damaged("it is too large"))?);
            let tail = read_type(&bytes, at).ok_or_else(cut)?.tail()?;
            at = at.checked_add(TYPE + tail).ok_or_else(cut)?;
        }
        if at != end {
            return Err(cut());
        }
        Ok(Self { bytes, types, strings })
    }

    /// How many bytes into `structure` its member stands, also where an anonymous struct or union lies between.
    pub(super) fn offset(&self, structure: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let missing = BtfError::NoMember(structure, member);
        let mut left = MOST_MEMBERS;
        let bits =
            self.structs(structure).find_map(|found| self.member_bits(found, member, DEPTH, &mut left));
        match bits {
            Some(bits) if bits % 8 == 0 => Ok(bits / 8),
            _ => Err(missing),
        }
    }

    /// The description with every type but the functions whose names begin so left blank: the same numbers, and a fraction of what a reader has to
    /// take in.
    pub(super) fn only_functions(&self, prefix: &str) -> Vec<u8> {
        let (mut types, mut strings) = (Vec::with_capacity(self.types.len() * TYPE), vec![0]);
        for at in self.types.iter().skip(1) {
            let kept = read_type(&self.bytes, *at as usize)
                .filter(|found| found.kind() == FUNCTION)
                .and_then(|found| {
                    Some((found, self.name(found.name).filter(|name| name.starts_with(prefix.as_bytes()))?))
                });
            let words = match kept {
                Some((found, name)) => {
                    let offset = u32::try_from(strings.len()).unwrap_or(0);
                    strings.extend_from_slice(name);
                    strings.push(0);
                    [offset, found.info, found.size_or_type]
                }
                None => [0, FORWARD << 24, 0],
            };
            types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        let mut bytes = Vec::with_capacity(24 + types.len() + strings.len());
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            bytes.extend(u32::try_from(word).unwrap_or(u32::MAX).to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let (begin, end) = self.strings;
        let text = self.bytes.get(begin.checked_add(offset as usize)?..end)?;
        text.split(|byte| *byte == 0).next()
    }

    fn structs<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        let all = self.types.iter().skip(1).filter_map(|at| read_type(&self.bytes, *at as usize));
        all.filter(move |found| found.kind() == STRUCT && self.is_called(found.name, name))
    }

    /// `left` is how many members may still be looked at.
    fn member_bits(&self, of: Type, wanted: &str, depth: u32, left: &mut u32) -> Option<u32> {
        let is_packed = of.info >> 31 == 1;
        for index in 0..of.count() {
            *left = left.checked_sub(1)?;
            let at = of.at + TYPE + index * MEMBER;
            let name = word(&self.bytes, at)?;
            let offset = word(&self.bytes, at + 8)?;
            // With the flag, the upper byte is a bit field's width; a member of such a width is none of ours.
            let (offset, width) = if is_packed { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            if self.is_called(name, wanted) {
                return (width == 0).then_some(offset);
            }
            // Nameless members that are no structs or unions are padding.
            if name == 0
                && depth > 0
                && let Some(inner) = self.resolve(word(&self.bytes, at + 4)?)
                && let Some(bits) = self.member_bits(inner, wanted, depth - 1, left)
            {
                return offset.checked_add(bits);
            }
        }
        None
    }

    /// The struct or union behind a type number; `const`, `volatile` and type tags may stand before it.
    fn resolve(&self, number: u32) -> Option<Type> {
        let mut number = number;
        for _ in 0..DEPTH {
            let found =
                read_type(&self.bytes, *self.types.get(number as usize).filter(|at| **at != 0)? as usize)?;
            match found.kind() {
                4 | 5 => return Some(found),
                9 | 10 | 18 => number = found.size_or_type,
                _ => return None,
            }
        }
        None
    }

    fn is_called(&self, offset: u32, name: &str) -> bool {
        let (begin, end) = self.strings;
        let text = begin.checked_add(offset as usize).and_then(|at| self.bytes.get(at..end));
        text.and_then(|text| text.strip_prefix(name.as_bytes())).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn read_type(bytes: &[u8], at: usize) -> Option<Type> {
    let name = word(bytes, at)?;
    Some(Type { at, name, info: word(bytes, at + 4)?, size_or_type: word(bytes, at + 8)? })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int a; union { int b; struct inner { … } }; int bits: 3 }`, as a compiler would describe it.
    fn described() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0bits\0";
        let words: [u32; 34] = [
            // 1: int, 4 bytes
            0,
            1 << 24,
            4,
            32, //
            // 2: struct outer, packed flag, 3 members
            1,
            1 << 31 | 4 << 24 | 3,
            12, //
            7,
            1,
            0,
            0,
            3,
            32,
            11,
            1,
            3 << 24 | 64, //
            // 3: const of 4
            0,
            10 << 24,
            4, //
            // 4: union with one member
            0,
            5 << 24 | 1,
            4,
            9,
            1,
            0, //
            // 5: pointer; 6: void pointer
            0,
            2 << 24,
            2,
            0,
            2 << 24,
            0, //
            // 7: forward
            0,
            7 << 24,
            0,
        ];
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            bytes.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_member_is_found_directly_and_through_an_anonymous_union() {
        let btf = Btf::parse(described()).unwrap();
        assert_eq!(btf.offset("outer", "a"), Ok(0));
        assert_eq!(btf.offset("outer", "b"), Ok(4));
    }

    #[test]
    fn a_missing_member_structure_or_a_bit_field_is_an_error_not_an_offset() {
        let btf = Btf::parse(described()).unwrap();
        assert_eq!(btf.offset("outer", "c"), Err(BtfError::NoMember("outer", "c")));
        assert_eq!(btf.offset("oute", "a"), Err(BtfError::NoMember("oute", "a")));
        assert_eq!(btf.offset("outer", "bits"), Err(BtfError::NoMember("outer", "bits")));
    }

    #[test]
    fn this_kernel_describes_its_tasks() {
        let btf = Btf::of_kernel().unwrap();
        assert!(btf.offset("task_struct", "tgid").unwrap() > 0);
        assert!(btf.offset("task_struct", "no_such_member").is_err());
    }

    #[test]
    fn functions_keep_their_numbers_when_all_else_is_left_blank() {
        let btf = Btf::of_kernel().unwrap();
        let reduced = Btf::parse(btf.only_functions("tcp_")).unwrap();
        assert_eq!(reduced.types.len(), btf.types.len());
        let named = |btf: &Btf, number: usize| {
            let found = read_type(&btf.bytes, btf.types[number] as usize).unwrap();
            (found.kind() == FUNCTION).then(|| btf.name(found.name).unwrap().to_vec())
        };
        let is_kept = |name: &Option<Vec<u8>>| name.as_ref().is_some_and(|name| name.starts_with(b"tcp_"));
        let kept = (1..btf.types.len()).filter(|number| is_kept(&named(&btf, *number))).collect::<Vec<_>>();
        assert!(kept.len() > 10);
        for number in kept {
            assert_eq!(named(&btf, number), named(&reduced, number));
        }
    }

    /// Found by reading: nameless members of a struct's own type were walked as often as there are paths through them.
    #[test]
    fn members_that_lead_back_to_their_own_struct_are_no_endless_walk() {
        let members = 60_u32;
        let strings = b"\0outer\0a\0";
        let mut words = vec![1, 4 << 24 | members, 8];
        words.extend((0..members).flat_map(|_| [0, 1, 0]));
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = Vec::from(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            bytes.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        let start = std::time::Instant::now();
        assert!(Btf::parse(bytes).unwrap().offset("outer", "a").is_err());
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(cut in 0_usize..300, changes in prop::collection::vec((0_usize..300, any::<u8>()), 0..20)) {
            let mut bytes = described();
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(cut);
            if let Ok(btf) = Btf::parse(bytes) {
                let _either = btf.offset("outer", "b");
            }
        }
    }
}
