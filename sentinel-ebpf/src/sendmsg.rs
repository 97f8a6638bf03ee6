//! Datagrams to an address that the call names: `sendto(2)`, `sendmsg(2)`, `sendmmsg(2)`.
//!
//! A datagram over IPv6 to an IPv4-mapped address comes to the IPv4 hook.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::resolver::{point_v4, point_v6};
use crate::rules::{Operation, decide, target_v4, target_v6};

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    decide(&ctx, Operation::Sendmsg, &target_v4(&ctx), point_v4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    decide(&ctx, Operation::Sendmsg, &target_v6(&ctx), point_v6)
}
