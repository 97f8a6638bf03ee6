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
        }
        (_, _, Err(cause)) => println!("cargo::error=the eBPF sources can't be read: {cause}"),
        (true, Ok(_), Ok(_)) => {
            println!("cargo::error=the eBPF object is stale; run `cargo xtask build-ebpf`")
        }
        _ => println!("cargo::error=there is no eBPF object; run `cargo xtask build-ebpf`"),
    }
}
