//! Outbound network: default-deny, opened by rules and by actions, for as long as these last.

use std::io::Read as _;
use std::net::TcpListener;
use std::thread::JoinHandle;

use sentinel_tests::{Host, Server};

/// A policy with an action `fetch` that opens this server.
fn fetch_policy(server: &Server) -> String {
    format!("actions:\n  fetch: {{grants: {{network: [\"{}\"]}}}}\n", server.address())
}

#[test]
fn without_a_rule_nothing_is_reached() {
    let server = Server::start();
    let host = Host::with_policy("strict_mode: true\n");
    let probe = host.probe(&[&format!("connect={}", server.address())]);
    assert_eq!(probe.lines(), [format!("connect={} EPERM", server.address())], "{}", probe.stderr);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn with_a_rule_just_its_endpoint_is_reached() {
    let (named, other) = (Server::start(), Server::start());
    let host = Host::with_policy(format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", named.address()));
    let connects = [format!("connect={}", named.address()), format!("connect={}", other.address())];
    let probe = host.probe(&[&connects[0], &connects[1]]);
    assert_eq!(
        probe.lines(),
        [format!("{} ok", connects[0]), format!("{} EPERM", connects[1])],
        "{}",
        probe.stderr
    );
    assert_eq!((named.accepted(), other.accepted()), (1, 0));
}

#[test]
fn one_process_reaches_one_address_inside_its_action_and_neither_before_nor_after() {
    let server = Server::start();
    let host = Host::with_policy(fetch_policy(&server));
    let connect = format!("connect={}", server.address());
    let probe = host.probe(&[&connect, "begin=fetch", &connect, "end", &connect]);
    assert_eq!(
        probe.lines(),
        [
            &format!("{connect} EPERM"),
            "begin=fetch allow",
            &format!("{connect} ok"),
            "end",
            &format!("{connect} EPERM")
        ],
        "{}",
        probe.stderr
    );
    assert_eq!(server.accepted(), 1);
}

#[test]
fn an_address_in_ipv6_form_is_judged_as_the_ipv4_one_it_means() {
    let server = Server::start();
    let mapped = format!("connect=[::ffff:127.0.0.1]:{}", server.address().port());
    let closed = Host::with_policy("strict_mode: true\n").probe(&[&mapped]);
    assert_eq!(closed.lines(), [format!("{mapped} EPERM")]);
    let open = format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", server.address());
    assert_eq!(Host::with_policy(open).probe(&[&mapped]).lines(), [format!("{mapped} ok")]);
}

#[test]
fn ipv6_is_judged_like_ipv4() {
    let server = Server::start_on("[::1]:0".parse().unwrap());
    let connect = format!("connect={}", server.address());
    let closed = Host::with_policy("strict_mode: true\n").probe(&[&connect]);
    assert_eq!(closed.lines(), [format!("{connect} EPERM")]);
    let open = format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", server.address());
    assert_eq!(Host::with_policy(open).probe(&[&connect]).lines(), [format!("{connect} ok")]);
}

#[test]
fn a_datagram_needs_a_rule_for_udp() {
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    let steps = [format!("udp={address}"), format!("udpconnect={address}")];
    for (rule, result) in [("tcp", "EPERM"), ("udp", "ok")] {
        let host =
            Host::with_policy(format!("enforcement: {{network: {{allow: [\"{address}/{rule}\"]}}}}\n"));
        let probe = host.probe(&[&steps[0], &steps[1]]);
        assert_eq!(
            probe.lines(),
            [format!("{} {result}", steps[0]), format!("{} {result}", steps[1])],
            "{}",
            probe.stderr
        );
    }
}

#[test]
fn every_address_means_none_is_reached_by_another_name() {
    let server = Server::start_on("0.0.0.0:0".parse().unwrap());
    let host = Host::with_policy(format!(
        "enforcement: {{network: {{allow: [\"127.0.0.1:{}\"]}}}}\n",
        server.address().port()
    ));
    let any = format!("connect=0.0.0.0:{}", server.address().port());
    let loopback = format!("connect=127.0.0.1:{}", server.address().port());
    assert_eq!(host.probe(&[&any, &loopback]).lines(), [format!("{any} EPERM"), format!("{loopback} ok")]);
}

#[test]
fn only_tcp_and_udp_sockets_can_be_made() {
    let host = Host::with_policy("strict_mode: true\n");
    // family, type, protocol: raw ICMP, ping, MPTCP, packet, vsock, alg, netlink audit
    for socket in ["2,3,1", "2,2,1", "2,1,262", "17,3,768", "40,1,0", "38,5,0", "16,3,9"] {
        let probe = host.probe(&[&format!("socket={socket}")]);
        let line = probe.lines().first().copied().unwrap_or_default().to_owned();
        assert!(
            line.ends_with("EPERM") || line.ends_with("EAFNOSUPPORT") || line.ends_with("EACCES"),
            "{line} {}",
            probe.stderr
        );
    }
    for socket in ["2,1,0", "2,1,6", "2,2,17", "10,1,0", "10,2,0", "1,1,0", "16,3,0"] {
        assert_eq!(host.probe(&[&format!("socket={socket}")]).lines(), [format!("socket={socket} ok")]);
    }
}

#[test]
fn after_an_action_has_ended_none_of_ten_thousand_connects_gets_through() {
    let server = Server::start();
    let host = Host::with_policy(fetch_policy(&server));
    let connect = format!("connect={}", server.address());
    let hammer = format!("hammer={},10000", server.address());
    let probe = host.probe(&["begin=fetch", &connect, "end", &hammer]);
    assert_eq!(
        probe.lines().last().copied(),
        Some(format!("{hammer} 0 through").as_str()),
        "{}",
        probe.stderr
    );
    assert_eq!(server.accepted(), 1);
}

#[test]
fn two_processes_of_one_session_need_a_rule_to_talk_over_loopback() {
    let script = r"
import socket, os, sys
listener = socket.socket(); listener.bind(('127.0.0.1', 0)); listener.listen()
if os.fork() == 0:
    try:
        client = socket.create_connection(listener.getsockname(), 3)
        client.sendall(b'ping'); print('client got', client.recv(4).decode())
    except OSError as error: print('client', error.errno)
    os._exit(0)
listener.settimeout(2)
try:
    peer, _ = listener.accept(); print('server got', peer.recv(4).decode()); peer.sendall(b'pong')
except OSError: print('server alone')
os.wait()
";
    let closed =
        Host::with_policy("enforcement: {exec: {allow: []}}\n").run(&["/usr/bin/python3", "-uc", script]);
    assert_eq!(closed.stdout, "client 1\nserver alone\n", "{}", closed.stderr);
    // Who may connect reaches nobody that may not be reached.
    let one_sided = Host::with_policy("enforcement: {network: {allow: [\"127.0.0.1:*\"]}}\n");
    let one_sided = one_sided.run(&["/usr/bin/python3", "-uc", script]);
    assert!(
        one_sided.stdout.contains("server alone") && !one_sided.stdout.contains("got"),
        "{}",
        one_sided.stdout
    );
    let open =
        Host::with_policy("enforcement: {network: {allow: [\"127.0.0.1:*\"], listen: [\"127.0.0.1:*\"]}}\n");
    let open = open.run(&["/usr/bin/python3", "-uc", script]);
    assert!(
        open.stdout.contains("server got ping") && open.stdout.contains("client got pong"),
        "{}",
        open.stdout
    );
}

/// All that the first who comes sends, up to an end of whatever kind.
fn receive(listener: TcpListener) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        // A reset is an end too; what came before it stays.
        let _end = peer.read_to_end(&mut all);
        all
    })
}

