//! Tier `lsm`: hooks that refuse before a thing happens. 0 allows, -EPERM denies; what can't be read or stored on the way denies.
//!
//! Invariant: a hook's first act is to ask whether the current task is governed, and everyone else's call goes on untouched at once. These
//! hooks run for the whole machine.
//!
//! All are plain `lsm` programs, none `lsm_cgroup`: what is asked is what the *current task* may do, wherever it was moved to. `lsm_cgroup`
//! goes by the cgroup (for hooks with a socket, by the socket's, which is what a socket from outside gets around), and a host has room for ten.

mod exec;
mod files;
mod kernel;
mod network;
mod owners;
mod tasks;
mod unix;

use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::TaskMark;
use sentinel_ebpf_common::verdict::Verdict;

use crate::report::{Surface, report_surface};
use crate::session::governed;

const ALLOW: i32 = 0;
/// `EPERM`.
const DENY: i32 = -1;

/// A pointer among a hook's arguments, as a number to be read from by helpers alone.
#[inline(always)]
fn pointer(ctx: &LsmContext, index: usize) -> u64 {
    ctx.arg::<u64>(index)
}

/// The session that holds the current task to its surface, 0 for none. A launched process that has not executed its command yet runs the
/// launcher's own code, which hides and takes away what the command must not have: it is held by none.
#[inline(always)]
fn held() -> u32 {
    let (number, mark) = governed();
    if mark.flags & (TaskMark::FIRST_EXEC | TaskMark::FIRST_RUNS) != 0 { 0 } else { number }
}

/// Refuses what no policy can open, and so also where the policy only audits.
#[inline(always)]
fn refuse(session: u32, operation: u32, number: u32) -> i32 {
    let surface = Surface { operation, number, ..Surface::default() };
    report_surface(session, Verdict::Surface, 0, &surface);
    DENY
}
