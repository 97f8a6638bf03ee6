//! Sockets as the current task uses them, where the cgroup's hooks ask for the *socket's* session.
//!
//! *Making*: UNIX, TCP and UDP over IPv4 and IPv6, and NETLINK_ROUTE; no other family (packet, vsock, alg …), type or protocol (raw, ping, MPTCP, SCTP …).
//! *Sending and connecting* on an internet socket: it must be the session's own, and what let it connect must be open for the task that sends.
//!
//! Plain `lsm`: `lsm_cgroup` goes by the socket's cgroup for these hooks, which is what a socket from outside gets around.

use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::record::{OPERATION_SEND, OPERATION_SOCKET};
use sentinel_ebpf_common::verdict::{Verdict, network_baseline};
use sentinel_ebpf_common::{Session, SocketMark};

use super::owners::{Owner, owner_of, sock_of};
use super::{ALLOW, DENY, held, pointer};
use crate::maps::SOCKETS;
use crate::offsets;
use crate::report::{Network, report_network};
use crate::session::{governed, member, now_and_fresh, open_in_scopes, session};

const UNIX: u32 = 1;
const INET: u32 = 2;
const INET6: u32 = 10;
const NETLINK: u32 = 16;
const STREAM: u32 = 1;
const DGRAM: u32 = 2;
const TCP: u32 = 6;
const UDP: u32 = 17;

#[lsm(hook = "socket_create")]
pub fn lsm_create(ctx: LsmContext) -> i32 {
    let number = held();
    // The last says that the kernel makes it for itself.
    if number == 0 || ctx.arg::<u32>(3) != 0 {
        return ALLOW;
    }
    let (family, kind, protocol) = (ctx.arg::<u32>(0), ctx.arg::<u32>(1), ctx.arg::<u32>(2));
    let is_known = match family {
        UNIX => true,
        INET | INET6 => {
            (kind == STREAM && (protocol == 0 || protocol == TCP))
                || (kind == DGRAM && (protocol == 0 || protocol == UDP))
        }
        NETLINK => protocol == 0,
        _ => false,
    };
    if is_known {
        return ALLOW;
    }
    // Not even where the policy only audits: such a socket's packets would be judged by no other hook.
    let network = Network {
        operation: OPERATION_SOCKET,
        address: [0; 16],
        port: kind,
        protocol,
        family,
        rule_bits: 0,
        open_bits: 0,
    };
    report_network(number, Verdict::Surface, 0, &network);
    DENY
}

/// Who connects a socket that isn't the session's would be judged by that socket's rules, or none.
#[lsm(hook = "socket_connect")]
pub fn lsm_connect(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    let sock = sock_of(pointer(&ctx, 0));
    if !is_internet(sock) {
        return ALLOW;
    }
    match owner_of(sock) {
        Owner::Session(owner) if owner == number => ALLOW,
        Owner::Session(_) => refused(number, sock, Verdict::ForeignTask, 0, 0),
        Owner::Nobody => refused(number, sock, Verdict::NoStorage, 0, 0),
    }
}

#[lsm(hook = "socket_sendmsg")]
pub fn lsm_sendmsg(ctx: LsmContext) -> i32 {
    let (number, mark) = governed();
    if number == 0 {
        return ALLOW;
    }
    let sock = sock_of(pointer(&ctx, 0));
    if !is_internet(sock) {
        return ALLOW;
    }
    match owner_of(sock) {
        Owner::Session(owner) if owner == number => {}
        Owner::Session(_) => return refused(number, sock, Verdict::ForeignTask, 0, 0),
        Owner::Nobody => return refused(number, sock, Verdict::NoStorage, 0, 0),
    }
    let opened = opened_by(sock);
    // One that never connected: its addresses are judged one by one. One of an older generation: its packets are, by egress.
    let Some(of_session) = session(number) else {
        return refused(number, sock, Verdict::NoSession, opened.opened_by, 0);
    };
    if opened.opened_by == 0 || opened.generation != of_session.generation {
        return ALLOW;
    }
    let (now, fresh) = now_and_fresh();
    let mut open = network_baseline(&of_session);
    if fresh {
        open |= open_in_scopes(&mark, of_session.generation, now);
    }
    if opened.opened_by & open != 0 {
        return ALLOW;
    }
    let verdict = if fresh { Verdict::DoorClosed } else { Verdict::HeartbeatStale };
    if of_session.flags & Session::AUDIT != 0 {
        report(number, sock, verdict, 1, opened.opened_by, open);
        return ALLOW;
    }
    refused(number, sock, verdict, opened.opened_by, open)
}

/// By what a socket was let connect; nothing where it wasn't.
#[inline(always)]
fn opened_by(sock: u64) -> SocketMark {
    // SAFETY: the hook's own socket; without storage the helper answers null.
    let mark = unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sock as *mut _, core::ptr::null_mut(), 0)
    };
    if mark.is_null() {
        return SocketMark::default();
    }
    // SAFETY: not null, and as large as what is stored.
    unsafe { *mark.cast::<SocketMark>() }
}

/// What can't be read is.
#[inline(always)]
fn is_internet(sock: u64) -> bool {
    let family: u16 = member(sock, offsets::sock_family()).unwrap_or(INET as u16);
    family == INET as u16 || family == INET6 as u16
}

#[inline(always)]
fn refused(number: u32, sock: u64, verdict: Verdict, rule_bits: u64, open_bits: u64) -> i32 {
    report(number, sock, verdict, 0, rule_bits, open_bits);
    DENY
}

#[inline(always)]
fn report(number: u32, sock: u64, verdict: Verdict, audited: u32, rule_bits: u64, open_bits: u64) {
    let family: u16 = member(sock, offsets::sock_family()).unwrap_or(0);
    let port: u16 = member(sock, offsets::sock_port()).unwrap_or(0);
    let protocol: u16 = member(sock, offsets::sock_protocol()).unwrap_or(0);
    let mut address = [0; 16];
    if u32::from(family) == INET6 {
        address = member(sock, offsets::sock_v6()).unwrap_or_default();
    } else {
        let ip: [u8; 4] = member(sock, offsets::sock_v4()).unwrap_or_default();
        (address[10], address[11]) = (0xff, 0xff);
        (address[12], address[13], address[14], address[15]) = (ip[0], ip[1], ip[2], ip[3]);
    }
    let network = Network {
        operation: OPERATION_SEND,
        address,
        port: u32::from(u16::from_be(port)),
        protocol: u32::from(protocol),
        family: u32::from(family),
        rule_bits,
        open_bits,
    };
    report_network(number, verdict, audited, &network);
}
