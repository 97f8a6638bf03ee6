//! What comes to a session's sockets: only to an address that a `listen` rule names, while that holds; and answers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

use sentinel_ebpf_common::record::{OPERATION_BIND, OPERATION_INBOUND};

use super::sockets::*;
use super::*;

const SOON: Duration = Duration::from_millis(150);

/// An address that is free.
fn free(ip: impl Into<IpAddr>) -> SocketAddr {
    listener(ip).1
}

fn listen(own: &[(Protocol, SocketAddr)]) -> Grant {
    Grant { listen: network(own).network, ..Grant::default() }
}

fn reaches(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, SOON).is_ok()
}

fn operations(host: &mut Host) -> Vec<u32> {
    host.records().iter().map(|record| record.operation).collect()
}

#[test]
fn a_listener_needs_a_rule_and_answers_whoever_comes() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let (own, other) = (free(ip), free(ip));
        let mut host = Host::new();
        let session = host.session(1, &policy(vec![listen(&[(Protocol::Tcp, own)])]));
        let puppet = host.command(&session);
        let refused = socket(&puppet, other, TCP);
        assert_eq!(bind_socket(&puppet, refused, other), EPERM);
        let number = socket(&puppet, own, TCP);
        assert_eq!((bind_socket(&puppet, number, own), listen_on(&puppet, number)), (0, 0));
        let mut client = TcpStream::connect_timeout(&own, SOON).unwrap();
        let accepted = TcpListener::from(puppet.descriptor(number)).accept().unwrap();
        (&accepted.0).write_all(b"welcome").unwrap();
        assert_eq!(arrives(&mut client, SOON), b"welcome");
        client.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        (&accepted.0).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        assert_eq!(operations(&mut host), [OPERATION_BIND]);
    }
}

#[test]
fn to_be_reached_is_not_to_reach() {
    let own = free(Ipv4Addr::LOCALHOST);
    let (_other, elsewhere) = listener(Ipv4Addr::LOCALHOST);
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![listen(&[(Protocol::Tcp, own), (Protocol::Udp, own)])]));
    let puppet = host.command(&session);
    for kind in [TCP, UDP] {
        let number = socket(&puppet, own, kind);
        assert_eq!(bind_socket(&puppet, number, own), 0);
        assert_eq!(connect_socket(&puppet, number, elsewhere), EPERM);
        assert_eq!(connect_socket(&puppet, number, own), EPERM, "not even itself");
        if kind == UDP {
            assert_eq!(send_to(&puppet, number, b"x", 0, elsewhere), -EPERM);
        }
    }
}

