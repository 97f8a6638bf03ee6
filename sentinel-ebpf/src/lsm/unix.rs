//! Unix sockets outwards: docker, systemd, D-Bus, an ssh agent; by path or by abstract name.
//!
//! A connect, or a datagram, goes to a socket of the same session, to the agent's own (which the agent has told us by the socket itself), or to one
//! whose file a rule of `enforcement.unix.allow` names by device and inode. What arrives from outside is not asked about.
//!
//! Plain `lsm`: `lsm_cgroup` goes by the cgroup of the socket that asks, which may come from outside.

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use sentinel_ebpf_common::record::OPERATION_UNIX;
use sentinel_ebpf_common::verdict::{Verdict, judge};
use sentinel_ebpf_common::{BASELINE, Image, OWNED_BY_AGENT, Session, TaskMark};

use super::owners::{Owner, owner_of, sock_of};
use super::{ALLOW, DENY, pointer};
use crate::maps::UNIX;
use crate::offsets;
use crate::report::{Surface, report_surface};
use crate::session::{governed, member, now_and_fresh, open_in_scopes, session};

/// Bytes of a `sockaddr_un` before its name.
const BEFORE_NAME: u32 = 2;

#[lsm(hook = "unix_stream_connect")]
pub fn unix_connect(ctx: LsmContext) -> i32 {
    let (number, mark) = governed();
    if number == 0 || mark.flags & (TaskMark::FIRST_EXEC | TaskMark::FIRST_RUNS) != 0 {
        return ALLOW;
    }
    to(number, &mark, pointer(&ctx, 1))
}

#[lsm(hook = "unix_may_send")]
pub fn unix_send(ctx: LsmContext) -> i32 {
    let (number, mark) = governed();
    if number == 0 || mark.flags & (TaskMark::FIRST_EXEC | TaskMark::FIRST_RUNS) != 0 {
        return ALLOW;
    }
    to(number, &mark, sock_of(pointer(&ctx, 1)))
}

#[inline(always)]
fn to(number: u32, mark: &TaskMark, peer: u64) -> i32 {
    match owner_of(peer) {
        Owner::Session(owner) if owner == number || owner == OWNED_BY_AGENT => return ALLOW,
        _ => {}
    }
    let dentry: u64 = if peer == 0 {
        0
    } else {
        member(peer + u64::from(offsets::unix_path()), offsets::path_dentry()).unwrap_or(0)
    };
    let inode: u64 = member(dentry, offsets::dentry_inode()).unwrap_or(0);
    let superblock: u64 = member(inode, offsets::inode_sb()).unwrap_or(0);
    let dev: u32 = member(superblock, offsets::sb_dev()).unwrap_or(0);
    let ino: u64 = member(inode, offsets::inode_ino()).unwrap_or(0);
    let Some(of_session) = session(number) else {
        return refused(number, Verdict::NoSession, 0, peer, dev, ino, 0, 0);
    };
    let (now, fresh) = now_and_fresh();
    let mut open = BASELINE;
    if fresh {
        open |= open_in_scopes(mark, of_session.generation, now);
    }
    let key = Image { session: number, generation: of_session.generation, ino, dev, reserved: 0 };
    // SAFETY: copied at once; rules of a generation are never changed.
    let bits = if ino == 0 { 0 } else { unsafe { UNIX.get(&key) }.copied().unwrap_or(0) };
    match judge(bits, open, fresh) {
        Verdict::Allowed => ALLOW,
        verdict if of_session.flags & Session::AUDIT != 0 => {
            refused(number, verdict, 1, peer, dev, ino, bits, open);
            ALLOW
        }
        verdict => refused(number, verdict, 0, peer, dev, ino, bits, open),
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "each is a member of the record")]
fn refused(
    number: u32,
    verdict: Verdict,
    audited: u32,
    peer: u64,
    dev: u32,
    ino: u64,
    rule_bits: u64,
    open_bits: u64,
) -> i32 {
    let address: u64 = member(peer, offsets::unix_addr()).unwrap_or(0);
    let length: u32 = member(address, offsets::address_length()).unwrap_or(0);
    let (mut name, mut name_bytes) = (0, 0);
    let mut is_abstract = false;
    if length > BEFORE_NAME {
        (name, name_bytes) =
            (address + u64::from(offsets::address_name() + BEFORE_NAME), length - BEFORE_NAME);
        // An abstract name stands behind a NUL; what it tells is told without that.
        is_abstract = member::<u8>(name, 0).unwrap_or(1) == 0;
        if is_abstract {
            (name, name_bytes) = (name + 1, name_bytes - 1);
        }
    }
    let surface = Surface {
        operation: OPERATION_UNIX,
        number: u32::from(is_abstract),
        dev,
        ino,
        rule_bits,
        open_bits,
        name,
        name_bytes,
        ..Surface::default()
    };
    report_surface(number, verdict, audited, &surface);
    DENY
}
