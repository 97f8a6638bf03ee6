//! A process that tries what it is told to: for the live proof at start, and for tests.
//!
//! Invariant: between its fork and its end it calls the kernel and nothing else: no allocation, no lock, no panic, for
//! the process that it is forked from may have threads. It dies with the thread that made it.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(test)]
use std::os::fd::AsRawFd as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, sendto, socket_with,
    socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};

/// How long anything that it does may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an order.
const ORDER: usize = 448;
/// Where in an order the path begins.
const PATH: usize = 64;

/// What it can try.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the proof needs two of them, the tests all"))]
pub(super) enum Deed<'a> {
    /// `connect` of a TCP socket.
    ConnectTcp(SocketAddr),
    /// `connect` of a UDP socket.
    ConnectUdp(SocketAddr),
    /// `sendto` of a UDP socket that isn't connected.
    SendUdp(SocketAddr),
    /// `socket` of this family, type and protocol.
    Socket(u8, u8, u8),
    /// `execve`, without arguments. There is an answer only where it failed.
    Exec(&'a Path),
    /// Receives a descriptor by the socket with this number, and closes it again.
    #[cfg(test)]
    Receive(i32),
    /// Any function of this program, with what it is given: it calls the kernel and nothing else.
    #[cfg(test)]
    Run(extern "C" fn(usize) -> i32, usize),
    /// `fork`: the child takes its orders by the descriptor with this number.
    Fork(i32),
    /// Any call, by its number. The answer is what the kernel returned, an error's number negative.
    Call(libc::c_long, &'a [Argument<'a>]),
}

/// What a call is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    /// A number.
    Number(i64),
    /// The address of these bytes, and as the argument behind it their count.
    Bytes(&'a [u8]),
    /// The address of these bytes.
    Place(&'a [u8]),
}

impl Deed<'_> {
    fn order(&self) -> io::Result<[u8; ORDER]> {
        let mut order = [0; ORDER];
        match *self {
            Self::ConnectTcp(to) => put_address(&mut order, b'c', to),
            Self::ConnectUdp(to) => put_address(&mut order, b'u', to),
            Self::SendUdp(to) => put_address(&mut order, b's', to),
            Self::Socket(family, kind, protocol) => {
                order[..4].copy_from_slice(&[b'o', family, kind, protocol])
            }
            Self::Exec(path) => {
                order[0] = b'x';
                let path = CString::new(path.as_os_str().as_bytes())?;
                let bytes = path.as_bytes_with_nul();
                let place = order.get_mut(PATH..PATH + bytes.len()).ok_or(io::ErrorKind::InvalidFilename)?;
                place.copy_from_slice(bytes);
            }
            #[cfg(test)]
            Self::Receive(descriptor) => {
                order[0] = b'r';
                order[4..8].copy_from_slice(&descriptor.to_ne_bytes());
            }
            #[cfg(test)]
            Self::Run(work, given) => {
                order[0] = b'w';
                order[8..16].copy_from_slice(&(work as usize).to_ne_bytes());
                order[16..24].copy_from_slice(&given.to_ne_bytes());
            }
            Self::Fork(descriptor) => {
                order[0] = b'f';
                order[4..8].copy_from_slice(&descriptor.to_ne_bytes());
            }
            Self::Call(number, arguments) => put_call(&mut order, number, arguments)?,
        }
        Ok(order)
    }
}

fn put_address(order: &mut [u8; ORDER], deed: u8, to: SocketAddr) {
    order[0] = deed;
    order[2..4].copy_from_slice(&to.port().to_ne_bytes());
    match to.ip() {
        IpAddr::V4(ip) => {
            order[1] = 4;
            order[4..8].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            order[1] = 6;
            order[4..20].copy_from_slice(&ip.octets());
        }
    }
}

