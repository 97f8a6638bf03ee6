//! Exec at tier `lsm`: a forbidden file is refused before the exec, and the caller goes on.
//!
//! `bprm_check_security` runs for each file that the kernel would execute: for a script, then for its interpreter, then for that one's. Each has
//! to be allowed. The file is the one that the kernel holds open: a memfd, a deleted file, a copy or a dynamic loader is a file that no rule has.
//!
//! Plain `lsm`: the rules follow a task that was moved out of the session's cgroup.

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::record::{OPERATION_EXEC_REFUSED, OPERATION_PRIVILEGE};
use sentinel_ebpf_common::verdict::Verdict;
use sentinel_ebpf_common::{Session, TaskMark};

use super::{ALLOW, DENY, held, pointer, refuse};
use crate::image::{File, is_first_file, judge_image, opened};
use crate::maps::TASKS;
use crate::offsets;
use crate::report::{Surface, report_surface};
use crate::session::{current_task, governed, member, session, tgid};

#[lsm(hook = "bprm_check_security")]
pub fn bprm_check(ctx: LsmContext) -> i32 {
    let (number, mark) = governed();
    if number == 0 {
        return ALLOW;
    }
    let bprm = pointer(&ctx, 0);
    let name: u64 = member(bprm, offsets::bprm_filename()).unwrap_or(0);
    let interpreter: u64 = member(bprm, offsets::bprm_interp()).unwrap_or(0);
    let file = opened(member(bprm, offsets::bprm_file()).unwrap_or(0));
    let (Some(file), true) = (file, name != 0 && interpreter != 0) else {
        return refused(number, Verdict::Failed, 0, File::default(), name, 0, 0);
    };
    let Some(of_session) = session(number) else {
        return refused(number, Verdict::NoSession, 0, file, name, 0, 0);
    };
    // The kernel gives the interpreter's name a place of its own.
    if is_first(&mark, file, interpreter != name) {
        return ALLOW;
    }
    let (verdict, bits, open) = judge_image(number, &of_session, &mark, file);
    match verdict {
        Verdict::Allowed => ALLOW,
        verdict if of_session.flags & Session::AUDIT != 0 => {
            refused(number, verdict, 1, file, name, bits, open);
            ALLOW
        }
        verdict => refused(number, verdict, 0, file, name, bits, open),
    }
}

/// The exec can fail no more: the permission for the first one has been used.
#[lsm(hook = "bprm_committed_creds")]
pub fn bprm_committed(_ctx: LsmContext) -> i32 {
    let (_, mark) = governed();
    if mark.flags & TaskMark::FIRST_RUNS != 0 {
        set_flags(0);
    }
    0
}

/// Whether it is the command's own file, or an interpreter that the kernel executes for it in the same exec. Whatever another file is, the
/// permission ends with it.
#[inline(always)]
fn is_first(mark: &TaskMark, file: File, is_interpreter: bool) -> bool {
    if mark.flags & (TaskMark::FIRST_EXEC | TaskMark::FIRST_RUNS) == 0 {
        return false;
    }
    if is_interpreter {
        return mark.flags & TaskMark::FIRST_RUNS != 0;
    }
    let is_first = mark.flags & TaskMark::FIRST_EXEC != 0 && is_first_file(mark, file);
    set_flags(if is_first { TaskMark::FIRST_RUNS } else { 0 });
    is_first
}

#[inline(always)]
fn set_flags(flags: u32) {
    if let Some(stored) = TASKS.get_ptr_mut(&tgid()) {
        // SAFETY: the map's own memory, which outlives the program run. Only this process's exec and the agent write its mark.
        unsafe { (*stored).flags = flags };
    }
}

#[inline(always)]
fn refused(number: u32, verdict: Verdict, audited: u32, file: File, name: u64, bits: u64, open: u64) -> i32 {
    let surface = Surface {
        operation: OPERATION_EXEC_REFUSED,
        dev: file.dev,
        ino: file.ino,
        rule_bits: bits,
        open_bits: open,
        name,
        ..Surface::default()
    };
    report_surface(number, verdict, audited, &surface);
    DENY
}

/// A setuid, setgid or capable program, or root's regaining of what it gave up. A launched session can't (`no_new_privs`); one that was bound
/// could.
#[lsm(hook = "bprm_creds_from_file")]
pub fn bprm_creds(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    let new: u64 = member(pointer(&ctx, 0), offsets::bprm_cred()).unwrap_or(0);
    let old: u64 = member(current_task(), offsets::task_cred()).unwrap_or(0);
    if rises(old, new).unwrap_or(true) { refuse(number, OPERATION_PRIVILEGE, 0) } else { ALLOW }
}

/// None where it can't be read.
#[inline(always)]
fn rises(old: u64, new: u64) -> Option<bool> {
    let (old_user, new_user): (u32, u32) =
        (member(old, offsets::cred_euid())?, member(new, offsets::cred_euid())?);
    let (old_group, new_group): (u32, u32) =
        (member(old, offsets::cred_egid())?, member(new, offsets::cred_egid())?);
    let (old_rights, new_rights): (u64, u64) =
        (member(old, offsets::cred_permitted())?, member(new, offsets::cred_permitted())?);
    Some(old_user != new_user || old_group != new_group || new_rights & !old_rights != 0)
}
