//! Every packet on its way out, retransmitted ones too: judged by its own destination and its socket's storage, never by who is current, for a
//! retransmit runs as whatever the CPU was doing.
//!
//! Invariant: payload leaves only while what let its socket go still holds: the baseline while it is open, else an action of the grant that was
//! in flight when the socket was opened and still is. Payload that is refused poisons its TCP socket. Bare ACK, FIN and RST pass.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use sentinel_ebpf_common::client_hello::Place;
use sentinel_ebpf_common::record::OPERATION_EGRESS;
use sentinel_ebpf_common::verdict::{Verdict, judge, network_baseline};
use sentinel_ebpf_common::{Connection, ConnectionKey, Endpoint, Session, SocketMark};

use crate::maps::{CONNECTION_COUNTS, CONNECTIONS, SOCKETS};
use crate::packet::{self, Packet};
use crate::report::{Passing, report_packet};
use crate::resolver;
use crate::rules::{PASS, REFUSE, TCP, UDP, rule_bits};
use crate::server_name;
use crate::session::{Leave, leave, now_and_fresh, session};

/// Only where there is no such entry.
const BPF_NOEXIST: u64 = 1;
/// So many connections of one scope can be noted at the same moment.
const SLOTS_TRIED: u64 = 16;

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    let packet = packet::read(&ctx);
    if packet.is_read() && packet.is_bare() {
        return PASS;
    }
    let socket = packet::socket_of(&ctx);
    let storage = if socket.is_null() { core::ptr::null_mut() } else { SOCKETS.find(socket) };
    let (mut scope, mut bits) = (0, 0);
    let (mut number, mut verdict, mut audits) = (0, Verdict::NoStorage, false);
    if !storage.is_null() {
        // SAFETY: not null, and the storage lives as long as the socket that the packet holds.
        let mark = unsafe { &mut *storage };
        number = mark.session;
        scope = mark.scope;
        verdict = Verdict::NoSession;
        if let Some(of_session) = session(number) {
            audits = of_session.flags & Session::AUDIT != 0;
            if packet.is_read() && server_name::is_due(&packet, mark, &of_session) {
                server_name::look(&ctx, socket, &packet, mark, &of_session);
            }
            let outcome = if packet.is_read() {
                judge_packet(&ctx, socket, &packet, mark, &of_session, &mut bits)
            } else {
                Outcome::Refused(Verdict::Header)
            };
            verdict = match outcome {
                Outcome::Passed => return PASS,
                // Neither told nor held against it: TCP tries again, and what lets it go then let it go now.
                Outcome::NotYet if !audits => return REFUSE,
                Outcome::Dropped => return REFUSE,
                Outcome::NotYet => Verdict::DoorClosed,
                Outcome::Refused(verdict) => verdict,
            };
            let was_told = mark.flags & SocketMark::TOLD != 0;
            hold_against(mark, &packet, audits);
            if was_told {
                return if audits { PASS } else { REFUSE };
            }
        }
    }
    let passing = Passing { operation: OPERATION_EGRESS, rule_bits: bits, scope, cookie: cookie(&ctx) };
    let name = || if socket.is_null() { Place::default() } else { server_name::name(socket) };
    let is_told = report_packet(&ctx, number, verdict, u32::from(audits), &packet, &passing, name);
    if !is_told && !storage.is_null() {
        // The next try tells it: by that the agent learns which connection it is to destroy.
        // SAFETY: as above.
        unsafe { (*storage).flags &= !SocketMark::TOLD };
    }
    if audits { PASS } else { REFUSE }
}

enum Outcome {
    Passed,
    Refused(Verdict),
    NotYet,
    /// A question to the resolver beyond what it reads: it tells of those that came.
    Dropped,
}

/// Marks the socket of a packet that is refused, or would be.
#[inline(always)]
fn hold_against(mark: &mut SocketMark, packet: &Packet, audits: bool) {
    if audits {
        mark.flags |= SocketMark::TOLD;
        mark.flags &= !SocketMark::TLS_DUE;
    } else if packet.protocol == TCP {
        // It will be sent again and again. Datagrams are told each, for each is lost.
        mark.flags |= SocketMark::TOLD;
        if packet.has_payload() {
            mark.flags |= SocketMark::POISONED;
        }
    }
}

