//! What a connection to a host by name sends first, where the policy has TLS looked into.

use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

use sentinel_ebpf_common::verdict::Verdict;
use sentinel_engine::{NamePattern, TlsNames};

use super::resolver::{LONG, host_rule, name, told};
use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const SERVER_NAME: u16 = 0;
const PADDING: u16 = 21;
const ENCRYPTED: u16 = 0xfe0d;

/// A policy that has TLS looked into.
fn enforcing(grants: Vec<Grant>) -> Policy {
    Policy { tls_names: TlsNames::Enforce, ..policy(grants) }
}

fn short(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap().to_be_bytes()
}

/// A server name as an extension has it.
fn server_name(name: &str) -> (u16, Vec<u8>) {
    let mut body = Vec::new();
    body.extend(short(name.len() + 3));
    body.push(0);
    body.extend(short(name.len()));
    body.extend(name.as_bytes());
    (SERVER_NAME, body)
}

/// A ClientHello with these extensions, in a record.
fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, body) in extensions {
        list.extend(kind.to_be_bytes());
        list.extend(short(body.len()));
        list.extend(body);
    }
    let mut message = vec![3, 3];
    message.extend([7; 32]);
    message.push(0);
    message.extend([0, 2, 0x13, 0x01, 1, 0]);
    message.extend(short(list.len()));
    message.extend(list);
    let mut record = vec![22, 3, 1];
    record.extend(short(message.len() + 4));
    record.extend([1, 0]);
    record.extend(short(message.len()));
    record.extend(message);
    record
}

fn asks_for(name: &str) -> Vec<u8> {
    hello(&[server_name(name)])
}

/// A connection from a puppet, and its other end.
struct Connection<'a> {
    puppet: &'a Puppet,
    socket: Given,
    server: TcpStream,
}

impl<'a> Connection<'a> {
    fn open(puppet: &'a Puppet, listener: &TcpListener) -> Self {
        let to = listener.local_addr().unwrap();
        let (family, address) = raw(to);
        let made = call(puppet, libc::SYS_socket, &[family, Given::Number(1), Given::Number(0)]);
        let socket = Given::Number(u64::try_from(made).unwrap());
        let length = Given::Number(address.len().try_into().unwrap());
        assert_eq!(call_with(puppet, libc::SYS_connect, &[socket, Given::Bytes, length], &address), 0);
        let server = listener.accept().unwrap().0;
        Self { puppet, socket, server }
    }

    /// Sends, by these flags.
    fn send(&self, bytes: &[u8], flags: i32) -> i32 {
        let length = Given::Number(bytes.len().try_into().unwrap());
        let flags = Given::Number(u64::try_from(flags | libc::MSG_NOSIGNAL).unwrap());
        let none = Given::Number(0);
        call_with(
            self.puppet,
            libc::SYS_sendto,
            &[self.socket, Given::Bytes, length, flags, none, none],
            bytes,
        )
    }

    /// What comes to the server, once so much has.
    fn arrives(&mut self, bytes: &[u8]) {
        self.server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut got = vec![0; bytes.len()];
        self.server.read_exact(&mut got).expect("it arrives");
        assert_eq!(got, bytes);
    }

    /// The application is told, by an error and not by waiting; and nothing came to the server.
    fn is_refused(&mut self, host: &mut Host, verdict: Verdict) -> KernelRecord {
        let mut records = Vec::new();
        wait_until("it is told", || {
            records.extend(host.records());
            !records.is_empty()
        });
        assert_eq!(records[0].verdict, verdict as u32, "{records:?}");
        let read =
            call_with(self.puppet, libc::SYS_read, &[self.socket, Given::Bytes, Given::Number(1)], &[0]);
        assert!([-libc::ECONNABORTED, -libc::ECONNRESET].contains(&read), "{read}");
        self.server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut got = Vec::new();
        let _reset = self.server.read_to_end(&mut got);
        assert_eq!(got, [0; 0]);
        records[0]
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        call(self.puppet, libc::SYS_close, &[self.socket]);
    }
}

