//! Tells the agent what was refused. Evidence only: a record that is lost is counted, and changes no verdict.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_skb_load_bytes,
};
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::programs::{SkBuffContext, TracePointContext};
use sentinel_ebpf_common::SCOPE_CHAIN;
use sentinel_ebpf_common::client_hello::Place;
use sentinel_ebpf_common::record::{OPERATION_EXEC, OPERATION_FORK, OPERATION_SEND, PATH_BYTES, Record};
use sentinel_ebpf_common::verdict::Verdict;

use crate::maps::{DROPS, RECORDS, THROTTLE, WINDOWS, Window};
use crate::offsets;
use crate::packet::Packet;
use crate::session::{current_mark_in_place, now};

/// Records that a session can make in a second of calls, and as many of packets; the rest is counted. Each has its own, for by the latter the agent
/// learns of connections that it is to destroy.
const RECORDS_A_SECOND: u64 = 256;
const SECOND: u64 = 1_000_000_000;

/// A record as words, which it is made of without a rest.
const RECORD_WORDS: usize = size_of::<Record>() / 8;
const _: () = assert!(size_of::<Record>() == RECORD_WORDS * 8 && align_of::<Record>() == 8);

/// `AF_INET6`
const INET6: u16 = 10;

const DROP_RING_FULL: u32 = 0;
const DROP_THROTTLED: u32 = 1;

/// What of a network refusal is told.
pub(crate) struct Network {
    pub(crate) operation: u32,
    pub(crate) address: [u8; 16],
    pub(crate) port: u32,
    pub(crate) protocol: u32,
    pub(crate) family: u32,
    pub(crate) rule_bits: u64,
    pub(crate) open_bits: u64,
}

/// What is told of a refusal to use a socket.
pub(crate) struct Refusal {
    pub(crate) verdict: Verdict,
    /// 1 where it is only told.
    pub(crate) audited: u32,
    pub(crate) rule_bits: u64,
    pub(crate) open_bits: u64,
}

/// What of a packet is told besides itself. Who is current has nothing to do with it.
pub(crate) struct Passing {
    pub(crate) operation: u32,
    pub(crate) rule_bits: u64,
    /// The socket's scope.
    pub(crate) scope: u64,
    /// 0 where it need not be found.
    pub(crate) cookie: u64,
}

/// What of a refused exec is told.
pub(crate) struct Executed {
    pub(crate) dev: u32,
    pub(crate) ino: u64,
    pub(crate) rule_bits: u64,
    pub(crate) open_bits: u64,
}

/// What of a refusal at tier `lsm` is told.
#[derive(Default)]
pub(crate) struct Surface {
    pub(crate) operation: u32,
    /// What the record has in `port`.
    pub(crate) number: u32,
    /// What the record has in `protocol`.
    pub(crate) detail: u32,
    pub(crate) dev: u32,
    pub(crate) ino: u64,
    pub(crate) rule_bits: u64,
    pub(crate) open_bits: u64,
    /// Where a text of the kernel's for `path` is; 0 for none.
    pub(crate) name: u64,
    /// How long that is; 0 where it ends with a NUL.
    pub(crate) name_bytes: u32,
}

#[inline(never)]
pub(crate) fn report_surface(session: u32, verdict: Verdict, audited: u32, surface: &Surface) {
    let Some(mut entry) = begin(session, verdict, audited) else { return };
    let record = filled(&mut entry);
    record.operation = surface.operation;
    record.port = surface.number;
    record.protocol = surface.detail;
    record.dev = surface.dev;
    record.ino = surface.ino;
    record.rule_bits = surface.rule_bits;
    record.open_bits = surface.open_bits;
    // A mask, so that the verifier knows that it fits.
    let bytes = surface.name_bytes & (PATH_BYTES as u32 / 2 - 1);
    if surface.name != 0 && bytes != 0 {
        // SAFETY: the helper writes so many bytes, which the path has, and fails on a bad address; then the path stays empty.
        unsafe { bpf_probe_read_kernel(record.path.as_mut_ptr().cast(), bytes, surface.name as *const _) };
    } else if surface.name != 0 {
        // SAFETY: the helper writes at most so many bytes, and fails on a bad address; then the path stays empty.
        unsafe {
            bpf_probe_read_kernel_str(
                record.path.as_mut_ptr().cast(),
                PATH_BYTES as u32,
                surface.name as *const _,
            )
        };
    }
    entry.submit(0);
}

