//! The kernel itself: what would change it, or what it shows and asks. No policy can open any of it.
//!
//! Plain `lsm`: the rule follows a task that was moved out of the session's cgroup.

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::record::{
    OPERATION_BPF, OPERATION_MODULE, OPERATION_MOUNT, OPERATION_NAMESPACE, OPERATION_PERF, OPERATION_URING,
};

use super::{ALLOW, held, refuse};

/// `READING_FIRMWARE` and `LOADING_FIRMWARE`: a driver's wish, in whatever task it comes by.
const FIRMWARE: u32 = 1;

/// Hooks that refuse, whatever is asked.
macro_rules! refused_to_sessions {
    ($($(#[$doc:meta])* $name:ident, $hook:tt, $operation:expr;)*) => {
        $(
            $(#[$doc])*
            #[lsm(hook = $hook)]
            pub fn $name(_ctx: LsmContext) -> i32 {
                let number = held();
                if number == 0 { ALLOW } else { refuse(number, $operation, 0) }
            }
        )*
    };
}

refused_to_sessions! {
    perf_event, "perf_event_open", OPERATION_PERF;
    sb_mount, "sb_mount", OPERATION_MOUNT;
    sb_umount, "sb_umount", OPERATION_MOUNT;
    sb_pivotroot, "sb_pivotroot", OPERATION_MOUNT;
    move_mount, "move_mount", OPERATION_MOUNT;
    userns_create, "userns_create", OPERATION_NAMESPACE;
    /// A ring that works with another's credentials.
    uring_creds, "uring_override_creds", OPERATION_URING;
    /// A kernel thread that works a ring off: its task is nobody's.
    uring_sqpoll, "uring_sqpoll", OPERATION_URING;
    /// Commands of a device's own. (A ring's connects and sends come by the hooks that all others come by.)
    uring_cmd, "uring_cmd", OPERATION_URING;
}

#[lsm(hook = "bpf")]
pub fn bpf_call(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 { ALLOW } else { refuse(number, OPERATION_BPF, ctx.arg::<u32>(0)) }
}

/// `init_module`, `kexec_load` and the like.
#[lsm(hook = "kernel_load_data")]
pub fn kernel_load(ctx: LsmContext) -> i32 {
    load(ctx.arg::<u32>(0))
}

/// `finit_module`, `kexec_file_load` and the like.
#[lsm(hook = "kernel_read_file")]
pub fn kernel_read(ctx: LsmContext) -> i32 {
    load(ctx.arg::<u32>(1))
}

#[inline(always)]
fn load(what: u32) -> i32 {
    let number = held();
    if number == 0 || what == FIRMWARE { ALLOW } else { refuse(number, OPERATION_MODULE, what) }
}
