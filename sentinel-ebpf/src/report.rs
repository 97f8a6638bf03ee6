//! Tells the agent what was refused. Evidence only: a record that is lost is counted, and changes no verdict.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::programs::TracePointContext;
use sentinel_ebpf_common::SCOPE_CHAIN;
use sentinel_ebpf_common::record::{OPERATION_EXEC, OPERATION_FORK, PATH_BYTES, Record};
use sentinel_ebpf_common::verdict::Verdict;

use crate::maps::{DROPS, RECORDS, THROTTLE, WINDOWS, Window};
use crate::offsets;
use crate::packet::Packet;
use crate::session::{current_mark_in_place, now};

/// Records that a session can make in a second of calls, and as many of packets; the rest is counted. Each has its own, for by the latter the agent
/// learns of connections that it is to destroy.
const RECORDS_A_SECOND: u64 = 256;
const SECOND: u64 = 1_000_000_000;

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
    record.address = network.address;
    record.port = network.port;
    record.protocol = network.protocol;
    record.family = network.family;
    record.rule_bits = network.rule_bits;
    record.open_bits = network.open_bits;
    entry.submit(0);
}

/// Whether it was told, and not lost.
#[inline(always)]
pub(crate) fn report_packet(
    session: u32,
    verdict: Verdict,
    audited: u32,
    packet: Option<&Packet>,
    passing: &Passing,
) -> bool {
    let Some(mut entry) = begin_for(session, session % WINDOWS + WINDOWS, verdict, audited) else {
        return false;
    };
    let record = filled(&mut entry);
    record.operation = passing.operation;
    record.rule_bits = passing.rule_bits;
    record.scopes[0] = passing.scope;
    record.cookie = passing.cookie;
    if let Some(packet) = packet {
        record.address = packet.destination;
        record.port = u32::from(packet.destination_port);
        record.protocol = packet.protocol;
        record.source = packet.source;
        record.source_port = u32::from(packet.source_port);
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
    record.comm = bpf_get_current_comm().unwrap_or_default();
    if let Some(mark) = current_mark_in_place() {
        record.scopes = mark.scopes;
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
    // Member by member, and the path to its end: what was in the buffer before is another session's.
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is this program run's own and as large as a record.
    unsafe {
        (*record).at = now;
        (*record).operation = 0;
        (*record).verdict = verdict as u32;
        (*record).session = session;
        (*record).audited = audited;
        (*record).tgid = 0;
        (*record).tid = 0;
        (*record).comm = [0; 16];
        (*record).address = [0; 16];
        (*record).port = 0;
        (*record).protocol = 0;
        (*record).family = 0;
        (*record).dev = 0;
        (*record).ino = 0;
        (*record).rule_bits = 0;
        (*record).open_bits = 0;
        (*record).scopes = [0; SCOPE_CHAIN];
        (*record).cookie = 0;
        (*record).source = [0; 16];
        (*record).source_port = 0;
        (*record).reserved = 0;
        let path = (&raw mut (*record).path).cast::<u64>();
        // Else the compiler makes a call of it.
        for word in 0..PATH_BYTES / 8 {
            path.add(word).write_volatile(0);
        }
    }
    Some(entry)
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