/// Called once by each program: the verifier of 6.1 takes a program with calls of its own for one whose every number matters, and takes long.
#[inline(always)]
pub(crate) fn report_network(session: u32, verdict: Verdict, audited: u32, network: &Network) {
    let Some(mut entry) = begin(session, verdict, audited) else { return };
    let record = filled(&mut entry);
    record.operation = network.operation;
    put_address(&mut record.address, &network.address);
    record.port = network.port;
    record.protocol = network.protocol;
    record.family = network.family;
    put(&mut record.rule_bits, network.rule_bits);
    put(&mut record.open_bits, network.open_bits);
    entry.submit(0);
}

/// As [`report_network`], of what a socket was to be used for: where to, its `struct sock` tells. What can't be read of that is 0.
#[inline(always)]
pub(crate) fn report_socket(session: u32, sock: u64, refusal: &Refusal) {
    let Some(mut entry) = begin(session, refusal.verdict, refusal.audited) else { return };
    let record = filled(&mut entry);
    record.operation = OPERATION_SEND;
    let family = sock_member(sock, offsets::sock_family());
    let port = sock_member(sock, offsets::sock_port());
    let protocol = sock_member(sock, offsets::sock_protocol());
    let (address, offset, bytes) = if family == INET6 {
        (&mut record.address[..], offsets::sock_v6(), 16)
    } else {
        (record.address[10], record.address[11]) = (0xff, 0xff);
        (&mut record.address[12..], offsets::sock_v4(), 4)
    };
    // SAFETY: the helper writes so many bytes, which the address has from there on, and zeros where it fails.
    unsafe {
        bpf_probe_read_kernel(address.as_mut_ptr().cast(), bytes, (sock + u64::from(offset)) as *const _)
    };
    record.port = u32::from(u16::from_be(port));
    record.protocol = u32::from(protocol);
    record.family = u32::from(family);
    put(&mut record.rule_bits, refusal.rule_bits);
    put(&mut record.open_bits, refusal.open_bits);
    entry.submit(0);
}

/// A member of a `struct sock`; 0 where it can't be read. Without a branch, as the helper writes zeros then.
#[inline(always)]
fn sock_member(sock: u64, offset: u32) -> u16 {
    let mut value = 0_u16;
    // SAFETY: the helper writes so many bytes, and fails on a bad address.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 2, (sock + u64::from(offset)) as *const _) };
    value
}

/// Whether it was told, and not lost.
#[inline(always)]
pub(crate) fn report_packet(
    ctx: &SkBuffContext,
    session: u32,
    verdict: Verdict,
    audited: u32,
    packet: &Packet,
    passing: &Passing,
    name: impl FnOnce() -> Place,
) -> bool {
    let Some(mut entry) = begin_for(session, session % WINDOWS + WINDOWS, verdict, audited) else {
        return false;
    };
    let record = filled(&mut entry);
    record.operation = passing.operation;
    record.rule_bits = passing.rule_bits;
    record.scopes[0] = passing.scope;
    record.cookie = passing.cookie;
    if packet.is_read() {
        record.address = packet.destination;
        record.port = u32::from(packet.destination_port);
        record.protocol = packet.protocol;
        record.source = packet.source;
        record.source_port = u32::from(packet.source_port);
    }
    let name = name();
    if name.length != 0 {
        // A mask, so that the verifier knows that it fits; and that of 6.1 knows by nothing else that it isn't 0.
        let bytes = (name.length.wrapping_sub(1) & (PATH_BYTES as u32 - 1)) + 1;
        let path = record.path.as_mut_ptr().cast();
        // SAFETY: the helper writes so many bytes, which the path has, and zeros where it fails.
        unsafe { bpf_skb_load_bytes(ctx.as_ptr(), name.at, path, bytes) };
    }
    entry.submit(0);
    true
}

#[inline(always)]
pub(crate) fn report_exec(
    ctx: &TracePointContext,
    session: u32,
    verdict: Verdict,
    audited: u32,
    executed: &Executed,
) {
    let Some(mut entry) = begin(session, verdict, audited) else { return };
    let record = filled(&mut entry);
    record.operation = OPERATION_EXEC;
    record.dev = executed.dev;
    record.ino = executed.ino;
    record.rule_bits = executed.rule_bits;
    record.open_bits = executed.open_bits;
    // A `__data_loc`: where the text stands in the record in the low half, its length in the high one.
    // SAFETY: the offset is the record's own, from its format file.
    if let Ok(place) = unsafe { ctx.read_at::<u32>(offsets::exec_filename() as usize) } {
        let text = aya_ebpf::EbpfContext::as_ptr(ctx) as u64 + u64::from(place & 0xffff);
        // SAFETY: the helper writes at most so many bytes, and fails on a bad address; then the path stays empty.
        unsafe {
            bpf_probe_read_kernel_str(record.path.as_mut_ptr().cast(), PATH_BYTES as u32, text as *const _)
        };
    }
    entry.submit(0);
}

