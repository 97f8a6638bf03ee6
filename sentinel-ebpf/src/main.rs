//! Sentinel's kernel side: looks up, compares, reports. No policy, no strings that decide, no loops over rules.
//!
//! Invariant: a task or socket that is governed gets nothing that no open rule names, whatever fails on the way.

#![no_std]
#![no_main]

mod bind;
mod connect;
mod egress;
mod exec;
mod fork;
mod image;
mod inbound;
mod lsm;
mod maps;
mod offsets;
mod packet;
mod report;
mod resolver;
mod rules;
mod sendmsg;
mod server_name;
mod session;
mod socket;
mod storage;

/// LSM and tracing helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier refuses a program from which this can be reached: it is an endless loop on purpose.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
