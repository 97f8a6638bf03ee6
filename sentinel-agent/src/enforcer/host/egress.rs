//! What leaves by a connection that is there: only while what let it go holds. Each denial has its allowed twin.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

use sentinel_ebpf_common::record::{OPERATION_CONNECT, OPERATION_EGRESS, OPERATION_SENDMSG};
use sentinel_ebpf_common::verdict::Verdict;

use super::sockets::*;
use super::*;

const V4: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// So long TCP takes to try again what was not let out, several times over.
const RETRIES: Duration = Duration::from_millis(1_500);
const SOON: Duration = Duration::from_millis(100);

/// A session whose grant 1 leads to a listener, and a command of it.
struct Scene {
    host: Host,
    session: Session,
    command: Puppet,
    to: SocketAddr,
    listener: TcpListener,
}

impl Scene {
    fn new() -> Self {
        Self::with(|to| vec![Grant::default(), network(&[(Protocol::Tcp, to)])])
    }

    fn with(grants: impl FnOnce(SocketAddr) -> Vec<Grant>) -> Self {
        Self::at(V4.into(), grants)
    }

    fn at(ip: IpAddr, grants: impl FnOnce(SocketAddr) -> Vec<Grant>) -> Self {
        let mut host = Host::new();
        let (listener, to) = listener(ip);
        let session = host.session(1, &policy(grants(to)));
        let command = host.command(&session);
        Self { host, session, command, to, listener }
    }

    fn keeping_alive() -> Self {
        Self::with(|to| vec![Grant::default(), Grant { keep_alive: true, ..network(&[(Protocol::Tcp, to)]) }])
    }

    /// As if destroying connections didn't work: what the kernel side does by itself.
    fn left_alone(mut self) -> Self {
        self.host.enforcer().leave_connections();
        self
    }

    fn begin(&mut self) {
        self.host.open(&self.session, &self.command, 1);
    }

    fn begin_again(&mut self) {
        self.host.set_doors(&self.session, 1, GrantSet::of(1), Duration::from_secs(60));
    }

    fn end(&mut self) {
        self.host.set_doors(&self.session, 1, GrantSet::EMPTY, Duration::ZERO);
    }

    /// A connection of the command's, and its other end.
    fn connect(&mut self) -> (TcpStream, TcpStream) {
        let stream = connection(&self.command, self.to);
        let (peer, _) = self.listener.accept().unwrap();
        (stream, peer)
    }

    fn refused_packets(&mut self) -> Vec<Option<Verdict>> {
        let records = self.host.records();
        let packets = records.iter().filter(|record| record.operation == OPERATION_EGRESS);
        packets.map(|record| Verdict::from_number(record.verdict)).collect()
    }

    fn noted(&mut self) -> (usize, usize) {
        let maps = self.host.enforcer().maps();
        (maps.connections.map.keys().count(), maps.connection_counts.map.keys().count())
    }
}

#[test]
fn a_connection_ends_with_its_action_at_once() {
    let mut scene = Scene::new();
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    stream.write_all(b"during").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"during");
    assert_eq!(scene.noted(), (1, 1));
    scene.end();
    let asked = std::time::Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert_eq!(stream.write(b"after").unwrap_err().raw_os_error(), Some(libc::EPIPE));
    assert_eq!(peer.read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    assert_eq!(scene.noted(), (0, 0), "nothing stays");
}

#[test]
fn whoever_waits_for_an_answer_is_told_when_the_action_ends() {
    let mut scene = Scene::new();
    scene.begin();
    let (mut stream, _peer) = scene.connect();
    let waiting = std::thread::spawn(move || stream.read(&mut [0]).unwrap_err().raw_os_error());
    std::thread::sleep(SOON);
    assert!(!waiting.is_finished());
    scene.end();
    wait_until("it is told", || waiting.is_finished());
    assert_eq!(waiting.join().unwrap(), Some(libc::ECONNABORTED));
}

#[test]
fn nothing_written_after_the_end_leaves_even_where_nothing_is_destroyed() {
    let mut scene = Scene::new().left_alone();
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    stream.write_all(b"during").unwrap();
    scene.end();
    stream.write_all(b"after").unwrap();
    assert_eq!(arrives(&mut peer, RETRIES), b"during");
    assert_eq!(scene.refused_packets(), [Some(Verdict::DoorClosed)], "and it is told once");
}

#[test]
fn what_was_withheld_does_not_leave_when_the_door_opens_again() {
    for mut scene in [Scene::new().left_alone(), Scene::keeping_alive().left_alone()] {
        scene.begin();
        let (mut stream, mut peer) = scene.connect();
        scene.end();
        stream.write_all(b"withheld").unwrap();
        scene.begin_again();
        assert_eq!(connect(&scene.command, scene.to), 0, "the door is open");
        stream.write_all(b"more").unwrap();
        assert_eq!(arrives(&mut peer, RETRIES), b"", "the socket is poisoned for ever");
    }
}

