//! What leaves by a connection that is there: only while what let it go holds. Each denial has its allowed twin.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use sentinel_ebpf_common::record::OPERATION_EGRESS;
use sentinel_ebpf_common::verdict::Verdict;

use super::sockets::*;
use super::*;

pub(super) const V4: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// So long TCP takes to try again what was not let out, several times over.
const RETRIES: Duration = Duration::from_millis(1_500);
pub(super) const SOON: Duration = Duration::from_millis(100);

/// A session whose grant 1 leads to a listener, and a command of it.
pub(super) struct Scene {
    pub(super) host: Host,
    pub(super) session: Session,
    pub(super) command: Puppet,
    pub(super) to: SocketAddr,
    pub(super) listener: TcpListener,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(|to| vec![Grant::default(), network(&[(Protocol::Tcp, to)])])
    }

    pub(super) fn with(grants: impl FnOnce(SocketAddr) -> Vec<Grant>) -> Self {
        Self::at(V4.into(), grants)
    }

    pub(super) fn at(ip: IpAddr, grants: impl FnOnce(SocketAddr) -> Vec<Grant>) -> Self {
        let mut host = Host::new();
        let (listener, to) = listener(ip);
        let session = host.session(1, &policy(grants(to)));
        let command = host.command(&session);
        Self { host, session, command, to, listener }
    }

    pub(super) fn keeping_alive() -> Self {
        Self::with(|to| vec![Grant::default(), Grant { keep_alive: true, ..network(&[(Protocol::Tcp, to)]) }])
    }

    /// As if destroying connections didn't work: what the kernel side does by itself.
    pub(super) fn left_alone(mut self) -> Self {
        self.host.enforcer().leave_connections();
        self
    }

    pub(super) fn begin(&mut self) {
        self.host.enforcer().beat(since_boot()).unwrap();
        self.host.open(&self.session, &self.command, 1);
    }

    pub(super) fn begin_again(&mut self) {
        self.host.enforcer().beat(since_boot()).unwrap();
        self.host.set_doors(&self.session, 1, GrantSet::of(1), Duration::from_secs(60));
    }

    pub(super) fn end(&mut self) {
        self.host.set_doors(&self.session, 1, GrantSet::EMPTY, Duration::ZERO);
    }

    /// A connection of the command's, and its other end.
    pub(super) fn connect(&mut self) -> (TcpStream, TcpStream) {
        let stream = connection(&self.command, self.to);
        let (peer, _) = self.listener.accept().unwrap();
        (stream, peer)
    }

    pub(super) fn refused_packets(&mut self) -> Vec<Option<Verdict>> {
        let records = self.host.records();
        let packets = records.iter().filter(|record| record.operation == OPERATION_EGRESS);
        packets.map(|record| Verdict::from_number(record.verdict)).collect()
    }

    pub(super) fn noted(&mut self) -> (usize, usize) {
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

/// So many records of a session there can be in a second, and then some.
const FLOOD: usize = 600;

#[test]
fn an_application_is_told_of_its_end_however_much_else_of_its_session_is_refused() {
    for packets in [false, true] {
        let (_receiver, udp) = udp_receiver();
        let mut scene =
            Scene::with(|to| vec![Grant::default(), network(&[(Protocol::Tcp, to), (Protocol::Udp, udp)])]);
        scene.begin();
        // Its end nobody but the kernel side sees.
        scene.host.set_doors(&scene.session, 1, GrantSet::of(1), Duration::from_millis(300));
        let (mut stream, _peer) = scene.connect();
        let datagrams = datagrams(&scene.command, udp);
        std::thread::sleep(Duration::from_millis(350));
        for _ in 0..FLOOD {
            if packets {
                assert_eq!(datagrams.send(b"x").unwrap_err().raw_os_error(), Some(EPERM));
            } else {
                assert_eq!(connect(&scene.command, scene.to), EPERM);
            }
        }
        stream.write_all(b"late").unwrap();
        wait_until("it is told", || {
            scene.host.records();
            let error = stream.take_error().unwrap();
            error.is_some_and(|error| error.raw_os_error() == Some(libc::ECONNABORTED))
        });
        assert!(scene.host.enforcer().dropped_records().unwrap() > 0, "though others were lost");
    }
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
        let mut arrived = arrives(&mut peer, RETRIES).len();
        let started = std::time::Instant::now();
        // An emulated machine takes its time.
        while !ends && arrived < written && started.elapsed() < Duration::from_secs(20) {
            scene.host.enforcer().beat(since_boot()).unwrap();
            arrived += arrives(&mut peer, RETRIES).len();
        }
        assert_eq!(arrived < written, ends, "{arrived} of {written}");
    }
}

#[test]
fn after_a_reload_a_connection_is_judged_by_the_new_rules() {
    for stays in [true, false] {
        let mut scene = Scene::with(|to| vec![network(&[(Protocol::Tcp, to)])]).left_alone();
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
        // Between the two nothing is open, and nothing held against who sends by what a rule still names.
        let written = stream.write_all(b"meanwhile").map_err(|error| error.raw_os_error());
        assert_eq!(written, if stays { Ok(()) } else { Err(Some(libc::ECONNABORTED)) });
        let openings = [Opening { grants: GrantSet::of(2), since: began }];
        scene.host.enforcer().set_doors(id, ScopeId(1), GrantSet::of(2), until, &openings).unwrap();
        assert_eq!(arrives(&mut peer, RETRIES), if stays { &b"meanwhile"[..] } else { b"" });
    }
}

#[test]
fn between_a_reload_and_the_doors_under_its_rules_nothing_leaves_and_nothing_is_held_against_it() {
    let mut scene = Scene::new();
    scene.begin();
    let began = since_boot() - Duration::from_secs(1);
    let (mut stream, mut peer) = scene.connect();
    let reloaded = policy(vec![Grant::default(), network(&[(Protocol::Tcp, scene.to)])]);
    let (id, until) = (scene.session.id, since_boot() + Duration::from_secs(60));
    scene.host.enforcer().prepare_rules(id, &reloaded, USER).unwrap();
    scene.host.enforcer().commit_rules(id).unwrap();
    stream.write_all(b"meanwhile").unwrap();
    assert_eq!(arrives(&mut peer, SOON), b"");
    assert_eq!(scene.refused_packets(), []);
    let openings = [Opening { grants: GrantSet::of(1), since: began }];
    scene.host.enforcer().set_doors(id, ScopeId(1), GrantSet::of(1), until, &openings).unwrap();
    assert_eq!(arrives(&mut peer, RETRIES), b"meanwhile");
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
