//! Whose a socket is: the session whose task made or accepted it.
//!
//! Invariant: only what the session's own tasks have made is the session's. What came from before or from outside has no owner, and is nobody's.

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::record::OPERATION_SOCKET;

use super::{ALLOW, pointer, refuse};
use crate::maps::OWNERS;
use crate::offsets;
use crate::session::governed;

/// Whose a socket is.
#[derive(Clone, Copy)]
pub(super) enum Owner {
    Session(u32),
    Nobody,
}

/// A `struct socket`'s `struct sock`, as the verifier knows it.
#[inline(always)]
pub(super) fn sock_of(socket: u64) -> u64 {
    if socket == 0 {
        return 0;
    }
    // SAFETY: a pointer that the kernel vouches for; the verifier checks that a `struct sock *` stands there.
    unsafe { core::ptr::read_volatile((socket + u64::from(offsets::socket_sk())) as *const u64) }
}

/// Whose a `struct sock` that the kernel vouches for is.
#[inline(always)]
pub(super) fn owner_of(sock: u64) -> Owner {
    if sock == 0 {
        return Owner::Nobody;
    }
    // SAFETY: as above; without storage the helper answers null.
    let owner = unsafe {
        bpf_sk_storage_get((&raw const OWNERS).cast_mut().cast(), sock as *mut _, core::ptr::null_mut(), 0)
    };
    if owner.is_null() {
        return Owner::Nobody;
    }
    // SAFETY: not null, and as large as what is stored.
    Owner::Session(unsafe { *owner.cast::<u32>() })
}

#[inline(always)]
pub(super) fn owner_of_socket(socket: u64) -> Owner {
    owner_of(sock_of(socket))
}

/// Whether it could be stored.
#[inline(always)]
fn own(sock: u64, number: u32) -> bool {
    if sock == 0 {
        return false;
    }
    let mut owner = number;
    // SAFETY: as above; `owner` outlives the call, which copies it.
    let stored = unsafe {
        bpf_sk_storage_get(
            (&raw const OWNERS).cast_mut().cast(),
            sock as *mut _,
            (&raw mut owner).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    !stored.is_null()
}

#[lsm(hook = "socket_post_create")]
pub fn socket_made(ctx: LsmContext) -> i32 {
    let (number, _) = governed();
    if number == 0 || own(sock_of(pointer(&ctx, 0)), number) {
        return ALLOW;
    }
    refuse(number, OPERATION_SOCKET, 0)
}

/// Accepted by the current task. Where it can't be stored, it is nobody's.
#[lsm(hook = "sock_graft")]
pub fn socket_accepted(ctx: LsmContext) -> i32 {
    let (number, _) = governed();
    if number != 0 {
        own(pointer(&ctx, 0), number);
    }
    0
}
