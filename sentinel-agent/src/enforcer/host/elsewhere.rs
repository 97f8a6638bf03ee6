//! Sessions in another network namespace than the agent's: their connections end as all others do. Each denial has its allowed twin.

use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use super::super::netns::{self, NetworkNamespace};
use super::baseline::is_told;
use super::sockets::connection;
use super::*;

/// A process in a network namespace of its own, and what listens there.
struct Elsewhere {
    process: Puppet,
    listener: TcpListener,
    to: SocketAddr,
}

impl Elsewhere {
    fn new() -> Self {
        let process = Puppet::start().unwrap();
        let namespace = Given::Number(u64::try_from(libc::CLONE_NEWNET).unwrap());
        assert_eq!(call(&process, libc::SYS_unshare, &[namespace]), 0);
        let listen = || {
            start_loopback();
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        };
        let listener = inside(&process, listen);
        let to = listener.local_addr().unwrap();
        Self { process, listener, to }
    }

    /// A connection of a process of this namespace that is in no session.
    fn outsider(&self) -> TcpStream {
        let to = self.to;
        inside(&self.process, move || TcpStream::connect(to))
    }
}

/// Does the work in a process's network namespace.
fn inside<T: Send>(process: &Puppet, work: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    let (_, namespace) = NetworkNamespace::of(process.pid()).unwrap();
    netns::inside(&namespace, work).unwrap()
}

/// Brings the loopback of this thread's network namespace up.
fn start_loopback() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // A `struct ifreq`: the interface's name in 16 bytes, then its flags.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&u16::try_from(libc::IFF_UP).unwrap().to_ne_bytes());
    // SAFETY: the request is as long as the kernel reads, and outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, request.as_ptr()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// A session whose rules are of what listens elsewhere, and a command of it that is there.
struct Scene {
    host: Host,
    session: Session,
    command: Puppet,
    elsewhere: Elsewhere,
}

impl Scene {
    fn new(grants: impl FnOnce(SocketAddr) -> Vec<Grant>) -> Self {
        let mut host = Host::new();
        let elsewhere = Elsewhere::new();
        let session = host.session(1, &policy(grants(elsewhere.to)));
        host.enforcer().enrol(session.id, elsewhere.process.pid(), NO_IMAGE).unwrap();
        session.cgroup.add(elsewhere.process.pid()).unwrap();
        let command = elsewhere.process.fork().unwrap();
        Self { host, session, command, elsewhere }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let stream = connection(&self.command, self.elsewhere.to);
        (stream, self.elsewhere.listener.accept().unwrap().0)
    }
}

#[test]
fn whoever_waits_in_another_network_namespace_is_told_when_the_action_ends() {
    let mut scene = Scene::new(|to| vec![Grant::default(), network(&[(Protocol::Tcp, to)])]);
    scene.host.open(&scene.session, &scene.command, 1);
    let (mut stream, _peer) = scene.connect();
    assert!(!is_told(&mut stream));
    scene.host.set_doors(&scene.session, 1, GrantSet::EMPTY, Duration::ZERO);
    assert!(is_told(&mut stream));
}

#[test]
fn a_namespace_is_held_as_long_as_its_session_and_the_agents_own_is_not() {
    let mut scene = Scene::new(|_| vec![Grant::default()]);
    let beside = scene.host.session(2, &policy(vec![Grant::default()]));
    let _puppet = scene.host.puppet(&beside);
    assert_eq!(scene.host.enforcer().connections().elsewhere(), 1);
    scene.host.enforcer().stop_session(scene.session.id).unwrap();
    assert_eq!(scene.host.enforcer().connections().elsewhere(), 0);
}

#[test]
fn a_shut_baseline_ends_its_connections_in_another_network_namespace_and_those_of_nobodys_there_live_on() {
    let mut scene = Scene::new(|to| vec![network(&[(Protocol::Tcp, to)])]);
    let (mut stream, _peer) = scene.connect();
    let mut outsider = scene.elsewhere.outsider();
    assert!(!is_told(&mut stream));
    scene.host.enforcer().set_baseline_network(scene.session.id, false).unwrap();
    assert!(is_told(&mut stream));
    assert!(!is_told(&mut outsider));
}

#[test]
fn an_agent_that_takes_over_ends_what_actions_have_left_in_another_network_namespace() {
    let mut scene = Scene::new(|to| vec![Grant::default(), network(&[(Protocol::Tcp, to)])]);
    scene.host.open(&scene.session, &scene.command, 1);
    let (mut stream, _peer) = scene.connect();
    let enforcer = scene.host.enforcer.take().unwrap();
    enforcer.note_build().unwrap();
    drop(enforcer);
    assert!(!is_told(&mut stream), "nobody was there to tell");
    scene.host.enforcer = EbpfEnforcer::adopt(&scene.host.places).unwrap();
    assert!(scene.host.enforcer.is_some());
    assert!(is_told(&mut stream));
}
