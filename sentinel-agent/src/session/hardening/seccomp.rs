//! System calls that a session is refused.
//!
//! A list of what is refused, not of what is allowed: an ordinary program never notices. What is on it either undoes
//! another step, reaches processes outside, or is a large part of the kernel that no application needs.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

use super::{Confinement, HardeningError};

/// Calls refused with EPERM whatever their arguments are.
const REFUSED: &[i64] = &[
    // The enforcement itself, and ways around it that no hook sees.
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Keys, which know no namespaces and no cgroups.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
];

/// `open_tree_attr`, of kernel 6.15: newer than the library's table.
const OPEN_TREE_ATTR: i64 = 467;

/// Flags of `clone` that make namespaces. Those of `clone3` lie in memory, where no filter sees them.
const NAMESPACE_FLAGS: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Requests to a terminal that type into it or change what drives it: TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD.
const REFUSED_TERMINAL_REQUESTS: &[u64] = &[0x5412, 0x541c, 0x541d, 0x5423];

/// Families of sockets that a session may have; of netlink only the protocol that tells of addresses and routes.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The bit in the number of a call by the x32 ABI, which numbers calls differently.
const X32_BIT: u32 = 0x4000_0000;

/// Instructions of classic BPF: `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JGE | BPF_K`, `BPF_RET | BPF_K`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the kernel's `seccomp_data` has the call's number.
const OFFSET_OF_NUMBER: u32 = 0;

/// A call by another ABI than the one that the other filters read ends the process.
pub(super) fn refuse_foreign_calls(_: &mut Confinement) -> Result<(), HardeningError> {
    // i386's calls end the process in every filter of `seccompiler`, which begins with a check of the architecture.
    let program = [
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: OFFSET_OF_NUMBER },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    architecture()?;
    apply_filter(&program).map_err(refused)
}

/// The calls of [`REFUSED`], and some arguments of others, with EPERM.
pub(super) fn refuse_calls(_: &mut Confinement) -> Result<(), HardeningError> {
    install(&calls_program()?)
}

/// `clone3` with ENOSYS, upon which the C library uses `clone`.
pub(super) fn refuse_clone3(_: &mut Confinement) -> Result<(), HardeningError> {
    install(&compile([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)?)
}

/// Sockets of other families with EAFNOSUPPORT, as if the kernel didn't have them.
pub(super) fn refuse_socket_families(_: &mut Confinement) -> Result<(), HardeningError> {
    install(&sockets_program()?)
}

fn calls_program() -> Result<BpfProgram, HardeningError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut with_namespaces = Vec::new();
    for flag in NAMESPACE_FLAGS {
        let flag = u64::from(flag.cast_unsigned());
        with_namespaces.push(rule([(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)])?);
    }
    rules.insert(libc::SYS_clone, with_namespaces);
    // The kernel looks at the low half of the request alone, so the filter does too.
    let mut requests = Vec::new();
    for request in REFUSED_TERMINAL_REQUESTS {
        requests.push(rule([(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request)])?);
    }
    rules.insert(libc::SYS_ioctl, requests);
    compile(rules, libc::EPERM)
}

fn sockets_program() -> Result<BpfProgram, HardeningError> {
    let family = |value: i32| u64::from(value.cast_unsigned());
    let unknown =
        rule(FAMILIES.iter().map(|known| (0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family(*known))))?;
    let netlink_but_route = rule([
        (0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family(libc::AF_NETLINK)),
        (2, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family(libc::NETLINK_ROUTE)),
    ])?;
    let not_unix = rule([(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family(libc::AF_UNIX))])?;
    let rules =
        [(libc::SYS_socket, vec![unknown, netlink_but_route]), (libc::SYS_socketpair, vec![not_unix])];
    compile(rules.into(), libc::EAFNOSUPPORT)
}

type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

/// Holds where all of its conditions do.
fn rule(conditions: impl IntoIterator<Item = Condition>) -> Result<SeccompRule, HardeningError> {
    let conditions = conditions
        .into_iter()
        .map(|(argument, length, operator, value)| SeccompCondition::new(argument, length, operator, value))
        .collect::<Result<Vec<_>, _>>();
    conditions.and_then(SeccompRule::new).map_err(|error| refused(error.into()))
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, HardeningError> {
    let action = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, action, architecture()?)
        .and_then(TryInto::try_into)
        .map_err(|error| refused(error.into()))
}

fn install(program: &BpfProgram) -> Result<(), HardeningError> {
    apply_filter(program).map_err(refused)
}

/// The tables above are those of x86-64: on another architecture the numbers would mean other calls.
fn architecture() -> Result<TargetArch, HardeningError> {
    if cfg!(target_arch = "x86_64") {
        Ok(TargetArch::x86_64)
    } else {
        Err(HardeningError::Unsupported(format!(
            "system calls can be held on x86-64 only, not on {}",
            std::env::consts::ARCH
        )))
    }
}

fn refused(error: seccompiler::Error) -> HardeningError {
    HardeningError::Unsupported(format!("cannot install a seccomp filter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_fit_the_kernels_limit() {
        for program in [calls_program().unwrap(), sockets_program().unwrap()] {
            assert!(!program.is_empty() && program.len() < 4_096, "{} instructions", program.len());
        }
    }

    #[test]
    fn no_call_is_named_twice() {
        let numbers: std::collections::BTreeSet<_> = REFUSED.iter().collect();
        assert_eq!(numbers.len(), REFUSED.len());
    }
}
