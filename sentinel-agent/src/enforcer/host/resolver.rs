//! The way to the agent's resolver, and the doors that its answers are.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use sentinel_ebpf_common::verdict::Verdict;
use sentinel_ebpf_common::{Asker, AskerKey};
use sentinel_engine::{NamePattern, NameRule};
use sentinel_proto::HostName;

use super::*;
use crate::enforcer::ToldAddress;

pub(super) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// A DNS server that isn't there, as an application has it from its resolv.conf.
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
/// It says where to, and how.
const IPV6: usize = 1;
const UNCONNECTED: usize = 2;
const STREAM: usize = 4;

/// Stands where the agent's resolver would: answers each message with itself, and says from where it came.
struct Echo {
    port: u16,
    came_from: std::sync::mpsc::Receiver<SocketAddr>,
}

impl Echo {
    fn start() -> Self {
        let (told, came_from) = std::sync::mpsc::channel();
        let (udp4, udp6, tcp4, tcp6) = (0..100)
            .find_map(|_| {
                let udp4 = UdpSocket::bind((V4, 0)).unwrap();
                let port = udp4.local_addr().unwrap().port();
                let udp6 = UdpSocket::bind((V6, port)).ok()?;
                Some((udp4, udp6, TcpListener::bind((V4, port)).ok()?, TcpListener::bind((V6, port)).ok()?))
            })
            .expect("a port that all four can have");
        let port = udp4.local_addr().unwrap().port();
        for socket in [udp4, udp6] {
            let told = told.clone();
            std::thread::spawn(move || {
                let mut message = [0; 64];
                while let Ok((length, from)) = socket.recv_from(&mut message) {
                    let _test_is_over = told.send(from);
                    let _asker_is_gone = socket.send_to(&message[..length], from);
                }
            });
        }
        for listener in [tcp4, tcp6] {
            let told = told.clone();
            std::thread::spawn(move || {
                while let Ok((mut connection, from)) = listener.accept() {
                    let _test_is_over = told.send(from);
                    let mut message = [0; 5];
                    let _asker_is_gone = std::io::Read::read_exact(&mut connection, &mut message)
                        .and_then(|()| connection.write_all(&message));
                }
            });
        }
        Self { port, came_from }
    }

    fn number(&self) -> Option<NonZeroU16> {
        NonZeroU16::new(self.port)
    }

    /// From where the next message came.
    fn next(&self) -> SocketAddr {
        self.came_from.recv_timeout(Duration::from_secs(10)).expect("something comes")
    }
}

/// Asks a DNS server, and answers 0 where the answer seems to be that server's; else the number of the step that failed, or below 0 the error of
/// the first call that names the server. Calls the kernel and nothing else.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the sizes of socket addresses, and what libc gives as `int`"
)]
extern "C" fn ask(how: usize) -> i32 {
    let is_v6 = how & IPV6 != 0;
    let (is_unconnected, is_stream) = (how & UNCONNECTED != 0, how & STREAM != 0);
    let port = 53_u16.to_be();
    // SAFETY: all zero is a valid value of these.
    let (mut v4, mut v6): (libc::sockaddr_in, libc::sockaddr_in6) = unsafe { std::mem::zeroed() };
    v4.sin_family = libc::AF_INET as u16;
    v4.sin_port = port;
    v4.sin_addr.s_addr = u32::from_ne_bytes(SERVER_V4.octets());
    v6.sin6_family = libc::AF_INET6 as u16;
    v6.sin6_port = port;
    v6.sin6_addr.s6_addr = SERVER_V6.octets();
    let (to, length): (*const libc::sockaddr, u32) = if is_v6 {
        ((&raw const v6).cast(), size_of_val(&v6) as u32)
    } else {
        ((&raw const v4).cast(), size_of_val(&v4) as u32)
    };
    let mut message = *b"\0\0\0\0\0";
    // SAFETY: each is given what it asks for; all of it outlives the calls.
    unsafe {
        let family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = if is_stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
        let socket = libc::socket(family, kind, 0);
        if socket < 0 {
            return 1;
        }
        let patience = libc::timeval { tv_sec: 5, tv_usec: 0 };
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const patience).cast(),
            size_of_val(&patience) as u32,
        );
        let sent = if is_unconnected {
            libc::sendto(socket, b"hello".as_ptr().cast(), 5, libc::MSG_NOSIGNAL, to, length)
        } else if libc::connect(socket, to, length) != 0 {
            -1
        } else {
            libc::send(socket, b"hello".as_ptr().cast(), 5, libc::MSG_NOSIGNAL)
        };
        if sent != 5 {
            let error = -*libc::__errno_location();
            libc::close(socket);
            return error;
        }
        let mut from: libc::sockaddr_in6 = std::mem::zeroed();
        let mut from_length = size_of_val(&from) as u32;
        if !is_unconnected {
            let peer = libc::getpeername(socket, (&raw mut from).cast(), &raw mut from_length);
            if peer != 0 || libc::memcmp((&raw const from).cast(), to.cast(), if is_v6 { 24 } else { 8 }) != 0
            {
                return 2;
            }
        }
        from_length = size_of_val(&from) as u32;
        let got = libc::recvfrom(
            socket,
            message.as_mut_ptr().cast(),
            5,
            0,
            (&raw mut from).cast(),
            &raw mut from_length,
        );
        if got != 5 || &message != b"hello" {
            return 3;
        }
        if !is_stream && libc::memcmp((&raw const from).cast(), to.cast(), if is_v6 { 24 } else { 8 }) != 0 {
            return 4;
        }
        libc::close(socket);
    }
    0
}

