//! What comes to a session's sockets unasked: the first packet of a TCP connection, and datagrams.
//!
//! Invariant: a connection is made only to a socket that a `listen` rule let bind while that holds; a datagram comes in there, and to a socket
//! that was let send. All other packets belong to connections that one of these began.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use sentinel_ebpf_common::client_hello::Place;
use sentinel_ebpf_common::record::OPERATION_INBOUND;
use sentinel_ebpf_common::verdict::{Verdict, judge};
use sentinel_ebpf_common::{Endpoint, Session, SocketMark};

use crate::maps::SOCKETS;
use crate::packet::{self, Packet};
use crate::report::{Passing, report_packet};
use crate::rules::{PASS, REFUSE, TCP, rule_bits};
use crate::session::{Leave, leave, now_and_fresh, session};

#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    let packet = packet::read(&ctx);
    if packet.protocol == TCP && !packet.is_first() {
        return PASS;
    }
    let socket = packet::socket_of(&ctx);
    let storage = if socket.is_null() { core::ptr::null_mut() } else { SOCKETS.find(socket) };
    let mut scope = 0;
    let (mut number, mut verdict, mut audits) = (0, Verdict::NoStorage, false);
    if !storage.is_null() {
        // SAFETY: not null, and the storage lives as long as the socket that the packet came to.
        let mark = unsafe { &mut *storage };
        number = mark.session;
        scope = mark.scope;
        verdict = Verdict::NoSession;
        if let Some(of_session) = session(number) {
            verdict =
                if packet.is_read() { judge_packet(&packet, mark, &of_session) } else { Verdict::Header };
            if matches!(verdict, Verdict::Allowed) {
                return PASS;
            }
            audits = of_session.flags & Session::AUDIT != 0;
            if audits {
                if mark.flags & SocketMark::TOLD != 0 {
                    return PASS;
                }
                mark.flags |= SocketMark::TOLD;
            }
        }
    }
    let passing = Passing { operation: OPERATION_INBOUND, rule_bits: 0, scope, cookie: 0 };
    report_packet(&ctx, number, verdict, u32::from(audits), &packet, &passing, Place::default);
    if audits { PASS } else { REFUSE }
}

#[inline(always)]
fn judge_packet(packet: &Packet, mark: &SocketMark, of_session: &Session) -> Verdict {
    if mark.flags & SocketMark::LISTENS == 0 {
        // An answer; or from somebody who learned the port, as on every unconnected socket.
        let was_let_send = mark.opened_by != 0 || mark.flags & SocketMark::ASKS != 0;
        return if packet.protocol != TCP && was_let_send { Verdict::Allowed } else { Verdict::NoRule };
    }
    let bits = if mark.generation == of_session.generation {
        mark.opened_by
    } else {
        let protocol = packet.protocol as u16 | Endpoint::LISTEN;
        rule_bits(mark.session, of_session, protocol, &mark.address, mark.port, 0, 0).rule
    };
    if leave(bits, mark, of_session) == Leave::Yes {
        Verdict::Allowed
    } else {
        judge(bits, 0, now_and_fresh().1)
    }
}
