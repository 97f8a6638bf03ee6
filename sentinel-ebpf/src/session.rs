//! Is the current task governed, and by which session and scopes?

use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_task, bpf_get_current_task_btf, bpf_ktime_get_boot_ns,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};
use sentinel_ebpf_common::verdict::{
    heartbeat_is_fresh, is_in_flight, mark_is_current, network_baseline, open_in_scope,
};
use sentinel_ebpf_common::{DEEPEST_SESSION, SCOPE_CHAIN, Session, SocketMark, TaskMark};

use crate::maps::{CGROUPS, CHILDREN, HEARTBEAT, SCOPES, SESSION_LEVELS, SESSIONS, TASKS};
use crate::offsets;

/// Now, on CLOCK_BOOTTIME, in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes nothing, and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The current process.
#[inline(always)]
pub(crate) fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Reads a member of a kernel structure; none where the address can't be read.
#[inline(always)]
pub(crate) fn member<T>(structure: u64, offset: u32) -> Option<T> {
    if structure == 0 {
        return None;
    }
    // SAFETY: the helper checks the address, and fails on a bad one.
    unsafe { bpf_probe_read_kernel((structure + u64::from(offset)) as *const T) }.ok()
}

/// The current task's `task_struct`.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_get_current_task() }
}

/// When the current process started.
#[inline(always)]
fn process_started() -> u64 {
    // SAFETY: takes nothing. The kernel knows of this pointer, and of the one that is read from it, that they are tasks, and checks both offsets
    // before the program is loaded; so the members are read as its own code reads them, in a twentieth of the time of a helper.
    unsafe {
        let task: *const u8 = bpf_get_current_task_btf().cast();
        let leader: *const *const u8 = task.add(offsets::task_group_leader() as usize).cast();
        let started: *const u64 = leader.read_volatile().add(offsets::task_start_boottime() as usize).cast();
        started.read_volatile()
    }
}

/// The current process's own mark; none where it has none, or only that of a dead process with the same pid.
#[inline(always)]
pub(crate) fn current_mark() -> Option<TaskMark> {
    current_mark_in_place().copied()
}

/// The mark of the current process, which is in a session's cgroup. A kernel that preempts can leave out `task_newtask`, which makes it: then it
/// is made now of what the process was born with.
#[inline(always)]
pub(crate) fn mark_in_session() -> Option<TaskMark> {
    if let Some(mark) = current_mark_in_place() {
        return Some(*mark);
    }
    let leader: u64 = member(current_task(), offsets::task_group_leader())?;
    // SAFETY: the entry stays for as long as the process, which is the current one.
    let born_with = unsafe { CHILDREN.get(&leader) }?;
    let process = tgid();
    // Another thread may be doing the same, and the agent have changed what that made: only a dead process's is written over.
    // SAFETY: only whether there is one.
    let of_another = unsafe { TASKS.get(&process) }.is_some();
    let flags = if of_another { BPF_EXIST } else { BPF_NOEXIST };
    let _there_by_now = TASKS.insert(&process, born_with, u64::from(flags));
    let mark = TASKS.get_ptr_mut(&process)?;
    // SAFETY: the map's memory outlives the program. Until this is written the mark is none.
    unsafe { (&raw mut (*mark).marked_at).write_volatile(now()) };
    current_mark()
}

/// As [`current_mark`], and takes no stack.
#[inline(always)]
pub(crate) fn current_mark_in_place() -> Option<&'static TaskMark> {
    // SAFETY: the map's memory outlives the program. A concurrent write can mix two marks of one process, both of which the agent meant for it.
    let mark = unsafe { TASKS.get(&tgid()) }?;
    if mark_is_current(mark, process_started()) { Some(mark) } else { None }
}

/// The mark of another task, whose process this is; none where it has none of its own.
#[inline(always)]
pub(crate) fn mark_of(task: u64, process: u32) -> Option<TaskMark> {
    // SAFETY: as for the current one.
    let mark = unsafe { TASKS.get(&process) }.copied()?;
    let leader: u64 = member(task, offsets::task_group_leader())?;
    let started: u64 = member(leader, offsets::task_start_boottime())?;
    if mark_is_current(&mark, started) { Some(mark) } else { None }
}

