//! What a worker does until it is told to stop: it connects, sends, forks and executes, allowed and forbidden, and counts what came of it.
//!
//! Invariant: as its puppet, it calls the kernel and nothing else. What it is told and what it counts is in memory that it shares with the test.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is written on a connection whose action has ended: none of it may arrive.
pub(super) const LATE: u8 = b'L';
const IN_TIME: u8 = b'T';
/// The status of a child whose exec was refused.
const REFUSED: i32 = 100;

/// What a worker and the test tell each other.
#[repr(C)]
pub(super) struct Worker {
    pub(super) stop: AtomicBool,
    /// It has stopped.
    pub(super) stopped: AtomicBool,
    /// Where its door is: see [`is_open`], [`is_shut`]. It only grows.
    pub(super) door: AtomicU64,
    /// Open while the door is.
    pub(super) granted: libc::sockaddr_in,
    /// No rule names it.
    pub(super) forbidden: libc::sockaddr_in,
    /// Datagrams always may go to it.
    pub(super) baseline: libc::sockaddr_in,
    /// No rule names it.
    pub(super) forbidden_datagrams: libc::sockaddr_in,
    pub(super) counts: Counts,
}

/// What came of what was tried.
#[derive(Default)]
#[repr(C)]
pub(super) struct Counts {
    /// Connects that got through, whenever that was.
    pub(super) connected: AtomicU64,
    /// Of those, with what was sent then, all within one action.
    pub(super) connected_inside: AtomicU64,
    /// Connects that were refused with the door shut all the time.
    pub(super) refused_outside: AtomicU64,
    /// Connects to where no rule leads that were refused.
    pub(super) forbidden_refused: AtomicU64,
    /// Datagrams of the baseline that were sent.
    pub(super) datagrams: AtomicU64,
    /// Datagrams that were refused.
    pub(super) datagrams_refused: AtomicU64,
    /// Writes to a connection whose action had ended.
    pub(super) late_writes: AtomicU64,
    /// Allowed execs that ran.
    pub(super) ran: AtomicU64,
    /// Forbidden ones that did not.
    pub(super) denied: AtomicU64,
    /// Every call and every exec that was refused, each of which is to be told or counted.
    pub(super) refusals: AtomicU64,
    /// What must not be: refused although allowed.
    pub(super) wrongly_refused: AtomicU64,
    /// What must not be: let through although forbidden.
    pub(super) wrongly_allowed: AtomicU64,
    /// The line of this file and the error of the last thing that must not be.
    pub(super) last: AtomicU64,
}

/// The door is open, and was since this number was written.
pub(super) fn is_open(door: u64) -> bool {
    door % 4 == 1
}

/// The door is shut, and was since this number was written. In between it is neither: it is just being moved.
pub(super) fn is_shut(door: u64) -> bool {
    door % 4 == 3
}

/// A connection that was made in an action, and the door's number then.
struct Kept {
    socket: i32,
    door: u64,
}

/// Works until it is told to stop. `place` is that of a [`Worker`].
pub(super) extern "C" fn work(place: usize) -> i32 {
    // SAFETY: the test keeps it, and all its members can be changed by others.
    let worker = unsafe { &*std::ptr::with_exposed_provenance::<Worker>(place) };
    let mut kept: Option<Kept> = None;
    let mut turn = 0_u8;
    while !worker.stop.load(Ordering::SeqCst) {
        if let Some(old) = kept.take() {
            kept = worker.write_late(old);
        }
        if let Some(new) = worker.connect() {
            match &kept {
                None => kept = Some(new),
                Some(_) => close(new.socket),
            }
        }
        worker.connect_forbidden();
        worker.send_datagrams();
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(8) {
            worker.execute(turn.is_multiple_of(16));
        }
    }
    worker.stopped.store(true, Ordering::SeqCst);
    0
}

impl Worker {
    fn at(&self) -> u64 {
        self.door.load(Ordering::SeqCst)
    }

    /// A connect by the grant: judged where the door stood still meanwhile.
    fn connect(&self) -> Option<Kept> {
        let counts = &self.counts;
        let before = self.at();
        let (socket, done) = connect(&self.granted);
        let connect_error = if done == 0 { 0 } else { errno() };
        let sent = done == 0 && write(socket, IN_TIME);
        let error = if connect_error == 0 { errno() } else { connect_error };
        let after = self.at();
        if done == 0 {
            add(&counts.connected);
        } else if connect_error == libc::EPERM {
            add(&counts.refusals);
        }
        if before == after && is_open(before) {
            if sent {
                add(&counts.connected_inside);
                return Some(Kept { socket, door: before });
            }
            self.must_not_be(&counts.wrongly_refused, line!(), error);
        } else if before == after && is_shut(before) {
            match connect_error {
                libc::EPERM => add(&counts.refused_outside),
                error => self.must_not_be(&counts.wrongly_allowed, line!(), error),
            }
        }
        close(socket);
        None
    }

