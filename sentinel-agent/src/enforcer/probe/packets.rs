//! Whether packets themselves are judged: a datagram with an IP option, which every hook before the packet's own lets go.

use std::net::SocketAddr;

use rustix::io::Errno;
use sentinel_proto::examination::{Hold, Proof, Row};

use super::untried;
use crate::enforcer::EnforcerError;
use crate::enforcer::puppet::Argument::{Bytes, Number};
use crate::enforcer::puppet::{Argument, Deed, Puppet};

const AF_INET: i64 = 2;
const SOCK_DGRAM: i64 = 2;
const IPPROTO_IP: i64 = 0;
const IP_OPTIONS: i64 = 4;
/// "No operation", four times: harmless in itself. A source route is what it could be.
const OPTIONS: [u8; 4] = [1; 4];

/// What came of two datagrams to where a rule lets them go: bytes, or the error's number below 0.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    plain: i32,
    with_options: i32,
}

/// Sends a plain datagram, and one with options.
pub(super) fn send(puppet: &Puppet, to: SocketAddr) -> Result<Sent, EnforcerError> {
    let call = |number, arguments: &[Argument<'_>]| {
        let came = puppet.order(Deed::Call(number, arguments));
        came.map_err(|cause| untried("a packet with IP options", cause))
    };
    let SocketAddr::V4(to) = to else {
        return Err(untried("send a datagram", "it is to go to no IPv4 address"));
    };
    let mut address = [0; 16];
    address[..2].copy_from_slice(&libc::sa_family_t::try_from(AF_INET).unwrap_or_default().to_ne_bytes());
    address[2..4].copy_from_slice(&to.port().to_be_bytes());
    address[4..8].copy_from_slice(&to.ip().octets());
    let socket = call(libc::SYS_socket, &[Number(AF_INET), Number(SOCK_DGRAM), Number(0)])?;
    let socket = Number(socket.into());
    call(libc::SYS_connect, &[socket, Bytes(&address)])?;
    let send = || call(libc::SYS_sendto, &[socket, Bytes(b"x"), Number(0), Number(0)]);
    let plain = send()?;
    call(libc::SYS_setsockopt, &[socket, Number(IPPROTO_IP), Number(IP_OPTIONS), Bytes(&OPTIONS)])?;
    let with_options = send()?;
    call(libc::SYS_close, &[socket])?;
    Ok(Sent { plain, with_options })
}

impl Sent {
    pub(super) fn row(self) -> Row {
        let refused = Errno::PERM.raw_os_error().saturating_neg();
        let proof = if self.with_options != refused {
            Proof::Failed(format!("{} instead of {refused} (EPERM)", self.with_options))
        } else if self.plain != 1 {
            Proof::Failed(format!("{} for the same packet without options", self.plain))
        } else {
            Proof::Tried
        };
        Row { what: "a packet with IP options".to_owned(), hold: Hold::DeniedBeforeExecution, proof }
    }
}
