//! Exec at tier `kill`: a forbidden image dies before its first instruction.
//!
//! A *classic* tracepoint: on 7.x kernels raw-tracepoint handlers run preemptibly and skip whoever comes meanwhile. It fires in the task
//! that executes, when the image is in place and before it has run; the signal is delivered on the way to user space.

use aya_ebpf::helpers::generated::bpf_send_signal;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use sentinel_ebpf_common::verdict::{Verdict, judge};
use sentinel_ebpf_common::{BASELINE, Image, Session, TaskMark};

use crate::maps::{EXEC, TASKS};
use crate::offsets;
use crate::report::{Executed, report_exec};
use crate::session::{
    current_mark, current_task, heartbeat_fresh, member, now, open_in_scopes, session, session_of_cgroup,
    tgid,
};

const SIGKILL: u32 = 9;

/// The file that the kernel opened for the image.
#[derive(Clone, Copy, Default)]
struct File {
    dev: u32,
    generation: u32,
    ino: u64,
}

#[tracepoint]
pub fn process_exec(ctx: TracePointContext) -> u32 {
    // Without a mark of its own its session is 0 and its chain empty. (An `Option` here leaves registers unset, which the verifier refuses.)
    let mark = current_mark().unwrap_or_default();
    let number = if mark.session != 0 { mark.session } else { session_of_cgroup() };
    // Everyone else on the host is none of our business.
    if number == 0 {
        return 0;
    }
    let Some(file) = image() else {
        return kill(&ctx, number, Verdict::Failed, File::default(), 0, 0);
    };
    let Some(of_session) = session(number) else {
        return kill(&ctx, number, Verdict::NoSession, file, 0, 0);
    };
    if is_first_image(&mark, file) {
        return 0;
    }

    let now = now();
    let fresh = heartbeat_fresh(now);
    let mut open = BASELINE;
    if fresh {
        open |= open_in_scopes(&mark, of_session.generation, now);
    }
    let key = Image {
        session: number,
        generation: of_session.generation,
        ino: file.ino,
        dev: file.dev,
        reserved: 0,
    };
    // SAFETY: copied at once; rules of a generation are never changed.
    let rule = unsafe { EXEC.get(&key) }.copied();
    let bits = match rule {
        Some(rule) if rule.generation_known == 0 || rule.inode_generation == file.generation => rule.bits,
        Some(_) | None => 0,
    };
    match judge(bits, open, fresh) {
        Verdict::Allowed => 0,
        verdict if of_session.flags & Session::AUDIT != 0 => {
            report(&ctx, number, verdict, 1, file, bits, open);
            0
        }
        verdict => kill(&ctx, number, verdict, file, bits, open),
    }
}

/// The file behind the current image; none where it can't be read, which kills.
#[inline(always)]
fn image() -> Option<File> {
    let mm: u64 = member(current_task(), offsets::task_mm())?;
    let file: u64 = member(mm, offsets::mm_exe_file())?;
    let inode: u64 = member(file, offsets::file_inode())?;
    let superblock: u64 = member(inode, offsets::inode_sb())?;
    Some(File {
        dev: member(superblock, offsets::sb_dev())?,
        generation: member(inode, offsets::inode_generation())?,
        ino: member(inode, offsets::inode_ino())?,
    })
}

/// Whether it is the image that the mark lets be executed once. If so, that once is now.
#[inline(always)]
fn is_first_image(mark: &TaskMark, file: File) -> bool {
    if mark.flags & TaskMark::FIRST_EXEC == 0 {
        return false;
    }
    // Whatever it is, the permission ends with this exec.
    if let Some(stored) = TASKS.get_ptr_mut(&tgid()) {
        // SAFETY: the map's own memory, which outlives the program run. Only this process's exec and the agent write its mark.
        unsafe { (*stored).flags = 0 };
    }
    mark.first_ino == file.ino
        && mark.first_dev == file.dev
        && (mark.flags & TaskMark::FIRST_GENERATION_KNOWN == 0 || mark.first_generation == file.generation)
}

#[inline(always)]
fn kill(ctx: &TracePointContext, number: u32, verdict: Verdict, file: File, bits: u64, open: u64) -> u32 {
    // SAFETY: takes a number.
    let failed = unsafe { bpf_send_signal(SIGKILL) } != 0;
    // A signal that could not be sent is an image that runs: it must not go unseen.
    let verdict = if failed { Verdict::Failed } else { verdict };
    report(ctx, number, verdict, u32::from(failed), file, bits, open);
    0
}

#[inline(always)]
fn report(
    ctx: &TracePointContext,
    number: u32,
    verdict: Verdict,
    audited: u32,
    file: File,
    bits: u64,
    open: u64,
) {
    let executed = Executed { dev: file.dev, ino: file.ino, rule_bits: bits, open_bits: open };
    report_exec(ctx, number, verdict, audited, &executed);
}
