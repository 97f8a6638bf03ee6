//! What a connection to a host sends first, where its policy has TLS looked into: whom does it ask for, and who may?
//!
//! Invariant: it is answered by what the packet has in it, all of which is the kernel's own copy: neither urgent data nor an application's memory
//! can make of it something else on the way.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skb_load_bytes};
use aya_ebpf::programs::SkBuffContext;
use sentinel_ebpf_common::client_hello::{Payload, Place, find_server_name, in_lower_case};
use sentinel_ebpf_common::verdict::Verdict;
use sentinel_ebpf_common::{Hello, SERVER_NAME_BYTES, ServerNameKey, Session, SocketMark};

use crate::maps::{HELLOS, SERVER_NAMES};
use crate::offsets;
use crate::packet::Packet;
use crate::report::put;
use crate::session::member;

const WORDS: usize = SERVER_NAME_BYTES / 8;
/// Of a name's first label, with the dot behind it.
const LABEL: usize = 64;

/// A first packet, and where is noted what was found in it.
struct First<'a> {
    ctx: &'a SkBuffContext,
    begins: u32,
    length: u32,
    hello: &'a mut Hello,
}

impl Payload for First<'_> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> Option<u8> {
        self.ctx.load((self.begins + at) as usize).ok()
    }

    #[inline(always)]
    fn number(&self, at: u32) -> Option<u16> {
        self.ctx.load((self.begins + at) as usize).ok().map(u16::from_be)
    }

    #[inline(always)]
    fn numbers(&self, at: u32) -> Option<(u16, u16)> {
        let numbers: [u16; 2] = self.ctx.load((self.begins + at) as usize).ok()?;
        Some((u16::from_be(numbers[0]), u16::from_be(numbers[1])))
    }

    #[inline(always)]
    fn note(&mut self, place: Place) {
        put_place(self.hello, place);
    }

    #[inline(always)]
    fn noted(&self) -> Place {
        Place { at: read(&self.hello.place.at), length: read(&self.hello.place.length) }
    }
}

/// Whether a packet is the first with payload of a connection that is looked into. Read anew wherever it is asked, and never kept: what was kept
/// would be another way through all that follows to the verifier.
#[inline(always)]
pub(crate) fn is_due(packet: &Packet, mark: &SocketMark, of_session: &Session) -> bool {
    read(&mark.flags) & SocketMark::TLS_DUE != 0
        && read(&of_session.flags) & Session::TLS_NAMES != 0
        && packet.has_payload()
}

