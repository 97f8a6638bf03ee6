//! The reader of server names: by example at each edge, and by property against a reader that takes what it reads apart by slices.

use proptest::prelude::*;
use sentinel_ebpf_common::client_hello::{
    MOST_EXTENSIONS, NAME_BYTES, Payload, Place, find_server_name, in_lower_case,
};
use sentinel_ebpf_common::verdict::Verdict;

struct Bytes<'a> {
    bytes: &'a [u8],
    noted: Place,
}

impl Payload for Bytes<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap()
    }

    fn byte(&self, at: u32) -> Option<u8> {
        self.bytes.get(at as usize).copied()
    }

    fn number(&self, at: u32) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte(at)?, self.byte(at.checked_add(1)?)?]))
    }

    fn numbers(&self, at: u32) -> Option<(u16, u16)> {
        Some((self.number(at)?, self.number(at.checked_add(2)?)?))
    }

    fn note(&mut self, place: Place) {
        self.noted = place;
    }

    fn noted(&self) -> Place {
        self.noted
    }
}

fn found(bytes: &[u8]) -> Result<Vec<u8>, Verdict> {
    let place = find_server_name(&mut Bytes { bytes, noted: Place::default() })?;
    Ok(bytes[place.at as usize..][..place.length as usize].to_vec())
}

fn short(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap().to_be_bytes()
}

type Extension = (u16, Vec<u8>);

fn server_name(name: &[u8]) -> Extension {
    let lengths = [&short(name.len() + 3)[..], &[0], &short(name.len())];
    (0, [&lengths.concat(), name].concat())
}

/// A ClientHello, and the record around it.
fn hello(session_id: &[u8], ciphers: usize, extensions: &[Extension]) -> Vec<u8> {
    let list: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, body)| [&kind.to_be_bytes(), &short(body.len())[..], body].concat())
        .collect();
    let mut message =
        [&[3, 3][..], &[7; 32], &[u8::try_from(session_id.len()).unwrap()], session_id].concat();
    message.extend(short(ciphers * 2));
    message.extend(vec![0x13; ciphers * 2]);
    message.extend([1, 0]);
    message.extend(short(list.len()));
    message.extend(list);
    let handshake = [&[1, 0][..], &short(message.len()), &message].concat();
    [&[22, 3, 1][..], &short(handshake.len()), &handshake].concat()
}

fn simple(extensions: &[Extension]) -> Vec<u8> {
    hello(&[9; 32], 17, extensions)
}

fn other(kind: u16) -> Extension {
    (kind, vec![0; usize::from(kind % 7)])
}

/// Reads by slices; none for whatever isn't as the invariant has it.
fn naive(bytes: &[u8]) -> Option<Vec<u8>> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(count)?;
        *rest = left;
        Some(taken)
    }
    fn long(rest: &mut &[u8], bytes: usize) -> Option<usize> {
        Some(take(rest, bytes)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }
    fn part<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
        let length = long(rest, bytes)?;
        take(rest, length)
    }
    let mut rest = bytes;
    (take(&mut rest, 2)? == [22, 3]).then_some(())?;
    take(&mut rest, 1)?;
    let mut record = part(&mut rest, 2)?;
    (take(&mut record, 1)? == [1]).then_some(())?;
    let mut message = part(&mut record, 3)?;
    record.is_empty().then_some(())?;
    take(&mut message, 34)?;
    (part(&mut message, 1)?.len() <= 32).then_some(())?;
    part(&mut message, 2)?;
    part(&mut message, 1)?;
    let mut extensions = part(&mut message, 2)?;
    message.is_empty().then_some(())?;
    let mut names = Vec::new();
    for _ in 0..MOST_EXTENSIONS {
        if extensions.is_empty() {
            break;
        }
        let kind = long(&mut extensions, 2)?;
        let mut body = part(&mut extensions, 2)?;
        match kind {
            0xfe0d | 0xffce => return None,
            0 => {
                let mut list = part(&mut body, 2)?;
                (body.is_empty() && take(&mut list, 1)? == [0]).then_some(())?;
                names.push(part(&mut list, 2)?);
                list.is_empty().then_some(())?;
            }
            _ => {}
        }
    }
    let [name] = names[..] else { return None };
    (extensions.is_empty() && (1..=NAME_BYTES as usize).contains(&name.len())).then(|| name.to_vec())
}

#[test]
fn a_name_is_found_wherever_it_stands_among_others() {
    let name = server_name(b"a.example");
    assert_eq!(found(&simple(std::slice::from_ref(&name))).unwrap(), b"a.example");
    assert_eq!(found(&simple(&[other(16), name.clone(), other(43)])).unwrap(), b"a.example");
    assert_eq!(found(&simple(&[other(16), other(43), name])).unwrap(), b"a.example");
}

