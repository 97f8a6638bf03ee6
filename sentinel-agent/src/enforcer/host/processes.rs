//! Processes outside: not traced, read, written, robbed of descriptors or signalled at tier `lsm`. At tier `kill` the launcher sees to it.

use std::os::fd::AsRawFd as _;

use sentinel_ebpf_common::record::{OPERATION_SIGNAL, OPERATION_TRACE};

use super::Given::{Bytes, Number};
use super::*;

/// `AT_FDCWD`
const HERE: Given = Number(-100_i64 as u64);

/// Its pid, as an argument.
fn of(puppet: &Puppet) -> Given {
    Number(puppet.pid().into())
}

#[test]
fn a_process_outside_is_neither_traced_nor_signalled_and_one_of_the_session_is() {
    const SEIZE: u64 = 0x4206;
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    // Who is traced can't be reaped while its tracer lives: those that trace are dropped first.
    let (victim, free) = (Puppet::start().unwrap(), Puppet::start().unwrap());
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    let sibling = inside.fork().unwrap();
    let signal = |from: &Puppet, to: &Puppet, signal: u64| {
        call(from, libc::SYS_kill, &[Number(to.pid().into()), Number(signal)])
    };
    let trace = |from: &Puppet, to: &Puppet| {
        call(from, libc::SYS_ptrace, &[Number(SEIZE), of(to), Number(0), Number(0)])
    };
    assert_eq!((signal(&outside, &victim, 18), signal(&inside, &victim, 18)), (0, host.refused(0)));
    assert_eq!((signal(&inside, &sibling, 18), signal(&inside, &inside, 18)), (0, 0));
    assert_eq!(signal(&inside, &victim, 0), 0, "that it is there is no secret");
    host.expect_only(OPERATION_SIGNAL, &inside);
    assert_eq!((trace(&inside, &victim), trace(&inside, &sibling)), (host.refused(0), 0));
    assert_eq!(trace(&outside, &free), 0);
    host.expect_only(OPERATION_TRACE, &inside);
}

#[test]
fn a_parent_outside_is_not_let_trace_and_one_of_the_session_is() {
    const TRACEME: Given = Number(0);
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let be_traced =
        |puppet: &Puppet| call(puppet, libc::SYS_ptrace, &[TRACEME, Number(0), Number(0), Number(0)]);
    // The test's own child, and a child of that.
    let of_outside = host.puppet(&session);
    host.enforcer().end_launch(of_outside.pid()).unwrap();
    let of_session = of_outside.fork().unwrap();
    let outside = Puppet::start().unwrap();
    assert_eq!((be_traced(&outside), be_traced(&of_session)), (0, 0));
    assert_eq!(be_traced(&of_outside), host.refused(0));
    host.expect_only(OPERATION_TRACE, &of_outside);
}

#[test]
fn the_memory_of_a_process_outside_is_neither_read_nor_written_and_that_of_the_session_is() {
    let mut host = Host::new();
    // At the same place in each process that is forked from here.
    let memory = Box::new([7_u8; 8]);
    let vector = Box::new(libc::iovec { iov_base: memory.as_ptr().cast_mut().cast(), iov_len: memory.len() });
    let vector = Number(std::ptr::from_ref(&*vector).addr().try_into().unwrap());
    let session = host.session(1, &policy(vec![Grant::default()]));
    let (inside, outside, victim) =
        (host.command(&session), Puppet::start().unwrap(), Puppet::start().unwrap());
    let sibling = inside.fork().unwrap();
    for number in [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev] {
        let tried = |from: &Puppet, to: &Puppet| {
            call(from, number, &[of(to), vector, Number(1), vector, Number(1), Number(0)])
        };
        assert_eq!((tried(&outside, &victim), tried(&inside, &sibling)), (8, 8));
        assert_eq!(tried(&inside, &victim), host.refused(8));
        host.expect_only(OPERATION_TRACE, &inside);
    }
    for flags in [libc::O_RDONLY, libc::O_WRONLY] {
        let opened = |from: &Puppet, of: &Puppet| open(from, of, "mem", flags);
        assert_eq!((opened(&outside, &victim), opened(&inside, &sibling)), (0, 0), "{flags}");
        let refused = if host.is_lsm() { -libc::EACCES } else { 0 };
        assert_eq!(opened(&inside, &victim), refused, "{flags}");
        host.expect_only(OPERATION_TRACE, &inside);
    }
    drop(memory);
}