#[inline(always)]
pub(crate) fn report_fork(session: u32, verdict: Verdict, audited: u32) {
    let Some(mut entry) = begin(session, verdict, audited) else { return };
    filled(&mut entry).operation = OPERATION_FORK;
    entry.submit(0);
}

/// A record about the current task.
#[inline(always)]
fn begin(session: u32, verdict: Verdict, audited: u32) -> Option<RingBufEntry<Record>> {
    let mut entry = begin_for(session, session % WINDOWS, verdict, audited)?;
    let pid_tgid = bpf_get_current_pid_tgid();
    let record = filled(&mut entry);
    record.tgid = (pid_tgid >> 32) as u32;
    record.tid = pid_tgid as u32;
    // SAFETY: the helper writes so many bytes, and zeros where it fails.
    unsafe { bpf_get_current_comm(record.comm.as_mut_ptr().cast(), record.comm.len() as u32) };
    if let Some(mark) = current_mark_in_place() {
        for index in 0..SCOPE_CHAIN {
            put(&mut record.scopes[index], mark.scopes[index]);
        }
    }
    Some(entry)
}

/// A record in the ring buffer about nobody, with when in it, and nothing else; none where the session has made too many, or the buffer is full.
#[inline(always)]
fn begin_for(session: u32, window: u32, verdict: Verdict, audited: u32) -> Option<RingBufEntry<Record>> {
    let now = now();
    if is_throttled(window, now) {
        count_drop(DROP_THROTTLED);
        return None;
    }
    let Some(mut entry) = RECORDS.reserve::<Record>(0) else {
        count_drop(DROP_RING_FULL);
        return None;
    };
    let record = entry.as_mut_ptr();
    // To its end: what was in the buffer before is another session's.
    for word in 0..RECORD_WORDS {
        // SAFETY: the entry is this program run's own, aligned for words and as large as a record. Volatile as in `put`.
        unsafe { record.cast::<u64>().add(word).write_volatile(0) };
    }
    // SAFETY: every member is written: zeros are a record.
    let record = unsafe { &mut *record };
    record.at = now;
    record.verdict = verdict as u32;
    record.session = session;
    record.audited = audited;
    Some(entry)
}

/// Writes a number. Volatile: of several in a row the compiler would make a call of `memset` or `memcpy`, and a program with calls of its own is one
/// whose every number matters to the verifier of 6.1, which then goes through many times as much.
#[inline(always)]
pub(crate) fn put<T>(place: &mut T, value: T) {
    // SAFETY: a reference is valid for writes; numbers need no drop.
    unsafe { core::ptr::from_mut(place).write_volatile(value) };
}

/// Writes an address that stands where a word may, word by word, as [`put`] does.
#[inline(always)]
pub(crate) fn put_address(place: &mut [u8; 16], address: &[u8; 16]) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes);
    let place = place.as_mut_ptr().cast::<u32>();
    for (index, word) in words.into_iter().enumerate() {
        // SAFETY: four words are sixteen bytes, and the callers' places are aligned for words.
        unsafe { place.add(index).write_volatile(word) };
    }
}

/// The record in an entry that [`begin`] gave.
#[inline(always)]
fn filled(entry: &mut RingBufEntry<Record>) -> &mut Record {
    // SAFETY: `begin` wrote every member.
    unsafe { entry.assume_init_mut() }
}

#[inline(always)]
fn is_throttled(slot: u32, now: u64) -> bool {
    match THROTTLE.get_ptr_mut(&slot) {
        Some(window) => {
            // SAFETY: the map's own memory. Two CPUs may count over each other: the limit is approximate.
            let window = unsafe { &mut *window };
            if now - window.started >= SECOND {
                window.started = now;
                window.count = 0;
            }
            window.count += 1;
            window.count > RECORDS_A_SECOND
        }
        None => THROTTLE.insert(&slot, &Window { started: now, count: 1 }, 0).is_err(),
    }
}

#[inline(always)]
fn count_drop(kind: u32) {
    if let Some(count) = DROPS.get_ptr_mut(kind) {
        // SAFETY: this CPU's own slot.
        unsafe { *count += 1 };
    }
}
