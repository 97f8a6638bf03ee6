//! What hooks report through the ring buffer. Evidence only: nothing is ever allowed because of a record.

use core::mem::size_of;

use crate::SCOPE_CHAIN;

/// The longest path in a record, its NUL included.
pub const PATH_BYTES: usize = 256;

/// A denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// When (CLOCK_BOOTTIME, nanoseconds).
    pub at: u64,
    /// The operation: one of the `OPERATION_*` constants.
    pub operation: u32,
    /// Why: a number of [`crate::verdict::Verdict`].
    pub verdict: u32,
    /// The session.
    pub session: u32,
    /// 1 where the session only audits and it was let pass; else 0.
    pub audited: u32,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name, NUL-terminated.
    pub comm: [u8; 16],
    /// Network: the address (IPv4 as IPv4-mapped). Bind and inbound: the own one.
    pub address: [u8; 16],
    /// Network: the port in host byte order. Socket: the type.
    pub port: u32,
    /// Network: the protocol's number. Socket: the protocol's number.
    pub protocol: u32,
    /// Socket: the family. Network: 0.
    pub family: u32,
    /// Exec: the device as the kernel numbers it.
    pub dev: u32,
    /// Exec: the inode.
    pub ino: u64,
    /// The grant bits that would have opened it; 0: no rule at all.
    pub rule_bits: u64,
    /// The grant bits that were open.
    pub open_bits: u64,
    /// The task's scopes, nearest first; 0 is none.
    pub scopes: [u64; SCOPE_CHAIN],
    /// Egress: the socket's own number, by which it is found; else 0.
    pub cookie: u64,
    /// Egress: the socket's own address.
    pub source: [u8; 16],
    /// Egress: its port.
    pub source_port: u32,
    /// Always 0.
    pub reserved: u32,
    /// Exec: the file name as it was given to execve, cut short; evidence, never compared. Egress: the server that TLS asks for, if it was read.
    pub path: [u8; PATH_BYTES],
}

/// A TCP or connected-UDP connect.
pub const OPERATION_CONNECT: u32 = 1;
/// A datagram to a named address.
pub const OPERATION_SENDMSG: u32 = 2;
/// A socket of a family, type or protocol that isn't allowed.
pub const OPERATION_SOCKET: u32 = 3;
/// An exec.
pub const OPERATION_EXEC: u32 = 4;
/// A fork whose mark could not be stored.
pub const OPERATION_FORK: u32 = 5;
/// A packet on its way out.
pub const OPERATION_EGRESS: u32 = 16;
/// Binding a socket to an own address, for others to come to.
pub const OPERATION_BIND: u32 = 17;
/// A connection or datagram that comes to a socket that nothing lets listen.
pub const OPERATION_INBOUND: u32 = 18;

// At tier `lsm`. What is done by the kernel's own number of a thing has it in `port`.

/// An exec that was refused before it happened.
pub const OPERATION_EXEC_REFUSED: u32 = 32;
/// A connect or datagram to a unix socket; `path` is its name, an abstract one behind an `@`.
pub const OPERATION_UNIX: u32 = 33;
/// Looking into or tracing a process outside; `port` is its pid.
pub const OPERATION_TRACE: u32 = 34;
/// A signal to a process outside; `port` is its pid, `protocol` the signal.
pub const OPERATION_SIGNAL: u32 = 35;
/// A socket that was handed over from outside.
pub const OPERATION_RECEIVE: u32 = 36;
/// A write to, or a new name in, a file system or folder that is the kernel's or the agent's; `dev` and `ino` are the file.
pub const OPERATION_WRITE: u32 = 37;
/// Mapping a file as code.
pub const OPERATION_MAP: u32 = 38;
/// `bpf(2)`; `port` is the command.
pub const OPERATION_BPF: u32 = 39;
/// `perf_event_open(2)`.
pub const OPERATION_PERF: u32 = 40;
/// Loading code or data into the kernel; `port` is what.
pub const OPERATION_MODULE: u32 = 41;
/// Changing what is mounted.
pub const OPERATION_MOUNT: u32 = 42;
/// A new namespace, or a child in another cgroup; `port` is the low half of clone's flags.
pub const OPERATION_NAMESPACE: u32 = 43;
/// An exec that would give more rights.
pub const OPERATION_PRIVILEGE: u32 = 44;
/// io_uring with another's credentials, a kernel thread, or a device's own commands.
pub const OPERATION_URING: u32 = 45;
/// Sending by, or connecting, a socket that isn't the session's, or one whose door has closed.
pub const OPERATION_SEND: u32 = 46;

const _: () = assert!(size_of::<Record>() == 168 + PATH_BYTES);

// SAFETY: repr(C), integers only, without padding (its size is the sum of its fields'): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Record {}