/// Asks a DNS server so many times by one socket and waits for no answer: how many could be sent; or below 0 the error of a call, but for EPERM of
/// one that sends.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the size of a socket address, and what libc gives as `int`"
)]
extern "C" fn ask_often(times: usize) -> i32 {
    // SAFETY: each call is given what it asks for; all of it outlives the calls. All zero is a valid address.
    unsafe {
        let mut to: libc::sockaddr_in = std::mem::zeroed();
        to.sin_family = libc::AF_INET as u16;
        to.sin_port = 53_u16.to_be();
        to.sin_addr.s_addr = u32::from_ne_bytes(SERVER_V4.octets());
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        if socket < 0 || libc::connect(socket, (&raw const to).cast(), size_of_val(&to) as u32) != 0 {
            return -*libc::__errno_location();
        }
        let mut sent = 0_i32;
        for _ in 0..times {
            if libc::send(socket, b"hello".as_ptr().cast(), 5, libc::MSG_NOSIGNAL) == 5 {
                sent = sent.wrapping_add(1);
            } else if *libc::__errno_location() != libc::EPERM {
                return -*libc::__errno_location();
            }
        }
        libc::close(socket);
        sent
    }
}

/// Asks a DNS server, then sends to this port of 127.0.0.1 by the same socket: 0, or below 0 the error of that.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the size of a socket address, what libc gives as `int`, and a port"
)]
extern "C" fn ask_and_send(port: usize) -> i32 {
    // SAFETY: each call is given what it asks for; all of it outlives the calls. All zero is a valid address.
    unsafe {
        let mut to: libc::sockaddr_in = std::mem::zeroed();
        to.sin_family = libc::AF_INET as u16;
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        for (address, port) in [(SERVER_V4, 53), (Ipv4Addr::LOCALHOST, port as u16)] {
            to.sin_port = port.to_be();
            to.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            let length = size_of_val(&to) as u32;
            let sent = libc::sendto(socket, b"hello".as_ptr().cast(), 5, 0, (&raw const to).cast(), length);
            if sent != 5 && port == 53 {
                return 1;
            }
            if sent != 5 {
                return -*libc::__errno_location();
            }
        }
        libc::close(socket);
    }
    0
}

pub(super) fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

/// A grant that names a host, and its port.
pub(super) fn host_rule(host: &str, port: u16, allow_private: bool) -> Grant {
    let name = NamePattern::Exactly(name(host));
    let rule = NameRule { protocol: Protocol::Tcp, name, port: Some(port), allow_private, line: 1 };
    Grant { names: vec![rule], ..Grant::default() }
}