/// The session whose cgroup the current task is in, or below; 0 for none. One lookup for each level that sessions' cgroups stand at: mostly one.
#[inline(always)]
pub(crate) fn session_of_cgroup() -> u32 {
    let Some(levels) = SESSION_LEVELS.get(0).copied() else { return 0 };
    for level in 1..=DEEPEST_SESSION {
        if levels & (1 << level) == 0 {
            continue;
        }
        // SAFETY: takes a number. Answers 0, which is no cgroup of ours, where there is no such ancestor.
        let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        // SAFETY: copied at once; the value is written as a whole.
        if let Some(session) = unsafe { CGROUPS.get(&cgroup) }.copied() {
            return session;
        }
    }
    0
}

/// The current task's session, 0 for a task that is governed by none, and its mark. Without a mark of its own that is empty, and the
/// cgroup tells the session. (An `Option` here leaves registers unset, which the verifier refuses.)
#[inline(always)]
pub(crate) fn governed() -> (u32, TaskMark) {
    let mark = current_mark().unwrap_or_default();
    if mark.session != 0 {
        return (mark.session, mark);
    }
    let of_cgroup = session_of_cgroup();
    if of_cgroup == 0 {
        return (0, mark);
    }
    let mark = mark_in_session().unwrap_or_default();
    (if mark.session != 0 { mark.session } else { of_cgroup }, mark)
}

/// What holds for a session; none: it is unknown, and nothing is open for it.
#[inline(always)]
pub(crate) fn session(number: u32) -> Option<Session> {
    // SAFETY: copied at once. A reader sees the old or the new flags, both of which the agent meant.
    unsafe { SESSIONS.get(&number) }.copied()
}

/// Now, and whether leased doors may be open at all. The heartbeat is read first: one that comes in between must not seem to be from the future.
#[inline(always)]
pub(crate) fn now_and_fresh() -> (u64, bool) {
    let heartbeat = match HEARTBEAT.get_ptr(0) {
        // SAFETY: the map's memory outlives the program. Volatile, or it could be read behind the clock.
        Some(heartbeat) => unsafe { heartbeat.read_volatile() },
        None => 0,
    };
    let now = now();
    (now, heartbeat_is_fresh(heartbeat, now))
}

/// What the scopes of a mark hold open for its session now. Only to be asked while the heartbeat is fresh.
#[inline(always)]
pub(crate) fn open_in_scopes(mark: &TaskMark, generation: u32, now: u64) -> u64 {
    let mut open = 0;
    for index in 0..SCOPE_CHAIN {
        let id = mark.scopes[index];
        if id == 0 {
            break;
        }
        open |= open_in(id, mark.session, generation, now);
    }
    open
}

/// What a scope holds open for a session now. Only to be asked while the heartbeat is fresh.
#[inline(always)]
fn open_in(id: u64, session: u32, generation: u32, now: u64) -> u64 {
    // SAFETY: read in place, for it is large; a torn read can only mix what is open before and after one write of the agent.
    unsafe { SCOPES.get(&id) }.map_or(0, |scope| open_in_scope(scope, session, generation, now))
}

/// The nearest scope of a mark that holds one of these grants open; 0: none does.
#[inline(always)]
pub(crate) fn scope_with(mark: &TaskMark, bits: u64, generation: u32, now: u64) -> u64 {
    for index in 0..SCOPE_CHAIN {
        let id = mark.scopes[index];
        if id == 0 {
            break;
        }
        if open_in(id, mark.session, generation, now) & bits != 0 {
            return id;
        }
    }
    0
}

/// Whether a socket may send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Yes,
    No,
    /// Its session's rules are just being changed, and its scope's doors will be opened under the new ones, or not.
    NotYet,
}

/// Whether one of these grants lets a socket send: the baseline while it is open, another while an action of it is in flight that was when the
/// socket was opened.
#[inline(always)]
pub(crate) fn leave(bits: u64, socket: &SocketMark, of_session: &Session) -> Leave {
    if bits & network_baseline(of_session) != 0 {
        return Leave::Yes;
    }
    let (now, fresh) = now_and_fresh();
    if bits == 0 || socket.scope == 0 || !fresh {
        return Leave::No;
    }
    // SAFETY: as in `open_in`.
    let Some(scope) = (unsafe { SCOPES.get(&socket.scope) }) else { return Leave::No };
    if scope.session == socket.session && scope.generation != of_session.generation {
        return Leave::NotYet;
    }
    let open = open_in_scope(scope, socket.session, of_session.generation, now);
    if is_in_flight(scope, bits & open, socket.opened_at) { Leave::Yes } else { Leave::No }
}
