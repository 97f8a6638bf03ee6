//! An agent that says what a test wants: for what `sentinel run` does whatever its agent is like.

use std::fs::{self, Permissions};
use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sentinel_agent::session::cgroup::SessionCgroup;
use sentinel_proto::admin::{Notice, Reply, Request, SessionStarted, StartSession, Welcome};
use sentinel_proto::app::{KernelDenial, RefusalCode, Refused};
use sentinel_proto::{FrameReader, SessionId, VERSION, encode_frame};

/// What the agent does after it has been asked for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Starts it, and tells of the same denial twice.
    Serve,
    /// Starts it, and dies half a second later.
    Die,
    /// Refuses it.
    Refuse,
}

/// The agent, its folder and its cgroup; gone when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) folder: PathBuf,
    parent: SessionCgroup,
    _application_socket: UnixListener,
    thread: Option<JoinHandle<Option<StartSession>>>,
}

impl Agent {
    pub(crate) fn new(test: &str, behaviour: Behaviour) -> Self {
        let name = format!("sentinel-run-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(folder.join("sockets")).expect("own folder");
        let (admin, application) =
            (listen(&folder, "admin.sock"), listen(&folder.join("sockets"), "agent.sock"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("Linux has it");
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("the host has cgroup2");
        let path = Path::new(root.split(' ').nth(4).expect("a mount has a place")).join(&name);
        fs::create_dir(&path).expect("root can make a cgroup");
        let parent = SessionCgroup::open(path).expect("it is there");
        let cgroup = SessionCgroup::create(parent.path(), SessionId(1)).expect("root can make a cgroup");
        let runtime = folder.clone();
        let thread = std::thread::spawn(move || {
            let (stream, _) = admin.accept().expect("an open listener");
            converse(stream, behaviour, &cgroup, &runtime)
        });
        Self { folder, parent, _application_socket: application, thread: Some(thread) }
    }

    /// `sentinel run` with this agent.
    pub(crate) fn run(&self, command: &[&str]) -> Command {
        self.run_by(Path::new(env!("CARGO_BIN_EXE_sentinel")), command)
    }

    /// `sentinel run` with this agent, by a copy of the program that everybody may execute.
    pub(crate) fn run_by_copy(&self, command: &[&str]) -> Command {
        let program = self.folder.join("sentinel");
        // By another process: a file that this one has open for writing, it can't execute.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_sentinel")).arg(&program).status();
        assert!(copied.expect("cp is there").success());
        self.run_by(&program, command)
    }

    fn run_by(&self, program: &Path, command: &[&str]) -> Command {
        let mut run = Command::new(program);
        run.args(["run", "--policy", "test", "--runtime"]).arg(&self.folder).arg("--").args(command);
        run.env_remove("SUDO_UID").stdin(Stdio::null());
        run
    }

    /// What it was asked for; none if nobody asked.
    pub(crate) fn asked(mut self) -> Option<StartSession> {
        self.thread.take()?.join().expect("the agent's thread doesn't panic")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Nobody may have connected: a connection of no words ends the thread.
        drop(UnixStream::connect(self.folder.join("admin.sock")));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        self.parent.kill().expect("root can kill");
        self.parent.wait_until_empty(Instant::now() + Duration::from_secs(10)).expect("all are killed");
        self.parent.remove().expect("it is empty");
        fs::remove_dir_all(&self.folder).expect("own folder");
    }
}

fn listen(folder: &Path, name: &str) -> UnixListener {
    let path = folder.join(name);
    let listener = UnixListener::bind(&path).expect("own folder");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("own socket");
    listener
}

fn converse(
    mut stream: UnixStream,
    behaviour: Behaviour,
    cgroup: &SessionCgroup,
    folder: &Path,
) -> Option<StartSession> {
    let mut reader = FrameReader::new();
    let (hello, _) = receive(&stream, &mut reader)?;
    assert!(matches!(hello, Request::Hello(hello) if hello.version == VERSION));
    send(&mut stream, &Reply::Welcome(Welcome { version: VERSION }));
    let (request, pidfd) = receive(&stream, &mut reader)?;
    let Request::StartSession(start) = request else { panic!("not a session's start: {request:?}") };
    if behaviour == Behaviour::Refuse {
        send(
            &mut stream,
            &Reply::Refused(Refused {
                request: Some(start.request),
                code: RefusalCode::NotFound,
                message: "no policy is called so\u{1b}[2J".to_owned(),
            }),
        );
        return Some(*start);
    }
    cgroup.add(pid_behind(&pidfd.expect("the process comes with the request"))).expect("root can move it");
    send(&mut stream, &Reply::SessionStarted(Box::new(started(&start, cgroup, folder))));
    for _ in 0..2 {
        send(&mut stream, &Reply::Notice(Box::new(notice())));
    }
    if behaviour == Behaviour::Die {
        std::thread::sleep(Duration::from_millis(500));
    } else {
        // Until the launcher says that it has ended.
        assert!(receive(&stream, &mut reader).is_none());
        cgroup.kill().expect("root can kill");
    }
    Some(*start)
}

fn started(start: &StartSession, cgroup: &SessionCgroup, folder: &Path) -> SessionStarted {
    SessionStarted {
        request: start.request,
        session: SessionId(1),
        name: "s1".to_owned(),
        cgroup: cgroup.path().to_owned(),
        uid: 4_242,
        agent_socket: folder.join("sockets/agent.sock"),
        mask: vec![],
        tier: "kill".to_owned(),
        ledger: folder.join("ledger.jsonl"),
        audit: false,
        unix_allow: vec![],
    }
}

fn notice() -> Notice {
    let denial = KernelDenial {
        id: "d1".to_owned(),
        attempt: "connect to 192.0.2.1:443 (tcp)".to_owned(),
        fate: "refused".to_owned(),
        would_allow: Some("enforcement:\n  network:\n    allow:\n      - \"192.0.2.1:443\"".to_owned()),
    };
    Notice { process: "\u{1b}[31mcurl".to_owned(), pid: 7, denial }
}

fn send(stream: &mut UnixStream, reply: &Reply) {
    stream.write_all(&encode_frame(reply).expect("it is short")).expect("the launcher listens");
}

/// The next request and what came with it; none at the end.
fn receive(stream: &UnixStream, reader: &mut FrameReader) -> Option<(Request, Option<OwnedFd>)> {
    let mut descriptor = None;
    loop {
        if let Some(request) = reader.next_message().expect("the launcher speaks the protocol") {
            return Some((request, descriptor));
        }
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .ok()?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                descriptor = descriptors.next().or(descriptor);
            }
        }
        if received.bytes == 0 {
            return None;
        }
        reader.push(&bytes[..received.bytes]);
    }
}

fn pid_behind(pidfd: &OwnedFd) -> u32 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).expect("an open pidfd");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("it is a pidfd");
    pid.trim().parse().expect("a pid is a number")
}
