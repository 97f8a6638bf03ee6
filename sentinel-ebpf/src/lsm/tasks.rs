//! Other processes, and what a child may be born into.
//!
//! Inside a session everything is as ever. Outwards nothing goes: no looking into (`ptrace`, `/proc/PID/mem`, `maps`, `environ` and `fd`,
//! `process_vm_*`, `pidfd_getfd`: the kernel asks the same question for all), and no signal but 0, which does nothing.
//!
//! Plain `lsm`: the first argument is the *other* task, whose cgroup `lsm_cgroup` doesn't go by either; and the rule follows a task that was moved.

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::TaskMark;
use sentinel_ebpf_common::record::{OPERATION_NAMESPACE, OPERATION_SIGNAL, OPERATION_TRACE};
use sentinel_ebpf_common::verdict::Verdict;

use super::{ALLOW, DENY, held, pointer, refuse};
use crate::fork::{CLONE_THREAD, of_child};
use crate::maps::CHILDREN;
use crate::offsets;
use crate::report::{Surface, report_fork, report_surface};
use crate::session::{governed, mark_of, member, tgid};

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`, `NEWTIME`, and `INTO_CGROUP`.
const ELSEWHERE: u64 = 0x2_7e02_0080;
/// `PTRACE_MODE_NOAUDIT`: the kernel only asks what it may show.
const UNASKED: u32 = 4;

#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    let Outside::Yes(pid) = outside(number, pointer(&ctx, 0)) else { return ALLOW };
    if ctx.arg::<u32>(1) & UNASKED != 0 {
        return DENY;
    }
    refuse(number, OPERATION_TRACE, pid)
}

/// Asking to be traced by a parent outside.
#[lsm(hook = "ptrace_traceme")]
pub fn ptrace_traceme(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    match outside(number, pointer(&ctx, 0)) {
        Outside::Yes(pid) => refuse(number, OPERATION_TRACE, pid),
        Outside::No => ALLOW,
    }
}

#[lsm(hook = "task_kill")]
pub fn task_kill(ctx: LsmContext) -> i32 {
    let number = held();
    let signal = ctx.arg::<u32>(2);
    if number == 0 || signal == 0 {
        return ALLOW;
    }
    let Outside::Yes(pid) = outside(number, pointer(&ctx, 0)) else { return ALLOW };
    let surface = Surface { operation: OPERATION_SIGNAL, number: pid, detail: signal, ..Surface::default() };
    report_surface(number, Verdict::Surface, 0, &surface);
    DENY
}

/// Refuses a child in other namespaces or in another cgroup, and keeps what any other is born with. Its mark isn't made here: the child has no
/// pid yet, by which marks are kept. The tracepoint `task_newtask` makes it, before the child runs; or, where the kernel leaves that out, which
/// it never does with this hook, the child's own first hook.
#[lsm(hook = "task_alloc")]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    let (number, parent) = governed();
    if number == 0 {
        return ALLOW;
    }
    let flags = ctx.arg::<u64>(1);
    let is_launcher = parent.flags & (TaskMark::FIRST_EXEC | TaskMark::FIRST_RUNS) != 0;
    if flags & ELSEWHERE != 0 && !is_launcher {
        return refuse(number, OPERATION_NAMESPACE, flags as u32);
    }
    if flags & CLONE_THREAD != 0 || parent.session == 0 {
        return ALLOW;
    }
    if CHILDREN.insert(&pointer(&ctx, 0), &of_child(&parent), 0).is_err() {
        report_fork(number, Verdict::Failed, 0);
        return DENY;
    }
    ALLOW
}

/// Forgets what a process was born with. A thread's, or that of a process outside, isn't there.
#[lsm(hook = "task_free")]
pub fn task_free(ctx: LsmContext) -> i32 {
    let _ = CHILDREN.remove(&pointer(&ctx, 0));
    ALLOW
}

enum Outside {
    /// With its pid.
    Yes(u32),
    No,
}

/// Whether another task is outside the session; what can't be told is.
#[inline(always)]
fn outside(number: u32, task: u64) -> Outside {
    let other: u32 = member(task, offsets::task_tgid()).unwrap_or(0);
    if other == tgid() || mark_of(task, other).unwrap_or_default().session == number {
        return Outside::No;
    }
    Outside::Yes(other)
}