/// 0, or why a file of a process's folder in /proc could not be opened, below 0.
fn open(from: &Puppet, of: &Puppet, file: &str, flags: i32) -> i32 {
    let path = format!("/proc/{}/{file}\0", of.pid());
    let arguments = [HERE, Bytes, Number(flags.try_into().unwrap()), Number(0)];
    call_with(from, libc::SYS_openat, &arguments, path.as_bytes()).min(0)
}

/// Gives up `CAP_PERFMON` and `CAP_SYS_ADMIN`, which counts for it, and keeps what else it has.
fn give_up_measuring(puppet: &Puppet) {
    const VERSION_3: u32 = 0x2008_0522;
    let kept = crate::peer::credentials_of(puppet.pid()).unwrap().capabilities & !(1 << 38 | 1 << 21);
    let (low, high) = (u32::try_from(kept & 0xffff_ffff).unwrap(), u32::try_from(kept >> 32).unwrap());
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    // Of each half what is effective, permitted and inheritable.
    let (header, sets) = (bytes(&[VERSION_3, 0]), bytes(&[low, low, 0, high, high, 0]));
    let arguments = [Argument::Place(&header), Argument::Place(&sets)];
    assert_eq!(puppet.order(Deed::Call(libc::SYS_capset, &arguments)).unwrap(), 0);
    assert_eq!(crate::peer::credentials_of(puppet.pid()).unwrap().capabilities, kept);
}

/// Whether the kernel lets whoever has `CAP_PERFMON` read another's address space although a security module refuses (`may_access_mm`, 6.15).
fn lets_measure() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().unwrap();
    let parts = release.split(|character: char| !character.is_ascii_digit()).take(2);
    let numbers: Vec<u32> = parts.map(|part| part.parse().unwrap()).collect();
    numbers >= vec![6, 15]
}

#[test]
fn the_environment_of_a_process_outside_is_not_opened_but_by_who_may_measure_where_the_kernel_lets_them() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let (inside, outside, victim) =
        (host.command(&session), Puppet::start().unwrap(), Puppet::start().unwrap());
    let sibling = inside.fork().unwrap();
    for may_measure in [true, false] {
        if !may_measure {
            give_up_measuring(&inside);
            give_up_measuring(&outside);
        }
        let is_refused = host.is_lsm() && !(may_measure && lets_measure());
        for file in ["environ", "maps", "auxv"] {
            let opened = |from: &Puppet, of: &Puppet| open(from, of, file, libc::O_RDONLY);
            assert_eq!((opened(&outside, &victim), opened(&inside, &sibling)), (0, 0), "{file}");
            let expected = if is_refused { -libc::EACCES } else { 0 };
            assert_eq!(opened(&inside, &victim), expected, "{file}, may measure: {may_measure}");
            // Also where the kernel lets it go: the hook was asked, and refused.
            host.expect_only(OPERATION_TRACE, &inside);
        }
    }
}

#[test]
fn a_descriptor_of_a_process_outside_is_not_taken_and_one_of_the_session_is() {
    let mut host = Host::new();
    let file = File::open("/proc/self/stat").unwrap();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let (inside, outside, victim) =
        (host.command(&session), Puppet::start().unwrap(), Puppet::start().unwrap());
    let sibling = inside.fork().unwrap();
    let take = |from: &Puppet, of_whom: &Puppet| {
        let held = call(from, libc::SYS_pidfd_open, &[of(of_whom), Number(0)]);
        assert!(held > 0, "{held}");
        let number = Number(file.as_raw_fd().try_into().unwrap());
        let arguments = [Number(held.try_into().unwrap()), number, Number(0)];
        call(from, libc::SYS_pidfd_getfd, &arguments).min(0)
    };
    assert_eq!((take(&outside, &victim), take(&inside, &sibling)), (0, 0));
    assert_eq!(take(&inside, &victim), host.refused(0));
    host.expect_only(OPERATION_TRACE, &inside);
}
