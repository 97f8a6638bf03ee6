//! Who speaks on a socket: the kernel's word, with every read.
//!
//! Invariant: a descriptor says nothing about its user. Bytes belong to the process that the kernel says wrote them,
//! and that process counts only as long as its pidfd shows it alive *after* everything about its pid was looked up.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The process that wrote some bytes, as the kernel recorded it at the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its tgid.
    pub pid: u32,
    /// Its uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
}

/// Bytes of one sender.
#[derive(Debug)]
pub struct Received {
    /// How many were put into the buffer; 0: the peer has closed.
    pub bytes: usize,
    /// Who wrote them; none at the end of the stream.
    pub sender: Option<Sender>,
    /// The descriptor that came with them.
    pub descriptor: Option<OwnedFd>,
}

/// Why bytes could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The socket can't be read, or has nothing now.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The kernel didn't say who wrote them.
    #[error("the kernel didn't say who sent this")]
    Anonymous,
    /// More descriptors came along than a message may have.
    #[error("descriptors were sent along; this socket takes {0}")]
    Descriptors(&'static str),
}

/// Reads once, without waiting: bytes of one sender, for the kernel never joins those of two.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] where there is nothing; what is wrong with the bytes otherwise.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    takes_descriptor: bool,
) -> Result<Received, ReceiveError> {
    // Descriptors that find no room are closed by the kernel, and CTRUNC tells.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(1))];
    let room = if takes_descriptor { space.len() } else { rustix::cmsg_space!(ScmCredentials(1)) };
    let mut control = RecvAncillaryBuffer::new(space.get_mut(..room).unwrap_or(&mut []));
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message =
        recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags).map_err(io::Error::from)?;
    let (mut sender, mut descriptors) = (None, Vec::new());
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmCredentials(ucred) => {
                sender = Some(Sender {
                    pid: ucred.pid.as_raw_nonzero().get().unsigned_abs(),
                    uid: ucred.uid.as_raw(),
                    gid: ucred.gid.as_raw(),
                });
            }
            RecvAncillaryMessage::ScmRights(rights) => descriptors.extend(rights),
            _ => return Err(ReceiveError::Descriptors("none of this kind")),
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > 1 {
        return Err(ReceiveError::Descriptors(if takes_descriptor { "one" } else { "none" }));
    }
    if message.bytes > 0 && sender.is_none() {
        return Err(ReceiveError::Anonymous);
    }
    Ok(Received { bytes: message.bytes, sender, descriptor: descriptors.pop() })
}

/// Makes the kernel say with every read who wrote the bytes. A listener's accepted sockets inherit it.
///
/// # Errors
/// The kernel refused: the socket must not be used.
pub fn ask_for_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_passcred(socket, true)?)
}

/// The process that opened a connection.
#[derive(Debug)]
pub struct Opener {
    /// Who it was then.
    pub sender: Sender,
    /// Its supplementary groups then.
    pub groups: Vec<u32>,
    /// It, whatever happens to its pid.
    pub pidfd: OwnedFd,
}

impl Opener {
    /// The opener of an accepted connection.
    ///
    /// # Errors
    /// The kernel doesn't tell, or the process is gone: refuse the connection.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials = sockopt::socket_peercred(socket)?;
        let sender = Sender {
            pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
        };
        let pidfd = match peer_pidfd(socket) {
            // Before Linux 6.5: its pid might be another's by now, just as that of any sender but the opener.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => open_pidfd(sender.pid)?,
            pidfd => pidfd?,
        };
        Ok(Self { sender, groups: peer_groups(socket)?, pidfd })
    }

    /// Whether it lives: then its pid is its own still, and bytes that carry that pid are its own.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        is_alive(self.pidfd.as_fd())
    }
}

/// A pidfd of the process that has this pid now.
///
/// # Errors
/// There is none.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Whether the process of this pidfd lives. One that can't be asked counts as dead.
#[must_use]
pub fn is_alive(pidfd: BorrowedFd<'_>) -> bool {
    let mut wanted = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    // A pidfd is readable from the moment on when all threads of its process have ended.
    matches!(poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// The pid that a pidfd stands for; none where the process is gone, or the descriptor is no pidfd.
#[must_use]
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid != 0)
}

/// When the process with this pid started (CLOCK_BOOTTIME, rounded down to a clock tick).
///
/// # Errors
/// It is gone, or /proc can't be read.
pub fn started_at(pid: u32) -> io::Result<Duration> {
    // `pid (name) state ppid … starttime`: the name may hold anything, so count from its closing bracket.
    let ticks = field_behind_name(pid, 22)?;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let micros = u128::from(ticks) * 1_000_000 / u128::from(ticks_per_second);
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
}

/// Whether there is no process with this pid. Where that can't be told, as for want of descriptors, there may be one.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    let gone = |error: io::Error| {
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
    };
    fs::metadata(format!("/proc/{pid}")).is_err_and(gone)
}

/// The parent of the process with this pid.
///
/// # Errors
/// It is gone, or /proc can't be read.
pub fn parent_of(pid: u32) -> io::Result<u32> {
    u32::try_from(field_behind_name(pid, 4)?).map_err(io::Error::other)
}