pub(super) fn told(to: SocketAddr, for_time: Duration) -> ToldAddress {
    let until = u64::try_from((since_boot() + for_time).as_nanos()).unwrap();
    ToldAddress { address: to.ip(), is_private: true, until }
}

pub(super) const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_goes_to_port_53_comes_to_the_resolver_and_is_answered_as_by_the_server_that_was_meant() {
    let mut host = Host::new();
    let echo = Echo::start();
    host.enforcer().let_resolve(echo.number()).unwrap();
    let askers = host.enforcer().askers().unwrap();
    let session = host.session(1, &policy(vec![host_rule("a.example", 443, false)]));
    let puppet = host.command(&session);
    host.enforcer().put_scope_in_front(puppet.pid(), ScopeId(77)).unwrap();
    for family in [0, IPV6] {
        for way in [0, UNCONNECTED, STREAM] {
            assert_eq!(puppet.order(Deed::Run(ask, family | way)).unwrap(), 0, "family {family}, way {way}");
            let from = echo.next();
            assert_eq!(from.is_ipv6(), family == IPV6);
            let protocol = if way == STREAM { 6 } else { 17 };
            let key = AskerKey { protocol, port: from.port(), family: if from.is_ipv6() { 6 } else { 4 } };
            // It closed its socket at the end: nobody asks by that any more.
            wait_until("the asker is forgotten", || askers.find(&key).unwrap().is_none());
        }
    }
    assert!(host.records().is_empty());
}

#[test]
fn who_asks_is_known_while_the_socket_is_open() {
    let mut host = Host::new();
    let echo = Echo::start();
    host.enforcer().let_resolve(echo.number()).unwrap();
    let askers = host.enforcer().askers().unwrap();
    let session = host.session(3, &policy(vec![host_rule("a.example", 443, false)]));
    let puppet = host.command(&session);
    host.enforcer().put_scope_in_front(puppet.pid(), ScopeId(77)).unwrap();
    let server = SocketAddr::from((SERVER_V4, 53));
    let socket = call(&puppet, libc::SYS_socket, &[Given::Number(2), Given::Number(2), Given::Number(0)]);
    let socket = Given::Number(socket.try_into().unwrap());
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&2_u16.to_ne_bytes());
    address[2..4].copy_from_slice(&server.port().to_be_bytes());
    address[4..8].copy_from_slice(&SERVER_V4.octets());
    assert_eq!(
        call_with(&puppet, libc::SYS_connect, &[socket, Given::Bytes, Given::Number(16)], &address),
        0
    );
    assert_eq!(call_with(&puppet, libc::SYS_write, &[socket, Given::Bytes, Given::Number(5)], b"hello"), 5);
    let key = AskerKey { protocol: 17, port: echo.next().port(), family: 4 };
    let expected = Asker { session: 3, tgid: puppet.pid(), scopes: [77, 0, 0, 0] };
    assert_eq!(askers.find(&key).unwrap(), Some(expected));
    assert_eq!(call(&puppet, libc::SYS_close, &[socket]), 0);
    assert_eq!(askers.find(&key).unwrap(), None);
}

#[test]
fn without_a_resolver_nothing_goes_to_port_53_and_where_no_host_is_named_rules_decide() {
    let mut host = Host::new();
    let named = host.session(1, &policy(vec![host_rule("a.example", 443, false)]));
    let puppet = host.puppet(&named);
    for how in [0, IPV6, UNCONNECTED, IPV6 | UNCONNECTED, STREAM] {
        assert_eq!(puppet.order(Deed::Run(ask, how)).unwrap(), -EPERM, "{how}");
    }
    let told: Vec<u32> = host.records().iter().map(|record| record.verdict).collect();
    assert_eq!(told, [Verdict::NoResolver as u32; 5]);
    let echo = Echo::start();
    host.enforcer().let_resolve(echo.number()).unwrap();
    let unnamed = host.session(2, &policy(vec![Grant::default()]));
    let puppet = host.puppet(&unnamed);
    assert_eq!(puppet.order(Deed::Run(ask, 0)).unwrap(), -EPERM);
    assert_eq!(host.records()[0].verdict, Verdict::NoRule as u32);
}

