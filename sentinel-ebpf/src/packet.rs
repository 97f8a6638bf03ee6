//! A packet's own words: where from, where to, and what it carries. Read from the packet, never from its socket.
//!
//! Invariant: what can't be read to the ports is no packet that may pass: IP options and extension headers can send it elsewhere than its
//! header says (a source route), and a fragment has no ports. The kernel fragments behind these hooks, so none comes by from a socket.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::programs::SkBuffContext;
use sentinel_ebpf_common::verdict::Verdict;

use crate::rules::{TCP, UDP};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: u32 = 8;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// What of a packet is looked at.
pub(crate) struct Packet {
    pub(crate) protocol: u32,
    /// Network byte order, IPv4 as IPv4-mapped.
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    /// Host byte order.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// TCP's flags; 0 for UDP.
    flags: u8,
    /// Where the headers end.
    pub(crate) behind_headers: u32,
    /// Bytes behind the headers.
    pub(crate) payload: u32,
}

impl Packet {
    /// Whether it opens a TCP connection, from either side.
    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    /// Whether it is the first packet of a TCP connection.
    #[inline(always)]
    pub(crate) fn is_first(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Whether a byte of it may be taken out of turn where it arrives.
    #[inline(always)]
    pub(crate) fn is_urgent(&self) -> bool {
        self.flags & URG != 0
    }

    /// Whether it carries anything of the application's. Every datagram does.
    #[inline(always)]
    pub(crate) fn has_payload(&self) -> bool {
        self.protocol == UDP || self.payload != 0
    }

    /// Whether it only says how far the other side was heard, or that this one is done.
    #[inline(always)]
    pub(crate) fn is_bare(&self) -> bool {
        !self.has_payload() && self.flags & SYN == 0 && self.flags & (ACK | FIN | RST) != 0
    }
}

/// The socket that a packet leaves from or comes to; null: none.
#[inline(always)]
pub(crate) fn socket_of(ctx: &SkBuffContext) -> *mut bpf_sock {
    // SAFETY: the kernel hands the hook a valid context.
    unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk }
}

/// Reads a packet.
#[inline(always)]
pub(crate) fn read(ctx: &SkBuffContext) -> Result<Packet, Verdict> {
    let unread = |_errno| Verdict::Header;
    let first: u8 = ctx.load(0).map_err(unread)?;
    let (protocol, source, destination, header) = if first >> 4 == 4 {
        // Five words: no options.
        if first & 0x0f != 5 {
            return Err(Verdict::Header);
        }
        let fragment: u16 = ctx.load(6).map_err(unread)?;
        // More fragments, or not the first.
        if u16::from_be(fragment) & 0x3fff != 0 {
            return Err(Verdict::Header);
        }
        let protocol: u8 = ctx.load(9).map_err(unread)?;
        let source: [u8; 4] = ctx.load(12).map_err(unread)?;
        let destination: [u8; 4] = ctx.load(16).map_err(unread)?;
        (protocol, mapped(source), mapped(destination), IPV4_HEADER)
    } else if first >> 4 == 6 {
        let protocol: u8 = ctx.load(6).map_err(unread)?;
        let source: [u8; 16] = ctx.load(8).map_err(unread)?;
        let destination: [u8; 16] = ctx.load(24).map_err(unread)?;
        (protocol, source, destination, IPV6_HEADER)
    } else {
        return Err(Verdict::Header);
    };
    let protocol = u32::from(protocol);
    let mut packet = Packet {
        protocol,
        source,
        destination,
        source_port: 0,
        destination_port: 0,
        flags: 0,
        behind_headers: 0,
        payload: 0,
    };
    if protocol != TCP && protocol != UDP {
        return Err(Verdict::Header);
    }
    let ports: [u8; 4] = ctx.load(header).map_err(unread)?;
    packet.source_port = u16::from_be_bytes([ports[0], ports[1]]);
    packet.destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    let mut behind = header as u32 + UDP_HEADER;
    if protocol == TCP {
        let offset_and_flags: [u8; 2] = ctx.load(header + 12).map_err(unread)?;
        packet.flags = offset_and_flags[1];
        behind = header as u32 + u32::from(offset_and_flags[0] >> 4) * 4;
    }
    packet.behind_headers = behind;
    // Not by the header's length, which is 0 in a packet that the card will split. What claims to be all header carries all of it.
    packet.payload = ctx.len().saturating_sub(behind);
    Ok(packet)
}

#[inline(always)]
fn mapped(ip: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip[0], ip[1], ip[2], ip[3]]
}
