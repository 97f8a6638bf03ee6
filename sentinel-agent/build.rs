//! Sees to it that the agent embeds the kernel side's object, and none that was built from other sources.

use std::path::Path;

include!("../xtask/src/sources.rs");

fn main() {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = agent.parent().unwrap_or(agent);
    let (ebpf, built) = (root.join("sentinel-ebpf"), root.join("target/sentinel-ebpf"));
    for watched in ["Cargo.toml", "Cargo.lock", "src", "common/Cargo.toml", "common/src"] {
        println!("cargo::rerun-if-changed={}", ebpf.join(watched).display());
    }
    for watched in [OBJECT, STAMP] {
        println!("cargo::rerun-if-changed={}", built.join(watched).display());
    }
    let object = built.join(OBJECT);
    match (object.exists(), std::fs::read_to_string(built.join(STAMP)), hash_of_sources(&ebpf)) {
        (true, Ok(stamp), Ok(hash)) if stamp.trim() == hash => {
            println!("cargo::rustc-env=SENTINEL_BPF_OBJECT={}", object.display());
            match hash_of_format(&ebpf) {
                Ok(format) => println!("cargo::rustc-env=SENTINEL_BPF_FORMAT={format}"),
                Err(cause) => println!("cargo::error=the eBPF sources can't be read: {cause}"),
            }
        }
        (_, _, Err(cause)) => println!("cargo::error=the eBPF sources can't be read: {cause}"),
        (true, Ok(_), Ok(_)) => {
            println!("cargo::error=the eBPF object is stale; run `cargo xtask build-ebpf`")
        }
        _ => println!("cargo::error=there is no eBPF object; run `cargo xtask build-ebpf`"),
    }
}

/// The SHA-256 over all that says what stands in the maps: builds that share it can share their maps.
fn hash_of_format(ebpf: &Path) -> std::io::Result<String> {
    let mut files = sources(ebpf)?;
    let (common, maps) =
        (ebpf.join("common/src"), ["src/maps.rs", "src/storage.rs"].map(|file| ebpf.join(file)));
    files.retain(|file| file.starts_with(&common) || maps.contains(file));
    hash_of_files(ebpf, &files)
}
