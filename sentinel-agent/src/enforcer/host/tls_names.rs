//! What a connection to a host by name sends first, where the policy has TLS looked into.

use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

use sentinel_ebpf_common::verdict::Verdict;
use sentinel_engine::TlsNames;

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
