//! Making an internet socket: only TCP and UDP, and each is marked with its session.
//!
//! Other families (packet, vsock, netlink, alg …) don't come by here; the launcher's seccomp filter refuses them.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use sentinel_ebpf_common::SocketMark;
use sentinel_ebpf_common::record::OPERATION_SOCKET;
use sentinel_ebpf_common::verdict::Verdict;

use crate::maps::SOCKETS;
use crate::report::{Network, report_network};
use crate::rules::{PASS, REFUSE, TCP, UDP};
use crate::session::{current_mark, session, session_of_cgroup};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

#[cgroup_sock(sock_create)]
pub fn socket_create(ctx: SockContext) -> i32 {
    let socket: *mut bpf_sock = ctx.sock;
    // SAFETY: the kernel hands the hook a valid context.
    let (family, kind, protocol) = unsafe { ((*socket).family, (*socket).type_, (*socket).protocol) };

    let of_cgroup = session_of_cgroup();
    let number = match current_mark() {
        // A marked task in another session's cgroup is somebody's trick.
        Some(mark) if of_cgroup != 0 && mark.session != of_cgroup => {
            return refuse(mark.session, Verdict::ForeignTask, family, kind, protocol);
        }
        Some(mark) => mark.session,
        None => of_cgroup,
    };
    let Some(of_session) = session(number) else {
        return refuse(number, Verdict::NoSession, family, kind, protocol);
    };
    let known = (kind == SOCK_STREAM && protocol == TCP) || (kind == SOCK_DGRAM && protocol == UDP);
    if !known {
        // Not even where the policy only audits: such a socket's packets would be judged by no other hook.
        return refuse(number, Verdict::Surface, family, kind, protocol);
    }
    let mut mark = SocketMark { session: number, generation: of_session.generation, opened_by: 0 };
    // SAFETY: the socket is the hook's own, and `mark` outlives the call, which copies it.
    let stored = unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            socket.cast(),
            (&raw mut mark).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if stored.is_null() {
        return refuse(number, Verdict::Failed, family, kind, protocol);
    }
    PASS
}

#[inline(always)]
fn refuse(number: u32, verdict: Verdict, family: u32, kind: u32, protocol: u32) -> i32 {
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
