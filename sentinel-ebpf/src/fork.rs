//! Marks follow forks: a child has its parent's session and scopes before it runs its first instruction.
//!
//! `task:task_newtask` fires in the parent, in `copy_process`, after the child has its pid and before it is woken; unlike
//! `sched_process_fork` it tells the clone flags, so that threads are left out. The parent is the task that forks, whatever CLONE_PARENT says.

use aya_ebpf::helpers::generated::bpf_send_signal;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use sentinel_ebpf_common::TaskMark;
use sentinel_ebpf_common::verdict::Verdict;

use crate::maps::TASKS;
use crate::offsets;
use crate::report::report_fork;
use crate::session::{current_mark, now};

const SIGKILL: u32 = 9;
pub(crate) const CLONE_THREAD: u64 = 0x0001_0000;

#[tracepoint]
pub fn task_newtask(ctx: TracePointContext) -> u32 {
    let Some(parent) = current_mark() else { return 0 };
    // SAFETY: the offsets are the record's own, from its format file.
    let flags: Result<u64, i32> = unsafe { ctx.read_at(offsets::newtask_clone_flags() as usize) };
    // SAFETY: as above.
    let child: Result<i32, i32> = unsafe { ctx.read_at(offsets::newtask_pid() as usize) };
    let (Ok(flags), Ok(child)) = (flags, child) else {
        return kill(parent.session);
    };
    if flags & CLONE_THREAD != 0 {
        return 0;
    }
    if TASKS.insert(&(child as u32), &of_child(&parent), 0).is_err() {
        return kill(parent.session);
    }
    0
}

/// What a child has of its parent's mark: the right to a first exec is the launched process's own.
#[inline(always)]
pub(crate) fn of_child(parent: &TaskMark) -> TaskMark {
    TaskMark { flags: 0, marked_at: now(), first_dev: 0, first_generation: 0, first_ino: 0, ..*parent }
}

#[inline(always)]
fn kill(session: u32) -> u32 {
    // SAFETY: takes a number. The child is in the session's cgroup, and so has the baseline at most, for as long as it outlives this.
    let failed = unsafe { bpf_send_signal(SIGKILL) } != 0;
    report_fork(session, Verdict::Failed, u32::from(failed));
    0
}

/// Forgets the mark of a process that is freed: no task has its pid any more. A thread's pid has no mark.
#[tracepoint]
pub fn process_free(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset is the record's own, from its format file.
    let pid: Result<i32, i32> = unsafe { ctx.read_at(offsets::free_pid() as usize) };
    if let Ok(pid) = pid {
        // Mostly there is none.
        let _ = TASKS.remove(&(pid as u32));
    }
    0
}
