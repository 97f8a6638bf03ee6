//! Judges an endpoint: the lookups of a network rule, and what is open for the current task.

use aya_ebpf::bindings::BPF_TCP_CLOSE;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::SockAddrContext;
use sentinel_ebpf_common::record::{OPERATION_BIND, OPERATION_CONNECT, OPERATION_SENDMSG};
use sentinel_ebpf_common::verdict::{Verdict, judge, network_baseline};
use sentinel_ebpf_common::{BASELINE, Endpoint, Session, SocketMark};

use crate::maps::{NAMED, NETWORK, NETWORK_PREFIXES, SOCKETS};
use crate::report::{Network, put_address, report_network};
use crate::resolver::{self, Point};
use crate::session::{mark_in_session, now_and_fresh, open_in_scopes, scope_with, session};

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
    Bind,
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

impl Target {
    /// The protocol as a rule has it.
    #[inline(always)]
    pub(crate) fn of_rule(&self, listens: bool) -> u16 {
        self.protocol as u16 | if listens { Endpoint::LISTEN } else { 0 }
    }
}

/// Why an address was refused, and what is told of it.
struct Refusal {
    verdict: Verdict,
    session: u32,
    /// 1 where the session only audits.
    audited: u32,
    rule: u64,
    open: u64,
}

/// Decides on an address for a socket of a session, and reports a refusal. In one place: each call takes stack, of which there is little.
#[inline(always)]
pub(crate) fn decide(ctx: &SockAddrContext, operation: Operation, target: &Target, point: Point) -> i32 {
    let Err(refusal) = judge_address(ctx, operation, target, point) else { return PASS };
    report(operation, target, &refusal);
    if refusal.audited != 0 { PASS } else { REFUSE }
}

#[inline(always)]
fn judge_address(
    ctx: &SockAddrContext,
    operation: Operation,
    target: &Target,
    point: Point,
) -> Result<(), Refusal> {
    let unknown = |session, verdict| Refusal { verdict, session, audited: 0, rule: 0, open: 0 };
    // SAFETY: the kernel hands the hook a valid context.
    let storage = SOCKETS.find(unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk });
    if storage.is_null() {
        return Err(unknown(0, Verdict::NoStorage));
    }
    // SAFETY: not null, and the storage lives as long as the socket that the hook holds.
    let number = unsafe { (*storage).session };
    let Some(of_session) = session(number) else { return Err(unknown(number, Verdict::NoSession)) };
    if target.protocol != TCP && target.protocol != UDP {
        return Err(refused(storage, &of_session, Verdict::Surface, 0, 0));
    }

    let (now, fresh) = now_and_fresh();
    let mut open = network_baseline(&of_session);
    // One of session 0 is nobody's: not an `Option`, whose inside the compiler may read before it has looked whether there is one.
    let task = mark_in_session().unwrap_or_default();
    if task.session != 0 {
        if task.session != number {
            // A socket that another session's task holds opens nothing for it, not even the baseline.
            return Err(refused(storage, &of_session, Verdict::ForeignTask, 0, open));
        }
        if fresh {
            open |= open_in_scopes(&task, of_session.generation, now);
        }
    }

    if !matches!(operation, Operation::Bind) && resolver::is_asked(&of_session, target) {
        // SAFETY: as above.
        let mark = unsafe { &mut *storage };
        let is_connect = matches!(operation, Operation::Connect);
        return match resolver::lead_to_it(ctx, mark, &of_session, target, &task, is_connect, point) {
            Verdict::Allowed => Ok(()),
            verdict => Err(refused(storage, &of_session, verdict, 0, open)),
        };
    }
    if matches!(operation, Operation::Bind) && !is_bindable(ctx) {
        // The kernel refuses it, but only behind this hook: what the socket was let do before stays what its packets are judged by.
        return Ok(());
    }
    let protocol = target.of_rule(matches!(operation, Operation::Bind));
    let Opened { rule, hit, by_name } =
        rule_bits(number, &of_session, protocol, &target.address, target.port, open, now);
    if hit != 0 {
        let is_leased = hit & !BASELINE != 0;
        let scope = if is_leased { scope_with(&task, hit, of_session.generation, now) } else { 0 };
        // SAFETY: as above.
        let mark = unsafe { &mut *storage };
        remember(mark, operation, target, of_session.generation, hit, scope, now);
        if by_name && of_session.flags & Session::TLS_NAMES != 0 && matches!(operation, Operation::Connect) {
            mark.flags |= SocketMark::TLS_DUE;
        }
        return Ok(());
    }
    if matches!(operation, Operation::Bind) && target.port == 0 {
        // What many clients do. It is let send as far as rules say, and nothing comes to it that it didn't ask for.
        return Ok(());
    }
    Err(refused(storage, &of_session, judge(rule, open, fresh), rule, open))
}

