//! Sockets as the current task uses them, where the cgroup's hooks ask for the *socket's* session.
//!
//! *Making*: UNIX, TCP and UDP over IPv4 and IPv6, and NETLINK_ROUTE; no other family (packet, vsock, alg …), type or protocol (raw, ping, MPTCP, SCTP …).
//! *Sending and connecting* on an internet socket: it must be the session's own, and what let it connect must be open for the task that sends.
//!
//! Plain `lsm`: `lsm_cgroup` goes by the socket's cgroup for these hooks, which is what a socket from outside gets around.

use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::record::OPERATION_SOCKET;
use sentinel_ebpf_common::verdict::{Verdict, judge, network_baseline};
use sentinel_ebpf_common::{Session, SocketMark, TaskMark};

use super::owners::{Owner, owner_of, sock_of};
use super::{ALLOW, DENY, held, pointer};
use crate::maps::SOCKETS;
use crate::offsets;
use crate::report::{Network, Refusal, report_network, report_socket};
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
    let verdict = owned_by(number, sock);
    if let Verdict::Allowed = verdict {
        return ALLOW;
    }
    report_socket(number, sock, &Refusal { verdict, audited: 0, rule_bits: 0, open_bits: 0 });
    DENY
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
    let refusal = judge_sending(number, &mark, sock);
    if let Verdict::Allowed = refusal.verdict {
        return ALLOW;
    }
    // At one place for all, or each has the whole report of its own, and the verifier goes through every one.
    report_socket(number, sock, &refusal);
    if refusal.audited != 0 { ALLOW } else { DENY }
}

/// Whether a task of this session with this mark may send by a socket.
#[inline(always)]
fn judge_sending(number: u32, mark: &TaskMark, sock: u64) -> Refusal {
    let mut told = Refusal { verdict: owned_by(number, sock), audited: 0, rule_bits: 0, open_bits: 0 };
    if !matches!(told.verdict, Verdict::Allowed) {
        return told;
    }
    let opened = opened_by(sock);
    let Some(of_session) = session(number) else {
        told.verdict = Verdict::NoSession;
        told.rule_bits = opened.opened_by;
        return told;
    };
    // One that never connected: its addresses are judged one by one. One of an older generation: its packets are, by egress.
    if opened.opened_by == 0 || opened.generation != of_session.generation {
        return told;
    }
    let (now, fresh) = now_and_fresh();
    let mut open = network_baseline(&of_session);
    if fresh {
        open |= open_in_scopes(mark, of_session.generation, now);
    }
    told.verdict = judge(opened.opened_by, open, fresh);
    told.audited = u32::from(of_session.flags & Session::AUDIT != 0);
    told.rule_bits = opened.opened_by;
    told.open_bits = open;
    told
}

/// Whether a socket is a session's own.
#[inline(always)]
fn owned_by(number: u32, sock: u64) -> Verdict {
    match owner_of(sock) {
        Owner::Session(owner) if owner == number => Verdict::Allowed,
        Owner::Session(_) => Verdict::ForeignTask,
        Owner::Nobody => Verdict::NoStorage,
    }
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
