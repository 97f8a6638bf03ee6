//! Packets that are more, or go elsewhere, than a plain connection's. Each denial has its allowed twin.

use std::io::{Read as _, Write as _};
use std::net::Ipv6Addr;

use sentinel_ebpf_common::record::{OPERATION_CONNECT, OPERATION_EGRESS, OPERATION_SENDMSG};
use sentinel_ebpf_common::verdict::Verdict;

use super::egress::{SOON, Scene, V4};
use super::sockets::*;
use super::*;

#[test]
fn ip_options_are_refused_from_the_first_packet_on() {
    for with_options in [false, true] {
        let mut scene = Scene::with(|to| {
            let udp = SocketAddr::new(to.ip(), 9);
            vec![network(&[(Protocol::Tcp, to), (Protocol::Udp, udp)])]
        });
        let udp = SocketAddr::new(V4.into(), 9);
        let (stream, datagram) = (socket(&scene.command, scene.to, TCP), socket(&scene.command, udp, UDP));
        if with_options {
            // No operation, four times: harmless in itself. A source route is what it could be.
            for number in [stream, datagram] {
                let of = raw(&scene.command, number);
                assert_eq!(set_option(&of, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1; 4]), 0);
            }
        }
        let stream = tcp(&scene.command, stream);
        stream.set_nonblocking(true).unwrap();
        let number = {
            use std::os::fd::AsRawFd as _;
            let address = socket_address(scene.to);
            // SAFETY: the bytes are an address, and outlive the call.
            unsafe {
                libc::connect(
                    stream.as_raw_fd(),
                    address.as_ptr().cast(),
                    libc::socklen_t::try_from(address.len()).unwrap(),
                )
            }
        };
        assert_eq!(number, -1, "it doesn't wait");
        scene.listener.set_nonblocking(true).unwrap();
        std::thread::sleep(SOON);
        assert_eq!(scene.listener.accept().is_ok(), !with_options);
        let sent = send_to(&scene.command, datagram, b"x", 0, udp);
        assert_eq!(sent, if with_options { -EPERM } else { 1 });
        let verdicts = scene.refused_packets();
        let expected = if with_options { vec![Some(Verdict::Header); verdicts.len().max(2)] } else { vec![] };
        assert_eq!(verdicts, expected);
    }
}

#[test]
fn extension_headers_are_refused() {
    const IPV6_RTHDR: i32 = 57;
    const IPV6_DSTOPTS: i32 = 59;
    // A segment routing header to ::1 by way of ::1; and destination options that are all padding.
    let mut route = vec![0, 2, 4, 0, 0, 0, 0, 0];
    route.extend(Ipv6Addr::LOCALHOST.octets());
    let options = [0_u8, 0, 1, 4, 0, 0, 0, 0];
    for (name, value) in [(None, &[][..]), (Some(IPV6_RTHDR), &route), (Some(IPV6_DSTOPTS), &options)] {
        let receiver = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let udp = receiver.local_addr().unwrap();
        let mut scene = Scene::at(Ipv6Addr::LOCALHOST.into(), |to| {
            vec![network(&[(Protocol::Tcp, to), (Protocol::Udp, udp)])]
        });
        let number = socket(&scene.command, udp, UDP);
        if let Some(name) = name {
            let set = set_option(&raw(&scene.command, number), libc::IPPROTO_IPV6, name, value);
            assert_eq!(set, 0, "option {name}");
        }
        let sent = send_to(&scene.command, number, b"x", 0, udp);
        assert_eq!(sent, if name.is_some() { -EPERM } else { 1 }, "{name:?}");
        let expected = if name.is_some() { vec![Some(Verdict::Header)] } else { vec![] };
        assert_eq!(scene.refused_packets(), expected);
    }
}

#[test]
fn data_in_the_first_packet_is_judged_like_any() {
    let mut scene = Scene::new();
    let fast = |scene: &Scene| {
        let number = socket(&scene.command, scene.to, TCP);
        send_to(&scene.command, number, b"fast", libc::MSG_FASTOPEN, scene.to)
    };
    assert_eq!(fast(&scene), -EPERM);
    scene.begin();
    assert_eq!(fast(&scene), 4);
    let (mut peer, _) = scene.listener.accept().unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"fast");
}

