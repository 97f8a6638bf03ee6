//! Whom a TLS connection asks for: the server name in its ClientHello.
//!
//! Invariant: a name is found only in a ClientHello that stands whole, in one record, at the beginning of what is sent, of which every length
//! fits into the one around it, and which has one server name, in the clear. What two readers could understand differently is refused.

use crate::verdict::Verdict;

/// What a connection sends first.
pub trait Payload {
    /// How many bytes it has.
    fn length(&self) -> u32;
    /// The byte at this offset; none: it isn't there, or can't be read.
    fn byte(&self, at: u32) -> Option<u8>;
    /// The number of two bytes, the high one first, at this offset.
    fn number(&self, at: u32) -> Option<u16>;
    /// Two such numbers, one behind the other.
    fn numbers(&self, at: u32) -> Option<(u16, u16)>;
    /// Notes where the name stands. (Not answered instead: the kernel's verifier goes through all that a program can hold in registers, again
    /// and again with each extension, and not through what it finds in memory.)
    fn note(&mut self, place: Place);
    /// What was noted last; the default at first.
    fn noted(&self) -> Place;
}

/// Where a server name stands in a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// Its first byte.
    pub at: u32,
    /// Its bytes; 0: none was found.
    pub length: u32,
}

/// The longest name: what DNS can carry.
pub const NAME_BYTES: u32 = 253;

/// The most extensions that are looked through.
pub const MOST_EXTENSIONS: u32 = 64;

const HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u16 = 3;
const CLIENT_HELLO: u8 = 1;
/// A record's type, version and length, and where the length stands.
const RECORD_HEADER: u32 = 5;
const RECORD_LENGTH: u32 = 3;
/// The handshake's type, and its length in three bytes.
const MESSAGE_HEADER: u32 = 4;
const MESSAGE: u32 = RECORD_HEADER + MESSAGE_HEADER;
/// Behind the version and the random number.
const SESSION_ID: u32 = MESSAGE + 2 + 32;
const SESSION_ID_BYTES: u8 = 32;
const EXTENSION_HEADER: u32 = 4;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// What is around a single name in its extension: the list's length, the name's kind and length.
const NAME_HEADER: u32 = 5;
/// Encrypted Client Hello.
const ENCRYPTED_HELLO: u16 = 0xfe0d;
/// Its draft that hid the name alone.
const ENCRYPTED_NAME: u16 = 0xffce;

/// Finds the server name.
///
/// # Errors
/// Why there is none that can be believed.
// No sum comes near 32 bits: lengths have 16, and each end is held against the one around it before it is added to. Wrapping, as the kernel side
// has no panics.
#[inline(always)]
pub fn find_server_name(payload: &mut impl Payload) -> Result<Place, Verdict> {
    payload.note(Place::default());
    let end = end_of_message(payload)?;
    let mut at = first_extension(payload, end)?;
    for _ in 0..MOST_EXTENSIONS {
        if at == end {
            break;
        }
        let (kind, length) = payload.numbers(at).ok_or(Verdict::NotTls)?;
        let body = at.wrapping_add(EXTENSION_HEADER);
        at = body.wrapping_add(length as u32);
        if at > end {
            return Err(Verdict::NotTls);
        }
        if kind == ENCRYPTED_HELLO || kind == ENCRYPTED_NAME {
            return Err(Verdict::EncryptedHello);
        }
        if kind == SERVER_NAME {
            if payload.noted().length != 0 {
                return Err(Verdict::NoServerName);
            }
            if length == 0 {
                return Err(Verdict::NoServerName);
            }
            payload.note(Place { at: body, length: length as u32 });
        }
    }
    if at != end {
        return Err(Verdict::NotTls);
    }
    let Place { at, length } = payload.noted();
    single_name(payload, at, length)
}

