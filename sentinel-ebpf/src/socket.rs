//! Making an internet socket: only TCP and UDP, and each is marked with its session.
//!
//! Closing one is looked after here too: what the agent could destroy is forgotten with it.
//!
//! Other families (packet, vsock, netlink, alg …) don't come by here; the launcher's seccomp filter refuses them.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use sentinel_ebpf_common::record::OPERATION_SOCKET;
use sentinel_ebpf_common::verdict::Verdict;
use sentinel_ebpf_common::{ConnectionKey, SocketMark};

use crate::maps::{CONNECTIONS, SOCKETS};
use crate::report::{Network, report_network};
use crate::resolver;
use crate::rules::{PASS, REFUSE, TCP, UDP};
use crate::session::{current_mark, session, session_of_cgroup};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

#[cgroup_sock(sock_create)]
pub fn socket_create(ctx: SockContext) -> i32 {
    let socket: *mut bpf_sock = ctx.sock;
    // SAFETY: the kernel hands the hook a valid context.
    let (family, kind, protocol) = unsafe { ((*socket).family, (*socket).type_, (*socket).protocol) };
    let Err((number, verdict)) = create(socket, kind, protocol) else { return PASS };
    let network = Network {
        operation: OPERATION_SOCKET,
        address: [0; 16],
        port: kind,
        protocol,
        family,
        rule_bits: 0,
        open_bits: 0,
    };
    report_network(number, verdict, 0, &network);
    REFUSE
}

#[inline(always)]
fn create(socket: *mut bpf_sock, kind: u32, protocol: u32) -> Result<(), (u32, Verdict)> {
    let of_cgroup = session_of_cgroup();
    let number = match current_mark() {
        // A marked task in another session's cgroup is somebody's trick.
        Some(mark) if of_cgroup != 0 && mark.session != of_cgroup => {
            return Err((mark.session, Verdict::ForeignTask));
        }
        Some(mark) => mark.session,
        None => of_cgroup,
    };
    let Some(of_session) = session(number) else { return Err((number, Verdict::NoSession)) };
    let known = (kind == SOCK_STREAM && protocol == TCP) || (kind == SOCK_DGRAM && protocol == UDP);
    if !known {
        // Not even where the policy only audits: such a socket's packets would be judged by no other hook.
        return Err((number, Verdict::Surface));
    }
    let mut mark = SocketMark { session: number, generation: of_session.generation, ..SocketMark::default() };
    if SOCKETS.create(socket, &mut mark).is_null() {
        return Err((number, Verdict::Failed));
    }
    Ok(())
}

/// Runs where an application closes a socket: nobody waits for its end any more.
#[cgroup_sock(sock_release)]
pub fn socket_release(ctx: SockContext) -> i32 {
    let mark = SOCKETS.find(ctx.sock);
    if !mark.is_null() {
        // SAFETY: not null, and the storage lives as long as the socket that the hook holds.
        let SocketMark { scope, slot, flags, .. } = unsafe { *mark };
        if flags & SocketMark::ASKS != 0 {
            // SAFETY: as above.
            resolver::forget_asker(ctx.sock, unsafe { &*mark });
        }
        if slot != 0 {
            // The agent may have been first.
            let _ = CONNECTIONS.remove(&ConnectionKey { scope, slot: slot - 1 });
        }
    }
    PASS
}
