//! Files: what a session must not write, what it may take over from outside, and what it may map as code.
//!
//! *Writes.* File systems that are the kernel's own levers (cgroup, bpf, tracing, debug), and what the agent has told us is its own: state,
//! configuration, pins, programs, and all that is below such a folder.
//! *Descriptors* handed over by SCM_RIGHTS or pidfd_getfd: sockets that are not the session's are refused.
//! *Code.* A file may be mapped as code if it is root's and nobody else can write it, if it is the process's own image or one that a rule lists,
//! or if it is below a folder of `enforcement.exec.libraries`. Memory without a file may be made executable: just-in-time compilers live by
//! it. So this keeps unlisted libraries out, and no code that a process writes into its own memory.
//!
//! Plain `lsm`: the rules follow a task that was moved out of the session's cgroup, which writing to cgroupfs is the way to.

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::record::{OPERATION_MAP, OPERATION_RECEIVE, OPERATION_WRITE};
use sentinel_ebpf_common::verdict::Verdict;
use sentinel_ebpf_common::{Image, Protected, Session};

use super::owners::{Owner, owner_of_socket};
use super::{ALLOW, DENY, held, pointer, refuse};
use crate::image::{File, current_image, judge_image, opened};
use crate::maps::{LIBRARIES, PROTECTED};
use crate::offsets;
use crate::report::{Surface, report_surface};
use crate::session::{governed, member, session};

const FMODE_WRITE: u32 = 2;
const PROT_EXEC: u64 = 4;
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// Group and others may write.
const OTHERS_WRITE: u16 = 0o022;
/// The others may write.
const ALL_WRITE: u16 = 0o002;

/// cgroup, cgroup2, bpf, tracing, debugfs, and the security modules' own.
const LEVERS: [u64; 6] = [0x27_e0eb, 0x6367_7270, 0xcafe_4a11, 0x7472_6163, 0x6462_6720, 0x7363_6673];

/// So many folders above a file are looked at. What is the agent's is never so deep below its folder; a library that is, is not found.
const LEVELS: u32 = 32;

#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    let file = pointer(&ctx, 0);
    let mode: u32 = member(file, offsets::file_mode()).unwrap_or(FMODE_WRITE);
    if mode & FMODE_WRITE == 0 {
        return ALLOW;
    }
    write_below(number, file_dentry(file))
}

#[lsm(hook = "path_truncate")]
pub fn path_truncate(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    write_below(number, member(pointer(&ctx, 0), offsets::path_dentry()).unwrap_or(0))
}

/// Hooks about a name in a folder: which argument has it.
macro_rules! names {
    ($($name:ident, $hook:tt, $index:expr;)*) => {
        $(
            #[lsm(hook = $hook)]
            pub fn $name(ctx: LsmContext) -> i32 {
                let number = held();
                if number == 0 { ALLOW } else { write_below(number, pointer(&ctx, $index)) }
            }
        )*
    };
}

names! {
    inode_create, "inode_create", 1;
    inode_unlink, "inode_unlink", 1;
    inode_symlink, "inode_symlink", 1;
    inode_mkdir, "inode_mkdir", 1;
    inode_rmdir, "inode_rmdir", 1;
    inode_mknod, "inode_mknod", 1;
}

/// Of the agent's nothing gets a name elsewhere: by that one it could be written, for what is protected are names below a folder.
#[lsm(hook = "inode_link")]
pub fn inode_link(ctx: LsmContext) -> i32 {
    from_to(pointer(&ctx, 0), pointer(&ctx, 2))
}

#[lsm(hook = "inode_rename")]
pub fn inode_rename(ctx: LsmContext) -> i32 {
    from_to(pointer(&ctx, 1), pointer(&ctx, 3))
}

#[inline(always)]
fn from_to(from: u64, to: u64) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    match write_below(number, from) {
        ALLOW => write_below(number, to),
        denied => denied,
    }
}

#[lsm(hook = "file_receive")]
pub fn file_receive(ctx: LsmContext) -> i32 {
    let number = held();
    if number == 0 {
        return ALLOW;
    }
    let file = pointer(&ctx, 0);
    let mode: u16 =
        member(member(file, offsets::file_inode()).unwrap_or(0), offsets::inode_mode()).unwrap_or(S_IFSOCK);
    if mode & S_IFMT != S_IFSOCK {
        return ALLOW;
    }
    // SAFETY: the hook's own argument, which the kernel vouches for.
    let socket = unsafe { bpf_sock_from_file(file as *mut _) };
    match owner_of_socket(socket as u64) {
        Owner::Session(owner) if owner == number => ALLOW,
        _ => refuse(number, OPERATION_RECEIVE, 0),
    }
}

#[lsm(hook = "mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    // Before all else: most mappings are no code.
    if ctx.arg::<u64>(2) & PROT_EXEC == 0 {
        return ALLOW;
    }
    map(pointer(&ctx, 0))
}

