//! Hosts by name, from the program's own resolver to the door: a real agent, real resolvers, and a DNS server of the test's own.

use std::net::TcpListener;

use sentinel_tests::dns::DnsServer;
use sentinel_tests::{Finished, Host, Server};
use serde_json::{Value, json};

/// An agent that asks this server, with one policy.
fn host(dns: &DnsServer, policy: &str) -> Host {
    let configuration = format!("resolver: {{upstreams: [\"{}\"], timeout_seconds: 1}}\n", dns.address());
    Host::builder().policy("test", policy).configuration(configuration).start()
}

/// What is open all the time: a host on this machine.
fn baseline(name: &str, server: &Server) -> String {
    let port = server.address().port();
    format!("enforcement: {{network: {{allow: [{{host: \"{name}:{port}\", allow_private: true}}]}}}}\n")
}

/// What an action `fetch` opens.
fn grant(name: &str, server: &Server) -> String {
    let port = server.address().port();
    format!(
        "actions: {{fetch: {{grants: {{network: [{{host: \"{name}:{port}\", allow_private: true}}]}}}}}}\n"
    )
}

/// What was refused of names, by target, with its verdict.
fn refused(host: &Host) -> Vec<(String, String)> {
    let lines = host.ledger();
    let attempts = lines.iter().filter(|line| line["kind"] == "kernel" && line["operation"] == "resolve");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    attempts.map(|line| (text(&line["target"]), text(&line["verdict"]))).collect()
}

/// The names that left the host.
fn asked(dns: &DnsServer) -> Vec<String> {
    let questions = dns.questions();
    let mut names: Vec<String> =
        questions.iter().filter_map(|question| question.split(' ').next_back().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

#[track_caller]
fn expect_lines(probe: &Finished, expected: &[String]) {
    assert_eq!(probe.lines(), expected, "{}", probe.stderr);
}

#[test]
fn a_listed_host_is_found_and_reached_and_another_is_not_even_asked_for() {
    let (server, dns) = (
        Server::start(),
        DnsServer::start(
            &json!({"api.example.com": {"a": ["127.0.0.1"]}, "other.example.com": {"a": ["127.0.0.1"]}}),
        ),
    );
    let host = host(&dns, &baseline("api.example.com", &server));
    let port = server.address().port();
    let (connect, reach) = (format!("connect=127.0.0.1:{port}"), format!("reach=api.example.com:{port}"));
    let probe =
        host.probe(&[&connect, "resolve=other.example.com", &reach, &connect, "resolve=API.Example.com."]);
    expect_lines(
        &probe,
        &[
            format!("{connect} EPERM"),
            "resolve=other.example.com fails".to_owned(),
            format!("{reach} ok"),
            format!("{connect} ok"),
            "resolve=API.Example.com. 127.0.0.1".to_owned(),
        ],
    );
    assert_eq!(asked(&dns), ["api.example.com"]);
    assert!(
        refused(&host).contains(&("other.example.com".to_owned(), "no_rule".to_owned())),
        "{:?}",
        refused(&host)
    );
    assert!(probe.stderr.contains("other.example.com:443"), "what would allow it: {}", probe.stderr);
}

#[test]
fn an_actions_host_is_found_and_reached_inside_it_and_neither_before_nor_after() {
    let (server, dns) =
        (Server::start(), DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}})));
    let host = host(&dns, &grant("api.example.com", &server));
    let port = server.address().port();
    let (connect, reach) = (format!("connect=127.0.0.1:{port}"), format!("reach=api.example.com:{port}"));
    let probe = host.probe(&[&reach, "begin=fetch", &reach, "end", &reach, &connect]);
    expect_lines(
        &probe,
        &[
            format!("{reach} fails"),
            "begin=fetch allow".to_owned(),
            format!("{reach} ok"),
            "end".to_owned(),
            format!("{reach} fails"),
            format!("{connect} EPERM"),
        ],
    );
    assert!(refused(&host).contains(&("api.example.com".to_owned(), "door_closed".to_owned())));
    let named = format!("127.0.0.1:{port}/tcp (api.example.com)");
    assert!(probe.stderr.contains(&named), "a refused connect names the host: {}", probe.stderr);
}

#[test]
fn what_one_session_was_told_opens_nothing_to_another() {
    let (server, dns) =
        (Server::start(), DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}})));
    let host = host(&dns, &baseline("api.example.com", &server));
    let port = server.address().port();
    let stop = host.folder.join("stop");
    let (reach, hold) = (format!("reach=api.example.com:{port}"), format!("await={}", stop.display()));
    let first = host.start_probe(&[&reach, &hold]);
    first.wait_for_line(&format!("{reach} ok"));
    let connect = format!("connect=127.0.0.1:{port}");
    expect_lines(&host.probe(&[&connect]), &[format!("{connect} EPERM")]);
    std::fs::write(stop, "").unwrap();
    let first = first.finish();
    assert!(first.stdout.contains("ok"), "{}", first.stderr);
}