/// A family's number, and an address as the kernel is given it.
fn raw(to: SocketAddr) -> (Given, Vec<u8>) {
    let mut address = Vec::new();
    match to {
        SocketAddr::V4(to) => {
            address.extend(2_u16.to_ne_bytes());
            address.extend(to.port().to_be_bytes());
            address.extend(to.ip().octets());
            address.extend([0; 8]);
            (Given::Number(2), address)
        }
        SocketAddr::V6(to) => {
            address.extend(10_u16.to_ne_bytes());
            address.extend(to.port().to_be_bytes());
            address.extend([0; 4]);
            address.extend(to.ip().octets());
            address.extend([0; 4]);
            (Given::Number(10), address)
        }
    }
}

#[test]
fn a_listed_server_is_reached_and_another_at_the_same_address_is_not() {
    let mut host = Host::new();
    for (number, ip) in [(1, V4), (2, V6)] {
        let (listener, to) = listener(ip);
        let session = host.session(number, &enforcing(vec![host_rule("a.example", to.port(), true)]));
        let puppet = host.puppet(&session);
        host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
        host.enforcer().open_name(session.id, &name("b.example"), &[told(to, LONG)]).unwrap();
        let mut listed = Connection::open(&puppet, &listener);
        let bytes = asks_for("a.example");
        assert_eq!(listed.send(&bytes, 0), i32::try_from(bytes.len()).unwrap());
        listed.arrives(&bytes);
        assert_eq!(listed.send(b"anything", 0), 8, "what comes behind it is not looked into");
        listed.arrives(b"anything");
        assert!(host.records().is_empty());
        let mut unlisted = Connection::open(&puppet, &listener);
        unlisted.send(&asks_for("b.example"), 0);
        let record = unlisted.is_refused(&mut host, Verdict::ServerName);
        assert_eq!(&record.path[..10], b"b.example\0");
    }
}

/// Beside the allowed twin, which is what all of these begin with.
#[test]
fn what_is_not_a_whole_hello_in_the_clear_for_one_server_is_refused() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let session = host.session(1, &enforcing(vec![host_rule("a.example", to.port(), true)]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    let whole = asks_for("a.example");
    let listed = server_name("a.example");
    let mut two_names = listed.1.clone();
    two_names.extend(&listed.1[2..]);
    two_names[..2].copy_from_slice(&short(listed.1.len() * 2 - 4));
    let mut behind = whole.clone();
    behind[3..5].copy_from_slice(&short(whole.len() - 5 + 4));
    behind.extend([1, 0, 0, 0]);
    let many: Vec<_> = (0..65).map(|kind| (kind + 100, Vec::new())).collect();
    let cases: Vec<(&str, Vec<u8>, i32, Verdict)> = vec![
        ("none", hello(&[(PADDING, vec![0; 20])]), 0, Verdict::NoServerName),
        ("no extension", hello(&[]), 0, Verdict::NoServerName),
        ("twice", hello(&[listed.clone(), listed.clone()]), 0, Verdict::NoServerName),
        ("two names", hello(&[(SERVER_NAME, two_names)]), 0, Verdict::NoServerName),
        ("hidden", hello(&[listed.clone(), (ENCRYPTED, vec![0; 20])]), 0, Verdict::EncryptedHello),
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec(), 0, Verdict::NotTls),
        ("another message", behind, 0, Verdict::NotTls),
        ("many extensions", hello(&many), 0, Verdict::NotTls),
        ("cut", whole[..whole.len() - 1].to_vec(), 0, Verdict::CutHello),
        ("one byte", whole[..1].to_vec(), 0, Verdict::CutHello),
        ("urgent", whole.clone(), libc::MSG_OOB, Verdict::UnsteadyHello),
    ];
    for (what, bytes, flags, verdict) in cases {
        let mut plain = Connection::open(&puppet, &listener);
        plain.send(&whole, 0);
        plain.arrives(&whole);
        assert!(host.records().is_empty());
        let mut connection = Connection::open(&puppet, &listener);
        assert!(connection.send(&bytes, flags) > 0, "{what}");
        let record = connection.is_refused(&mut host, verdict);
        assert!(record.path.iter().all(|byte| *byte == 0), "{what}: no name of it is believed");
        assert!(connection.send(&whole, 0) < 0, "{what}: what is refused stays so");
    }
}

