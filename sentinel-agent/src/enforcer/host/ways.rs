//! Each way out of a host by a socket, as root and as an ordinary user: refused where no rule names where it goes, beside the same let go.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::sockets::*;
use super::*;

const IN_PROGRESS: i32 = libc::EINPROGRESS;
const SOON: Duration = Duration::from_millis(200);

/// Who tries: a command of a session as root, and one that has become an ordinary user for good.
fn commands(host: &mut Host, session: &Session) -> [(&'static str, Puppet); 2] {
    let user = host.command(session);
    let id = Given::Number(USER.into());
    for number in [libc::SYS_setresgid, libc::SYS_setresuid] {
        assert_eq!(super::call(&user, number, &[id, id, id]), 0);
    }
    [("root", host.command(session)), ("user", user)]
}

/// A listener and a receiver that are named, and two that are not.
struct Targets {
    tcp: (TcpListener, SocketAddr),
    udp: (UdpSocket, SocketAddr),
    other_tcp: (TcpListener, SocketAddr),
    other_udp: (UdpSocket, SocketAddr),
}

impl Targets {
    fn at(ip: IpAddr) -> Self {
        let udp = || {
            let receiver = UdpSocket::bind((ip, 0)).unwrap();
            receiver.set_read_timeout(Some(SOON)).unwrap();
            let address = receiver.local_addr().unwrap();
            (receiver, address)
        };
        Self { tcp: listener(ip), udp: udp(), other_tcp: listener(ip), other_udp: udp() }
    }

    fn policy(&self) -> Policy {
        policy(vec![network(&[(Protocol::Tcp, self.tcp.1), (Protocol::Udp, self.udp.1)])])
    }
}

fn is_reached(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

#[test]
fn whoever_tries_and_however_only_what_a_rule_names_is_reached() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let targets = Targets::at(ip);
        let mut host = Host::new();
        let session = host.session(1, &targets.policy());
        for (who, puppet) in commands(&mut host, &session) {
            let tell = |what: &str| format!("{what} to {ip} as {who}");
            let (named, other) = (targets.tcp.1, targets.other_tcp.1);
            let tried = [named, other].map(|to| connect(&puppet, to));
            assert_eq!(tried, [0, EPERM], "{}", tell("connect"));

            let tried = [named, other].map(|to| {
                let number = socket(&puppet, to, TCP | libc::SOCK_NONBLOCK);
                connect_socket(&puppet, number, to)
            });
            assert_eq!(tried, [IN_PROGRESS, EPERM], "{}", tell("connect without waiting"));

            let tried = [named, other].map(|to| {
                let number = socket(&puppet, to, TCP);
                send_to(&puppet, number, b"fast", libc::MSG_FASTOPEN, to)
            });
            assert_eq!(tried, [4, -EPERM], "{}", tell("data in the first packet"));
            assert!(is_reached(&targets.tcp.0), "{}", tell("TCP"));
            assert!(!is_reached(&targets.other_tcp.0), "{}", tell("TCP"));

            let (named, other) = (targets.udp.1, targets.other_udp.1);
            let tried = [named, other].map(|to| {
                let number = socket(&puppet, to, UDP);
                send_to(&puppet, number, b"x", 0, to)
            });
            assert_eq!(tried, [1, -EPERM], "{}", tell("sendto"));
            let tried = [named, other].map(|to| connect_socket(&puppet, socket(&puppet, to, UDP), to));
            assert_eq!(tried, [0, EPERM], "{}", tell("connect of datagrams"));
            // Datagrams that the socket collects until it is told that no more come.
            let tried = [named, other].map(|to| {
                let number = socket(&puppet, to, UDP);
                [libc::MSG_MORE, 0].map(|flags| send_to(&puppet, number, b"x", flags, to))
            });
            assert_eq!(tried, [[1, 1], [-EPERM, -EPERM]], "{}", tell("corked datagrams"));
            // One that goes to the named first, and then elsewhere by the same socket.
            let number = socket(&puppet, named, UDP);
            let tried = [named, other].map(|to| send_to(&puppet, number, b"x", 0, to));
            assert_eq!(tried, [1, -EPERM], "{}", tell("one socket for two"));
            assert!(targets.udp.0.recv(&mut [0; 8]).is_ok(), "{}", tell("UDP"));
            assert!(targets.other_udp.0.recv(&mut [0; 8]).is_err(), "{}", tell("UDP"));
        }
    }
}