#[test]
fn a_connection_ends_with_the_action_that_it_was_made_in() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = receive(listener);
    let host = Host::with_policy(format!("actions: {{fetch: {{grants: {{network: [\"{address}\"]}}}}}}\n"));
    let hold = format!("hold={address}");
    let probe = host.probe(&["begin=fetch", &hold, "write=during", "end", "read", "write=after"]);
    assert_eq!(
        probe.lines(),
        [
            "begin=fetch allow",
            &format!("{hold} ok"),
            "write=during ok",
            "end",
            "read ECONNABORTED",
            "write=after EPIPE"
        ],
        "{}",
        probe.stderr
    );
    assert_eq!(received.join().unwrap(), b"during");
}

#[test]
fn a_connection_of_a_grant_that_is_kept_alive_serves_the_next_action_and_nobody_in_between() {
    for between in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = receive(listener);
        let host = Host::with_policy(format!(
            "actions: {{fetch: {{grants: {{network: [\"{address}\"], keep_alive: true}}}}}}\n"
        ));
        let hold = format!("hold={address}");
        let mut steps = vec!["begin=fetch", &hold, "write=one", "end"];
        if between {
            steps.extend(["write=between", "sleep=300"]);
        }
        steps.extend(["begin=fetch", "write=two", "sleep=300", "end"]);
        let probe = host.probe(&steps);
        let expected = if between { &b"one"[..] } else { b"onetwo" };
        assert_eq!(received.join().unwrap(), expected, "{:?} {}", probe.lines(), probe.stderr);
        let told = host.ledger().into_iter().find(|line| line["action"] == "kernel.egress");
        assert_eq!(told.is_some_and(|line| line["verdict"] == "door_closed"), between);
    }
}

#[test]
fn a_connection_of_the_baseline_outlives_actions() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = receive(listener);
    let host = Host::with_policy(format!(
        "enforcement: {{network: {{allow: [\"{address}\"]}}}}\nactions: {{fetch: {{grants: {{network: [\"{address}\"]}}}}}}\n"
    ));
    let hold = format!("hold={address}");
    let probe = host.probe(&["begin=fetch", &hold, "write=during", "end", "write=after"]);
    assert_eq!(probe.lines().last().copied(), Some("write=after ok"), "{}", probe.stderr);
    assert_eq!(received.join().unwrap(), b"duringafter");
}

#[test]
fn an_unmodified_program_is_held_too() {
    let server = Server::start();
    let url = format!("http://{}/", server.address());
    let curl = ["/usr/bin/curl", "--silent", "--show-error", &url];
    let closed = Host::with_policy("strict_mode: true\n").run(&curl);
    assert_eq!(closed.status, Some(7), "curl says that it couldn't connect: {}", closed.stderr);
    let open = format!("enforcement: {{network: {{allow: [\"{}\"]}}}}\n", server.address());
    let open = Host::with_policy(open).run(&curl);
    assert!(
        open.status == Some(0) && open.stdout.contains("Sentinel decides"),
        "{} {}",
        open.stdout,
        open.stderr
    );
}

#[test]
fn an_audited_session_is_let_pass_and_recorded() {
    let server = Server::start();
    let host = Host::with_policy("enforcement: {mode: audit}\n");
    let connect = format!("connect={}", server.address());
    assert_eq!(host.probe(&[&connect]).lines(), [format!("{connect} ok")]);
    let recorded =
        host.ledger().into_iter().find(|line| line["action"] == "kernel.connect").expect("it is recorded");
    assert_eq!(recorded["fate"], "recorded");
}
