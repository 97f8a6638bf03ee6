//! Which file would be executed or mapped, and what the session's rules say of it: shared by the hooks of both tiers.
//!
//! Invariant: a file is a device, an inode and its generation, read from what the kernel has opened; never a path's text.

use sentinel_ebpf_common::verdict::{Verdict, judge};
use sentinel_ebpf_common::{BASELINE, Image, Session, TaskMark};

use crate::maps::EXEC;
use crate::offsets;
use crate::session::{current_task, member, now_and_fresh, open_in_scopes};

/// A file that the kernel has opened.
#[derive(Clone, Copy, Default)]
pub(crate) struct File {
    pub(crate) dev: u32,
    pub(crate) generation: u32,
    pub(crate) ino: u64,
}

/// What is behind a `struct file`; none where it can't be read, which denies.
#[inline(always)]
pub(crate) fn opened(file: u64) -> Option<File> {
    let inode: u64 = member(file, offsets::file_inode())?;
    let superblock: u64 = member(inode, offsets::inode_sb())?;
    Some(File {
        dev: member(superblock, offsets::sb_dev())?,
        generation: member(inode, offsets::inode_generation())?,
        ino: member(inode, offsets::inode_ino())?,
    })
}

/// The file behind the current process's image; none where it can't be read.
#[inline(always)]
pub(crate) fn current_image() -> Option<File> {
    let mm: u64 = member(current_task(), offsets::task_mm())?;
    opened(member(mm, offsets::mm_exe_file())?)
}

/// Whether it is the file that the mark lets be executed first.
#[inline(always)]
pub(crate) fn is_first_file(mark: &TaskMark, file: File) -> bool {
    mark.first_ino == file.ino
        && mark.first_dev == file.dev
        && (mark.flags & TaskMark::FIRST_GENERATION_KNOWN == 0 || mark.first_generation == file.generation)
}

/// The verdict on a file that a task of the session would execute, the grants that would open it, and those that are open.
#[inline(always)]
pub(crate) fn judge_image(
    number: u32,
    of_session: &Session,
    mark: &TaskMark,
    file: File,
) -> (Verdict, u64, u64) {
    let (now, fresh) = now_and_fresh();
    let mut open = BASELINE;
    if fresh {
        open |= open_in_scopes(mark, of_session.generation, now);
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
    (judge(bits, open, fresh), bits, open)
}