#[test]
fn a_name_is_itself_in_any_case_and_a_wildcard_is_one_label() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let mut any_port = host_rule("b.example", to.port(), true);
    any_port.names[0].port = None;
    let mut wildcard = host_rule("below.example", to.port(), true);
    wildcard.names[0].name = NamePattern::OneBelow(name("below.example"));
    let mut grant = host_rule("a.example", to.port(), true);
    grant.names.extend(any_port.names.into_iter().chain(wildcard.names));
    let session = host.session(1, &enforcing(vec![grant]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    let long = format!("{}.below.example", "x".repeat(63));
    for passes in ["a.example", "A.eXAMPLE", "b.example", "c.below.example", "C.Below.Example", &long] {
        let mut connection = Connection::open(&puppet, &listener);
        connection.send(&asks_for(passes), 0);
        connection.arrives(&asks_for(passes));
    }
    assert!(host.records().is_empty());
    let refused =
        ["below.example", "d.c.below.example", "xa.example", "a.example.", "a.example\0", ".a.example"];
    for refused in refused {
        let mut connection = Connection::open(&puppet, &listener);
        connection.send(&asks_for(refused), 0);
        connection.is_refused(&mut host, Verdict::ServerName);
    }
}

/// Two servers at one address, the other one without any action: what a connection that asked for the action's sends after that has ended, and
/// what of it arrives.
fn sent_after_its_action(is_ended_by_the_agent: bool) -> (i32, Vec<u8>) {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let grants = vec![host_rule("a.example", to.port(), true), host_rule("b.example", to.port(), true)];
    let session = host.session(1, &enforcing(grants));
    let puppet = host.command(&session);
    for host_name in ["a.example", "b.example"] {
        host.enforcer().open_name(session.id, &name(host_name), &[told(to, LONG)]).unwrap();
    }
    let (of_baseline, of_action) = (asks_for("a.example"), asks_for("b.example"));
    let mut early = Connection::open(&puppet, &listener);
    early.send(&of_action, 0);
    early.is_refused(&mut host, Verdict::ServerName);
    host.open(&session, &puppet, 9);
    let mut inside = Connection::open(&puppet, &listener);
    let mut other = Connection::open(&puppet, &listener);
    for (connection, bytes) in [(&mut inside, &of_action), (&mut other, &of_baseline)] {
        connection.send(bytes, 0);
        connection.arrives(bytes);
    }
    if !is_ended_by_the_agent {
        host.enforcer().leave_connections();
    }
    host.set_doors(&session, 9, GrantSet::EMPTY, Duration::ZERO);
    assert_eq!(other.send(b"more", 0), 4, "its server needs no action");
    other.arrives(b"more");
    let sent = inside.send(b"more", 0);
    inside.server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut rest = Vec::new();
    let _reset_or_nothing = inside.server.read_to_end(&mut rest);
    (sent, rest)
}

#[test]
fn a_server_of_an_actions_entry_is_reached_while_that_is_in_flight_and_no_longer() {
    let (sent, arrived) = sent_after_its_action(true);
    // The address is open to the baseline still, but for another server: the connection has ended with its action.
    assert!(sent < 0, "{sent}");
    assert_eq!(arrived, [0; 0]);
}

#[test]
fn what_asked_for_an_actions_server_sends_no_more_after_that_also_where_nobody_ends_it() {
    let (_into_the_socket, arrived) = sent_after_its_action(false);
    assert_eq!(arrived, [0; 0]);
}

#[test]
fn an_address_that_a_rule_names_is_not_looked_into_nor_is_a_host_where_the_policy_does_not_say_so() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let mut both = network(&[(Protocol::Tcp, to)]);
    both.names = host_rule("a.example", to.port(), true).names;
    let policies = [enforcing(vec![both]), policy(vec![host_rule("a.example", to.port(), true)])];
    for (number, rules) in (1..).zip(policies) {
        let session = host.session(number, &rules);
        let puppet = host.puppet(&session);
        host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
        let mut connection = Connection::open(&puppet, &listener);
        connection.send(b"GET /", 0);
        connection.arrives(b"GET /");
    }
    assert!(host.records().is_empty());
}

