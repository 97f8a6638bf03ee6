//! Rings (`io_uring`): what they do is judged like calls; those that work outside of their process are refused at tier `lsm`. In a launched
//! session the seccomp filter refuses all rings.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use sentinel_ebpf_common::record::OPERATION_URING;

use super::Given::{Bytes, Number};
use super::*;

/// `IORING_REGISTER_PERSONALITY`
const REGISTER_PERSONALITY: u64 = 9;
/// `IORING_OP_NOP`
const NO_OPERATION: u8 = 0;
/// `IORING_OP_URING_CMD`
const COMMAND: u8 = 46;
/// Where in the descriptor the entries to be worked off are: `IORING_OFF_SQES`.
const ENTRIES: i64 = 0x1000_0000;
const PAGE: usize = 4_096;

/// A process in a session that may nothing, and one outside.
fn two(host: &mut Host) -> (Puppet, Puppet) {
    let session = host.session(1, &policy(vec![Grant::default()]));
    (host.command(&session), Puppet::start().unwrap())
}

/// A ring of one entry, made outside. Processes that are forked later have it.
struct Ring {
    descriptor: OwnedFd,
    entries: *mut u8,
    /// Heads, tails and what came of it.
    state: *mut u8,
    /// `struct io_uring_params`, as the kernel filled it in.
    parameters: [u32; 30],
}

impl Ring {
    /// None: this host has no rings at all.
    fn new() -> Option<Self> {
        let mut parameters = [0_u32; 30];
        // SAFETY: the parameters are as large as the kernel takes them, and outlive the call.
        let number = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
        let number = i32::try_from(number).unwrap();
        if number < 0 {
            let errno = std::io::Error::last_os_error().raw_os_error();
            assert!([Some(libc::ENOSYS), Some(EPERM)].contains(&errno), "{errno:?}");
            return None;
        }
        // SAFETY: made just now, and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        let map = |offset: i64| {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping; one that can't be had is looked at below.
            let place =
                unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, libc::MAP_SHARED, number, offset) };
            assert_ne!(place, libc::MAP_FAILED);
            place.cast::<u8>()
        };
        let (state, entries) = (map(0), map(ENTRIES));
        Some(Self { descriptor, entries, state, parameters })
    }

    /// A word of the ring's state; which is told by where its offset stands among the parameters.
    fn word(&self, parameter: usize) -> *mut u32 {
        let offset = self.parameters[parameter] as usize;
        assert!(offset < PAGE);
        // SAFETY: within the page that is mapped.
        unsafe { self.state.add(offset) }.cast()
    }

    /// Has a process work off an entry: what came of it.
    fn work_off(&self, puppet: &Puppet, operation: u8, descriptor: i32, personality: u16) -> i32 {
        let mut entry = entry(operation, descriptor);
        entry[42..44].copy_from_slice(&personality.to_ne_bytes());
        self.work(puppet, &entry)
    }

    fn work(&self, puppet: &Puppet, entry: &[u8; 64]) -> i32 {
        // `sq_off.tail`, `sq_off.array`; `cq_off.head`, `cq_off.tail`, `cq_off.ring_mask`, `cq_off.cqes`.
        let (queued, index) = (self.word(11), self.word(16));
        let (taken, done, mask, results) = (self.word(20), self.word(21), self.word(22), self.word(25));
        // SAFETY: all of it is mapped, and the process works on it only while this one waits.
        unsafe {
            std::ptr::copy_nonoverlapping(entry.as_ptr(), self.entries, entry.len());
            index.write_volatile(0);
            queued.write_volatile(queued.read_volatile().wrapping_add(1));
        }
        let ring = Number(self.descriptor.as_raw_fd().try_into().unwrap());
        // Submits one, and waits for one.
        let arguments = [ring, Number(1), Number(1), Number(1), Number(0), Number(0)];
        let submitted = call(puppet, libc::SYS_io_uring_enter, &arguments);
        assert_eq!(submitted, 1);
        // SAFETY: as above. A result is 16 bytes, its number behind the first eight.
        unsafe {
            let at = taken.read_volatile();
            assert_eq!(done.read_volatile(), at.wrapping_add(1));
            let result = results.add(4 * (at & mask.read_volatile()) as usize + 2).read_volatile();
            taken.write_volatile(at.wrapping_add(1));
            result.cast_signed()
        }
    }
}

/// A `struct io_uring_sqe`.
fn entry(operation: u8, descriptor: i32) -> [u8; 64] {
    let mut entry = [0; 64];
    entry[0] = operation;
    entry[4..8].copy_from_slice(&descriptor.to_ne_bytes());
    entry
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by this, and used by nobody any more.
        unsafe {
            libc::munmap(self.state.cast(), PAGE);
            libc::munmap(self.entries.cast(), PAGE);
        }
    }
}