/// The cgroup2 path of a process, as /proc tells it.
///
/// # Errors
/// It is gone, or /proc can't be read.
pub fn cgroup_of(pid: u32) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(str::to_owned).ok_or_else(|| io::Error::other(format!("process {pid} has no cgroup2 line")))
}

/// What a process may do beyond its user's rights, and as whom it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its real, effective, saved and file system uid.
    pub uids: Vec<u32>,
    /// Its effective and permitted capabilities, a bit each.
    pub capabilities: u64,
}

/// As whom the process with this pid runs.
///
/// # Errors
/// It is gone, or /proc can't be read.
pub fn credentials_of(pid: u32) -> io::Result<Credentials> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let unreadable = || io::Error::other(format!("/proc/{pid}/status doesn't say as whom it runs"));
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(unreadable);
    let set = |name: &str| u64::from_str_radix(line(name)?.trim(), 16).map_err(io::Error::other);
    let uids: Result<Vec<u32>, _> = line("Uid:")?.split_whitespace().map(str::parse).collect();
    let uids = uids.map_err(io::Error::other)?;
    if uids.len() != 4 {
        return Err(unreadable());
    }
    Ok(Credentials { uids, capabilities: set("CapEff:")? | set("CapPrm:")? })
}

/// A field of /proc/PID/stat, numbered from 1 as in proc(5); the name is field 2.
fn field_behind_name(pid: u32, number: usize) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let field =
        text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(number.checked_sub(3)?));
    let unreadable = || io::Error::other(format!("field {number} of /proc/{pid}/stat is no number"));
    field.and_then(|field| field.parse().ok()).ok_or_else(unreadable)
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut value = [u32::MAX];
    socket_option(socket, SO_PEERPIDFD, &mut value)?;
    let [pidfd] = value.map(u32::cast_signed);
    if pidfd < 0 {
        return Err(io::Error::other("the kernel gave no pidfd"));
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const SO_PEERGROUPS: libc::c_int = 59;
    const MOST_GROUPS: usize = 65_536;
    let mut groups = vec![0_u32; 64];
    loop {
        match socket_option(socket, SO_PEERGROUPS, &mut groups) {
            Ok(count) => {
                groups.truncate(count);
                return Ok(groups);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < MOST_GROUPS => {
                groups.resize(MOST_GROUPS, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads a socket option that is a list of integers; returns how many of them there are.
fn socket_option(socket: BorrowedFd<'_>, option: libc::c_int, values: &mut [u32]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(size_of_val(values)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of `values`; the kernel writes no more than that, and any bytes
    // are integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(length).unwrap_or(0) / size_of::<u32>())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ask_for_senders(ours.as_fd()).unwrap();
        (ours, theirs)
    }

    #[test]
    fn bytes_come_with_the_pid_that_wrote_them_and_never_with_those_of_another() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"parent").unwrap();
        let stdout = Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
        let mut child = Command::new("/bin/echo").args(["-n", "child"]).stdout(stdout).spawn().unwrap();
        child.wait().unwrap();
        let mut buffer = [0; 64];
        let first = receive(ours.as_fd(), &mut buffer, false).unwrap();
        assert_eq!((first.bytes, first.sender.unwrap().pid), (6, std::process::id()));
        let second = receive(ours.as_fd(), &mut buffer, false).unwrap();
        assert_eq!((second.bytes, second.sender.unwrap().pid), (5, child.id()));
    }

    #[test]
    fn a_descriptor_is_taken_where_one_is_wanted_and_refused_elsewhere() {
        for takes_descriptor in [true, false] {
            let (ours, theirs) = pair();
            let null = fs::File::open("/dev/null").unwrap();
            let descriptors = [null.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            sendmsg(&theirs, &[io::IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
            let received = receive(ours.as_fd(), &mut [0; 8], takes_descriptor);
            if takes_descriptor {
                assert!(received.unwrap().descriptor.is_some());
            } else {
                assert!(matches!(received, Err(ReceiveError::Descriptors("none"))));
            }
        }
    }

    #[test]
    fn the_opener_is_known_by_a_pidfd_that_tells_when_it_is_gone() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let opener = Opener::of(ours.as_fd()).unwrap();
        assert_eq!(opener.sender.pid, std::process::id());
        assert!(opener.is_alive());

        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pidfd = open_pidfd(child.id()).unwrap();
        assert!(is_alive(pidfd.as_fd()));
        assert_eq!(pid_of(pidfd.as_fd()), Some(child.id()));
        assert_eq!(parent_of(child.id()).unwrap(), std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(pidfd.as_fd()));
        assert_eq!(pid_of(pidfd.as_fd()), None);
    }

    #[test]
    fn a_process_started_before_now_and_after_its_parent() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let (own, childs) = (started_at(std::process::id()).unwrap(), started_at(child.id()).unwrap());
        assert!(own <= childs && childs <= crate::clock::since_boot());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_descriptor_that_is_no_pidfd_has_no_pid() {
        assert_eq!(pid_of(fs::File::open("/dev/null").unwrap().as_fd()), None);
    }
}
