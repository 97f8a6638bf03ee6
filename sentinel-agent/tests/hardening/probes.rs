//! What a confined process may try: each probe does one thing and says whether it could.
//!
//! The answer is the exit status: the probes run where a pipe or a file of the test's may not be reachable.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, Signal};

/// The exit status of a probe that could.
pub(crate) const COULD: u8 = 10;
/// The exit status of a probe that was refused.
pub(crate) const COULD_NOT: u8 = 11;

/// Runs the probe of that name.
pub(crate) fn probe(name: &str, argument: &str) -> u8 {
    match attempt(name, argument) {
        Ok(()) => COULD,
        Err(error) => {
            let _closed = io::Write::write_all(&mut io::stderr(), format!("{name}: {error}\n").as_bytes());
            COULD_NOT
        }
    }
}

fn attempt(name: &str, argument: &str) -> io::Result<()> {
    match name {
        // Files.
        "write" => drop(fs::File::options().write(true).open(argument)?),
        "read" => drop(fs::File::open(argument)?),
        "list" => expect(fs::read_dir(argument)?.count() > 0, "nothing is there")?,
        "writable-mount" => {
            let mount = rustix::fs::statvfs(argument)?;
            expect(!mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY), "it is read-only")?;
        }
        "only-the-socket-in-run" => {
            let mut files = Vec::new();
            for folder in ["/run", "/run/agent-sentinel"] {
                for entry in fs::read_dir(folder)? {
                    files.push(entry?.file_name());
                }
            }
            expect(files == ["agent-sentinel", "agent.sock"], &format!("{files:?}"))?;
        }
        "relative" => drop(openat(CWD, argument, OFlags::RDONLY, Mode::empty())?),
        // Sockets.
        "connect" => drop(UnixStream::connect(argument)?),
        "connect-abstract" => {
            drop(UnixStream::connect_addr(&SocketAddr::from_abstract_name(argument)?)?);
        }
        "socket" => {
            let numbers: Vec<i64> = argument.split(',').map(|number| number.parse().unwrap_or(-1)).collect();
            call(libc::SYS_socket, [numbers[0], numbers[1], numbers[2], 0])?;
        }
        "socketpair" => {
            let mut pair = [0_i32; 2];
            call(libc::SYS_socketpair, [argument.parse().unwrap_or(-1), 1, 0, pair.as_mut_ptr() as i64])?;
        }
        // Processes.
        "signal" => rustix::process::kill_process(pid(argument), Signal::CONT)?,
        "ptrace" => call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), number(argument), 0, 0])?,
        "steal-descriptor" => {
            let pidfd = rustix::process::pidfd_open(pid(argument), rustix::process::PidfdFlags::empty())?;
            call(libc::SYS_pidfd_getfd, [pidfd.as_raw_fd().into(), 0, 0, 0])?;
        }
        "leads-no-session" => {
            // SAFETY: asks only. Not rustix's: it takes 0, the session of whoever never left that of the first process, for a bug.
            let leader = unsafe { libc::getsid(0) };
            expect(leader != rustix::process::getpid().as_raw_nonzero().get(), "it leads its own session")?;
        }
        "outlives-launcher" => {
            expect(rustix::process::parent_process_death_signal()?.is_none(), "it dies with its launcher")?;
        }
        "thread" => drop(std::thread::spawn(|| ()).join()),
        // Descriptors.
        "descriptor" => {
            let raw = argument.parse().unwrap_or(-1);
            // SAFETY: only asked about; where it isn't open the kernel says so.
            rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(raw) })?;
        }
        "socket-as-input" => {
            let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(io::stdin().as_fd())?.st_mode);
            expect(kind == rustix::fs::FileType::Socket, "it is none")?;
        }
        // Rights.
        "root" => expect(rustix::process::geteuid().is_root(), "it isn't root")?,
        "other-group" => {
            let status = fs::read_to_string("/proc/self/status")?;
            expect(!status.contains("\nGroups:\t65534 \n"), "it is in its user's only")?;
        }
        "capability" => expect(has_capability(argument)?, "it has none")?,
        "regain-capability" => {
            // What an ambient capability needs is gone; with it, an exec would keep the rights.
            let kept = fs::read_to_string("/proc/self/status")?;
            expect(
                kept.lines().any(|line| line.starts_with("NoNewPrivs:") && line.ends_with('0')),
                "never again",
            )?;
        }
        // System calls.
        "call" => {
            let mut numbers = [0_i64; 5];
            for (slot, text) in numbers.iter_mut().zip(argument.split(',')) {
                *slot = text.parse().unwrap_or(-1);
            }
            let [call_number, arguments @ ..] = numbers;
            match call(call_number, arguments) {
                // Refused by the filter is EPERM; any other complaint comes from the call itself, which was reached.
                Err(error) if error.raw_os_error() != Some(libc::EPERM) => {}
                result => result?,
            }
        }
        "add-key" => key(c"sentinel-hardening-test")?,
        "clone3" => match call(libc::SYS_clone3, [0, 0, 0, 0]) {
            Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => {}
            result => result?,
        },
        "x32" => {
            // Not there in most kernels; what matters is whether the attempt ends the process.
            let _not_there = call(0x4000_0000 | libc::SYS_getpid, [0; 4]);
        }
        "i386" => {
            let own: i64;
            // SAFETY: call 20 of i386, `getpid`, takes nothing and changes nothing but its result's register.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => own, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
            };
            expect(own == i64::from(std::process::id()), "it is another's")?;
        }
        other => panic!("no probe is called `{other}`"),
    }
    Ok(())
}

fn call(number: i64, [a, b, c, d]: [i64; 4]) -> io::Result<()> {
    // SAFETY: the probes pass numbers, null, or pointers to memory that is theirs and large enough.
    match unsafe { libc::syscall(number, a, b, c, d, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn key(name: &CStr) -> io::Result<()> {
    // SAFETY: strings and a buffer of the length that is passed; the process's own keyring goes with it.
    let made = unsafe {
        libc::syscall(libc::SYS_add_key, c"user".as_ptr(), name.as_ptr(), c"x".as_ptr(), 1_usize, -2_i32)
    };
    if made == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn has_capability(set: &str) -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
    Ok(found.is_some_and(|mask| !mask.trim_start_matches('0').is_empty()))
}

fn expect(met: bool, otherwise: &str) -> io::Result<()> {
    if met { Ok(()) } else { Err(io::Error::other(otherwise.to_owned())) }
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or(-1)
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().unwrap_or(-1)).expect("a pid is a number above 0")
}