/// Looks which server a first packet asks for, and keeps it in its socket's storage.
#[inline(always)]
pub(crate) fn look(
    ctx: &SkBuffContext,
    socket: *mut bpf_sock,
    packet: &Packet,
    mark: &SocketMark,
    of_session: &Session,
) {
    // The helper makes zeros of what is new.
    let hello = hello(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
    if hello.is_null() {
        return;
    }
    // SAFETY: not null, as large as what is stored, and nobody else's while the socket's lock is held.
    let hello = unsafe { &mut *hello };
    put_place(hello, Place::default());
    put(&mut hello.listed_by, 0);
    // Until it is found otherwise.
    put(&mut hello.verdict, Verdict::Failed as u32);
    let verdict = match look_into(ctx, packet, mark, of_session, hello) {
        Ok(()) => Verdict::Allowed,
        Err(verdict) => {
            // What was noted on the way is no name that was believed.
            put_place(hello, Place::default());
            verdict
        }
    };
    put(&mut hello.verdict, verdict as u32);
}

/// The grants that list the server for which a packet was looked into.
#[inline(always)]
pub(crate) fn listed_by(socket: *mut bpf_sock) -> Result<u64, Verdict> {
    let hello = hello(socket, 0);
    if hello.is_null() {
        // It could not be kept.
        return Err(Verdict::Failed);
    }
    // SAFETY: as in `look`.
    let hello = unsafe { &*hello };
    match Verdict::from_number(read(&hello.verdict)) {
        Some(Verdict::Allowed) => Ok(read(&hello.listed_by)),
        Some(verdict) => Err(verdict),
        None => Err(Verdict::Failed),
    }
}

/// Where in a packet that was looked into its name stands, if one was found.
#[inline(always)]
pub(crate) fn name(socket: *mut bpf_sock) -> Place {
    let hello = hello(socket, 0);
    if hello.is_null() {
        return Place::default();
    }
    // SAFETY: as in `look`.
    let hello = unsafe { &*hello };
    Place { at: read(&hello.place.at), length: read(&hello.place.length) }
}

/// What is kept of a socket's first packet; null: nothing.
#[inline(always)]
fn hello(socket: *mut bpf_sock, flags: u64) -> *mut Hello {
    // SAFETY: the callers have seen that the socket isn't null.
    let kept = unsafe {
        bpf_sk_storage_get((&raw const HELLOS).cast_mut().cast(), socket.cast(), core::ptr::null_mut(), flags)
    };
    kept.cast()
}

#[inline(always)]
fn look_into(
    ctx: &SkBuffContext,
    packet: &Packet,
    mark: &SocketMark,
    of_session: &Session,
    hello: &mut Hello,
) -> Result<(), Verdict> {
    if packet.is_urgent() || !is_kernels_own(ctx) {
        return Err(Verdict::UnsteadyHello);
    }
    let mut first = First { ctx, begins: packet.behind_headers, length: packet.payload, hello };
    let place = find_server_name(&mut first)?;
    let hello = first.hello;
    let name = Place { at: packet.behind_headers + place.at, length: place.length };
    put_place(hello, name);
    put(&mut hello.key.session, mark.session);
    put(&mut hello.key.generation, of_session.generation);
    look_up(ctx, hello, packet.destination_port, name, 0)?;
    // The name without its first label and the dot. Kept in memory, as where it ends is another way to the verifier.
    put(&mut hello.first_label, 0);
    for index in 0..LABEL {
        if read(&hello.key.name[index]) == b'.' {
            put(&mut hello.first_label, index as u32 + 1);
            break;
        }
    }
    let first_label = read(&hello.first_label);
    if first_label != 0 && first_label < name.length {
        let rest = Place { at: name.at + first_label, length: name.length - first_label };
        look_up(ctx, hello, packet.destination_port, rest, 1)?;
    }
    Ok(())
}

#[inline(always)]
fn put_place(hello: &mut Hello, place: Place) {
    put(&mut hello.place.at, place.at);
    put(&mut hello.place.length, place.length);
}

/// The first packet may leave: no other is looked into.
#[inline(always)]
pub(crate) fn passed(socket: *mut bpf_sock, mark: &mut SocketMark) {
    mark.flags &= !SocketMark::TLS_DUE;
    // SAFETY: the caller has seen that the socket isn't null.
    unsafe { bpf_sk_storage_delete((&raw const HELLOS).cast_mut().cast(), socket.cast()) };
}

/// Adds the grants of a name that stands in the packet, at its port and at any.
#[inline(always)]
fn look_up(
    ctx: &SkBuffContext,
    hello: &mut Hello,
    port: u16,
    name: Place,
    one_below: u16,
) -> Result<(), Verdict> {
    let words = hello.key.name.as_mut_ptr().cast::<u64>();
    for index in 0..WORDS {
        // SAFETY: so many words are the name's bytes, which are aligned for words.
        unsafe { words.add(index).write_volatile(0) };
    }
    // A mask, so that the verifier knows that it fits; and that of 6.1 knows by nothing else that it isn't 0, which the callers have seen.
    let bytes = (name.length.wrapping_sub(1) & (SERVER_NAME_BYTES as u32 - 1)) + 1;
    // SAFETY: the helper writes so many bytes, which the name has.
    let loaded = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), name.at, words.cast(), bytes) };
    if loaded != 0 {
        return Err(Verdict::Failed);
    }
    for index in 0..WORDS {
        // SAFETY: as above.
        unsafe {
            let word = words.add(index);
            word.write_volatile(in_lower_case(word.read_volatile()));
        }
    }
    put(&mut hello.key.length, bytes);
    put(&mut hello.key.one_below, one_below);
    put(&mut hello.key.port, port);
    let at_port = find(&hello.key);
    put(&mut hello.key.port, 0);
    let listed_by = read(&hello.listed_by) | at_port | find(&hello.key);
    put(&mut hello.listed_by, listed_by);
    Ok(())
}

#[inline(always)]
fn find(key: &ServerNameKey) -> u64 {
    // SAFETY: copied at once; names of a generation are never changed.
    unsafe { SERVER_NAMES.get(key) }.copied().unwrap_or(0)
}

/// Whether no page of a packet is one that an application can write while it is on its way: `MSG_ZEROCOPY`, and what was spliced from a file.
#[inline(always)]
fn is_kernels_own(ctx: &SkBuffContext) -> bool {
    let buffer = ctx.as_ptr() as u64;
    let head: Option<u64> = member(buffer, offsets::skb_head());
    let end: Option<u32> = member(buffer, offsets::skb_end());
    let (Some(head), Some(end)) = (head, end) else { return false };
    // Its flags are all of this kind.
    let flags: Option<u8> = member(head + u64::from(end), offsets::shared_flags());
    flags == Some(0)
}

/// Reads a number from memory, and not what the compiler remembers of it.
#[inline(always)]
fn read<T: Copy>(place: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::from_ref(place).read_volatile() }
}
