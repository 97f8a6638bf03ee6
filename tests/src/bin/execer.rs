//! Executes a file in every way that there is: `execer WAY PATH [TIMES WORKERS]`. What the file then writes goes to where its standard output goes;
//! this program itself writes nothing there.

use std::ffi::{CString, c_char};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::sync::mpsc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, way, path, rest @ ..] = arguments.as_slice() else { panic!("execer WAY PATH [TIMES WORKERS]") };
    let number = |index: usize| rest.get(index).map_or(1, |text| text.parse::<u32>().expect("a number"));
    let (times, workers) = (number(0), number(1));
    let children: Vec<_> = (0..workers)
        .map(|_| {
            fork(|| {
                for _ in 0..times / workers {
                    wait(fork(|| execute(way, path)));
                }
            })
        })
        .collect();
    children.into_iter().for_each(wait);
}

/// Returns only where the exec was refused.
fn execute(way: &str, path: &str) {
    let path = CString::new(path).expect("a path without a NUL");
    match way {
        "plain" => execve(&path),
        "thread" => {
            let thread = std::thread::spawn(move || execve(&path));
            // The exec ends this thread with the old image.
            drop(thread.join());
        }
        "leaderless" => {
            let (tell, told) = mpsc::channel::<()>();
            std::thread::spawn(move || {
                // Fails as soon as the leader lets go of its end.
                let _over = told.recv();
                while is_leader_running() {
                    std::thread::yield_now();
                }
                execve(&path);
                // SAFETY: ends the process, whose leader is gone already.
                unsafe { libc::_exit(0) };
            });
            drop(tell);
            // SAFETY: ends this thread alone. Nothing on its stack is used by another one.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        "execveat" => {
            let (folder, name) = path.to_str().expect("UTF-8").rsplit_once('/').expect("an absolute path");
            let folder = std::fs::File::open(folder).expect("its folder can be read");
            execveat(folder.as_raw_fd(), &CString::new(name).expect("no NUL"), 0);
        }
        "fexecve" => execveat(open(&path), c"", libc::AT_EMPTY_PATH),
        "memfd" => {
            let bytes = std::fs::read(path.to_str().expect("UTF-8")).expect("it can be read");
            // SAFETY: the name ends with a NUL.
            let memory = unsafe { libc::memfd_create(c"x".as_ptr(), 0) };
            // SAFETY: the bytes are there as long as the call.
            let written = unsafe { libc::write(memory, bytes.as_ptr().cast(), bytes.len()) };
            assert_eq!(usize::try_from(written), Ok(bytes.len()));
            execveat(memory, c"", libc::AT_EMPTY_PATH);
        }
        "descriptor" => {
            let path = CString::new(format!("/proc/self/fd/{}", open(&path))).expect("no NUL");
            execve(&path);
        }
        "vfork" => {
            let flags = libc::CLONE_VFORK | libc::SIGCHLD;
            // SAFETY: without a stack and CLONE_VM it is a fork, whose parent waits for the exec.
            let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
            if child == 0 {
                execve(&path);
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) };
            }
            wait(libc::pid_t::try_from(child).expect("a pid"));
        }
        unknown => panic!("no way is called `{unknown}`"),
    }
}

fn open(path: &CString) -> i32 {
    std::fs::File::open(path.to_str().expect("UTF-8")).expect("it can be read").into_raw_fd()
}

fn execve(path: &CString) {
    let (arguments, environment) = ([path.as_ptr(), std::ptr::null()], [std::ptr::null::<c_char>()]);
    // SAFETY: all texts end with a NUL and both lists with a null pointer.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
}

fn execveat(folder: i32, path: &std::ffi::CStr, flags: i32) {
    let (arguments, environment) = ([c"x".as_ptr(), std::ptr::null()], [std::ptr::null::<c_char>()]);
    // SAFETY: as for `execve`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            folder,
            path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            flags,
        )
    };
}

/// Whether the process's first thread runs still. A leader that has ended stays as a zombie while others run.
fn is_leader_running() -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", std::process::id()));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

fn fork(run: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this process has a single thread whenever it forks.
    match unsafe { libc::fork() } {
        0 => {
            run();
            std::process::exit(0);
        }
        child => {
            assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
            child
        }
    }
}

fn wait(child: libc::pid_t) {
    // SAFETY: it is an own child, and no status is asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}
