//! The sockets that the sessions' questions are brought to: UDP and TCP, on 127.0.0.1 and ::1, under one port number.
//!
//! Invariant: each address has a socket of its own, so that an answer always comes from the address that was asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;

/// How often another number is tried where the kernel's choice is taken on one of the other sockets.
const ATTEMPTS: usize = 32;

/// How many bytes of datagrams wait to be read, so that one session's burst doesn't push out another's question.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// One can't be bound.
    #[error(
        "cannot listen for questions on `{address}`: {cause}; free the port, or let the agent choose one"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        cause: io::Error,
    },
    /// No number was free for all of them.
    #[error("no port is free for UDP and TCP on 127.0.0.1 and ::1, in {ATTEMPTS} attempts")]
    NoPort,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) datagrams: UdpSocket,
    pub(super) connections: TcpListener,
}

/// All sockets, bound and listening: from here on, questions wait for [`start`](super::start).
#[derive(Debug)]
pub struct Listeners {
    port: u16,
    v4: Pair,
    v6: Option<Pair>,
}

impl Listeners {
    /// Binds all sockets to the port, or to one that is free where it is 0. A host without ::1 has those of 127.0.0.1 alone.
    ///
    /// # Errors
    /// The port is taken, or none is free.
    pub fn bind(port: u16) -> Result<Self, ListenError> {
        for _ in 0..ATTEMPTS {
            match Self::bind_once(port) {
                Err(ListenError::Bind { cause, .. })
                    if port == 0 && cause.kind() == io::ErrorKind::AddrInUse => {}
                decided => return decided,
            }
        }
        Err(ListenError::NoPort)
    }

    fn bind_once(port: u16) -> Result<Self, ListenError> {
        let v4 = Pair::bind(Ipv4Addr::LOCALHOST.into(), port)?;
        let port = v4.port()?;
        let v6 = match Pair::bind(Ipv6Addr::LOCALHOST.into(), port) {
            Ok(pair) => Some(pair),
            Err(ListenError::Bind { cause, .. }) if is_without_ipv6(&cause) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { port, v4, v6 })
    }

    /// The port number that all of them have.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether there are sockets on ::1. Questions to it have no answer where not.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.v6.is_some()
    }

    pub(super) fn into_pairs(self) -> impl Iterator<Item = Pair> {
        std::iter::once(self.v4).chain(self.v6)
    }
}

impl Pair {
    fn bind(address: IpAddr, port: u16) -> Result<Self, ListenError> {
        let address = SocketAddr::new(address, port);
        let failed = |cause| ListenError::Bind { address, cause };
        let datagrams = UdpSocket::bind(address).map_err(failed)?;
        let address = datagrams.local_addr().map_err(failed)?;
        let failed = |cause| ListenError::Bind { address, cause };
        let connections = TcpListener::bind(address).map_err(failed)?;
        datagrams.set_nonblocking(true).map_err(failed)?;
        // All sessions share it. Without the right to it, it stays as the host has it.
        if let Err(error) = set_socket_recv_buffer_size_force(&datagrams, RECEIVE_BUFFER) {
            tracing::debug!(%error, "the usual receive buffer has to do");
        }
        connections.set_nonblocking(true).map_err(failed)?;
        Ok(Self { datagrams, connections })
    }

    fn port(&self) -> Result<u16, ListenError> {
        let local = self.datagrams.local_addr();
        local.map(|address| address.port()).map_err(|cause| ListenError::Bind {
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            cause,
        })
    }
}

fn is_without_ipv6(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::AddrNotAvailable || cause.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sockets_have_one_port_number() {
        let listeners = Listeners::bind(0).unwrap();
        let port = listeners.port();
        assert_ne!(port, 0);
        for pair in listeners.into_pairs() {
            assert_eq!(pair.datagrams.local_addr().unwrap().port(), port);
            assert_eq!(pair.connections.local_addr().unwrap(), pair.datagrams.local_addr().unwrap());
        }
    }

    #[test]
    fn a_port_that_is_asked_for_is_taken_or_refused_but_never_another() {
        let first = Listeners::bind(0).unwrap();
        let told = Listeners::bind(first.port()).unwrap_err().to_string();
        assert!(told.contains(&format!("127.0.0.1:{}", first.port())), "{told}");
        let port = first.port();
        drop(first);
        assert_eq!(Listeners::bind(port).unwrap().port(), port);
    }
}
