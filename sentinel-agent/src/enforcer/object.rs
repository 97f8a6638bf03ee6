//! The kernel side, as `cargo xtask build-ebpf` built it and the build script found it.

use aya::include_bytes_aligned;

/// The ELF object.
static OBJECT: &[u8] = include_bytes_aligned!(env!("SENTINEL_BPF_OBJECT"));

/// What stands in its maps, as a hash of the sources that say so: an agent of another build whose hash is the same means the same by them.
pub(super) const FORMAT: &str = env!("SENTINEL_BPF_FORMAT");

/// The ELF object.
#[cfg(not(test))]
pub(super) const fn object() -> &'static [u8] {
    OBJECT
}

/// The ELF object, or another that `cargo xtask mutate` has built, to see a test fail for it. There is no such way in the agent.
#[cfg(test)]
pub(super) fn object() -> &'static [u8] {
    static OTHER: std::sync::OnceLock<Option<Vec<u64>>> = std::sync::OnceLock::new();
    let other = OTHER.get_or_init(|| {
        let bytes = std::fs::read(std::env::var_os("SENTINEL_OBJECT")?).expect("it is there");
        // As words, for an ELF object is read as such.
        let word =
            |bytes: &[u8]| u64::from_ne_bytes(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0)));
        Some(bytes.chunks(size_of::<u64>()).map(word).collect())
    });
    let Some(words) = other else { return OBJECT };
    // SAFETY: the words live as long as the process, and any of their bytes is one.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words.as_slice())) }
}
