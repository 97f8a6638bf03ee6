//! What leads out of a session: unix sockets, and sockets of others. Held at tier `lsm`; at tier `kill` it is the launcher's to hide.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};

use sentinel_ebpf_common::record::{OPERATION_RECEIVE, OPERATION_SEND, OPERATION_SOCKET, OPERATION_UNIX};

use super::Given::{Bytes, Number};
use super::*;

/// A `sockaddr_un` with this name, which is abstract where it begins with a NUL.
fn address(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(1_u16.to_ne_bytes());
    bytes.extend(name);
    bytes
}

/// Connects a unix socket made for it.
fn connect_unix(puppet: &Puppet, name: &[u8]) -> i32 {
    let socket = call(puppet, libc::SYS_socket, &[Number(1), Number(1), Number(0)]);
    assert!(socket > 0, "{socket}");
    let address = address(name);
    let length = u64::try_from(address.len()).unwrap();
    let arguments = [Number(socket.try_into().unwrap()), Bytes, Number(length)];
    let connected = call_with(puppet, libc::SYS_connect, &arguments, &address);
    call(puppet, libc::SYS_close, &[Number(socket.try_into().unwrap())]);
    connected
}

fn send_unix(puppet: &Puppet, name: &[u8]) -> i32 {
    let socket = call(puppet, libc::SYS_socket, &[Number(1), Number(2), Number(0)]);
    let address = address(name);
    let length = u64::try_from(address.len()).unwrap();
    let arguments = [Number(socket.try_into().unwrap()), Bytes, Number(1), Number(0), Bytes, Number(length)];
    let sent = call_with(puppet, libc::SYS_sendto, &arguments, &address);
    call(puppet, libc::SYS_close, &[Number(socket.try_into().unwrap())]);
    sent
}

fn send_by(puppet: &Puppet, socket: i32) -> i32 {
    let arguments =
        [Number(socket.try_into().unwrap()), Bytes, Number(1), Number(0x4000), Number(0), Number(0)];
    call_with(puppet, libc::SYS_sendto, &arguments, b"x")
}

/// The number of a TCP socket that a puppet has made and connected.
fn connected(puppet: &Puppet, to: SocketAddr) -> i32 {
    let socket = call(puppet, libc::SYS_socket, &[Number(2), Number(1), Number(0)]);
    let arguments = [Number(socket.try_into().unwrap()), Bytes, Number(16)];
    assert_eq!(call_with(puppet, libc::SYS_connect, &arguments, &sockets::socket_address(to)), 0);
    socket
}

#[test]
fn a_unix_socket_outside_is_refused_and_the_sessions_own_and_a_listed_one_and_the_agents_are_not() {
    let mut host = Host::new();
    let folder = Folder::new("outwards-unix");
    let path = |name: &str| folder.path().join(name);
    let listen = |name: &str| UnixListener::bind(path(name)).unwrap();
    let (_other, _listed, agents) = (listen("other"), listen("listed"), listen("agent"));
    let mut rules = policy(vec![Grant::default()]);
    rules.unix_allow = vec![path("listed")];
    let session = host.session(1, &rules);
    host.enforcer().let_connect(&OwnedFd::from(agents.try_clone().unwrap())).unwrap();
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    let reach = |puppet: &Puppet, name: &str| connect_unix(puppet, path(name).as_os_str().as_bytes());
    assert_eq!(reach(&outside, "other"), 0);
    assert_eq!(reach(&inside, "other"), host.refused(0));
    assert_eq!((reach(&inside, "listed"), reach(&inside, "agent")), (0, 0));

    // One that the session itself has made.
    let own = address(path("own").as_os_str().as_bytes());
    let socket = call(&inside, libc::SYS_socket, &[Number(1), Number(1), Number(0)]);
    let number = Number(socket.try_into().unwrap());
    let length = Number(own.len().try_into().unwrap());
    assert_eq!(call_with(&inside, libc::SYS_bind, &[number, Bytes, length], &own), 0);
    assert_eq!(call(&inside, libc::SYS_listen, &[number, Number(4)]), 0);
    assert_eq!(reach(&inside, "own"), 0);
    host.expect_only(OPERATION_UNIX, &inside);
    let another = host.session(2, &policy(vec![Grant::default()]));
    let stranger = host.command(&another);
    assert_eq!(reach(&stranger, "own"), host.refused(0), "another session's");
    host.expect_only(OPERATION_UNIX, &stranger);
}

#[test]
fn an_abstract_name_and_a_datagram_are_held_like_a_path() {
    use std::os::linux::net::SocketAddrExt as _;
    let mut host = Host::new();
    let folder = Folder::new("outwards-datagram");
    let path = folder.path().join("datagram");
    let _receiver = UnixDatagram::bind(&path).unwrap();
    let name = format!("sentinel-test-{}", std::process::id());
    let abstract_name = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&abstract_name).unwrap();
    let name = [b"\0", name.as_bytes()].concat();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    assert_eq!((connect_unix(&outside, &name), connect_unix(&inside, &name)), (0, host.refused(0)));
    let path = path.as_os_str().as_bytes();
    assert_eq!((send_unix(&outside, path), send_unix(&inside, path)), (1, host.refused(1)));
    for (record, name) in host.expect_only(OPERATION_UNIX, &inside).iter().zip([&name[1..], path]) {
        let (told, rest) = record.path.split_at(name.len());
        assert_eq!(told, name);
        assert!(rest.iter().all(|byte| *byte == 0), "and nothing that stands behind it");
    }
    if host.is_lsm() {
        let mut rules = policy(vec![Grant::default()]);
        rules.unix_allow = vec![folder.path().join("datagram")];
        let listed = host.session(2, &rules);
        let inside = host.command(&listed);
        assert_eq!(send_unix(&inside, path), 1);
    }
}

