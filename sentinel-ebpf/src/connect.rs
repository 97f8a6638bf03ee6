//! `connect(2)`, also non-blocking, by TCP fast open and by io_uring: TCP, and UDP that is connected.
//!
//! Attached to the sessions' parent cgroup: the hook runs for sockets that were made below it, whoever holds them now.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::resolver::{point_v4, point_v6};
use crate::rules::{Operation, decide, target_v4, target_v6};

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    decide(&ctx, Operation::Connect, &target_v4(&ctx), point_v4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    decide(&ctx, Operation::Connect, &target_v6(&ctx), point_v6)
}
