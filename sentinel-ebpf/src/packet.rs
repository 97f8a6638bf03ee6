//! A packet's own words: where from, where to, and what it carries. Read from the packet, never from its socket.
//!
//! Invariant: what can't be read to the ports is no packet that may pass: IP options and extension headers can send it elsewhere than its
//! header says (a source route), and a fragment has no ports. The kernel fragments behind these hooks, so none comes by from a socket.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;

use crate::rules::{TCP, UDP};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: u32 = 8;
const TCP_HEADER: u32 = 20;
const SHORTEST_HEADERS: u32 = 28;
const LONGEST_HEADERS: usize = 60;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// What of a packet is looked at.
pub(crate) struct Packet {
    /// `TCP` or `UDP`; 0 where it can't be read to the ports, and all else of it may be wrong. (A `Result` here leaves registers unset, which the
    /// verifier refuses.)
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
    #[inline(always)]
    pub(crate) fn is_read(&self) -> bool {
        self.protocol != 0
    }

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

/// The beginning of a packet, aligned for writing words.
#[repr(C, align(8))]
struct Bytes([u8; LONGEST_HEADERS]);

/// Reads a packet: once, for each call of the kernel's takes as long as all that is done with the bytes.
#[inline(always)]
pub(crate) fn read(ctx: &SkBuffContext) -> Packet {
    let mut bytes = MaybeUninit::<Bytes>::uninit();
    for index in 0..LONGEST_HEADERS / 4 {
        // SAFETY: within it. Volatile, or it becomes a call, through which 6.1's verifier follows every value.
        unsafe { bytes.as_mut_ptr().cast::<u32>().add(index).write_volatile(0) };
    }
    let length = ctx.len().min(LONGEST_HEADERS as u32);
    if length >= SHORTEST_HEADERS {
        // What fails leaves zeros, which are no version of IP.
        // SAFETY: so many bytes have room there.
        unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, bytes.as_mut_ptr().cast(), length) };
    }
    // SAFETY: all of it was written.
    let Bytes(bytes) = unsafe { bytes.assume_init_ref() };
    if bytes[0] >> 4 == 4 {
        let is_fragment = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0;
        // Five words: no options.
        let is_plain = bytes[0] & 0x0f == 5 && !is_fragment;
        let source = mapped([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let destination = mapped([bytes[16], bytes[17], bytes[18], bytes[19]]);
        read_behind::<IPV4_HEADER>(ctx, bytes, length, is_plain, bytes[9], source, destination)
    } else {
        let (mut source, mut destination) = ([0; 16], [0; 16]);
        for index in 0..16 {
            source[index] = bytes[8 + index];
            destination[index] = bytes[24 + index];
        }
        let is_ipv6 = bytes[0] >> 4 == 6;
        read_behind::<IPV6_HEADER>(ctx, bytes, length, is_ipv6, bytes[6], source, destination)
    }
}

/// Reads what follows the addresses.
#[inline(always)]
fn read_behind<const HEADER: usize>(
    ctx: &SkBuffContext,
    bytes: &[u8; LONGEST_HEADERS],
    length: u32,
    is_plain: bool,
    protocol: u8,
    source: [u8; 16],
    destination: [u8; 16],
) -> Packet {
    let protocol = u32::from(protocol);
    let (needed, flags, header) = if protocol == TCP {
        (TCP_HEADER, bytes[HEADER + 13], u32::from(bytes[HEADER + 12] >> 4) * 4)
    } else {
        (UDP_HEADER, 0, UDP_HEADER)
    };
    let is_read = is_plain && (protocol == TCP || protocol == UDP) && length >= HEADER as u32 + needed;
    let behind_headers = HEADER as u32 + header;
    Packet {
        protocol: if is_read { protocol } else { 0 },
        source,
        destination,
        source_port: u16::from_be_bytes([bytes[HEADER], bytes[HEADER + 1]]),
        destination_port: u16::from_be_bytes([bytes[HEADER + 2], bytes[HEADER + 3]]),
        flags,
        behind_headers,
        // Not by the header's length, which is 0 in a packet that the card will split. What claims to be all header carries all of it.
        payload: ctx.len().saturating_sub(behind_headers),
    }
}

#[inline(always)]
fn mapped(ip: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip[0], ip[1], ip[2], ip[3]]
}