#[test]
fn only_unix_internet_and_routing_sockets_are_made() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    let (generic, route) = (Deed::Socket(16, 3, 16), Deed::Socket(16, 3, 0));
    assert_eq!(outside.order(generic).unwrap(), 0);
    assert_eq!(inside.order(generic).unwrap(), -host.refused(0));
    assert_eq!(inside.order(route).unwrap(), 0);
    assert_eq!(inside.order(Deed::Socket(1, 1, 0)).unwrap(), 0);
    host.expect_only(OPERATION_SOCKET, &inside);
}

#[test]
fn a_socket_from_outside_sends_and_connects_nothing() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let (_other, elsewhere) = listener(Ipv4Addr::LOCALHOST);
    let connected = std::net::TcpStream::connect(to).unwrap();
    // Before the process is forked, which so has it.
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    let socket = connected.as_raw_fd();
    assert_eq!((send_by(&outside, socket), send_by(&inside, socket)), (1, host.refused(1)));
    assert_eq!((connect(&inside, to), connect(&inside, elsewhere)), (0, EPERM), "one of its own");
    assert_eq!(host.is_lsm(), host.records().iter().any(|record| record.operation == OPERATION_SEND));
}

#[test]
fn a_socket_of_another_session_sends_nothing_though_both_may_reach_its_peer() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let rules = policy(vec![network(&[(Protocol::Tcp, to)])]);
    let (one, other) = (host.session(1, &rules), host.session(2, &rules));
    let owner = host.command(&one);
    let own = connected(&owner, to);
    // Before the other process is forked, which so has it.
    let taken = owner.descriptor(own);
    let stranger = host.command(&other);
    assert_eq!((send_by(&owner, own), send_by(&stranger, taken.as_raw_fd())), (1, host.refused(1)));
    host.expect_only(OPERATION_SEND, &stranger);
}

#[test]
fn a_socket_from_outside_is_not_connected_and_one_of_its_own_is() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let make = || socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    // Before the processes are forked, which so have them. They were made in no session: the cgroup's hooks don't ask about them.
    let (one, two) = (make(), make());
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    let connect_by = |puppet: &Puppet, socket: &OwnedFd| {
        let address = sockets::socket_address(to);
        let arguments = [Number(socket.as_raw_fd().try_into().unwrap()), Bytes, Number(16)];
        call_with(puppet, libc::SYS_connect, &arguments, &address)
    };
    assert_eq!((connect_by(&outside, &one), connect_by(&inside, &two)), (0, host.refused(0)));
    host.expect_only(OPERATION_SEND, &inside);
    assert_eq!(connect(&inside, to), 0, "one of its own");
}

#[test]
fn what_an_action_connected_sends_only_while_its_door_is_open() {
    let mut host = Host::new();
    let (_listener, to) = listener(Ipv4Addr::LOCALHOST);
    let session = host.session(1, &policy(vec![Grant::default(), network(&[(Protocol::Tcp, to)])]));
    let command = host.command(&session);
    host.open(&session, &command, 1);
    let socket = connected(&command, to);
    assert_eq!(send_by(&command, socket), 1);
    host.set_doors(&session, 1, GrantSet::EMPTY, Duration::ZERO);
    if host.is_lsm() {
        assert_eq!(send_by(&command, socket), -EPERM);
        assert_eq!(host.records().last().unwrap().operation, OPERATION_SEND);
    }
}

#[test]
fn a_socket_handed_over_from_outside_does_not_arrive_and_a_file_does() {
    let mut host = Host::new();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let file = File::open("/proc/self/stat").unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let (inside, outside) = (host.command(&session), Puppet::start().unwrap());
    let hand = |descriptor: std::os::fd::BorrowedFd<'_>| {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let mut space = [std::mem::MaybeUninit::uninit(); 64];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&ours, &[std::io::IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
    };
    use std::os::fd::AsFd as _;
    hand(socket.as_fd());
    assert_eq!(outside.order(Deed::Receive(theirs.as_raw_fd())).unwrap(), 0);
    hand(socket.as_fd());
    assert_eq!(inside.order(Deed::Receive(theirs.as_raw_fd())).unwrap(), -host.refused(0));
    hand(file.as_fd());
    assert_eq!(inside.order(Deed::Receive(theirs.as_raw_fd())).unwrap(), 0);
    host.expect_only(OPERATION_RECEIVE, &inside);
}

#[test]
fn a_session_answers_on_what_it_has_accepted() {
    let mut host = Host::new();
    // A port that is free, as it was a moment ago.
    let (_, at) = listener(Ipv4Addr::LOCALHOST);
    let listens = Grant { listen: network(&[(Protocol::Tcp, at)]).network, ..Grant::default() };
    let session = host.session(1, &policy(vec![listens]));
    let inside = host.command(&session);
    let mut bytes = Vec::from(2_u16.to_ne_bytes());
    bytes.extend(at.port().to_be_bytes());
    bytes.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let socket = call(&inside, libc::SYS_socket, &[Number(2), Number(1), Number(0)]);
    let number = Number(socket.try_into().unwrap());
    assert_eq!(call_with(&inside, libc::SYS_bind, &[number, Bytes, Number(16)], &bytes), 0);
    assert_eq!(call(&inside, libc::SYS_listen, &[number, Number(4)]), 0);
    let peer = std::net::TcpStream::connect(at).unwrap();
    let accepted = call(&inside, libc::SYS_accept, &[number, Number(0), Number(0)]);
    assert!(accepted > 0, "{accepted}");
    assert_eq!(send_by(&inside, accepted), 1);
    let mut byte = [0];
    std::io::Read::read_exact(&mut &peer, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}
