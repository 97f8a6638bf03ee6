//! Sockets that are a puppet's and the test's at once: the puppet makes them and lets the kernel judge it, the test uses them.

use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::super::puppet::Argument::{Bytes, Number};
use super::*;

pub(super) const TCP: i32 = libc::SOCK_STREAM;
pub(super) const UDP: i32 = libc::SOCK_DGRAM;

/// The bytes of a `struct sockaddr_in` or `sockaddr_in6`.
pub(super) fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.extend(2_u16.to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(ip.octets());
            bytes.resize(size_of::<libc::sockaddr_in>(), 0);
        }
        IpAddr::V6(ip) => {
            bytes.extend(10_u16.to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.resize(size_of::<libc::sockaddr_in6>(), 0);
        }
    }
    bytes
}

/// A socket of the puppet's.
pub(super) fn socket(puppet: &Puppet, to: SocketAddr, kind: i32) -> i32 {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let number =
        call(puppet, libc::SYS_socket, [Number(family.into()), Number(kind.into()), Number(0), Number(0)]);
    assert!(number >= 0, "{number}");
    number
}

pub(super) fn call(
    puppet: &Puppet,
    number: libc::c_long,
    arguments: [super::super::puppet::Argument<'_>; 4],
) -> i32 {
    puppet.order(Deed::Call(number, &arguments)).unwrap()
}

/// 0, or an error's number.
pub(super) fn connect_socket(puppet: &Puppet, socket: i32, to: SocketAddr) -> i32 {
    let address = socket_address(to);
    -call(puppet, libc::SYS_connect, [Number(socket.into()), Bytes(&address), Number(0), Number(0)])
}

/// 0, or an error's number.
pub(super) fn bind_socket(puppet: &Puppet, socket: i32, to: SocketAddr) -> i32 {
    let address = socket_address(to);
    -call(puppet, libc::SYS_bind, [Number(socket.into()), Bytes(&address), Number(0), Number(0)])
}

/// 0, or an error's number.
pub(super) fn listen_on(puppet: &Puppet, socket: i32) -> i32 {
    -call(puppet, libc::SYS_listen, [Number(socket.into()), Number(8), Number(0), Number(0)])
}

/// 0, or an error's number.
pub(super) fn close(puppet: &Puppet, socket: i32) -> i32 {
    -call(puppet, libc::SYS_close, [Number(socket.into()), Number(0), Number(0), Number(0)])
}

/// How many bytes were sent, or an error's number, negative.
pub(super) fn send_to(puppet: &Puppet, socket: i32, bytes: &[u8], flags: i32, to: SocketAddr) -> i32 {
    let address = socket_address(to);
    call(
        puppet,
        libc::SYS_sendto,
        [Number(socket.into()), Bytes(bytes), Number(flags.into()), Bytes(&address)],
    )
}

/// A connection of the puppet's.
pub(super) fn connection(puppet: &Puppet, to: SocketAddr) -> TcpStream {
    let number = socket(puppet, to, TCP);
    assert_eq!(connect_socket(puppet, number, to), 0);
    tcp(puppet, number)
}

pub(super) fn tcp(puppet: &Puppet, number: i32) -> TcpStream {
    let stream = TcpStream::from(puppet.descriptor(number));
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A datagram socket of the puppet's with a peer.
pub(super) fn datagrams(puppet: &Puppet, to: SocketAddr) -> UdpSocket {
    let number = socket(puppet, to, UDP);
    assert_eq!(connect_socket(puppet, number, to), 0);
    UdpSocket::from(puppet.descriptor(number))
}

/// Sets an option whose value are these bytes: 0, or an error's number.
pub(super) fn set_option(socket: &impl std::os::fd::AsRawFd, level: i32, name: i32, value: &[u8]) -> i32 {
    let length = libc::socklen_t::try_from(value.len()).unwrap();
    // SAFETY: the bytes outlive the call, and are as many as it says.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if done == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
}

/// A duplicate that is no stream.
pub(super) fn raw(puppet: &Puppet, number: i32) -> OwnedFd {
    puppet.descriptor(number)
}

/// What comes within this time, up to a reset or an end.
pub(super) fn arrives(peer: &mut TcpStream, within: Duration) -> Vec<u8> {
    use std::io::Read as _;
    let until = Instant::now() + within;
    let mut all = Vec::new();
    let mut bytes = [0; 65_536];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return all;
        }
        peer.set_read_timeout(Some(left)).unwrap();
        match peer.read(&mut bytes) {
            Ok(0) | Err(_) => return all,
            Ok(length) => all.extend_from_slice(&bytes[..length]),
        }
    }
}
