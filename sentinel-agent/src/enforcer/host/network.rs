//! Outbound network: default deny, and what rules let through.

use std::net::{Ipv4Addr, Ipv6Addr};

use sentinel_ebpf_common::record::{OPERATION_CONNECT, OPERATION_SENDMSG, OPERATION_SOCKET};

use super::*;

const V4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const V6: Ipv6Addr = Ipv6Addr::LOCALHOST;

#[test]
fn a_connect_is_refused_without_a_rule_and_goes_through_with_one() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let (_other, elsewhere) = listener(V4);
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let puppet = host.puppet(&session);
    assert_eq!(connect(&puppet, to), 0);
    assert_eq!(connect(&puppet, elsewhere), EPERM, "another port");
    let outside = Puppet::start().unwrap();
    assert_eq!(connect(&outside, elsewhere), 0, "a process outside is nobody's business");
    let records = host.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((records[0].operation, records[0].session), (OPERATION_CONNECT, 1));
    assert_eq!((records[0].port, records[0].tgid), (elsewhere.port().into(), puppet.pid()));
}

#[test]
fn ipv6_is_held_like_ipv4() {
    let mut host = Host::new();
    let (_listener, to) = listener(V6);
    let (_other, elsewhere) = listener(V6);
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let puppet = host.puppet(&session);
    assert_eq!((connect(&puppet, to), connect(&puppet, elsewhere)), (0, EPERM));
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_address() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let (_other, elsewhere) = listener(V4);
    let mapped = |address: SocketAddr| SocketAddr::new(V4.to_ipv6_mapped().into(), address.port());
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let puppet = host.puppet(&session);
    assert_eq!((connect(&puppet, mapped(to)), connect(&puppet, mapped(elsewhere))), (0, EPERM));
}

#[test]
fn a_prefix_and_any_port_open_what_they_cover_and_no_more() {
    let mut host = Host::new();
    let (_near, near) = listener(Ipv4Addr::new(127, 1, 2, 3));
    let (_far, far) = listener(Ipv4Addr::new(127, 2, 0, 1));
    let cidr = Cidr { address: Ipv4Addr::new(127, 1, 0, 0).into(), prefix: 16 };
    let rule = NetworkRule { protocol: Protocol::Tcp, cidr, port: None, line: 1 };
    let session = host.session(1, &policy(vec![Grant { network: vec![rule], ..Grant::default() }]));
    let puppet = host.puppet(&session);
    assert_eq!((connect(&puppet, near), connect(&puppet, far)), (0, EPERM));
}

#[test]
fn datagrams_are_held_connected_or_not() {
    let mut host = Host::new();
    let (_receiver, to) = udp_receiver();
    let (_other, elsewhere) = udp_receiver();
    let session = host.session(1, &policy(vec![network(&[(Protocol::Udp, to)])]));
    let puppet = host.puppet(&session);
    assert_eq!(puppet.order(Deed::SendUdp(to)).unwrap(), 0);
    assert_eq!(puppet.order(Deed::ConnectUdp(to)).unwrap(), 0);
    assert_eq!(puppet.order(Deed::SendUdp(elsewhere)).unwrap(), EPERM);
    assert_eq!(puppet.order(Deed::ConnectUdp(elsewhere)).unwrap(), EPERM);
    assert_eq!(connect(&puppet, to), EPERM, "a rule for UDP is none for TCP");
    let operations: Vec<u32> = host.records().iter().map(|record| record.operation).collect();
    assert_eq!(operations, [OPERATION_SENDMSG, OPERATION_CONNECT, OPERATION_CONNECT]);
}

#[test]
fn datagrams_over_ipv6_are_held_like_those_over_ipv4() {
    let mut host = Host::new();
    let (receiver, other) = (UdpSocket::bind((V6, 0)).unwrap(), UdpSocket::bind((V6, 0)).unwrap());
    let (to, elsewhere) = (receiver.local_addr().unwrap(), other.local_addr().unwrap());
    let session = host.session(1, &policy(vec![network(&[(Protocol::Udp, to)])]));
    let puppet = host.puppet(&session);
    assert_eq!(puppet.order(Deed::SendUdp(to)).unwrap(), 0);
    assert_eq!(puppet.order(Deed::SendUdp(elsewhere)).unwrap(), EPERM);
    let operations: Vec<u32> = host.records().iter().map(|record| record.operation).collect();
    assert_eq!(operations, [OPERATION_SENDMSG]);
}

#[test]
fn only_tcp_and_udp_sockets_are_made() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let puppet = host.puppet(&session);
    let outside = Puppet::start().unwrap();
    let (raw, stream) = (Deed::Socket(2, 3, 1), Deed::Socket(2, 1, 6));
    assert_eq!(outside.order(raw).unwrap(), 0, "root outside can");
    assert_eq!((puppet.order(raw).unwrap(), puppet.order(stream).unwrap()), (EPERM, 0));
    assert_eq!(host.records()[0].operation, OPERATION_SOCKET);
}

#[test]
fn two_sessions_have_each_their_own_rules() {
    let mut host = Host::new();
    let ((_one, one), (_two, two)) = (listener(V4), listener(V4));
    let first = host.session(1, &policy(vec![network(&[(Protocol::Tcp, one)])]));
    let second = host.session(2, &policy(vec![network(&[(Protocol::Tcp, two)])]));
    let (a, b) = (host.puppet(&first), host.puppet(&second));
    assert_eq!((connect(&a, one), connect(&a, two)), (0, EPERM));
    assert_eq!((connect(&b, one), connect(&b, two)), (EPERM, 0));
}

#[test]
fn another_sessions_socket_opens_nothing_and_in_another_sessions_cgroup_none_is_made() {
    let mut host = Host::new();
    let (_one, one) = listener(V4);
    let first = host.session(1, &policy(vec![network(&[(Protocol::Tcp, one)])]));
    let second = host.session(2, &policy(vec![Grant::default()]));
    let owner = host.command(&first);
    let (lent, kept) =
        (sockets::socket(&owner, one, sockets::TCP), sockets::socket(&owner, one, sockets::TCP));
    // Before the process of the other session is forked, which so has it.
    let lent = sockets::raw(&owner, lent);
    let borrower = host.command(&second);
    let number = std::os::fd::AsRawFd::as_raw_fd(&lent);
    assert_eq!(sockets::connect_socket(&borrower, number, one), EPERM);
    assert_eq!(sockets::connect_socket(&owner, kept, one), 0, "its own session's is");
    let make = Deed::Socket(2, 1, 6);
    assert_eq!(borrower.order(make).unwrap(), 0);
    first.cgroup.add(borrower.pid()).unwrap();
    assert_eq!(borrower.order(make).unwrap(), EPERM);
}

#[test]
fn an_audited_session_is_let_pass_and_recorded() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let mut audited = policy(vec![Grant::default()]);
    audited.mode = sentinel_engine::Mode::Audit;
    let session = host.session(1, &audited);
    let puppet = host.puppet(&session);
    assert_eq!(connect(&puppet, to), 0);
    assert_eq!(execute(&puppet, TRUE), RAN);
    let records = host.records();
    assert_eq!(records.iter().map(|record| record.audited).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn the_baseline_network_closes_and_opens_by_itself() {
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let session = host.session(1, &policy(vec![network(&[(Protocol::Tcp, to)])]));
    let puppet = host.puppet(&session);
    host.enforcer().set_baseline_network(session.id, false).unwrap();
    assert_eq!(connect(&puppet, to), EPERM);
    host.enforcer().set_baseline_network(session.id, true).unwrap();
    assert_eq!(connect(&puppet, to), 0);
}
