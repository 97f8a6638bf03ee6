//! A kernel's description of itself (BTF): any bytes.
//!
//! Invariant: bytes that are no BTF end in an error, never in a panic or an endless walk.

#![no_main]

#[expect(dead_code, reason = "nobody asks here for the running kernel's")]
#[path = "../../../sentinel-agent/src/enforcer/btf.rs"]
mod btf;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(description) = btf::Btf::parse(bytes.to_vec()) {
        for member in ["a", "b", "bits", "none"] {
            let _either = description.offset("outer", member);
        }
    }
});
