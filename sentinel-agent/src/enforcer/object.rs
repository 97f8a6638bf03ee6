//! The kernel side, as `cargo xtask build-ebpf` built it.

use aya::include_bytes_aligned;

/// The ELF object.
pub(super) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/sentinel-ebpf/sentinel.bpf.o"));
