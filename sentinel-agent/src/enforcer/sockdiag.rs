//! Destroys sockets by netlink (`SOCK_DESTROY`): whoever waits on one, or uses it next, gets ECONNABORTED, and its peer a reset.
//!
//! It reaches sockets of the network namespace in which it was opened. Where it can't, the kernel side still lets nothing out of them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY`, of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`: all that fit.
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `INET_DIAG_REQ_BYTECODE` and, in it, `INET_DIAG_BC_CGROUP_COND`, of linux/inet_diag.h.
const BYTECODE: u16 = 1;
const OF_CGROUP: u8 = 13;
const TCP: u8 = 6;
/// A bit a state, of net/tcp_states.h: those in which a socket has a peer and isn't over (established, both of its opening's first, and all on
/// the way to the end but TIME_WAIT).
const WITH_PEER: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The length of a netlink header, and of a `struct inet_diag_req_v2` behind it.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// What the kernel puts into one message of a list, at most, and more.
const LIST: usize = 64 * 1024;
/// More than any acknowledgement takes: it quotes the request.
const ANSWER: usize = 256;

/// A socket as the kernel finds it: by its addresses, and its own number, which no other one ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) cookie: u64,
    /// 6 or 17.
    pub(super) protocol: u8,
    /// Network byte order, IPv4 as IPv4-mapped.
    pub(super) source: [u8; 16],
    pub(super) source_port: u16,
    pub(super) destination: [u8; 16],
    pub(super) destination_port: u16,
}

/// A netlink socket, of the network namespace of the thread that opens it.
#[derive(Debug)]
pub(super) struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
}

impl SockDiag {
    /// # Errors
    /// There is no such thing on this kernel, or it can't tell of TCP sockets. (To destroy one then says that it is not there.)
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Some(netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        let mut diag = Self { socket, sequence: 0 };
        diag.list(AF_INET, 0, None).map_err(|error| {
            io::Error::new(error.kind(), format!("{error}; load the kernel's module `tcp_diag`"))
        })?;
        Ok(diag)
    }

    /// The TCP connections that were made in a cgroup, not below it, in its network namespace.
    pub(super) fn connections_of(&mut self, cgroup: u64) -> io::Result<Vec<Found>> {
        let mut of_it = self.list(AF_INET, WITH_PEER, Some(cgroup))?;
        of_it.extend(self.list(AF_INET6, WITH_PEER, Some(cgroup))?);
        Ok(of_it)
    }

    /// All TCP connections in its network namespace.
    pub(super) fn connections(&mut self) -> io::Result<Vec<Found>> {
        let mut all = self.list(AF_INET, WITH_PEER, None)?;
        all.extend(self.list(AF_INET6, WITH_PEER, None)?);
        Ok(all)
    }

    fn list(&mut self, family: u8, states: u32, cgroup: Option<u64>) -> io::Result<Vec<Found>> {
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, &list_request(family, states, cgroup, self.sequence), SendFlags::empty())?;
        let mut found = Vec::new();
        let mut answer = vec![0; LIST];
        loop {
            let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
            let mut rest = answer.get(..length).unwrap_or_default();
            while let Some((kind, sequence, body)) = next_message(&mut rest) {
                match kind {
                    _ if sequence != self.sequence => {}
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => return Err(refusal(body)),
                    _ => found.extend(listed(body)),
                }
            }
        }
    }

    /// Destroys a socket. One that has gone, or has another peer now, is left alone.
    pub(super) fn destroy(&mut self, found: &Found) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, &request(found, self.sequence), SendFlags::empty())?;
        loop {
            let mut answer = [0; ANSWER];
            // The kernel has answered when `send` returns.
            let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
            match acknowledged(answer.get(..length).unwrap_or_default(), self.sequence) {
                // An answer to what an error had kept from being read before.
                None => {}
                Some(0) => return Ok(()),
                Some(errno) => match Errno::from_raw_os_error(errno) {
                    Errno::NOENT | Errno::STALE => return Ok(()),
                    errno => return Err(errno.into()),
                },
            }
        }
    }
}

fn header(length: usize, kind: u16, flags: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes
}

/// Asks for the TCP sockets in these states; of a cgroup, those that were made in it.
fn list_request(family: u8, states: u32, cgroup: Option<u64>, sequence: u32) -> Vec<u8> {
    let condition = cgroup.map(|cgroup| {
        // One instruction: where the cgroup is this one, the end of the program is 12 bytes on; else beyond it, which is "no".
        let program = [&[OF_CGROUP, 12][..], &16_u16.to_ne_bytes(), &cgroup.to_ne_bytes()].concat();
        [&16_u16.to_ne_bytes()[..], &BYTECODE.to_ne_bytes(), &program].concat()
    });
    let condition = condition.unwrap_or_default();
    let length = REQUEST.saturating_add(condition.len());
    let mut bytes = header(length, BY_FAMILY, NLM_F_DUMP, sequence);
    bytes.extend([family, TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.resize(REQUEST, 0);
    bytes.extend(condition);
    bytes
}

/// The next message of some: its kind, its number, and what it says.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, u32, &'a [u8])> {
    let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let message = rest.get(..length)?;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, sequence, message.get(HEADER..)?))
}

