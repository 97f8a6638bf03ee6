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
    for (file, flags) in [("mem", libc::O_RDONLY), ("mem", libc::O_WRONLY), ("environ", libc::O_RDONLY)] {
        let opened = |from: &Puppet, of: &Puppet| {
            let path = format!("/proc/{}/{file}\0", of.pid());
            let arguments = [HERE, Bytes, Number(flags.try_into().unwrap()), Number(0)];
            call_with(from, libc::SYS_openat, &arguments, path.as_bytes()).min(0)
        };
        assert_eq!((opened(&outside, &victim), opened(&inside, &sibling)), (0, 0), "{file}");
        let refused = if host.is_lsm() { -libc::EACCES } else { 0 };
        assert_eq!(opened(&inside, &victim), refused, "{file}");
        host.expect_only(OPERATION_TRACE, &inside);
    }
    drop(memory);
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