#[test]
fn what_stands_behind_the_hello_is_not_looked_at() {
    let early = [simple(&[server_name(b"a.example")]), vec![20, 3, 3, 0, 1, 1]].concat();
    assert_eq!(found(&early).unwrap(), b"a.example");
}

#[test]
fn no_name_two_names_and_hidden_ones_are_told_apart() {
    let name = server_name(b"a.example");
    let hidden = (0xfe0d, vec![1, 2, 3]);
    assert_eq!(found(&simple(&[other(16)])), Err(Verdict::NoServerName));
    assert_eq!(found(&simple(&[])), Err(Verdict::NoServerName));
    assert_eq!(found(&simple(&[name.clone(), name.clone()])), Err(Verdict::NoServerName));
    assert_eq!(found(&simple(&[(0, Vec::new())])), Err(Verdict::NoServerName));
    assert_eq!(found(&simple(&[server_name(b"")])), Err(Verdict::NoServerName));
    assert_eq!(found(&simple(&[server_name(&[b'a'; 254])])), Err(Verdict::NoServerName));
    assert_eq!(found(&simple(&[server_name(&[b'a'; 253])])).unwrap(), [b'a'; 253]);
    assert_eq!(found(&simple(&[name.clone(), hidden.clone()])), Err(Verdict::EncryptedHello));
    assert_eq!(found(&simple(&[hidden, name])), Err(Verdict::EncryptedHello));
}

#[test]
fn as_many_extensions_as_are_looked_through_may_stand_there_and_no_more() {
    let mut extensions: Vec<Extension> = (1..64).map(|kind| other(kind + 100)).collect();
    extensions.push(server_name(b"a.example"));
    assert_eq!(found(&simple(&extensions)).unwrap(), b"a.example");
    extensions.insert(0, other(200));
    assert_eq!(found(&simple(&extensions)), Err(Verdict::NotTls));
}

#[test]
fn a_hello_in_two_records_is_cut_and_one_that_shares_its_record_is_none() {
    let whole = simple(&[server_name(b"a.example")]);
    let mut shorter = whole.clone();
    shorter[3..5].copy_from_slice(&short(whole.len() - 5 - 4));
    assert_eq!(found(&shorter), Err(Verdict::CutHello));
    let mut longer = [whole.clone(), vec![1, 0, 0, 0]].concat();
    longer[3..5].copy_from_slice(&short(whole.len() - 5 + 4));
    assert_eq!(found(&longer), Err(Verdict::NotTls));
}

#[test]
fn other_protocols_are_no_tls_from_their_first_byte() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"S", b"\x80\x2e\x01\x03\x01", b"\x17\x03\x03\x00\x01a", b""]
    {
        assert_eq!(found(bytes), Err(Verdict::NotTls));
    }
    let mut server = simple(&[server_name(b"a.example")]);
    server[5] = 2;
    assert_eq!(found(&server), Err(Verdict::NotTls), "a ServerHello");
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let kind = prop_oneof![Just(0_u16), Just(0xfe0d), 1..60_u16];
    let anything = (kind, prop::collection::vec(any::<u8>(), 0..12));
    let name = prop::collection::vec(any::<u8>(), 0..12).prop_map(|name| server_name(&name));
    prop::collection::vec(prop_oneof![anything, name], 0..6)
}

proptest! {
    #[test]
    fn a_hello_is_read_as_by_slices(id in prop::collection::vec(any::<u8>(), 0..34), ciphers in 0..30_usize, extensions in extensions()) {
        let bytes = hello(&id, ciphers, &extensions);
        prop_assert_eq!(found(&bytes).ok(), naive(&bytes));
    }

    #[test]
    fn so_it_is_with_bytes_changed(extensions in extensions(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = simple(&extensions);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(found(&bytes).ok(), naive(&bytes));
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), as_hello: bool) {
        if as_hello && bytes.len() > 6 {
            bytes[..6].copy_from_slice(&[22, 3, 1, 0, 200, 1]);
        }
        prop_assert_eq!(found(&bytes).ok(), naive(&bytes));
    }

    #[test]
    fn a_hello_that_is_cut_anywhere_is_cut(name in "[a-z]{1,20}", at in any::<prop::sample::Index>()) {
        let bytes = simple(&[other(16), server_name(name.as_bytes())]);
        prop_assert_eq!(found(&bytes[..1 + at.index(bytes.len() - 1)]), Err(Verdict::CutHello));
    }

    #[test]
    fn capital_letters_are_made_small_and_nothing_else(bytes: [u8; 8]) {
        let expected = bytes.map(|byte| byte.to_ascii_lowercase());
        prop_assert_eq!(in_lower_case(u64::from_ne_bytes(bytes)).to_ne_bytes(), expected);
    }
}