/// A socket as a `struct inet_diag_msg` describes it.
fn listed(body: &[u8]) -> Option<Found> {
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let address = |at: usize| -> Option<[u8; 16]> {
        let bytes: [u8; 16] = body.get(at..at.checked_add(16)?)?.try_into().ok()?;
        let [a, b, c, d, ..] = bytes;
        let is_v4 = *body.first()? == AF_INET;
        Some(if is_v4 { Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().octets() } else { bytes })
    };
    let half = |at: usize| Some(u32::from_ne_bytes(body.get(at..at.checked_add(4)?)?.try_into().ok()?));
    Some(Found {
        cookie: u64::from(half(44)?) | u64::from(half(48)?) << 32,
        protocol: TCP,
        source: address(8)?,
        source_port: port(4)?,
        destination: address(24)?,
        destination_port: port(6)?,
    })
}

fn refusal(body: &[u8]) -> io::Error {
    let number = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    io::Error::from_raw_os_error(number.unwrap_or(0).saturating_neg())
}

fn request(found: &Found, sequence: u32) -> Vec<u8> {
    let mut bytes = header(REQUEST, SOCK_DESTROY, NLM_F_ACK, sequence);
    let mapped = |address: [u8; 16]| Ipv6Addr::from(address).to_ipv4_mapped();
    let (source, destination) = (mapped(found.source), mapped(found.destination));
    let family = if source.is_some() && destination.is_some() { AF_INET } else { AF_INET6 };
    bytes.extend([family, found.protocol, 0, 0]);
    // Of any state.
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(found.source_port.to_be_bytes());
    bytes.extend(found.destination_port.to_be_bytes());
    match (source, destination) {
        (Some(source), Some(destination)) => {
            for address in [source, destination] {
                bytes.extend(address.octets());
                bytes.extend([0; 12]);
            }
        }
        _ => {
            bytes.extend(found.source);
            bytes.extend(found.destination);
        }
    }
    // Of any interface.
    bytes.extend(0_u32.to_ne_bytes());
    // The low half first, on every machine.
    let halves = (found.cookie, found.cookie >> 32);
    bytes.extend(u32::try_from(halves.0 & 0xffff_ffff).unwrap_or(0).to_ne_bytes());
    bytes.extend(u32::try_from(halves.1).unwrap_or(0).to_ne_bytes());
    bytes.resize(REQUEST, 0);
    bytes
}

/// The error number in an acknowledgement of this request, 0 for none; none where it is another message.
fn acknowledged(answer: &[u8], sequence: u32) -> Option<i32> {
    let word = |at: usize| answer.get(at..at.checked_add(4)?)?.try_into().ok();
    let kind = answer.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
    if kind != NLMSG_ERROR || u32::from_ne_bytes(word(8)?) != sequence {
        return None;
    }
    word(16).map(|bytes| i32::from_ne_bytes(bytes).saturating_neg())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn mapped(address: SocketAddr) -> [u8; 16] {
        match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        }
    }

    fn found(own: SocketAddr, peer: SocketAddr, protocol: u8, socket: impl std::os::fd::AsFd) -> Found {
        Found {
            cookie: rustix::net::sockopt::socket_cookie(socket).unwrap(),
            protocol,
            source: mapped(own),
            source_port: own.port(),
            destination: mapped(peer),
            destination_port: peer.port(),
        }
    }

    #[test]
    fn whoever_waits_on_a_socket_is_told() {
        let mut diag = SockDiag::open().unwrap();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_peer, _) = listener.accept().unwrap();
            let socket = found(stream.local_addr().unwrap(), stream.peer_addr().unwrap(), 6, &stream);
            let another = Found { cookie: socket.cookie + 1_000_000, ..socket };
            diag.destroy(&another).expect("another one's number is none");
            stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            diag.destroy(&socket).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
            diag.destroy(&socket).expect("what is gone is gone");
        }
    }

    #[test]
    fn a_datagram_socket_with_a_peer_is_told_too() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(receiver.local_addr().unwrap()).unwrap();
        let of = found(socket.local_addr().unwrap(), receiver.local_addr().unwrap(), 17, &socket);
        SockDiag::open().unwrap().destroy(&of).unwrap();
        assert_eq!(socket.recv(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
    }

    #[test]
    fn an_answer_is_only_that_to_the_question() {
        let mut answer = [0_u8; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        answer[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer, 7), Some(2));
        assert_eq!(acknowledged(&answer, 8), None);
        assert_eq!(acknowledged(&answer[..18], 7), None);
        assert_eq!(acknowledged(&[], 7), None);
    }
}