    /// Writes on a connection whose action has ended; one whose action may still run is kept.
    fn write_late(&self, kept: Kept) -> Option<Kept> {
        // Behind the one that tells that it is being shut.
        if self.at() < kept.door + 2 {
            return Some(kept);
        }
        write(kept.socket, LATE);
        add(&self.counts.late_writes);
        close(kept.socket);
        None
    }

    fn connect_forbidden(&self) {
        let (socket, done) = connect(&self.forbidden);
        match errno() {
            libc::EPERM if done != 0 => {
                add(&self.counts.refusals);
                add(&self.counts.forbidden_refused);
            }
            error => self.must_not_be(&self.counts.wrongly_allowed, line!(), error),
        }
        close(socket);
    }

    fn send_datagrams(&self) {
        let counts = &self.counts;
        let socket = socket(libc::SOCK_DGRAM);
        if send_to(socket, &self.baseline) {
            add(&counts.datagrams);
        } else {
            self.must_not_be(&counts.wrongly_refused, line!(), errno());
        }
        if send_to(socket, &self.forbidden_datagrams) {
            self.must_not_be(&counts.wrongly_allowed, line!(), 0);
        } else {
            add(&counts.refusals);
            add(&counts.datagrams_refused);
        }
        close(socket);
    }

    /// Forks a child that tries the door too, and then executes what is allowed or what isn't.
    fn execute(&self, is_allowed: bool) {
        let counts = &self.counts;
        // SAFETY: this process has a single thread, and its child goes on with calls to the kernel alone.
        let child = unsafe { libc::fork() };
        if child == 0 {
            if let Some(kept) = self.connect() {
                close(kept.socket);
            }
            let path = if is_allowed { c"/bin/true" } else { c"/bin/false" };
            let lists = [path.as_ptr(), std::ptr::null()];
            // SAFETY: the path ends with a NUL and the lists with a null pointer; and the child ends here.
            unsafe {
                libc::execve(path.as_ptr(), lists.as_ptr(), lists[1..].as_ptr());
                libc::_exit(if errno() == libc::EPERM { REFUSED } else { REFUSED + 1 });
            }
        }
        let mut status = 0;
        // SAFETY: the status lives through the call.
        if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
            return self.must_not_be(&counts.wrongly_refused, line!(), errno());
        }
        let is_killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let is_denied = is_killed || libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == REFUSED;
        match (is_allowed, is_denied) {
            (true, false) if status == 0 => add(&counts.ran),
            (true, _) => self.must_not_be(&counts.wrongly_refused, line!(), status),
            (false, true) => {
                add(&counts.refusals);
                add(&counts.denied);
            }
            (false, false) => self.must_not_be(&counts.wrongly_allowed, line!(), status),
        }
    }

    fn must_not_be(&self, which: &AtomicU64, line: u32, error: i32) {
        add(which);
        self.counts.last.store(u64::from(line) << 32 | u64::from(error.cast_unsigned()), Ordering::SeqCst);
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::SeqCst);
}

fn socket(kind: i32) -> i32 {
    // SAFETY: takes numbers.
    unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0) }
}

/// A TCP socket, and 0 where it has a peer. It ends at once when it is closed, or its port would be taken for a minute.
fn connect(to: &libc::sockaddr_in) -> (i32, i32) {
    let socket = socket(libc::SOCK_STREAM);
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: option and address outlive the calls, and are as long as these are told.
    unsafe {
        let option = (&raw const at_once).cast();
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, option, length::<libc::linger>());
        (socket, libc::connect(socket, std::ptr::from_ref(to).cast(), length::<libc::sockaddr_in>()))
    }
}

fn send_to(socket: i32, to: &libc::sockaddr_in) -> bool {
    let to = std::ptr::from_ref(to).cast();
    // SAFETY: the bytes and the address outlive the call, and are as long as it is told.
    unsafe { libc::sendto(socket, c"x".as_ptr().cast(), 1, 0, to, length::<libc::sockaddr_in>()) == 1 }
}

fn write(socket: i32, byte: u8) -> bool {
    // SAFETY: the byte outlives the call.
    unsafe { libc::send(socket, (&raw const byte).cast(), 1, libc::MSG_NOSIGNAL) == 1 }
}

fn close(descriptor: i32) {
    // SAFETY: it is the worker's own, and used no more.
    unsafe { libc::close(descriptor) };
}

fn errno() -> i32 {
    // SAFETY: the number of this thread's last error.
    unsafe { *libc::__errno_location() }
}

#[expect(clippy::cast_possible_truncation, reason = "what the kernel is given is small")]
fn length<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