#[test]
fn the_next_action_does_not_use_the_connection_of_the_last() {
    let mut scene = Scene::new().left_alone();
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    scene.end();
    scene.begin_again();
    stream.write_all(b"next").unwrap();
    assert_eq!(arrives(&mut peer, RETRIES), b"");
}

#[test]
fn with_keep_alive_the_next_action_does() {
    let mut scene = Scene::keeping_alive();
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    stream.write_all(b"one ").unwrap();
    scene.end();
    assert_eq!(scene.noted(), (1, 1), "it lives on");
    scene.begin_again();
    stream.write_all(b"two").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"one two");
    scene.end();
    // Even such a one is told that nothing leaves in between.
    stream.write_all(b"between").unwrap();
    wait_until("it is destroyed", || {
        scene.host.records();
        let error = stream.take_error().unwrap();
        error.is_some_and(|error| error.raw_os_error() == Some(libc::ECONNABORTED))
    });
    assert_eq!(arrives(&mut peer, SOON), b"");
}

#[test]
fn an_action_that_overlapped_keeps_the_connection_and_one_that_began_later_does_not() {
    let mut scene = Scene::new();
    scene.begin();
    let first = since_boot();
    let (mut stream, mut peer) = scene.connect();
    let doors = |scene: &mut Scene, since: &[Duration]| {
        let openings: Vec<Opening> =
            since.iter().map(|since| Opening { grants: GrantSet::of(1), since: *since }).collect();
        let (id, until) = (scene.session.id, since_boot() + Duration::from_secs(60));
        scene.host.enforcer().set_doors(id, ScopeId(1), GrantSet::of(1), until, &openings).unwrap();
    };
    let earlier = first - Duration::from_secs(1);
    doors(&mut scene, &[earlier, since_boot()]);
    doors(&mut scene, &[earlier]);
    stream.write_all(b"goes on").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"goes on");
    doors(&mut scene, &[earlier, since_boot()]);
    doors(&mut scene, &[since_boot()]);
    assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
}

#[test]
fn a_connection_of_the_baseline_outlives_actions_but_not_the_baseline() {
    let mut scene = Scene::with(|to| vec![network(&[(Protocol::Tcp, to)]), network(&[(Protocol::Tcp, to)])]);
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    scene.end();
    stream.write_all(b"baseline").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"baseline");
    let id = scene.session.id;
    scene.host.enforcer().set_baseline_network(id, false).unwrap();
    stream.write_all(b"spent").unwrap();
    wait_until("it is destroyed", || {
        scene.host.records();
        stream.take_error().unwrap().is_some()
    });
    assert_eq!(arrives(&mut peer, SOON), b"");
}

#[test]
fn an_action_that_runs_out_of_time_takes_its_connection_along() {
    let mut scene = Scene::new();
    scene.begin();
    scene.host.set_doors(&scene.session, 1, GrantSet::of(1), Duration::from_millis(300));
    let (mut stream, mut peer) = scene.connect();
    stream.write_all(b"in time").unwrap();
    std::thread::sleep(Duration::from_millis(350));
    stream.write_all(b"too late").unwrap();
    assert_eq!(arrives(&mut peer, RETRIES), b"in time");
}

#[test]
fn a_stale_heartbeat_stops_what_actions_opened_and_not_the_baseline() {
    let (_other, baseline) = listener(V4);
    let mut scene =
        Scene::with(|to| vec![network(&[(Protocol::Tcp, baseline)]), network(&[(Protocol::Tcp, to)])]);
    scene.begin();
    let (mut stream, mut peer) = scene.connect();
    let mut always = connection(&scene.command, baseline);
    scene.host.enforcer().beat(since_boot() - Duration::from_secs(5)).unwrap();
    stream.write_all(b"stale").unwrap();
    always.write_all(b"baseline").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"");
    assert_eq!(scene.refused_packets(), [Some(Verdict::HeartbeatStale)]);
    let mut other = _other.accept().unwrap().0;
    assert_eq!(arrives(&mut other, SOON), b"baseline");
}

#[test]
fn what_is_held_back_by_a_cork_does_not_leave_after_the_end() {
    for ends in [false, true] {
        let mut scene = Scene::new().left_alone();
        scene.begin();
        let (mut stream, mut peer) = scene.connect();
        let cork = |on: i32| set_option(&stream, libc::IPPROTO_TCP, libc::TCP_CORK, &on.to_ne_bytes());
        assert_eq!(cork(1), 0);
        (&stream).write_all(b"corked").unwrap();
        if ends {
            scene.end();
        }
        assert_eq!(cork(0), 0);
        stream.flush().unwrap();
        assert_eq!(arrives(&mut peer, RETRIES), if ends { &b""[..] } else { b"corked" });
    }
}