#[test]
fn port_0_is_for_clients_and_nobody_reaches_it() {
    let (_server, to) = listener(Ipv4Addr::LOCALHOST);
    let any_port = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let puppet = host.command(&session);
    let client = socket(&puppet, to, TCP);
    assert_eq!((bind_socket(&puppet, client, any_port), connect_socket(&puppet, client, to)), (0, 0));
    // Bound to port 0, and not bound at all.
    for binds in [true, false] {
        let number = socket(&puppet, any_port, TCP);
        if binds {
            assert_eq!(bind_socket(&puppet, number, any_port), 0);
        }
        assert_eq!(listen_on(&puppet, number), 0);
        let port = TcpListener::from(puppet.descriptor(number)).local_addr().unwrap().port();
        assert!(!reaches(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
        assert!(operations(&mut host).contains(&OPERATION_INBOUND));
    }
}

#[test]
fn to_bind_again_is_refused_and_lets_nobody_come_to_the_first_port() {
    let own = free(Ipv4Addr::LOCALHOST);
    let any_port = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![listen(&[(Protocol::Tcp, own)])]));
    let puppet = host.command(&session);
    let number = socket(&puppet, own, TCP);
    assert_eq!(bind_socket(&puppet, number, any_port), 0);
    assert_eq!(bind_socket(&puppet, number, own), libc::EINVAL);
    assert_eq!(listen_on(&puppet, number), 0);
    let port = TcpListener::from(puppet.descriptor(number)).local_addr().unwrap().port();
    assert!(!reaches(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    assert!(operations(&mut host).contains(&OPERATION_INBOUND));
    let listening = socket(&puppet, own, TCP);
    assert_eq!((bind_socket(&puppet, listening, own), listen_on(&puppet, listening)), (0, 0));
    assert!(reaches(own), "where a rule lets it");
}

#[test]
fn what_was_let_connect_and_then_listens_is_not_reached() {
    let nobody = free(Ipv4Addr::LOCALHOST);
    let mut host = Host::new();
    let grant =
        Grant { listen: listen(&[(Protocol::Tcp, nobody)]).listen, ..network(&[(Protocol::Tcp, nobody)]) };
    let session = host.session(1, &policy(vec![grant]));
    let puppet = host.command(&session);
    let number = socket(&puppet, nobody, TCP);
    assert_eq!(connect_socket(&puppet, number, nobody), libc::ECONNREFUSED);
    assert_eq!(listen_on(&puppet, number), 0);
    let own = TcpListener::from(puppet.descriptor(number)).local_addr().unwrap();
    assert!(!reaches(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), own.port())));
    assert_eq!(operations(&mut host), [OPERATION_INBOUND]);
    let listening = socket(&puppet, nobody, TCP);
    assert_eq!((bind_socket(&puppet, listening, nobody), listen_on(&puppet, listening)), (0, 0));
    assert!(reaches(nobody), "where a rule lets it");
}

#[test]
fn a_rule_for_any_port_lets_port_0_listen() {
    let any = NetworkRule { port: None, ..listen(&[(Protocol::Tcp, free(Ipv4Addr::LOCALHOST))]).listen[0] };
    let mut host = Host::new();
    let grant = Grant { listen: vec![any], ..Grant::default() };
    let session = host.session(1, &policy(vec![grant]));
    let puppet = host.command(&session);
    let any_port = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let number = socket(&puppet, any_port, TCP);
    assert_eq!((bind_socket(&puppet, number, any_port), listen_on(&puppet, number)), (0, 0));
    let own = TcpListener::from(puppet.descriptor(number)).local_addr().unwrap();
    assert!(reaches(own));
}

#[test]
fn a_listener_of_an_action_is_reached_while_that_runs() {
    let own = free(Ipv4Addr::LOCALHOST);
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default(), listen(&[(Protocol::Tcp, own)])]));
    let puppet = host.command(&session);
    let before = socket(&puppet, own, TCP);
    assert_eq!(bind_socket(&puppet, before, own), EPERM);
    host.open(&session, &puppet, 1);
    let number = socket(&puppet, own, TCP);
    assert_eq!((bind_socket(&puppet, number, own), listen_on(&puppet, number)), (0, 0));
    let mut client = TcpStream::connect_timeout(&own, SOON).unwrap();
    let (mut accepted, _) = TcpListener::from(puppet.descriptor(number)).accept().unwrap();
    accepted.write_all(b"during").unwrap();
    assert_eq!(arrives(&mut client, SOON), b"during");
    host.set_doors(&session, 1, GrantSet::EMPTY, Duration::ZERO);
    assert_eq!(accepted.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
    assert!(!reaches(own));
}

#[test]
fn datagrams_come_to_a_listener_and_to_who_sent() {
    let own = free(Ipv4Addr::LOCALHOST);
    let (server, to) = udp_receiver();
    let mut host = Host::new();
    let grant = Grant { listen: listen(&[(Protocol::Udp, own)]).listen, ..network(&[(Protocol::Udp, to)]) };
    let session = host.session(1, &policy(vec![grant]));
    let puppet = host.command(&session);
    let comes = |number: i32, from: &UdpSocket| {
        let socket = UdpSocket::from(puppet.descriptor(number));
        socket.set_read_timeout(Some(SOON)).unwrap();
        from.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        socket.recv(&mut [0]).is_ok()
    };
    let listening = socket(&puppet, own, UDP);
    assert_eq!(bind_socket(&puppet, listening, own), 0);
    assert!(comes(listening, &server));
    let any_port = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let client = socket(&puppet, any_port, UDP);
    assert_eq!(bind_socket(&puppet, client, any_port), 0);
    assert!(!comes(client, &server), "it didn't ask");
    assert_eq!(send_to(&puppet, client, b"?", 0, to), 1);
    assert!(comes(client, &server), "an answer");
    assert_eq!(operations(&mut host), [OPERATION_INBOUND]);
}