#[test]
fn of_many_datagrams_in_one_call_each_is_judged() {
    let (receiver, to) = udp_receiver();
    let (other, elsewhere) = udp_receiver();
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![network(&[(Protocol::Udp, to)])]));
    let puppet = host.command(&session);
    let number = socket(&puppet, to, UDP);
    let descriptor = raw(&puppet, number);
    let mut addresses = [socket_address(to), socket_address(elsewhere)];
    let mut vector = libc::iovec { iov_base: b"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    let mut messages: Vec<libc::mmsghdr> = addresses
        .iter_mut()
        .map(|address| {
            // SAFETY: all bytes 0 are a message without anything.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = address.as_mut_ptr().cast();
            message.msg_hdr.msg_namelen = libc::socklen_t::try_from(address.len()).unwrap();
            message.msg_hdr.msg_iov = &raw mut vector;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    use std::os::fd::AsRawFd as _;
    // SAFETY: the messages point to what outlives the call.
    let sent = unsafe { libc::sendmmsg(descriptor.as_raw_fd(), messages.as_mut_ptr(), 2, 0) };
    assert_eq!(sent, 1, "the first, and then it stops");
    receiver.set_read_timeout(Some(SOON)).unwrap();
    other.set_read_timeout(Some(SOON)).unwrap();
    assert!(receiver.recv(&mut [0]).is_ok() && other.recv(&mut [0]).is_err());
    let operations: Vec<u32> = host.records().iter().map(|record| record.operation).collect();
    assert_eq!(operations, [OPERATION_SENDMSG]);
}

#[test]
fn a_connection_by_an_ipv4_mapped_address_ends_too() {
    let mut scene = Scene::new();
    let mapped = SocketAddr::new(V4.to_ipv6_mapped().into(), scene.to.port());
    scene.begin();
    let mut stream = connection(&scene.command, mapped);
    let (mut peer, _) = scene.listener.accept().unwrap();
    stream.write_all(b"mapped").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"mapped");
    scene.end();
    assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
}

#[test]
fn ipv6_connections_end_too() {
    let mut scene =
        Scene::at(Ipv6Addr::LOCALHOST.into(), |to| vec![Grant::default(), network(&[(Protocol::Tcp, to)])]);
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    stream.write_all(b"six").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"six");
    scene.end();
    assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
}

#[test]
fn the_address_that_stands_for_this_host_is_judged_as_where_it_leads() {
    for named in [Ipv4Addr::UNSPECIFIED, V4] {
        let mut scene = Scene::with(|to| {
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), to.port());
            let named = SocketAddr::new(named.into(), to.port());
            vec![network(&[(Protocol::Tcp, any), (Protocol::Tcp, named)])]
        });
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), scene.to.port());
        scene.listener.set_nonblocking(true).unwrap();
        let number = socket(&scene.command, any, TCP | libc::SOCK_NONBLOCK);
        assert_eq!(connect_socket(&scene.command, number, any), libc::EINPROGRESS);
        std::thread::sleep(SOON);
        assert_eq!(scene.listener.accept().is_ok(), named == V4, "rules name {named}");
        let expected = if named == V4 { vec![] } else { vec![Some(Verdict::NoRule)] };
        assert_eq!(scene.refused_packets(), expected);
    }
}

#[test]
fn datagrams_end_with_the_action_too() {
    let (receiver, to) = udp_receiver();
    let mut scene = Scene::with(|_| vec![Grant::default(), network(&[(Protocol::Udp, to)])]);
    scene.begin();
    let connected = datagrams(&scene.command, to);
    let number = socket(&scene.command, to, UDP);
    assert_eq!(connected.send(b"1").unwrap(), 1);
    assert_eq!(send_to(&scene.command, number, b"2", 0, to), 1);
    receiver.set_read_timeout(Some(SOON)).unwrap();
    assert!(receiver.recv(&mut [0]).is_ok() && receiver.recv(&mut [0]).is_ok());
    scene.end();
    let told = connected.recv(&mut [0]).unwrap_err().raw_os_error();
    assert_eq!(told, Some(libc::ECONNABORTED), "whoever waits for an answer is told");
    assert!(connected.send(b"3").is_err(), "it has no peer any more");
    assert_eq!(send_to(&scene.command, number, b"4", 0, to), -EPERM);
    assert!(receiver.recv(&mut [0]).is_err());
}

#[test]
fn a_datagram_socket_that_is_left_sends_nothing_after_the_end_either() {
    let (receiver, to) = udp_receiver();
    let mut scene = Scene::with(|_| vec![Grant::default(), network(&[(Protocol::Udp, to)])]).left_alone();
    scene.begin();
    let connected = datagrams(&scene.command, to);
    assert_eq!(connected.send(b"1").unwrap(), 1);
    scene.end();
    assert_eq!(connected.send(b"2").unwrap_err().raw_os_error(), Some(EPERM));
    scene.begin_again();
    assert_eq!(connected.send(b"3").unwrap_err().raw_os_error(), Some(EPERM), "of the last action");
    let again = datagrams(&scene.command, to);
    assert_eq!(again.send(b"4").unwrap(), 1);
    let mut got = [0; 2];
    assert_eq!((receiver.recv(&mut got).unwrap(), got[0]), (1, b'1'));
    assert_eq!((receiver.recv(&mut got).unwrap(), got[0]), (1, b'4'));
}

#[test]
fn an_audited_session_goes_on_and_is_recorded_once() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let mut audited = policy(vec![Grant::default(), network(&[(Protocol::Tcp, to)])]);
    audited.mode = sentinel_engine::Mode::Audit;
    let session = host.session(1, &audited);
    let command = host.command(&session);
    host.open(&session, &command, 1);
    let mut stream = connection(&command, to);
    let (mut peer, _) = listener.accept().unwrap();
    host.enforcer().leave_connections();
    host.set_doors(&session, 1, GrantSet::EMPTY, Duration::ZERO);
    for part in [b"one ", b"two "] {
        stream.write_all(part).unwrap();
    }
    assert_eq!(arrives(&mut peer, SOON), b"one two ");
    let never = connection(&command, to);
    let records: Vec<(u32, u32)> =
        host.records().iter().map(|record| (record.operation, record.audited)).collect();
    assert_eq!(records, [(OPERATION_EGRESS, 1), (OPERATION_CONNECT, 1)], "its packets say nothing new");
    drop(never);
}