/// Six arguments of eight bytes each, and for each whether it is a place among the bytes behind them.
fn put_call(
    order: &mut [u8; ORDER],
    number: libc::c_long,
    arguments: &[Argument<'_>],
) -> Result<(), io::ErrorKind> {
    order[0] = b'y';
    order[8..16].copy_from_slice(&number.to_ne_bytes());
    let offset = |value: usize| i64::try_from(value).map_err(|_beyond| io::ErrorKind::InvalidInput);
    let mut given: Vec<(i64, bool)> = Vec::new();
    let (mut places, mut end): (Vec<(usize, &[u8])>, _) = (Vec::new(), CALL_BYTES);
    for argument in arguments {
        let (Argument::Bytes(bytes) | Argument::Place(bytes)) = *argument else {
            let Argument::Number(number) = *argument else { continue };
            given.push((number, false));
            continue;
        };
        // The same bytes stand there once, however many arguments point to them.
        let known = places.iter().find(|(_, known)| std::ptr::eq(*known, bytes)).map(|(place, _)| *place);
        given.push((offset(known.unwrap_or(end))?, true));
        if matches!(argument, Argument::Bytes(_)) {
            given.push((offset(bytes.len())?, false));
        }
        if known.is_none() {
            places.push((end, bytes));
            end += bytes.len().next_multiple_of(8);
        }
    }
    if given.len() > ARGUMENTS || end > ORDER {
        return Err(io::ErrorKind::InvalidInput);
    }
    for (index, (value, is_place)) in given.into_iter().enumerate() {
        order[16 + index * 8..24 + index * 8].copy_from_slice(&value.to_ne_bytes());
        order[1 + index] = u8::from(is_place);
    }
    for (place, bytes) in places {
        order[place..place + bytes.len()].copy_from_slice(bytes);
    }
    Ok(())
}

/// The most arguments of a call.
const ARGUMENTS: usize = 6;
/// Where in an order the bytes begin that a call is given addresses of.
const CALL_BYTES: usize = 64;

/// The process.
#[derive(Debug)]
pub(super) struct Puppet {
    pid: u32,
    pidfd: OwnedFd,
    orders: OwnedFd,
    is_child: bool,
    /// For the children that it may get: a channel must be there before the fork that passes it on.
    #[cfg(test)]
    spares: Spares,
}

#[cfg(test)]
type Spares = std::rc::Rc<std::cell::RefCell<Vec<(OwnedFd, OwnedFd)>>>;

/// How one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Exited(i32),
    Killed(i32),
    /// It goes on: what it was to execute was refused, with this error.
    Refused(i32),
}

impl Puppet {
    /// Forks one, which waits for orders.
    pub(super) fn start() -> io::Result<Self> {
        #[cfg(test)]
        let spares = (0..4).map(|_| channel()).collect::<io::Result<_>>()?;
        let (orders, its) = channel()?;
        // SAFETY: the child calls nothing but what may be called after a fork of a process with threads.
        let pid = match unsafe { libc::fork() } {
            0 => serve(its.as_fd()),
            pid => u32::try_from(pid).map_err(|_negative| io::Error::last_os_error())?,
        };
        Ok(Self {
            pid,
            pidfd: pidfd(pid)?,
            orders,
            is_child: true,
            #[cfg(test)]
            spares: std::rc::Rc::new(std::cell::RefCell::new(spares)),
        })
    }

    /// Its pid.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Has it do something: 0, or what the kernel said (`EPERM` is 1). After a fork, the child's pid.
    pub(super) fn order(&self, deed: Deed<'_>) -> io::Result<i32> {
        self.send(deed)?;
        self.answer()
    }

    /// Has it do something that it may not survive.
    pub(super) fn send(&self, deed: Deed<'_>) -> io::Result<()> {
        write(&self.orders, &deed.order()?)?;
        Ok(())
    }

