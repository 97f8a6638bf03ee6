//! `bind(2)`: an own address that others can come to needs a `listen` rule; port 0 doesn't, for nothing comes to it (see `inbound`).
//!
//! A `listen(2)` without a `bind(2)` takes a port without coming by here: nothing comes to that one either.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::resolver::{point_v4, point_v6};
use crate::rules::{Operation, decide, target_v4, target_v6};

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    decide(&ctx, Operation::Bind, &target_v4(&ctx), point_v4)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    decide(&ctx, Operation::Bind, &target_v6(&ctx), point_v6)
}
