//! The kernel side, as `cargo xtask build-ebpf` built it and the build script found it.

use aya::include_bytes_aligned;

/// The ELF object.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(env!("SENTINEL_BPF_OBJECT"));