#[test]
fn addresses_of_this_host_and_of_metadata_are_not_told_for_a_public_name() {
    let zone = json!({
        "loopback.example.com": {"a": ["127.0.0.1"], "aaaa": ["::1"]},
        "metadata.example.com": {"a": ["169.254.169.254"]},
        "mixed.example.com": {"a": ["10.0.0.1", "198.51.100.7"]},
    });
    let dns = DnsServer::start(&zone);
    let host = host(&dns, "enforcement: {network: {allow: [\"*.example.com:443\"]}}\n");
    let probe = host.probe(&[
        "resolve=loopback.example.com",
        "resolve=metadata.example.com",
        "resolve=mixed.example.com",
        "connect=127.0.0.1:443",
        "connect=169.254.169.254:443",
    ]);
    expect_lines(
        &probe,
        &[
            "resolve=loopback.example.com fails".to_owned(),
            "resolve=metadata.example.com fails".to_owned(),
            "resolve=mixed.example.com 198.51.100.7".to_owned(),
            "connect=127.0.0.1:443 EPERM".to_owned(),
            "connect=169.254.169.254:443 EPERM".to_owned(),
        ],
    );
    let told = refused(&host);
    assert!(
        told.iter()
            .any(|(target, verdict)| target.contains("169.254.169.254") && verdict == "private_address"),
        "{told:?}"
    );
}

#[test]
fn chains_of_aliases_long_answers_cut_ones_and_other_spellings_are_found() {
    let zone = json!({
        "alias.example.com": {"cname": "next.cdn.example.net"},
        "next.cdn.example.net": {"cname": "last.cdn.example.net"},
        "last.cdn.example.net": {"a": ["198.51.100.1"], "ttl": 1},
        "many.example.com": {"more": 1000},
        "cut.example.com": {"a": ["198.51.100.3"], "truncated": true},
        "six.example.com": {"aaaa": ["2001:db8::7"]},
        "forged.example.com": {"a": ["198.51.100.4"], "forged": ["id", "source"]},
    });
    let dns = DnsServer::start(&zone);
    let host = host(&dns, "enforcement: {network: {allow: [\"*.example.com:443\"]}}\n");
    let probe = host.probe(&[
        "resolve=alias.example.com",
        "resolve=cut.example.com",
        "resolve=six.example.com",
        "resolve=forged.example.com",
        "resolve=last.cdn.example.net",
        "resolve=many.example.com",
    ]);
    let lines = probe.lines();
    assert_eq!(
        lines[..5],
        [
            "resolve=alias.example.com 198.51.100.1",
            "resolve=cut.example.com 198.51.100.3",
            "resolve=six.example.com 2001:db8::7",
            "resolve=forged.example.com 198.51.100.4",
            "resolve=last.cdn.example.net fails",
        ],
        "{}",
        probe.stderr
    );
    assert_eq!(lines[5].split(' ').count(), 1 + 64, "{}", lines[5]);
}

#[test]
fn made_up_names_under_a_wildcard_are_limited_and_under_no_rule_none_leaves() {
    let dns = DnsServer::start(&json!({}));
    let host = host(&dns, "enforcement: {network: {allow: [\"*.example.com:443\"]}}\n");
    let script = "
import socket
for zone in ('example.com', 'example.net'):
    for number in range(150):
        try:
            socket.getaddrinfo(f'secret{number}.{zone}', 443, socket.AF_INET)
        except socket.gaierror:
            pass
";
    let finished = host.run(&["/usr/bin/python3", "-c", script]);
    assert!(finished.status == Some(0), "{}", finished.stderr);
    let left = asked(&dns);
    assert!(left.iter().all(|name| name.ends_with(".example.com")), "{left:?}");
    assert!(left.len() <= 60 && left.len() > 30, "{} names left the host", left.len());
    assert!(refused(&host).iter().any(|(_, verdict)| verdict == "limited"), "{:?}", refused(&host));
}

#[test]
fn names_are_found_over_tcp_by_a_server_of_the_programs_choice_which_it_believes_to_hear() {
    let dns = DnsServer::start(&json!({"api.example.com": {"a": ["198.51.100.9"], "aaaa": ["2001:db8::9"]}}));
    let host = host(&dns, "enforcement: {network: {allow: [\"api.example.com:443\"]}}\n");
    let script = "
import socket, struct
def name(text):
    return b''.join(bytes([len(label)]) + label.encode() for label in text.split('.')) + b'\\0'
def question(text, kind):
    return struct.pack('>HHHHHH', 7, 0x0100, 1, 0, 0, 0) + name(text) + struct.pack('>HH', kind, 1)
for server in ('192.0.2.53', '127.0.0.53', '2001:db8::53', '::ffff:192.0.2.53'):
    family = socket.AF_INET6 if ':' in server else socket.AF_INET
    asked = question('api.example.com', 1)
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        udp.sendto(asked, (server, 53))
        answer, source = udp.recvfrom(4096)
        print(server, source[0] == server and source[1] == 53, bytes([198, 51, 100, 9]) in answer)
    with socket.socket(family, socket.SOCK_STREAM) as tcp:
        tcp.settimeout(5)
        tcp.connect((server, 53))
        tcp.sendall(struct.pack('>H', len(asked)) + asked)
        length, = struct.unpack('>H', tcp.recv(2))
        answer = tcp.recv(length)
        print(server, tcp.getpeername()[0] == server, bytes([198, 51, 100, 9]) in answer)
";
    let finished = host.run(&["/usr/bin/python3", "-c", script]);
    let expected: Vec<String> = ["192.0.2.53", "127.0.0.53", "2001:db8::53", "::ffff:192.0.2.53"]
        .iter()
        .flat_map(|server| [format!("{server} True True"), format!("{server} True True")])
        .collect();
    expect_lines(&finished, &expected);
}