#[test]
fn what_waits_for_the_peers_window_does_not_leave_after_the_end() {
    for ends in [false, true] {
        let mut scene = Scene::new().left_alone();
        scene.begin();
        let (stream, mut peer) = scene.connect();
        stream.set_nonblocking(true).unwrap();
        let chunk = vec![7; 65_536];
        let mut written = 0;
        // Until the peer's window is shut and the own buffer full.
        for _ in 0..40 {
            while let Ok(length) = (&stream).write(&chunk) {
                written += length;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if ends {
            scene.end();
        }
        let arrived = arrives(&mut peer, Duration::from_secs(3)).len();
        assert_eq!(arrived < written, ends, "{arrived} of {written}");
    }
}

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

#[test]
fn after_a_reload_a_connection_is_judged_by_the_new_rules() {
    for stays in [true, false] {
        let mut scene = Scene::with(|to| vec![network(&[(Protocol::Tcp, to)])]);
        let (mut stream, mut peer) = scene.connect();
        let rules = if stays { network(&[(Protocol::Tcp, scene.to)]) } else { Grant::default() };
        // The bits stand for something else now.
        let reloaded = policy(vec![Grant::default(), Grant::default(), rules.clone()]);
        let reloaded = if stays { policy(vec![rules]) } else { reloaded };
        let id = scene.session.id;
        let enforcer = scene.host.enforcer();
        enforcer.prepare_rules(id, &reloaded, USER).unwrap();
        enforcer.commit_rules(id).unwrap();
        stream.write_all(b"reloaded").unwrap();
        assert_eq!(arrives(&mut peer, SOON), if stays { &b"reloaded"[..] } else { b"" });
        let expected = if stays { vec![] } else { vec![Some(Verdict::NoRule)] };
        assert_eq!(scene.refused_packets(), expected);
    }
}

#[test]
fn a_reload_in_an_action_keeps_what_it_still_opens() {
    for stays in [true, false] {
        let mut scene = Scene::new();
        scene.begin();
        let began = since_boot() - Duration::from_secs(1);
        let (mut stream, mut peer) = scene.connect();
        let grant = if stays { network(&[(Protocol::Tcp, scene.to)]) } else { programs(&[TRUE]) };
        let reloaded = policy(vec![Grant::default(), programs(&[FALSE]), grant]);
        let (id, until) = (scene.session.id, since_boot() + Duration::from_secs(60));
        let enforcer = scene.host.enforcer();
        enforcer.prepare_rules(id, &reloaded, USER).unwrap();
        enforcer.commit_rules(id).unwrap();
        // Between the two nothing is open, and nothing held against who sends.
        stream.write_all(b"meanwhile").unwrap();
        let openings = [Opening { grants: GrantSet::of(2), since: began }];
        scene.host.enforcer().set_doors(id, ScopeId(1), GrantSet::of(2), until, &openings).unwrap();
        assert_eq!(arrives(&mut peer, RETRIES), if stays { &b"meanwhile"[..] } else { b"" });
        if !stays {
            assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
        }
    }
}

#[test]
fn what_an_application_closes_is_forgotten() {
    let mut scene = Scene::new();
    scene.begin();
    let numbers: Vec<i32> = (0..5).map(|_| socket(&scene.command, scene.to, TCP)).collect();
    for number in &numbers {
        assert_eq!(connect_socket(&scene.command, *number, scene.to), 0);
    }
    assert_eq!(scene.noted(), (5, 1));
    for number in numbers {
        assert_eq!(close(&scene.command, number), 0);
    }
    assert_eq!(scene.noted(), (0, 1));
    let (mut stream, _peer) = scene.connect();
    scene.end();
    assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
    assert_eq!(scene.noted(), (0, 0));
}

#[test]
fn one_actions_end_leaves_the_connections_of_another_scope_alone() {
    let mut scene = Scene::new();
    scene.begin();
    let (_one, _peer) = scene.connect();
    let child = scene.command.fork().unwrap();
    scene.host.open(&scene.session, &child, 2);
    let mut of_child = connection(&child, scene.to);
    let (mut peer_of_child, _) = scene.listener.accept().unwrap();
    scene.end();
    of_child.write_all(b"mine").unwrap();
    assert_eq!(arrives(&mut peer_of_child, SOON), b"mine");
    scene.host.set_doors(&scene.session, 2, GrantSet::EMPTY, Duration::ZERO);
    assert_eq!(of_child.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
}