#[test]
fn other_rules_list_other_servers_and_a_session_that_ends_leaves_none() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let listing = |host_name| enforcing(vec![host_rule(host_name, to.port(), true)]);
    let session = host.session(1, &listing("a.example"));
    let puppet = host.puppet(&session);
    for host_name in ["a.example", "b.example"] {
        host.enforcer().open_name(session.id, &name(host_name), &[told(to, LONG)]).unwrap();
    }
    for (listed, other) in [("a.example", "b.example"), ("b.example", "a.example")] {
        host.enforcer().prepare_rules(session.id, &listing(listed), USER).unwrap();
        let before = Connection::open(&puppet, &listener);
        host.enforcer().commit_rules(session.id).unwrap();
        let mut after = Connection::open(&puppet, &listener);
        after.send(&asks_for(listed), 0);
        after.arrives(&asks_for(listed));
        for mut connection in [before, Connection::open(&puppet, &listener)] {
            connection.send(&asks_for(other), 0);
            connection.is_refused(&mut host, Verdict::ServerName);
        }
    }
    let listed = |host: &mut Host| host.enforcer().maps().server_names.keys(|_| true).unwrap().len();
    assert_eq!(listed(&mut host), 1);
    host.enforcer().stop_session(session.id).unwrap();
    assert_eq!(listed(&mut host), 0);
}

#[test]
fn where_it_only_audits_what_would_be_refused_is_told_and_passes() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let rules = enforcing(vec![host_rule("a.example", to.port(), true)]);
    let session = host.session(1, &Policy { mode: sentinel_engine::Mode::Audit, ..rules });
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    let mut connection = Connection::open(&puppet, &listener);
    for _ in 0..2 {
        connection.send(b"GET /", 0);
        connection.arrives(b"GET /");
    }
    let records = host.records();
    assert_eq!(records.iter().map(|record| record.verdict).collect::<Vec<_>>(), [Verdict::NotTls as u32]);
    assert_eq!(records[0].audited, 1);
}

