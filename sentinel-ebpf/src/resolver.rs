//! The way to the agent's own DNS resolver: what a session whose rules name hosts sends to port 53, wherever it points, goes there instead.
//!
//! Invariant: no packet of a session comes to the resolver unless `ASKERS` says for whom it asks. An application sees the DNS server that it
//! meant: as the peer, and as the source of answers.
//!
//! The resolver listens on 127.0.0.1 and ::1 of the agent's network namespace. In another one these are that one's own, where it isn't, and a source
//! port there says nothing of who asks: no socket of another one is led to it, and names don't resolve there.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use sentinel_ebpf_common::verdict::Verdict;
use sentinel_ebpf_common::{Asker, AskerKey, DNS_PORT, Session, SocketMark, TaskMark};

use crate::maps::{ASKERS, ASKS, QUESTIONS, RESOLVER, SOCKETS};
use crate::packet::Packet;
use crate::rules::{PASS, Target, target_v4, target_v6};
use crate::session::{now, tgid};

/// IPv4-mapped, in network byte order.
const LOOPBACK_V4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
const LOOPBACK_V6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A datagram to the resolver takes so many nanoseconds of its session's time: 2,000 a second may go, twice as many as the resolver reads. It sees
/// that there are too many, and tells it; what it wouldn't even read costs others nothing.
const A_QUESTION: u64 = 500_000;
/// So far ahead of the clock a session may be: a burst of 4,000.
const BURST: u64 = 4_000 * A_QUESTION;

/// Where the resolver listens; 0: it doesn't.
#[inline(always)]
fn port() -> u16 {
    RESOLVER.get(0).map_or(0, |resolver| resolver.port) as u16
}

#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *address;
    // No comparison of slices, which is a call.
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) == 0 && u32::from_be_bytes([i, j, k, l]) == 0xffff
}

/// The host's own address of the same family.
#[inline(always)]
fn loopback_like(address: &[u8; 16]) -> [u8; 16] {
    if is_mapped(address) { LOOPBACK_V4 } else { LOOPBACK_V6 }
}

/// Whether what a session sends here is for the agent's resolver.
#[inline(always)]
pub(crate) fn is_asked(of_session: &Session, target: &Target) -> bool {
    of_session.flags & Session::NAMES != 0 && target.port == DNS_PORT
}

/// Whether a socket is of the network namespace in which the resolver listens. It stays in that for its life: its packets need no look.
#[inline(always)]
fn is_beside_it(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel hands the hook a valid context.
    let own = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    RESOLVER.get(0).is_some_and(|resolver| resolver.netns == own)
}

