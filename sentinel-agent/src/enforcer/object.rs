//! The kernel side, as `cargo xtask build-ebpf` built it and the build script found it.

use aya::include_bytes_aligned;

/// The ELF object.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(env!("SENTINEL_BPF_OBJECT"));

/// What stands in its maps, as a hash of the sources that say so: an agent of another build whose hash is the same means the same by them.
pub(super) const FORMAT: &str = env!("SENTINEL_BPF_FORMAT");