#[inline(always)]
fn judge_packet(
    ctx: &SkBuffContext,
    socket: *mut bpf_sock,
    packet: &Packet,
    mark: &mut SocketMark,
    of_session: &Session,
    told_bits: &mut u64,
) -> Outcome {
    if mark.flags & SocketMark::POISONED != 0 {
        return Outcome::Refused(Verdict::Poisoned);
    }
    if resolver::is_destination(packet) {
        let verdict = resolver::note_asker(socket, packet, mark);
        if !matches!(verdict, Verdict::Allowed) {
            return Outcome::Refused(verdict);
        }
        let is_dropped = packet.protocol == UDP && resolver::is_one_too_many(mark.session);
        return if is_dropped { Outcome::Dropped } else { Outcome::Passed };
    }
    // An accepted TCP socket answers whoever came to its listener's address. A datagram's answer needs a rule like any datagram.
    let listens = mark.flags & SocketMark::LISTENS != 0 && packet.protocol == TCP;
    let is_as_judged = mark.generation == of_session.generation
        && (listens || (mark.port == packet.destination_port && mark.address == packet.destination));
    let mut bits = if is_as_judged {
        mark.opened_by
    } else {
        let (protocol, port) = if listens {
            (TCP as u16 | Endpoint::LISTEN, mark.port)
        } else {
            (packet.protocol as u16, packet.destination_port)
        };
        let address = if listens { mark.address } else { packet.destination };
        rule_bits(mark.session, of_session, protocol, &address, port, 0, 0).rule
    };
    *told_bits = bits;
    if server_name::is_due(packet, mark, of_session) {
        match server_name::listed_by(socket) {
            Ok(listed) if listed & bits == 0 && bits != 0 => return Outcome::Refused(Verdict::ServerName),
            Ok(listed) => bits &= listed,
            Err(verdict) => return Outcome::Refused(verdict),
        }
    }
    match leave(bits, mark, of_session) {
        Leave::Yes => {}
        Leave::NotYet if packet.protocol == TCP => return Outcome::NotYet,
        Leave::No | Leave::NotYet => return Outcome::Refused(judge(bits, 0, now_and_fresh().1)),
    }
    if is_as_judged && server_name::is_due(packet, mark, of_session) {
        // From now on it is a connection of those that name its server, and of no other whose host has the same address.
        mark.opened_by = bits;
    }
    let is_leased = mark.scope != 0 && bits & network_baseline(of_session) == 0;
    let has_peer = mark.flags & (SocketMark::CONNECTED | SocketMark::LISTENS) != 0;
    // A listener's answer to a first packet comes from the listener, which has no peer.
    let is_listeners = listens && packet.is_syn();
    if is_leased && has_peer && !is_listeners && mark.slot == 0 && !note(ctx, packet, mark, of_session) {
        return Outcome::Refused(Verdict::Failed);
    }
    if packet.has_payload() && mark.flags & SocketMark::TLS_DUE != 0 {
        server_name::passed(socket, mark);
    }
    Outcome::Passed
}

/// Writes down a connection that an action's door let out, for the agent to find when that shuts.
#[inline(always)]
fn note(ctx: &SkBuffContext, packet: &Packet, mark: &mut SocketMark, of_session: &Session) -> bool {
    let scope = mark.scope;
    // SAFETY: copied at once.
    let count = unsafe { CONNECTION_COUNTS.get(&scope) }.copied().unwrap_or(0);
    let connection = Connection {
        cookie: cookie(ctx),
        opened_by: mark.opened_by,
        opened_at: mark.opened_at,
        source: packet.source,
        destination: packet.destination,
        // 0 is none: its bits are another policy's, and the address decides.
        generation: if mark.generation == of_session.generation { mark.generation } else { 0 },
        protocol: packet.protocol,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        reserved: 0,
    };
    // There is no instruction for counting that the build can use, so other CPUs may have the same number: whoever is first has the slot. The
    // agent looks behind the count too, as one may write a lower count over a higher one.
    for step in 0..SLOTS_TRIED {
        let slot = count + step;
        if CONNECTIONS.insert(&ConnectionKey { scope, slot }, &connection, BPF_NOEXIST).is_ok() {
            mark.slot = slot + 1;
            return CONNECTION_COUNTS.insert(&scope, &mark.slot, 0).is_ok();
        }
    }
    false
}

/// The socket's own number, by which it is found.
#[inline(always)]
fn cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: the kernel hands the hook a valid context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