    fn answer(&self) -> io::Result<i32> {
        if !wait_for(self.orders.as_fd())? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut answer = [0; 4];
        match read(&self.orders, &mut answer)? {
            4 => Ok(i32::from_ne_bytes(answer)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Has it fork.
    #[cfg(test)]
    pub(super) fn fork(&self) -> io::Result<Self> {
        let (orders, its) = self.spares.borrow_mut().pop().ok_or(io::ErrorKind::StorageFull)?;
        let pid = self.order(Deed::Fork(its.as_raw_fd()))?;
        let pid = u32::try_from(pid).map_err(|_negative| io::Error::from_raw_os_error(-pid))?;
        let spares = std::rc::Rc::clone(&self.spares);
        Ok(Self { pid, pidfd: pidfd(pid)?, orders, is_child: false, spares })
    }

    /// One of its descriptors, as one of this process's own.
    #[cfg(test)]
    pub(super) fn descriptor(&self, number: i32) -> OwnedFd {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        rustix::process::pidfd_getfd(&self.pidfd, number, flags).unwrap()
    }

    /// Waits for its end.
    pub(super) fn ending(&self) -> io::Result<Ending> {
        if !wait_for(self.pidfd.as_fd())? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
        ended.as_ref().and_then(ending).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// What came of an order to execute: its end, or that it was refused.
    pub(super) fn fate(&self) -> io::Result<Ending> {
        self.refusal()?.map_or_else(|| self.ending(), |errno| Ok(Ending::Refused(errno)))
    }

    /// Why an order to execute was refused; none where the image was replaced, and has ended.
    pub(super) fn refusal(&self) -> io::Result<Option<i32>> {
        // Its end of the channel goes with its old image; but others that were forked meanwhile may have it too.
        if !wait_for_one(&[self.orders.as_fd(), self.pidfd.as_fd()])? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut answer = [0; 4];
        match recv(&self.orders, &mut answer, RecvFlags::DONTWAIT) {
            Ok((4, _)) => Ok(Some(i32::from_ne_bytes(answer))),
            Ok(_) | Err(Errno::CONNRESET | Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether it is there still.
    #[cfg(test)]
    pub(super) fn is_alive(&self) -> bool {
        crate::peer::is_alive(self.pidfd.as_fd())
    }
}

fn ending(status: &WaitIdStatus) -> Option<Ending> {
    let exited = status.exit_status().map(Ending::Exited);
    exited.or_else(|| status.terminating_signal().map(Ending::Killed))
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // One that is dead already is what is wanted.
        let _dead = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if self.is_child {
            let _reaped = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn wait_for(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    wait_for_one(&[descriptor])
}

fn wait_for_one(descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut wanted: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
            .collect();
        match poll(&mut wanted, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What the process does from its fork to its end. Calls nothing but the kernel.
fn serve(orders: BorrowedFd<'_>) -> ! {
    let mut descriptor = orders;
    // Without this it could outlive who made it, waiting for ever.
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        exit();
    }
    let mut order = [0; ORDER];
    while let Ok(ORDER) = read(descriptor, &mut order) {
        let answer = match obey(&order) {
            Done::Answer(answer) => answer,
            Done::IsChild(number) => {
                // SAFETY: whoever gave the order made it before this process was forked, and it is closed nowhere.
                descriptor = unsafe { BorrowedFd::borrow_raw(number) };
                if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
                    exit();
                }
                continue;
            }
        };
        if write(descriptor, &answer.to_ne_bytes()).is_err() {
            break;
        }
    }
    exit()
}

enum Done {
    Answer(i32),
    IsChild(i32),
}

fn obey(order: &[u8; ORDER]) -> Done {
    let done = match order[0] {
        b'c' => dial(order, SocketType::STREAM),
        b'u' => dial(order, SocketType::DGRAM),
        b's' => send(order),
        b'o' => make_socket(order),
        b'x' => execute(order),
        b'f' => return fork(order),
        b'y' => return Done::Answer(call(order)),
        #[cfg(test)]
        b'r' => receive(order),
        #[cfg(test)]
        b'w' => return Done::Answer(run(order)),
        _ => Err(Errno::INVAL),
    };
    Done::Answer(done.map_or_else(Errno::raw_os_error, |()| 0))
}

fn target(order: &[u8; ORDER]) -> SocketAddr {
    let port = u16::from_ne_bytes([order[2], order[3]]);
    if order[1] == 4 {
        return SocketAddr::new(IpAddr::from([order[4], order[5], order[6], order[7]]), port);
    }
    let mut ip = [0; 16];
    ip.copy_from_slice(&order[4..20]);
    SocketAddr::new(IpAddr::from(ip), port)
}

fn socket_for(to: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

fn dial(order: &[u8; ORDER], kind: SocketType) -> rustix::io::Result<()> {
    let to = target(order);
    connect(&socket_for(to, kind)?, &to)
}

fn send(order: &[u8; ORDER]) -> rustix::io::Result<()> {
    let to = target(order);
    sendto(&socket_for(to, SocketType::DGRAM)?, b"x", SendFlags::empty(), &to).map(|_sent| ())
}

fn make_socket(order: &[u8; ORDER]) -> rustix::io::Result<()> {
    let protocol = rustix::net::RawProtocol::new(u32::from(order[3])).map(rustix::net::Protocol::from_raw);
    let family = AddressFamily::from_raw(u16::from(order[1]));
    socket_with(family, SocketType::from_raw(u32::from(order[2])), SocketFlags::CLOEXEC, protocol)
        .map(|_made| ())
}

fn execute(order: &[u8; ORDER]) -> rustix::io::Result<()> {
    let path = order.as_ptr().wrapping_add(PATH).cast();
    let arguments = [path, std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: the path ends with a NUL within the order, and both lists end with a null pointer.
    unsafe { libc::execve(path, arguments.as_ptr(), environment.as_ptr()) };
    // SAFETY: the number of this thread's last error, which the failed call has set.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

/// What the call came back with, or the error's number below 0.
fn call(order: &[u8; ORDER]) -> i32 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&order[at..at + 8]);
        i64::from_ne_bytes(bytes)
    };
    let argument = |index: usize| {
        let value = word(16 + index * 8);
        let base = if order[1 + index] == 0 { 0 } else { order.as_ptr() as i64 };
        base + value
    };
    let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(argument);
    // SAFETY: the addresses are within the order, and whoever gave it says how the kernel takes them.
    let answer = unsafe { libc::syscall(word(8), a, b, c, d, e, f) };
    if answer >= 0 {
        return i32::try_from(answer).unwrap_or(i32::MAX);
    }
    // SAFETY: the number of this thread's last error, which the failed call has set.
    -unsafe { *libc::__errno_location() }
}

#[cfg(test)]
fn run(order: &[u8; ORDER]) -> i32 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&order[at..at + 8]);
        usize::from_ne_bytes(bytes)
    };
    // SAFETY: this process was forked from that which gave the order, and has its functions where that has them.
    let work = unsafe {
        std::mem::transmute::<*const (), extern "C" fn(usize) -> i32>(std::ptr::with_exposed_provenance(
            word(8),
        ))
    };
    work(word(16))
}

#[cfg(test)]
fn receive(order: &[u8; ORDER]) -> rustix::io::Result<()> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    let number = i32::from_ne_bytes([order[4], order[5], order[6], order[7]]);
    // SAFETY: whoever gave the order made it before this process was forked, and it is closed nowhere.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    let (mut space, mut byte) = ([std::mem::MaybeUninit::uninit(); 64], [0; 1]);
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut found = false;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found |= descriptors.count() > 0;
        }
    }
    if found { Ok(()) } else { Err(Errno::PERM) }
}

fn fork(order: &[u8; ORDER]) -> Done {
    // SAFETY: this process has a single thread, and its child goes on with calls to the kernel alone.
    match unsafe { libc::fork() } {
        0 => Done::IsChild(i32::from_ne_bytes([order[4], order[5], order[6], order[7]])),
        pid => Done::Answer(pid),
    }
}

fn exit() -> ! {
    // SAFETY: ends the process without running anything of the one that it was forked from.
    unsafe { libc::_exit(0) }
}