/// Where the ClientHello ends, which is all of the first record.
#[inline(always)]
fn end_of_message(payload: &impl Payload) -> Result<u32, Verdict> {
    if payload.byte(0) != Some(HANDSHAKE) {
        return Err(Verdict::NotTls);
    }
    if payload.length() < MESSAGE {
        return Err(Verdict::CutHello);
    }
    let version = payload.number(1).ok_or(Verdict::NotTls)?;
    let record = payload.number(RECORD_LENGTH).ok_or(Verdict::NotTls)? as u32;
    let kind = payload.byte(RECORD_HEADER).ok_or(Verdict::NotTls)?;
    let high = payload.byte(RECORD_HEADER.wrapping_add(1)).ok_or(Verdict::NotTls)?;
    let low = payload.number(RECORD_HEADER.wrapping_add(2)).ok_or(Verdict::NotTls)?;
    if version >> 8 != MAJOR_VERSION || kind != CLIENT_HELLO {
        return Err(Verdict::NotTls);
    }
    let end = RECORD_HEADER.wrapping_add(record);
    // More of it in a second record, or in a second packet.
    let message = MESSAGE.wrapping_add(low as u32);
    if high != 0 || message > end || end > payload.length() {
        return Err(Verdict::CutHello);
    }
    // Another message behind it in the record.
    if message != end { Err(Verdict::NotTls) } else { Ok(end) }
}

/// Where the first extension begins. All of them together end with the message.
#[inline(always)]
fn first_extension(payload: &impl Payload, end: u32) -> Result<u32, Verdict> {
    let session_id = payload.byte(SESSION_ID).ok_or(Verdict::NotTls)?;
    if session_id > SESSION_ID_BYTES {
        return Err(Verdict::NotTls);
    }
    let ciphers = SESSION_ID.wrapping_add(1).wrapping_add(session_id as u32);
    let length = payload.number(ciphers).ok_or(Verdict::NotTls)?;
    let compressions = ciphers.wrapping_add(2).wrapping_add(length as u32);
    if compressions >= end {
        return Err(Verdict::NotTls);
    }
    let length = payload.byte(compressions).ok_or(Verdict::NotTls)?;
    let extensions = compressions.wrapping_add(1).wrapping_add(length as u32);
    if extensions == end {
        return Err(Verdict::NoServerName);
    }
    let first = extensions.wrapping_add(2);
    if first > end {
        return Err(Verdict::NotTls);
    }
    let length = payload.number(extensions).ok_or(Verdict::NotTls)?;
    if first.wrapping_add(length as u32) == end { Ok(first) } else { Err(Verdict::NotTls) }
}

/// The name of an extension that has just one.
#[inline(always)]
fn single_name(payload: &impl Payload, body: u32, length: u32) -> Result<Place, Verdict> {
    if length <= NAME_HEADER {
        return Err(Verdict::NoServerName);
    }
    let list = payload.number(body).ok_or(Verdict::NotTls)? as u32;
    let kind = payload.byte(body.wrapping_add(2)).ok_or(Verdict::NotTls)?;
    let name = payload.number(body.wrapping_add(3)).ok_or(Verdict::NotTls)? as u32;
    let is_single = list.wrapping_add(2) == length && name.wrapping_add(NAME_HEADER) == length;
    if !is_single || kind != HOST_NAME || name > NAME_BYTES {
        return Err(Verdict::NoServerName);
    }
    Ok(Place { at: body.wrapping_add(NAME_HEADER), length: name })
}

/// Eight bytes of a name, with its capital letters of ASCII made small.
#[must_use]
#[inline(always)]
pub const fn in_lower_case(bytes: u64) -> u64 {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    /// `0x80 - b'A'` and `0x7f - b'Z'` in each byte.
    const TO_A: u64 = 0x3f3f_3f3f_3f3f_3f3f;
    const BEHIND_Z: u64 = 0x2525_2525_2525_2525;
    // The high bit of each byte says whether its seven others are at least `A`, or behind `Z`. No sum carries into the next byte.
    let seven = bytes & !HIGH;
    let from_a = seven.wrapping_add(TO_A);
    let behind_z = seven.wrapping_add(BEHIND_Z);
    let capitals = from_a & !behind_z & !bytes & HIGH;
    bytes | capitals >> 2
}