#[test]
fn what_an_application_could_still_change_on_the_way_is_refused() {
    let mut host = Host::new();
    let folder = Folder::new("tls-names");
    let bytes = asks_for("a.example");
    let file = folder.path().join("hello");
    std::fs::write(&file, &bytes).unwrap();
    let (listener, to) = listener(V4);
    let session = host.session(1, &enforcing(vec![host_rule("a.example", to.port(), true)]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    let length = Given::Number(bytes.len().try_into().unwrap());
    let mut spliced = Connection::open(&puppet, &listener);
    let path = super::surface::c_path(&file);
    let opened =
        call_with(&puppet, libc::SYS_openat, &[super::surface::HERE, Given::Bytes, Given::Number(0)], &path);
    let opened = Given::Number(opened.try_into().unwrap());
    assert!(call(&puppet, libc::SYS_sendfile, &[spliced.socket, opened, Given::Number(0), length]) > 0);
    spliced.is_refused(&mut host, Verdict::UnsteadyHello);
    let mut zero_copy = Connection::open(&puppet, &listener);
    let option = [zero_copy.socket, Given::Number(1), Given::Number(60), Given::Bytes, Given::Number(4)];
    assert_eq!(call_with(&puppet, libc::SYS_setsockopt, &option, &1_i32.to_ne_bytes()), 0);
    assert!(zero_copy.send(&bytes, 0x400_0000) > 0);
    zero_copy.is_refused(&mut host, Verdict::UnsteadyHello);
    let mut copied = Connection::open(&puppet, &listener);
    copied.send(&bytes, 0);
    copied.arrives(&bytes);
}

#[test]
fn what_a_first_packet_carries_already_is_looked_into() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    listener.set_nonblocking(true).unwrap();
    let session = host.session(1, &enforcing(vec![host_rule("a.example", to.port(), true)]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    let send = |bytes: &[u8]| {
        let (family, address) = raw(to);
        let made = call(&puppet, libc::SYS_socket, &[family, Given::Number(1), Given::Number(0)]);
        let socket = Given::Number(u64::try_from(made).unwrap());
        // TCP_FASTOPEN_NO_COOKIE: what it sends goes with the SYN.
        let option = [socket, Given::Number(6), Given::Number(34), Given::Bytes, Given::Number(4)];
        assert_eq!(call_with(&puppet, libc::SYS_setsockopt, &option, &1_i32.to_ne_bytes()), 0);
        let flags = libc::MSG_FASTOPEN | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let arguments = [
            Argument::Number(made.into()),
            Argument::Bytes(bytes),
            Argument::Number(flags.into()),
            Argument::Bytes(&address),
        ];
        puppet.order(Deed::Call(libc::SYS_sendto, &arguments)).unwrap();
        socket
    };
    let bytes = asks_for("a.example");
    let listed = send(&bytes);
    let mut server = None;
    wait_until("it is there", || {
        server = listener.accept().ok();
        server.is_some()
    });
    let server = server.unwrap().0;
    server.set_nonblocking(false).unwrap();
    Connection { puppet: &puppet, socket: listed, server }.arrives(&bytes);
    assert!(host.records().is_empty());
    let unlisted = send(&asks_for("b.example"));
    let mut records = Vec::new();
    wait_until("it is told", || {
        records.extend(host.records());
        !records.is_empty()
    });
    assert_eq!(records[0].verdict, Verdict::ServerName as u32);
    let read = call_with(&puppet, libc::SYS_read, &[unlisted, Given::Bytes, Given::Number(1)], &[0]);
    assert!([-libc::ECONNABORTED, -libc::ENOTCONN].contains(&read), "{read}");
    assert!(listener.accept().is_err());
}

#[test]
fn a_large_hello_is_looked_into_whole() {
    static LARGE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    extern "C" fn send(socket: usize) -> i32 {
        let Some(bytes) = LARGE.get() else { return -1 };
        let socket = i32::try_from(socket).unwrap_or(-1);
        // SAFETY: the bytes outlive the call.
        let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        i32::try_from(sent).unwrap_or(-1)
    }
    let bytes = LARGE.get_or_init(|| hello(&[(PADDING, vec![0; 9_000]), server_name("a.example")]));
    let mut host = Host::new();
    let (listener, to) = listener(V6);
    let session = host.session(1, &enforcing(vec![host_rule("a.example", to.port(), true)]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    let mut connection = Connection::open(&puppet, &listener);
    let Given::Number(socket) = connection.socket else { unreachable!() };
    let sent = puppet.order(Deed::Run(send, socket.try_into().unwrap())).unwrap();
    assert_eq!(sent, i32::try_from(bytes.len()).unwrap());
    connection.arrives(bytes);
}

#[test]
fn to_bind_a_connected_socket_changes_nothing_of_what_it_may_send() {
    let mut host = Host::new();
    let (listener, to) = listener(V4);
    let mut grant = host_rule("a.example", to.port(), true);
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 47_113));
    grant.listen = network(&[(Protocol::Tcp, own)]).network;
    let session = host.session(1, &enforcing(vec![grant]));
    let puppet = host.puppet(&session);
    host.enforcer().open_name(session.id, &name("a.example"), &[told(to, LONG)]).unwrap();
    let mut connection = Connection::open(&puppet, &listener);
    let address = raw(own).1;
    let bind = [connection.socket, Given::Bytes, Given::Number(16)];
    assert_eq!(call_with(&puppet, libc::SYS_bind, &bind, &address), -libc::EINVAL);
    connection.send(b"GET /", 0);
    connection.is_refused(&mut host, Verdict::NotTls);
}
