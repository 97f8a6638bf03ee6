//! Exec at tier `kill`: a forbidden image dies before its first instruction.
//!
//! A *classic* tracepoint: on 7.x kernels raw-tracepoint handlers run preemptibly and skip whoever comes meanwhile. It fires in the task
//! that executes, when the image is in place and before it has run; the signal is delivered on the way to user space.

use aya_ebpf::helpers::generated::bpf_send_signal;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use sentinel_ebpf_common::verdict::Verdict;
use sentinel_ebpf_common::{Session, TaskMark};

use crate::image::{File, current_image, is_first_file, judge_image};
use crate::maps::TASKS;
use crate::report::{Executed, report_exec};
use crate::session::{governed, session, tgid};

const SIGKILL: u32 = 9;

#[tracepoint]
pub fn process_exec(ctx: TracePointContext) -> u32 {
    let (number, mark) = governed();
    // Everyone else on the host is none of our business.
    if number == 0 {
        return 0;
    }
    let Some(file) = current_image() else {
        return kill(&ctx, number, Verdict::Failed, File::default(), 0, 0);
    };
    let Some(of_session) = session(number) else {
        return kill(&ctx, number, Verdict::NoSession, file, 0, 0);
    };
    if is_first_image(&mark, file) {
        return 0;
    }

    let (verdict, bits, open) = judge_image(number, &of_session, &mark, file);
    match verdict {
        Verdict::Allowed => 0,
        verdict if of_session.flags & Session::AUDIT != 0 => {
            report(&ctx, number, verdict, 1, file, bits, open);
            0
        }
        verdict => kill(&ctx, number, verdict, file, bits, open),
    }
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
    is_first_file(mark, file)
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