#[test]
fn datagrams_come_to_a_listener_while_its_action_runs_and_while_rules_let_it() {
    // An address each: a process that another test forks meanwhile holds the first one's socket too, and with it the address.
    let (own, another) = (free(Ipv4Addr::LOCALHOST), free(Ipv4Addr::LOCALHOST));
    let (server, _) = udp_receiver();
    let mut host = Host::new();
    let comes = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(SOON)).unwrap();
        server.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        socket.recv(&mut [0]).is_ok()
    };
    let leased = host.session(1, &policy(vec![Grant::default(), listen(&[(Protocol::Udp, own)])]));
    let puppet = host.command(&leased);
    host.open(&leased, &puppet, 1);
    let number = socket(&puppet, own, UDP);
    assert_eq!(bind_socket(&puppet, number, own), 0);
    let listening = UdpSocket::from(puppet.descriptor(number));
    assert!(comes(&listening));
    host.set_doors(&leased, 1, GrantSet::EMPTY, Duration::ZERO);
    assert!(!comes(&listening), "its action has ended");

    let always = host.session(2, &policy(vec![listen(&[(Protocol::Udp, another)])]));
    let puppet = host.command(&always);
    let number = socket(&puppet, another, UDP);
    assert_eq!(bind_socket(&puppet, number, another), 0);
    let listening = UdpSocket::from(puppet.descriptor(number));
    assert!(comes(&listening));
    host.enforcer().prepare_rules(always.id, &policy(vec![Grant::default()]), USER).unwrap();
    host.enforcer().commit_rules(always.id).unwrap();
    assert!(!comes(&listening), "the new rules don't let it");
}

#[test]
fn after_a_reload_a_listener_is_judged_by_the_new_rules() {
    for stays in [true, false] {
        let own = free(Ipv4Addr::LOCALHOST);
        let mut host = Host::new();
        let session = host.session(1, &policy(vec![listen(&[(Protocol::Tcp, own)])]));
        let puppet = host.command(&session);
        let number = socket(&puppet, own, TCP);
        assert_eq!((bind_socket(&puppet, number, own), listen_on(&puppet, number)), (0, 0));
        let reloaded = if stays { listen(&[(Protocol::Tcp, own)]) } else { Grant::default() };
        host.enforcer().prepare_rules(session.id, &policy(vec![reloaded]), USER).unwrap();
        host.enforcer().commit_rules(session.id).unwrap();
        assert_eq!(reaches(own), stays);
    }
}

#[test]
fn an_audited_session_is_reached_and_recorded() {
    let own = free(Ipv4Addr::LOCALHOST);
    let mut host = Host::new();
    let mut audited = policy(vec![Grant::default()]);
    audited.mode = sentinel_engine::Mode::Audit;
    let session = host.session(1, &audited);
    let puppet = host.command(&session);
    let number = socket(&puppet, own, TCP);
    assert_eq!((bind_socket(&puppet, number, own), listen_on(&puppet, number)), (0, 0));
    let mut client = TcpStream::connect_timeout(&own, SOON).unwrap();
    let (mut accepted, _) = TcpListener::from(puppet.descriptor(number)).accept().unwrap();
    accepted.write_all(b"recorded").unwrap();
    assert_eq!(arrives(&mut client, SOON), b"recorded");
    assert_eq!(operations(&mut host), [OPERATION_BIND], "the rest would say the same");
}
