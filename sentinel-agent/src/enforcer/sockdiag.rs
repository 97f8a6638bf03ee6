//! Destroys sockets by netlink (`SOCK_DESTROY`): whoever waits on one, or uses it next, gets ECONNABORTED, and its peer a reset.
//!
//! It reaches sockets of the agent's own network namespace. Where it can't, the kernel side still lets nothing out of them.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DESTROY`, of linux/sock_diag.h.
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// A netlink header and a `struct inet_diag_req_v2`.
const REQUEST: usize = 16 + 56;
const REQUEST_LENGTH: u32 = 72;
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

/// A netlink socket.
#[derive(Debug)]
pub(super) struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
}

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Some(netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { socket, sequence: 0 })
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

fn request(found: &Found, sequence: u32) -> [u8; REQUEST] {
    let mut bytes = Vec::with_capacity(REQUEST);
    bytes.extend(REQUEST_LENGTH.to_ne_bytes());
    bytes.extend(SOCK_DESTROY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
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
    let mut request = [0; REQUEST];
    request.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    request
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
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

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