#[test]
fn what_resolves_by_other_ports_is_shut_unless_an_entry_lists_it() {
    let dns = DnsServer::start(&json!({}));
    // Multicast DNS, LLMNR, DNS over TLS.
    let steps = ["udp=224.0.0.251:5353", "udp=224.0.0.252:5355", "connect=192.0.2.53:853"];
    let unlisted = host(&dns, "enforcement: {network: {allow: [\"api.example.com:443\"]}}\n");
    let expected: Vec<String> = steps.iter().map(|step| format!("{step} EPERM")).collect();
    expect_lines(&unlisted.probe(&steps), &expected);
    let policy = "enforcement: {network: {allow: [\"api.example.com:443\", \"224.0.0.251:5353/udp\", \"224.0.0.252:5355/udp\", \"192.0.2.53:853\"]}}\n";
    let listed = host(&dns, policy).probe(&steps);
    // What else becomes of it is up to this machine's network: nobody may be there.
    let lines = listed.lines();
    assert_eq!(lines.len(), steps.len(), "{listed:?}");
    assert!(lines.iter().all(|line| !line.ends_with("EPERM")), "{listed:?}");
}

#[test]
fn an_upstream_that_is_dead_fails_names_and_opens_nothing() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = dead.local_addr().unwrap();
    let configuration = format!("resolver: {{upstreams: [\"{upstream}\"], timeout_seconds: 1}}\n");
    let policy = "enforcement: {network: {allow: [\"api.example.com:443\"]}}\n";
    let host = Host::builder().policy("test", policy).configuration(configuration).start();
    expect_lines(
        &host.probe(&["resolve=api.example.com", "connect=198.51.100.1:443"]),
        &["resolve=api.example.com fails".to_owned(), "connect=198.51.100.1:443 EPERM".to_owned()],
    );
}

#[test]
fn without_its_agent_a_session_finds_no_name() {
    let (server, dns) =
        (Server::start(), DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}})));
    let mut host = host(&dns, &baseline("api.example.com", &server));
    let port = server.address().port();
    let go_on = host.folder.join("go-on");
    let (reach, wait) = (format!("reach=api.example.com:{port}"), format!("await={}", go_on.display()));
    let probe = host.start_probe(&[&reach, &wait, "resolve=api.example.com", "say=done"]);
    probe.wait_for_line(&format!("{reach} ok"));
    host.kill_agent();
    std::fs::write(go_on, "").unwrap();
    probe.wait_for_line("done");
    assert!(probe.stdout().contains("resolve=api.example.com fails"), "{}", probe.stdout());
}

#[test]
fn a_reload_that_takes_a_host_away_shuts_its_addresses() {
    let (server, dns) =
        (Server::start(), DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}})));
    let host = host(&dns, &baseline("api.example.com", &server));
    let port = server.address().port();
    let (first, second) = (host.folder.join("first"), host.folder.join("second"));
    let (connect, reach) = (format!("connect=127.0.0.1:{port}"), format!("reach=api.example.com:{port}"));
    let wait = |path: &std::path::Path| format!("await={}", path.display());
    let probe = host.start_probe(&[
        &reach,
        &wait(&first),
        &connect,
        "say=kept",
        &wait(&second),
        &connect,
        &reach,
        "say=gone",
    ]);
    probe.wait_for_line(&format!("{reach} ok"));
    host.write_policy(
        "test",
        &format!(
            "rate_limits: {{x: {{max_count: 1, window_seconds: 1}}}}\n{}",
            baseline("api.example.com", &server)
        ),
    );
    assert!(host.operate(&["reload"]).status == Some(0));
    std::fs::write(first, "").unwrap();
    probe.wait_for_line("kept");
    assert!(probe.stdout().contains(&format!("{connect} ok")), "{}", probe.stdout());
    host.write_policy("test", &baseline("another.example.com", &server));
    assert!(host.operate(&["reload"]).status == Some(0));
    std::fs::write(second, "").unwrap();
    probe.wait_for_line("gone");
    let probe = probe.finish();
    assert!(
        probe.stdout.contains(&format!("{connect} EPERM\n{reach} fails")),
        "{} {}",
        probe.stdout,
        probe.stderr
    );
}
