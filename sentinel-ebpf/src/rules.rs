//! Judges an endpoint: the lookups of a network rule, and what is open for the current task.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::SockAddrContext;
use sentinel_ebpf_common::record::{OPERATION_CONNECT, OPERATION_SENDMSG};
use sentinel_ebpf_common::verdict::{Verdict, judge, network_baseline};
use sentinel_ebpf_common::{Endpoint, Session, SocketMark};

use crate::maps::{NETWORK, NETWORK_PREFIXES, SOCKETS};
use crate::report::{Network, report_network};
use crate::session::{current_mark, heartbeat_fresh, now, open_in_scopes, session};

/// What a cgroup socket-address program answers to refuse (`EPERM`).
pub(crate) const REFUSE: i32 = 0;
/// What it answers to let pass.
pub(crate) const PASS: i32 = 1;

pub(crate) const TCP: u32 = 6;
pub(crate) const UDP: u32 = 17;

/// Which hook asks.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Connect,
    Sendmsg,
}

/// Where to.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// IPv4 as IPv4-mapped IPv6, network byte order.
    pub(crate) address: [u8; 16],
    /// Host byte order.
    pub(crate) port: u16,
    /// `TCP` or `UDP`; any other is refused.
    pub(crate) protocol: u32,
}

/// Decides on an address for a socket of a session, and reports a refusal.
#[inline(always)]
pub(crate) fn decide(ctx: &SockAddrContext, operation: Operation, target: &Target) -> i32 {
    // SAFETY: the kernel hands the hook a valid socket; without storage the helper answers null.
    let storage = unsafe { SOCKETS.get_ptr_mut(ctx) };
    if storage.is_null() {
        refuse(operation, target, 0, Verdict::NoStorage, 0, 0);
        return REFUSE;
    }
    // SAFETY: not null, and the storage lives as long as the socket that the hook holds.
    let mark: SocketMark = unsafe { *storage };
    let Some(of_session) = session(mark.session) else {
        refuse(operation, target, mark.session, Verdict::NoSession, 0, 0);
        return REFUSE;
    };
    if target.protocol != TCP && target.protocol != UDP {
        return refuse_or_audit(operation, target, mark.session, &of_session, Verdict::Surface, 0, 0);
    }

    let now = now();
    let fresh = heartbeat_fresh(now);
    let mut open = network_baseline(&of_session);
    let mut foreign = false;
    if let Some(task) = current_mark() {
        if task.session != mark.session {
            foreign = true;
        } else if fresh {
            open |= open_in_scopes(&task, of_session.generation, now);
        }
    }
    if foreign {
        // A socket that another session's task holds opens nothing for it, not even the baseline.
        return refuse_or_audit(operation, target, mark.session, &of_session, Verdict::ForeignTask, 0, open);
    }

    let (rule, hit) = rule_bits(mark.session, of_session.generation, target, open);
    if hit != 0 {
        // SAFETY: as above.
        unsafe {
            (*storage).generation = of_session.generation;
            (*storage).opened_by = hit;
        }
        return PASS;
    }
    let verdict = judge(rule, open, fresh);
    refuse_or_audit(operation, target, mark.session, &of_session, verdict, rule, open)
}

/// The grants that would open the target, and those of them that are open. Ends at the first rule that is open.
#[inline(always)]
fn rule_bits(session: u32, generation: u32, target: &Target, open: u64) -> (u64, u64) {
    let mut endpoint = Endpoint {
        session,
        generation,
        protocol: target.protocol as u16,
        port: target.port,
        address: target.address,
    };
    let mut all = 0;
    // First the port itself, then "any port".
    for any_port in [false, true] {
        if any_port {
            endpoint.port = 0;
        }
        // SAFETY: copied at once; rules of a generation are never changed.
        let exact = unsafe { NETWORK.get(&endpoint) }.copied().unwrap_or(0);
        if exact & open != 0 {
            return (exact, exact & open);
        }
        let key = Key::new(Endpoint::BITS_BEFORE_ADDRESS + 128, endpoint);
        let prefix = NETWORK_PREFIXES.get(&key).copied().unwrap_or(0);
        if prefix & open != 0 {
            return (prefix, prefix & open);
        }
        all |= exact | prefix;
    }
    (all, 0)
}

#[inline(always)]
fn refuse_or_audit(
    operation: Operation,
    target: &Target,
    session: u32,
    of_session: &Session,
    verdict: Verdict,
    rule: u64,
    open: u64,
) -> i32 {
    if of_session.flags & Session::AUDIT != 0 {
        report(operation, target, session, verdict, rule, open, 1);
        return PASS;
    }
    refuse(operation, target, session, verdict, rule, open);
    REFUSE
}

#[inline(always)]
fn refuse(operation: Operation, target: &Target, session: u32, verdict: Verdict, rule: u64, open: u64) {
    report(operation, target, session, verdict, rule, open, 0);
}

#[inline(always)]
fn report(
    operation: Operation,
    target: &Target,
    session: u32,
    verdict: Verdict,
    rule: u64,
    open: u64,
    audited: u32,
) {
    report_network(
        session,
        verdict,
        audited,
        &Network {
            operation: match operation {
                Operation::Connect => OPERATION_CONNECT,
                Operation::Sendmsg => OPERATION_SENDMSG,
            },
            address: target.address,
            port: u32::from(target.port),
            protocol: target.protocol,
            family: 0,
            rule_bits: rule,
            open_bits: open,
        },
    );
}

/// The target that the hook's context names, with an IPv4 address.
#[inline(always)]
pub(crate) fn target_v4(ctx: &SockAddrContext) -> Target {
    // SAFETY: the kernel hands the hook a valid context.
    let (ip, port, protocol) = unsafe {
        let sock_addr = &*ctx.sock_addr;
        (sock_addr.user_ip4, sock_addr.user_port, sock_addr.protocol)
    };
    let ip = ip.to_ne_bytes();
    Target {
        address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip[0], ip[1], ip[2], ip[3]],
        port: u16::from_be(port as u16),
        protocol,
    }
}

/// The target that the hook's context names, with an IPv6 address. An IPv4-mapped one is the IPv4 one it means as it stands.
#[inline(always)]
pub(crate) fn target_v6(ctx: &SockAddrContext) -> Target {
    // SAFETY: the kernel hands the hook a valid context. Member by member, as the verifier allows 4-byte reads only.
    let (words, port, protocol) = unsafe {
        let sock_addr = ctx.sock_addr;
        let words = [
            core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[0]),
            core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[1]),
            core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[2]),
            core::ptr::read_volatile(&raw const (*sock_addr).user_ip6[3]),
        ];
        (words, (*sock_addr).user_port, (*sock_addr).protocol)
    };
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    Target {
        address: [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
        ],
        port: u16::from_be(port as u16),
        protocol,
    }
}