#[test]
fn from_another_network_namespace_nothing_goes_to_the_resolver_and_from_its_own_all_does() {
    let mut host = Host::new();
    let echo = Echo::start();
    host.enforcer().let_resolve(echo.number()).unwrap();
    let session = host.session(1, &policy(vec![host_rule("a.example", 443, false)]));
    let (beside, elsewhere) = (host.puppet(&session), host.puppet(&session));
    let netns = u64::try_from(libc::CLONE_NEWNET).unwrap();
    assert_eq!(call(&elsewhere, libc::SYS_unshare, &[Given::Number(netns)]), 0);
    let ways = [0, IPV6, UNCONNECTED, IPV6 | UNCONNECTED, STREAM, IPV6 | STREAM];
    for how in ways {
        assert_eq!(beside.order(Deed::Run(ask, how)).unwrap(), 0, "{how}");
        assert_eq!(elsewhere.order(Deed::Run(ask, how)).unwrap(), -EPERM, "{how}");
    }
    let told: Vec<(u32, u32)> = host.records().iter().map(|record| (record.tgid, record.verdict)).collect();
    assert_eq!(told, [(elsewhere.pid(), Verdict::NoResolver as u32); 6]);
}

#[test]
fn a_session_asks_in_a_burst_and_what_is_more_goes_nowhere_and_leaves_another_session_its_own() {
    let mut host = Host::new();
    let echo = Echo::start();
    host.enforcer().let_resolve(echo.number()).unwrap();
    let rules = policy(vec![host_rule("a.example", 443, false)]);
    let (flooding, other) = (host.session(1, &rules), host.session(2, &rules));
    let (flooding, other) = (host.puppet(&flooding), host.puppet(&other));
    assert_eq!(flooding.order(Deed::Run(ask_often, 3_999)).unwrap(), 3_999);
    // More than fit into the time that this takes, also on an emulated processor.
    let sent = flooding.order(Deed::Run(ask_often, 40_000)).unwrap();
    assert!((1..30_000).contains(&sent), "{sent}");
    assert_eq!(flooding.order(Deed::Run(ask, STREAM)).unwrap(), 0, "TCP waits by itself");
    assert_eq!(other.order(Deed::Run(ask, 0)).unwrap(), 0);
    assert!(host.records().is_empty(), "the resolver tells of those that it sees");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(flooding.order(Deed::Run(ask, 0)).unwrap(), 0, "after a while it may again");
}

#[test]
fn nothing_of_a_session_comes_to_the_resolver_by_a_rule_for_its_address() {
    let mut host = Host::new();
    let echo = Echo::start();
    host.enforcer().let_resolve(echo.number()).unwrap();
    let (_other, elsewhere) = udp_receiver();
    let cidr = Cidr { address: V4, prefix: 8 };
    let rule = NetworkRule { protocol: Protocol::Udp, cidr, port: None, line: 1 };
    let session =
        host.session(1, &policy(vec![Grant { network: vec![rule], ..host_rule("a.example", 443, false) }]));
    let puppet = host.puppet(&session);
    assert_eq!(puppet.order(Deed::SendUdp(elsewhere)).unwrap(), 0);
    assert_eq!(puppet.order(Deed::SendUdp(SocketAddr::new(V4, echo.port))).unwrap(), EPERM);
    assert!(echo.came_from.try_recv().is_err());
    // Nor by a socket that was led there before.
    assert_eq!(puppet.order(Deed::Run(ask_and_send, echo.port.into())).unwrap(), -EPERM);
    echo.next();
    assert!(echo.came_from.try_recv().is_err(), "the question alone");
}