#[lsm(hook = "file_mprotect")]
pub fn file_mprotect(ctx: LsmContext) -> i32 {
    if ctx.arg::<u64>(2) & PROT_EXEC == 0 {
        return ALLOW;
    }
    map(member(pointer(&ctx, 0), offsets::vma_file()).unwrap_or(0))
}

/// Judges code; without a file it is memory.
#[inline(always)]
fn map(file: u64) -> i32 {
    let (number, mark) = governed();
    if number == 0 || file == 0 {
        return ALLOW;
    }
    let inode: u64 = member(file, offsets::file_inode()).unwrap_or(0);
    let mode: u16 = member(inode, offsets::inode_mode()).unwrap_or(OTHERS_WRITE);
    let user: u32 = member(inode, offsets::inode_uid()).unwrap_or(u32::MAX);
    let group: u32 = member(inode, offsets::inode_gid()).unwrap_or(u32::MAX);
    let writable_by = if group == 0 { ALL_WRITE } else { OTHERS_WRITE };
    if user == 0 && mode & writable_by == 0 {
        return ALLOW;
    }
    let (Some(found), Some(of_session)) = (opened(file), session(number)) else {
        return refuse(number, OPERATION_MAP, 0);
    };
    let own = current_image().unwrap_or_default();
    if own.ino == found.ino && own.dev == found.dev && own.ino != 0 {
        return ALLOW;
    }
    if is_library(number, of_session.generation, file_dentry(file)) {
        return ALLOW;
    }
    let (verdict, bits, open) = judge_image(number, &of_session, &mark, found);
    if let Verdict::Allowed = verdict {
        return ALLOW;
    }
    let audited = u32::from(of_session.flags & Session::AUDIT != 0);
    let File { dev, ino, .. } = found;
    let surface = Surface {
        operation: OPERATION_MAP,
        dev,
        ino,
        rule_bits: bits,
        open_bits: open,
        ..Surface::default()
    };
    report_surface(number, verdict, audited, &surface);
    if audited == 0 { DENY } else { ALLOW }
}

#[inline(always)]
fn file_dentry(file: u64) -> u64 {
    if file == 0 {
        return 0;
    }
    member(file + u64::from(offsets::file_path()), offsets::path_dentry()).unwrap_or(0)
}

/// Where a name stands: its own inode, or that of the folder above it.
#[inline(always)]
fn place(dentry: u64) -> Option<(u32, u64)> {
    let inode: u64 = member(dentry, offsets::dentry_inode())?;
    let superblock: u64 = member(inode, offsets::inode_sb())?;
    Some((member(superblock, offsets::sb_dev())?, member(inode, offsets::inode_ino())?))
}

/// Refuses a write to what the kernel or the agent keeps there.
#[inline(always)]
fn write_below(number: u32, dentry: u64) -> i32 {
    let above: u64 = member(dentry, offsets::dentry_parent()).unwrap_or(0);
    // What is new has no inode yet; its folder has.
    let Some((dev, ino)) = place(dentry).or_else(|| place(above)) else {
        return refuse(number, OPERATION_WRITE, 0);
    };
    if is_lever(above) || is_protected(dentry) {
        let surface = Surface { operation: OPERATION_WRITE, dev, ino, ..Surface::default() };
        report_surface(number, Verdict::Surface, 0, &surface);
        return DENY;
    }
    ALLOW
}

/// What can't be read is.
#[inline(always)]
fn is_lever(dentry: u64) -> bool {
    let inode: u64 = member(dentry, offsets::dentry_inode()).unwrap_or(0);
    let superblock: u64 = member(inode, offsets::inode_sb()).unwrap_or(0);
    let Some(magic) = member::<u64>(superblock, offsets::sb_magic()) else { return true };
    let mut found = false;
    for lever in LEVERS {
        found |= magic == lever;
    }
    found
}

#[inline(always)]
fn is_protected(dentry: u64) -> bool {
    let mut at = dentry;
    for _ in 0..LEVELS {
        if let Some((dev, ino)) = place(at) {
            let key = Protected { ino, dev, reserved: 0 };
            // SAFETY: nothing is read of the value.
            if unsafe { PROTECTED.get(&key) }.is_some() {
                return true;
            }
        }
        let above: u64 = member(at, offsets::dentry_parent()).unwrap_or(at);
        if above == at {
            return false;
        }
        at = above;
    }
    false
}

#[inline(always)]
fn is_library(number: u32, generation: u32, dentry: u64) -> bool {
    let mut at: u64 = member(dentry, offsets::dentry_parent()).unwrap_or(0);
    for _ in 0..LEVELS {
        let Some((dev, ino)) = place(at) else { return false };
        let key = Image { session: number, generation, ino, dev, reserved: 0 };
        // SAFETY: nothing is read of the value.
        if unsafe { LIBRARIES.get(&key) }.is_some() {
            return true;
        }
        let above: u64 = member(at, offsets::dentry_parent()).unwrap_or(at);
        if above == at {
            return false;
        }
        at = above;
    }
    false
}