/// Whether a socket is neither connected nor bound, nor about to be. The hook holds its lock.
#[inline(always)]
fn is_bindable(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel hands the hook a valid context.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if socket.is_null() {
        return false;
    }
    // SAFETY: it isn't null, and the kernel's own while the hook runs.
    unsafe { (*socket).state == BPF_TCP_CLOSE && (*socket).src_port == 0 }
}

/// A refusal in a session that is known; one that only audits goes on.
#[inline(always)]
fn refused(
    storage: *mut SocketMark,
    of_session: &Session,
    verdict: Verdict,
    rule: u64,
    open: u64,
) -> Refusal {
    // SAFETY: the caller has seen that it isn't null, and it lives as long as the socket that the hook holds.
    let mark = unsafe { &mut *storage };
    let audits = of_session.flags & Session::AUDIT != 0;
    if audits {
        // Its packets would only say it again.
        mark.flags |= SocketMark::TOLD;
    }
    Refusal { verdict, session: mark.session, audited: u32::from(audits), rule, open }
}

/// Writes into a socket's storage by what it was let go.
#[inline(always)]
fn remember(
    mark: &mut SocketMark,
    operation: Operation,
    target: &Target,
    generation: u32,
    hit: u64,
    scope: u64,
    now: u64,
) {
    match operation {
        Operation::Connect => {
            mark.flags = SocketMark::CONNECTED;
            mark.slot = 0;
        }
        Operation::Bind => {
            mark.flags = SocketMark::LISTENS;
            mark.slot = 0;
        }
        // What always is open takes nothing from a peer that an action has opened.
        Operation::Sendmsg if hit & BASELINE != 0 && mark.scope != 0 => return,
        Operation::Sendmsg => {
            mark.flags &= SocketMark::CONNECTED;
            if mark.scope != scope {
                mark.flags = 0;
                mark.slot = 0;
            }
        }
    }
    mark.generation = generation;
    mark.opened_by = hit;
    mark.scope = scope;
    mark.opened_at = now;
    put_address(&mut mark.address, &target.address);
    mark.port = target.port;
}

/// What the rules say of an address.
pub(crate) struct Opened {
    /// The grants that would open it.
    pub(crate) rule: u64,
    /// Those of them that are open.
    pub(crate) hit: u64,
    /// Whether these are so by a name that it was told for.
    pub(crate) by_name: bool,
}

/// The grants that would open an address, and those of them that are open. Ends at the first rule that is open. An address that was told for a
/// name counts until `now`; for a connection that is there already, where that is 0, also when its time is over.
#[inline(always)]
pub(crate) fn rule_bits(
    session: u32,
    of_session: &Session,
    protocol: u16,
    address: &[u8; 16],
    port: u16,
    open: u64,
    now: u64,
) -> Opened {
    let generation = of_session.generation;
    let opened = |rule, by_name| Opened { rule, hit: rule & open, by_name };
    let mut endpoint = Endpoint { session, generation, protocol, port, address: [0; 16] };
    put_address(&mut endpoint.address, address);
    let mut all = 0;
    // First the port itself, then "any port".
    for any_port in [false, true] {
        if any_port {
            endpoint.port = 0;
        }
        // SAFETY: copied at once; rules of a generation are never changed.
        let exact = unsafe { NETWORK.get(&endpoint) }.copied().unwrap_or(0);
        if exact & open != 0 {
            return opened(exact, false);
        }
        let key = Key::new(Endpoint::BITS_BEFORE_ADDRESS + 128, endpoint);
        let prefix = NETWORK_PREFIXES.get(&key).copied().unwrap_or(0);
        if prefix & open != 0 {
            return opened(prefix, false);
        }
        all |= exact | prefix;
        if of_session.flags & Session::NAMES != 0 {
            // SAFETY: copied at once; a torn read can only mix what the agent meant before and after one write.
            let named = unsafe { NAMED.get(&endpoint) }.copied().unwrap_or_default();
            if named.expires_at > now {
                if named.bits & open != 0 {
                    return opened(named.bits, true);
                }
                all |= named.bits;
            }
        }
    }
    Opened { rule: all, hit: 0, by_name: false }
}

#[inline(always)]
fn report(operation: Operation, target: &Target, refusal: &Refusal) {
    report_network(
        refusal.session,
        refusal.verdict,
        refusal.audited,
        &Network {
            operation: match operation {
                Operation::Connect => OPERATION_CONNECT,
                Operation::Sendmsg => OPERATION_SENDMSG,
                Operation::Bind => OPERATION_BIND,
            },
            address: target.address,
            port: u32::from(target.port),
            protocol: target.protocol,
            family: 0,
            rule_bits: refusal.rule,
            open_bits: refusal.open,
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