/// Turns a call to the resolver, and notes for whom the socket asks.
#[inline(always)]
pub(crate) fn lead_to_it(
    ctx: &SockAddrContext,
    mark: &mut SocketMark,
    of_session: &Session,
    target: &Target,
    task: &TaskMark,
    is_connect: bool,
    point: Point,
) -> Verdict {
    let port = port();
    if port == 0 {
        return Verdict::NoResolver;
    }
    if !is_beside_it(ctx) {
        return Verdict::NoResolver;
    }
    let mut asker = Asker { session: mark.session, tgid: tgid(), scopes: task.scopes };
    // SAFETY: the kernel hands the hook a valid context; `asker` outlives the call, which copies it.
    let stored = unsafe {
        bpf_sk_storage_get(
            (&raw const ASKS).cast_mut().cast(),
            (*ctx.sock_addr).__bindgen_anon_1.sk.cast(),
            (&raw mut asker).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if stored.is_null() {
        return Verdict::Failed;
    }
    // One that was there keeps its value, and another process may ask by the same socket.
    // SAFETY: not null, and as large as what is stored.
    unsafe { *stored.cast::<Asker>() = asker };
    mark.flags = SocketMark::ASKS | if is_connect { SocketMark::CONNECTED } else { 0 };
    mark.generation = of_session.generation;
    mark.opened_by = 0;
    mark.scope = 0;
    mark.slot = 0;
    mark.address = target.address;
    mark.port = DNS_PORT;
    point(ctx, &loopback_like(&target.address), port);
    Verdict::Allowed
}

/// Whether a packet goes to the resolver.
#[inline(always)]
pub(crate) fn is_destination(packet: &Packet) -> bool {
    let port = port();
    port != 0 && packet.destination_port == port && packet.destination == loopback_like(&packet.destination)
}

/// Notes for whom a packet to the resolver asks. Only one that was led there, and comes from the same address, may go.
#[inline(always)]
pub(crate) fn note_asker(socket: *mut bpf_sock, packet: &Packet, mark: &mut SocketMark) -> Verdict {
    if mark.flags & SocketMark::ASKS == 0 || packet.source != packet.destination {
        return Verdict::NoRule;
    }
    // SAFETY: the caller has seen that it isn't null; without storage the helper answers null.
    let asker = unsafe {
        bpf_sk_storage_get((&raw const ASKS).cast_mut().cast(), socket.cast(), core::ptr::null_mut(), 0)
    };
    if asker.is_null() {
        return Verdict::Failed;
    }
    // SAFETY: not null, and as large as what is stored.
    let asker = unsafe { *asker.cast::<Asker>() };
    mark.own_port = packet.source_port;
    let key = key(packet.protocol, &packet.source, packet.source_port);
    if ASKERS.insert(&key, &asker, 0).is_ok() { Verdict::Allowed } else { Verdict::Failed }
}

/// Counts a session's datagram to the resolver; whether it is beyond what may go.
#[inline(always)]
pub(crate) fn is_one_too_many(session: u32) -> bool {
    let now = now();
    let Some(busy_until) = QUESTIONS.get_ptr_mut(&session) else {
        return QUESTIONS.insert(&session, &(now + A_QUESTION), 0).is_err();
    };
    // SAFETY: the map's own memory. Two CPUs may count over each other: the limit is approximate.
    let busy_until = unsafe { &mut *busy_until };
    let next = if *busy_until > now { *busy_until } else { now } + A_QUESTION;
    if next - now > BURST {
        return true;
    }
    *busy_until = next;
    false
}

/// A socket that asked is closed.
#[inline(always)]
pub(crate) fn forget_asker(socket: *mut bpf_sock, mark: &SocketMark) {
    // SAFETY: the kernel hands the hook a valid socket.
    let protocol = unsafe { (*socket).protocol };
    // Another socket of the session's may have the port by now, and would be told that it is in no session: it asks again.
    let _ = ASKERS.remove(&key(protocol, &mark.address, mark.own_port));
}

/// `address` is one of the family.
#[inline(always)]
fn key(protocol: u32, address: &[u8; 16], port: u16) -> AskerKey {
    AskerKey { protocol: protocol as u16, port, family: if is_mapped(address) { 4 } else { 6 } }
}

/// How an address and a port are written into a hook's context. Each hook may touch its own family's members only.
pub(crate) type Point = fn(&SockAddrContext, &[u8; 16], u16);

#[inline(always)]
pub(crate) fn point_v4(ctx: &SockAddrContext, address: &[u8; 16], port: u16) {
    let a = address;
    // SAFETY: the kernel hands the hook a valid context. Whole words, as the verifier allows no others to be written.
    unsafe {
        let word = u32::from_ne_bytes([a[12], a[13], a[14], a[15]]);
        core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, word);
        core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.to_be()));
    }
}

#[inline(always)]
pub(crate) fn point_v6(ctx: &SockAddrContext, address: &[u8; 16], port: u16) {
    let a = address;
    // SAFETY: as above.
    unsafe {
        let sock_addr = ctx.sock_addr;
        core::ptr::write_volatile(
            &raw mut (*sock_addr).user_ip6[0],
            u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
        );
        core::ptr::write_volatile(
            &raw mut (*sock_addr).user_ip6[1],
            u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
        );
        core::ptr::write_volatile(
            &raw mut (*sock_addr).user_ip6[2],
            u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
        );
        core::ptr::write_volatile(
            &raw mut (*sock_addr).user_ip6[3],
            u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
        );
        core::ptr::write_volatile(&raw mut (*sock_addr).user_port, u32::from(port.to_be()));
    }
}

/// Shows an application the DNS server that it meant where the kernel would show it the resolver. These hooks can refuse nothing.
#[inline(always)]
fn show(ctx: &SockAddrContext, shown: &Target, point: Point) -> i32 {
    let port = port();
    if port == 0 || shown.port != port || shown.address != loopback_like(&shown.address) {
        return PASS;
    }
    // SAFETY: the kernel hands the hook a valid context.
    let mark = SOCKETS.find(unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk });
    if !mark.is_null() {
        // SAFETY: not null, and the storage lives as long as the socket that the hook holds.
        let mark = unsafe { &*mark };
        if mark.flags & SocketMark::ASKS != 0 {
            point(ctx, &mark.address, mark.port);
        }
    }
    PASS
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    show(&ctx, &target_v4(&ctx), point_v4)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    show(&ctx, &target_v6(&ctx), point_v6)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    show(&ctx, &target_v4(&ctx), point_v4)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    show(&ctx, &target_v6(&ctx), point_v6)
}