/// Families, types and protocols by numbers of `linux/socket.h` and `linux/in.h`. None of them is TCP or UDP over IP.
const OTHERS: &[(&str, u8, u8, u16)] = &[
    ("raw IPv4", 2, 3, 255),
    ("raw ICMP", 2, 3, 1),
    ("raw IPv6", 10, 3, 58),
    ("ping", 2, 2, 1),
    ("ping over IPv6", 10, 2, 58),
    ("MPTCP", 2, 1, 262),
    ("MPTCP over IPv6", 10, 1, 262),
    ("SCTP", 2, 1, 132),
    ("SCTP, one to many", 2, 5, 132),
    ("DCCP", 2, 6, 33),
    ("UDP-Lite", 2, 2, 136),
    ("L2TP", 2, 2, 115),
    ("packet", 17, 3, 768),
    ("packet datagrams", 17, 2, 768),
    ("vsock", 40, 1, 0),
    ("vsock datagrams", 40, 2, 0),
    ("kernel crypto", 38, 5, 0),
    ("CAN", 29, 3, 1),
    ("Bluetooth", 31, 3, 1),
    ("RDS", 21, 5, 0),
    ("TIPC", 30, 1, 0),
    ("SMC", 43, 1, 0),
    ("XDP", 44, 3, 0),
    ("key management", 15, 3, 2),
    ("RxRPC", 33, 2, 2),
    ("KCM", 41, 2, 0),
    ("netlink audit", 16, 3, 9),
    ("netlink of a family of its own", 16, 3, 16),
];

#[test]
fn no_socket_but_for_tcp_udp_and_this_host_is_made_whoever_asks() {
    let mut host = Host::new();
    let session = host.session(1, &policy(vec![Grant::default()]));
    let make = |puppet: &Puppet, family: u8, kind: u8, protocol: u16| {
        let arguments = [family.into(), kind.into(), u64::from(protocol)].map(Given::Number);
        super::call(puppet, libc::SYS_socket, &arguments)
    };
    let is_lsm = host.is_lsm();
    for (who, puppet) in commands(&mut host, &session) {
        for (what, family, kind, protocol) in OTHERS {
            let made = make(&puppet, *family, *kind, *protocol);
            // A hook on a cgroup is asked of the Internet's families alone; a launched session's seccomp filter refuses the rest at tier `kill`.
            let is_held = is_lsm || [2, 10].contains(family);
            // What this kernel doesn't have, or a user may not, is refused by itself.
            let is_missing = [libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT, libc::EACCES]
                .contains(&-made);
            if is_held {
                // Raw sockets over IP every kernel has.
                let may_be_missing = is_missing && !(*kind == 3 && [2, 10].contains(family));
                assert!(made == -EPERM || may_be_missing, "{what} as {who}: {made}");
            }
        }
        for (family, kind, protocol) in [(2, 1, 0), (2, 2, 0), (10, 1, 6), (10, 2, 17), (1, 1, 0), (16, 3, 0)]
        {
            assert!(make(&puppet, family, kind, protocol) >= 0, "{family} {kind} {protocol} as {who}");
        }
    }
    let outside = Puppet::start().unwrap();
    for (family, kind, protocol) in [(2, 3, 1), (17, 3, 768)] {
        assert!(make(&outside, family, kind, protocol) >= 0, "root outside can");
    }
}