#[test]
fn a_ring_that_a_kernel_thread_works_off_is_refused() {
    let mut host = Host::new();
    let (inside, outside) = two(&mut host);
    let mut parameters = [0; 120];
    // IORING_SETUP_SQPOLL
    parameters[8] = 2;
    let set_up = |puppet: &Puppet, parameters: &[u8]| {
        call_with(puppet, libc::SYS_io_uring_setup, &[Number(1), Bytes], parameters).min(0)
    };
    let told = set_up(&outside, &parameters);
    // Some hosts have none at all.
    assert!([0, -libc::ENOSYS, -EPERM].contains(&told), "{told}");
    assert_eq!(set_up(&inside, &parameters), host.refused(told));
    assert_eq!(set_up(&inside, &[0; 120]), told, "an ordinary ring");
    if told == 0 {
        host.expect_only(OPERATION_URING, &inside);
    }
}

#[test]
fn a_ring_does_not_work_with_the_rights_of_another_and_does_with_its_own() {
    let mut host = Host::new();
    let Some(ring) = Ring::new() else {
        assert!(!host.is_lsm(), "the kernels of tier `lsm` have rings");
        return;
    };
    let register = [ring.descriptor.as_raw_fd(), 0, 0].map(libc::c_long::from);
    // SAFETY: takes numbers.
    let personality = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            register[0],
            REGISTER_PERSONALITY,
            register[1],
            register[2],
        )
    };
    let personality = u16::try_from(personality).unwrap();
    assert!(personality > 0);
    let (inside, outside) = two(&mut host);
    let works = |puppet: &Puppet, personality: u16| ring.work_off(puppet, NO_OPERATION, -1, personality);
    assert_eq!((works(&outside, personality), works(&inside, 0)), (0, 0));
    assert_eq!(works(&inside, personality), host.refused(0));
    host.expect_only(OPERATION_URING, &inside);
}

#[test]
fn a_ring_gives_no_commands_to_a_device() {
    let mut host = Host::new();
    let Some(ring) = Ring::new() else {
        assert!(!host.is_lsm(), "the kernels of tier `lsm` have rings");
        return;
    };
    // Its command does nothing.
    let device = File::open("/dev/null").unwrap();
    let (inside, outside) = two(&mut host);
    let command = |puppet: &Puppet| ring.work_off(puppet, COMMAND, device.as_raw_fd(), 0);
    assert_eq!((command(&outside), command(&inside)), (0, host.refused(0)));
    host.expect_only(OPERATION_URING, &inside);
}

/// `IORING_OP_CONNECT`
const CONNECT: u8 = 16;
/// `IORING_OP_SENDMSG`
const SEND_MESSAGE: u8 = 9;
/// `IOSQE_ASYNC`: a worker of the process's does it, and not the process.
const BY_A_WORKER: u8 = 1 << 4;

/// Bytes that stay where they are, and which processes that are forked later have at the same address.
fn shared_bytes(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

#[test]
fn a_ring_reaches_only_what_a_rule_names_by_its_process_or_by_a_worker() {
    use super::sockets::{TCP, UDP, socket, socket_address};
    let mut host = Host::new();
    let Some(ring) = Ring::new() else {
        assert!(!host.is_lsm(), "the kernels of tier `lsm` have rings");
        return;
    };
    let ((_listener, named), (_other, other)) =
        (listener(Ipv4Addr::LOCALHOST), listener(Ipv4Addr::LOCALHOST));
    let (receiver, datagrams) = udp_receiver();
    let (silent, elsewhere) = udp_receiver();
    for receiver in [&receiver, &silent] {
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    }
    let addresses = [named, other, datagrams, elsewhere].map(|to| shared_bytes(socket_address(to)));
    let vector = libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let vector: &'static mut libc::iovec = Box::leak(Box::new(vector));
    let messages = [addresses[2], addresses[3]].map(|address| {
        // SAFETY: all bytes 0 are a message without anything.
        let message: &'static mut libc::msghdr = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = libc::socklen_t::try_from(address.len()).unwrap();
        message.msg_iov = &raw mut *vector;
        message.msg_iovlen = 1;
        std::ptr::from_ref(message).expose_provenance() as u64
    });
    let grant = network(&[(Protocol::Tcp, named), (Protocol::Udp, datagrams)]);
    let session = host.session(1, &policy(vec![grant]));
    let puppet = host.command(&session);
    for flags in [0, BY_A_WORKER] {
        let connect = |to: SocketAddr, address: &[u8]| {
            let mut entry = entry(CONNECT, socket(&puppet, to, TCP));
            entry[1] = flags;
            entry[8..16].copy_from_slice(&(address.len() as u64).to_ne_bytes());
            entry[16..24].copy_from_slice(&(address.as_ptr().expose_provenance() as u64).to_ne_bytes());
            ring.work(&puppet, &entry)
        };
        assert_eq!((connect(named, addresses[0]), connect(other, addresses[1])), (0, -EPERM), "{flags}");
        let send = |message: u64| {
            let mut entry = entry(SEND_MESSAGE, socket(&puppet, datagrams, UDP));
            entry[1] = flags;
            entry[16..24].copy_from_slice(&message.to_ne_bytes());
            entry[24] = 1;
            ring.work(&puppet, &entry)
        };
        assert_eq!(messages.map(send), [1, -EPERM], "{flags}");
        assert!(receiver.recv(&mut [0]).is_ok() && silent.recv(&mut [0]).is_err());
    }
}
