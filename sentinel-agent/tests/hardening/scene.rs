//! What lies around the confined process: sockets, folders and processes that it must not reach.
//!
//! Everything is in a mount namespace of the test's own, in one folder, or ends with the test: nothing is left behind.

use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;
use sentinel_agent::session::cgroup::SessionCgroup;
use sentinel_agent::session::hardening::Step;
use sentinel_agent::session::launch::{CommandLine, LaunchError, Order, WaitingCommand};
use sentinel_agent::session::user::User;
use sentinel_proto::SessionId;

use crate::Status;

/// Whom the confined process runs as, and the process outside that it must not touch.
const NOBODY: u32 = 65_534;
/// How a probe's process learns where the scene is.
const FOLDER: &str = "SENTINEL_HARDENING_SCENE";
const IN_RUN: &str = "/run/sentinel-hardening";

/// See the module.
#[derive(Debug)]
pub(crate) struct Scene {
    folder: PathBuf,
    cgroup: SessionCgroup,
    victim: Child,
    inherited: [File; 2],
    _listeners: Vec<UnixListener>,
}

impl Scene {
    /// Sets it up. To be called while there is a single thread.
    pub(crate) fn new() -> Self {
        // Of a low number, and below another one of a high number: the launcher's own are in between.
        let low = inherited();
        // SAFETY: only the mount namespace is unshared, and there is one thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
            .expect("root can make a mount namespace");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .expect("private mounts");
        let folder = std::env::temp_dir().join(format!("sentinel-hardening-{}", std::process::id()));
        for name in ["state", "runtime", "runtime/sockets", "bpf"] {
            open_folder(&folder.join(name));
        }
        fs::write(folder.join("state/ledger.jsonl"), "secret").expect("own folder");
        let program = folder.join("program");
        fs::copy(std::env::current_exe().expect("Linux has it"), &program).expect("own folder");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("own file");
        mount("bpf", folder.join("bpf"), "bpf", MountFlags::empty(), c"mode=0777").expect("a bpffs");
        open_folder(&folder.join("bpf/pins"));
        mount("run", "/run", "tmpfs", MountFlags::empty(), c"mode=0755").expect("a tmpfs");
        open_folder(Path::new(IN_RUN));
        fs::write(Path::new(IN_RUN).join("postbox"), "").expect("own folder");

        let mut listeners = vec![
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(abstract_name(&folder)).expect("short"))
                .expect("a free name"),
        ];
        for path in [
            folder.join("docker.sock"),
            folder.join("allowed.sock"),
            folder.join("runtime/sockets/agent.sock"),
            Path::new(IN_RUN).join("service.sock"),
        ] {
            listeners.push(UnixListener::bind(&path).expect("own folder"));
            fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("own file");
        }
        Self {
            cgroup: delegated_cgroup(),
            victim: sleep_of_nobody(),
            folder,
            inherited: [low, inherited()],
            _listeners: listeners,
        }
    }

    /// Removes what would stay.
    pub(crate) fn clear(&self) {
        let victim = rustix::process::Pid::from_child(&self.victim);
        rustix::process::kill_process(victim, rustix::process::Signal::KILL).expect("own child");
        self.cgroup.remove().expect("an empty cgroup");
        let parent = self.cgroup.path().parent().expect("it has one");
        fs::remove_dir(parent).expect("an empty cgroup");
        rustix::mount::unmount(self.folder.join("bpf"), rustix::mount::UnmountFlags::DETACH)
            .expect("own mount");
        fs::remove_dir_all(&self.folder).expect("own folder");
    }

    /// This program where anybody may execute it.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("program")
    }

    pub(crate) fn victim(&self) -> String {
        self.victim.id().to_string()
    }

    pub(crate) fn inherited(&self) -> [String; 2] {
        self.inherited.each_ref().map(|descriptor| descriptor.as_raw_fd().to_string())
    }

    pub(crate) fn cgroup_procs(&self) -> String {
        self.cgroup.path().join("cgroup.procs").display().to_string()
    }

    pub(crate) fn bpffs(&self) -> String {
        self.folder.join("bpf").display().to_string()
    }

    pub(crate) fn state(&self) -> String {
        self.folder.join("state").display().to_string()
    }

    pub(crate) fn docker_socket(&self) -> String {
        self.folder.join("docker.sock").display().to_string()
    }

    pub(crate) fn allowed_socket(&self) -> String {
        self.folder.join("allowed.sock").display().to_string()
    }

    pub(crate) fn abstract_name(&self) -> String {
        abstract_name(&self.folder)
    }

    pub(crate) fn run_socket(&self) -> String {
        Path::new(IN_RUN).join("service.sock").display().to_string()
    }

    pub(crate) fn run_folder(&self) -> String {
        IN_RUN.to_owned()
    }

    /// Runs this program with a socket as its standard input, in the folder of `/run`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Status {
        let (input, _other_end) = UnixStream::pair().expect("a pair of sockets");
        let output = Command::new(self.program())
            .args(arguments)
            .env(FOLDER, &self.folder)
            .current_dir(IN_RUN)
            .stdin(Stdio::from(OwnedFd::from(input)))
            .output()
            .expect("the program can be started");
        Status {
            code: output.status.code(),
            signal: output.status.signal(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Confines a process with these steps, lets it be the probe, and ends as it does.
pub(crate) fn hold(steps: &[Step], probe: &str, argument: &str) -> u8 {
    match try_hold(steps, probe, argument) {
        Ok(status) => status,
        Err(error) => {
            let _closed = std::io::Write::write_all(&mut std::io::stderr(), format!("{error}\n").as_bytes());
            125
        }
    }
}

fn try_hold(steps: &[Step], probe: &str, argument: &str) -> Result<u8, LaunchError> {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("the test sets it"));
    let program = folder.join("program");
    let arguments = [program.as_os_str(), "probe".as_ref(), probe.as_ref(), argument.as_ref()];
    let command = CommandLine {
        program: program.clone(),
        arguments: arguments.map(Into::into).to_vec(),
        working_folder: PathBuf::from("/"),
    };
    let running = WaitingCommand::fork_with(&command, steps)?.release(&Order {
        user: User::nameless(NOBODY, NOBODY),
        session: "test".to_owned(),
        agent_socket: Some(folder.join("runtime/sockets/agent.sock")),
        mask: vec![folder.join("state"), folder.join("runtime")],
        unix_allow: vec![folder.join("allowed.sock")],
    })?;
    running.wait()
}

fn inherited() -> File {
    let inherited = File::open("/").expect("it is there");
    rustix::io::fcntl_setfd(&inherited, FdFlags::empty()).expect("an open descriptor");
    inherited
}

fn abstract_name(folder: &Path) -> String {
    folder.display().to_string()
}

fn open_folder(path: &Path) {
    fs::create_dir_all(path).expect("own folder");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("own folder");
}

fn sleep_of_nobody() -> Child {
    let mut sleep = Command::new("/bin/sleep");
    sleep.arg("600").uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = sleep.spawn().expect("sleep is there");
    // Until its exec it is this program, which not everybody may touch.
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name != "sleep\n") {
        assert!(Instant::now() < deadline, "sleep doesn't start");
    }
    child
}

/// A cgroup that the confined user could join, were it writable.
fn delegated_cgroup() -> SessionCgroup {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("Linux has it");
    let root = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("the host has cgroup2");
    let root = Path::new(root.split(' ').nth(4).expect("a mount has a place"));
    let parent = root.join(format!("sentinel-hardening-{}", std::process::id()));
    fs::create_dir(&parent).expect("root can make a cgroup");
    let cgroup = SessionCgroup::create(&parent, SessionId(1)).expect("root can make a cgroup");
    chown(cgroup.path().join("cgroup.procs"), Some(NOBODY), Some(NOBODY)).expect("root can give it away");
    cgroup
}
