//! Maps that are full: what can't be written down doesn't happen. Each is made small for its test.

use std::net::Ipv4Addr;

use sentinel_ebpf_common::record::{OPERATION_EGRESS, OPERATION_FORK};
use sentinel_ebpf_common::verdict::Verdict;

use super::sockets::*;
use super::*;
use crate::enforcer::testing::make_small;

const V4: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn who_forks_when_no_mark_can_be_made_is_killed_and_its_child_has_nothing() {
    make_small(&[("TASKS", 3)]);
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let session = host.session(1, &policy(vec![Grant::default(), network(&[(Protocol::Tcp, to)])]));
    // Two marks: its launcher's, and its own.
    let command = host.command(&session);
    host.open(&session, &command, 1);
    let child = command.fork().unwrap();
    assert_eq!(connect(&child, to), 0, "as long as there is room");
    assert!(command.fork().is_err());
    wait_until("it is killed", || !command.is_alive());
    let records = host.records();
    let verdicts: Vec<_> = records
        .iter()
        .filter(|record| record.operation == OPERATION_FORK)
        .map(|record| Verdict::from_number(record.verdict))
        .collect();
    assert_eq!(verdicts, [Some(Verdict::Failed)], "{records:?}");
    let known = [command.pid(), child.pid(), host.launchers[0].pid()];
    for pid in session.cgroup.processes().unwrap().into_iter().filter(|pid| !known.contains(pid)) {
        assert_eq!(host.enforcer().mark(pid).unwrap(), None, "no mark, no scope, no door");
    }
    // Whoever has been waited for has left room.
    let any = super::Given::Number(u64::MAX);
    let none = super::Given::Number(0);
    let waited = super::call(&host.launchers[0], libc::SYS_wait4, &[any, none, none, none]);
    assert_eq!(u32::try_from(waited).ok(), Some(command.pid()));
    wait_until("its mark is gone", || matches!(host.enforcer().mark(command.pid()), Ok(None)));
    assert!(host.launchers[0].fork().is_ok());
}

#[test]
fn a_fork_is_refused_at_tier_lsm_when_what_the_child_is_born_with_finds_no_room() {
    make_small(&[("CHILDREN", 2)]);
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let command = host.command(&session);
    let children: Vec<_> = (0..3).map(|_| command.fork()).collect();
    let refused = children.iter().filter(|child| child.is_err()).count();
    // It takes one of the two rooms itself.
    assert_eq!(refused, if host.is_lsm() { 2 } else { 0 });
    assert!(command.is_alive());
    let records = host.records();
    assert!(records.iter().all(|record| record.operation == OPERATION_FORK), "{records:?}");
    assert_eq!(records.len(), refused);
}

#[test]
fn a_session_whose_rules_find_no_room_does_not_start_and_leaves_nothing() {
    make_small(&[("NETWORK", 4), ("EXEC", 2)]);
    let mut host = Host::new();
    let endpoints = |count: u16| -> Vec<(Protocol, SocketAddr)> {
        (1..=count).map(|port| (Protocol::Tcp, SocketAddr::new(V4.into(), port))).collect()
    };
    let id = SessionId(1);
    let cgroup = SessionCgroup::create(&host.places.cgroup, id).unwrap();
    let mut start = |grant: Grant| {
        let started = host.enforcer().start_session(id, cgroup.id(), &policy(vec![grant]), USER);
        let left = host.enforcer().maps().network.map.keys().count();
        (started.map_err(|error| error.to_string()), left)
    };
    assert_eq!(start(network(&endpoints(5))), (Err("map `NETWORK`: it is full".to_owned()), 0));
    let executables = programs(&[TRUE, FALSE, "/bin/sh"]);
    assert_eq!(start(executables), (Err("map `EXEC`: it is full".to_owned()), 0));
    assert_eq!(start(network(&endpoints(4))), (Ok(()), 4));
}

#[test]
fn a_session_too_many_does_not_start() {
    make_small(&[("SESSIONS", 2)]);
    let mut host = Host::new();
    let _two = [host.session(1, &policy(vec![])), host.session(2, &policy(vec![]))];
    let id = SessionId(3);
    let cgroup = SessionCgroup::create(&host.places.cgroup, id).unwrap();
    let error = host.enforcer().start_session(id, cgroup.id(), &policy(vec![]), USER).unwrap_err();
    assert_eq!(error.to_string(), "map `SESSIONS`: it is full");
    host.enforcer().stop_session(SessionId(1)).unwrap();
    host.enforcer().start_session(id, cgroup.id(), &policy(vec![]), USER).unwrap();
}

#[test]
fn a_connection_that_can_not_be_noted_sends_nothing() {
    make_small(&[("CONNECTIONS", 1)]);
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    listener.set_nonblocking(true).unwrap();
    let session = host.session(1, &policy(vec![Grant::default(), network(&[(Protocol::Tcp, to)])]));
    let command = host.command(&session);
    host.open(&session, &command, 1);
    let first = socket(&command, to, TCP);
    assert_eq!(connect_socket(&command, first, to), 0);
    assert!(listener.accept().is_ok());
    let second = socket(&command, to, TCP | libc::SOCK_NONBLOCK);
    assert_eq!(connect_socket(&command, second, to), libc::EINPROGRESS);
    std::thread::sleep(Duration::from_millis(200));
    assert!(listener.accept().is_err());
    let records = host.records();
    let told = |record: &KernelRecord| {
        record.operation == OPERATION_EGRESS && Verdict::from_number(record.verdict) == Some(Verdict::Failed)
    };
    assert!(records.iter().any(told), "{records:?}");
    assert_eq!(close(&command, first), 0);
    wait_until("there is room again", || connect(&command, to) == 0);
}

#[test]
fn a_full_ring_buffer_refuses_all_the_same_and_what_is_lost_is_counted() {
    make_small(&[("RECORDS", 8_192)]);
    let mut host = Host::new();
    let (_listener, to) = listener(V4);
    let session = host.session(1, &policy(vec![Grant::default()]));
    let puppet = host.puppet(&session);
    let before = host.enforcer().dropped_records().unwrap();
    // Fewer than a session may make in a second: what is lost is lost for want of room.
    for _ in 0..100 {
        assert_eq!(connect(&puppet, to), EPERM);
    }
    let lost = host.enforcer().dropped_records().unwrap() - before;
    let kept = u64::try_from(host.records().len()).unwrap();
    assert!(lost > 0 && kept > 0 && lost + kept == 100, "{lost} lost, {kept} kept");
    assert_eq!(connect(&puppet, to), EPERM);
    assert_eq!(host.records().len(), 1, "and there is room again");
}