#[test]
fn an_address_that_was_told_opens_to_its_session_for_its_time() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let (_other, another) = listener(V4);
    let rules = policy(vec![host_rule("a.example", to.port(), true)]);
    let (session, foreign) = (host.session(1, &rules), host.session(2, &rules));
    let (puppet, stranger) = (host.puppet(&session), host.puppet(&foreign));
    assert_eq!(connect(&puppet, to), EPERM, "not told yet");
    host.enforcer().open_name(session.id, &name("b.example"), &[told(to, LONG)]).unwrap();
    assert_eq!(connect(&puppet, to), EPERM, "told for a name that no rule has");
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    assert_eq!((connect(&puppet, to), connect(&puppet, another)), (0, EPERM), "this port alone");
    assert_eq!(connect(&stranger, to), EPERM, "another session was told nothing");
    assert_eq!(host.enforcer().names_of(session.id, V4), [name("a.example"), name("b.example")]);
}

#[test]
fn an_address_whose_time_is_over_opens_no_more() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let session = host.session(1, &policy(vec![host_rule("a.example", to.port(), true)]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, Duration::ZERO)]).unwrap();
    assert_eq!(connect(&puppet, to), EPERM);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    assert_eq!(connect(&puppet, to), 0, "told anew");
}

#[test]
fn a_private_address_opens_only_by_a_rule_that_allows_it() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let session = host.session(1, &policy(vec![host_rule("a.example", to.port(), false)]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    assert_eq!(connect(&puppet, to), EPERM);
}

#[test]
fn an_address_of_an_actions_host_opens_while_the_action_is_in_flight() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let session = host.session(1, &policy(vec![Grant::default(), host_rule("a.example", to.port(), true)]));
    let puppet = host.command(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    assert_eq!(connect(&puppet, to), EPERM, "no action");
    host.open(&session, &puppet, 9);
    assert_eq!(connect(&puppet, to), 0);
    host.set_doors(&session, 9, GrantSet::EMPTY, Duration::ZERO);
    assert_eq!(connect(&puppet, to), EPERM, "it has ended");
}

#[test]
fn other_rules_take_over_the_addresses_of_hosts_that_they_name_too() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let with = policy(vec![host_rule("a.example", to.port(), true)]);
    let without = policy(vec![host_rule("b.example", to.port(), true)]);
    let session = host.session(1, &with);
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    for (rules, expected) in [(&with, 0), (&without, EPERM), (&with, 0)] {
        host.enforcer().prepare_rules(session.id, rules, USER).unwrap();
        host.enforcer().commit_rules(session.id).unwrap();
        assert_eq!(connect(&puppet, to), expected);
    }
}

#[test]
fn what_a_host_opened_without_an_action_stays_open_under_an_agent_that_takes_over_the_same_policy() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let rules = policy(vec![host_rule("a.example", to.port(), true)]);
    let session = host.session(1, &rules);
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    for (is_same, expected) in [(true, 0), (false, EPERM)] {
        host.enforcer().note_build().unwrap();
        drop(host.enforcer.take());
        let enforcer = EbpfEnforcer::adopt(&host.places).unwrap().expect("it is the same build");
        host.enforcer = Some(enforcer);
        host.enforcer().adopt_session(session.id, session.cgroup.id(), is_same).unwrap();
        assert_eq!(connect(&puppet, to), 0, "its rules hold until others do");
        host.enforcer().prepare_rules(session.id, &rules, USER).unwrap();
        host.enforcer().commit_rules(session.id).unwrap();
        assert_eq!(connect(&puppet, to), expected);
    }
}

#[test]
fn an_address_that_hosts_share_opens_what_those_say_whose_time_is_not_over() {
    let mut host = Host::new();
    let ((_first, at_first), (_second, at_second)) = (listener(V4), listener(V4));
    let mut grant = host_rule("a.example", at_first.port(), true);
    grant.names.extend(host_rule("b.example", at_second.port(), true).names);
    let session = host.session(1, &policy(vec![grant]));
    let puppet = host.puppet(&session);
    let soon = Duration::from_millis(300);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(at_first, soon)]).unwrap();
    host.enforcer().open_name(session.id, &name("b.example"), &[told(at_second, LONG)]).unwrap();
    assert_eq!((connect(&puppet, at_first), connect(&puppet, at_second)), (0, 0));
    std::thread::sleep(soon);
    host.enforcer().sweep_names().unwrap();
    assert_eq!((connect(&puppet, at_first), connect(&puppet, at_second)), (EPERM, 0));
}
