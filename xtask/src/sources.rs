// Which sources an eBPF object was built from. Included by `cargo xtask build-ebpf`, which writes the hash beside the object, and by the
// agent's build script, which compares it: both need the same rule, and neither may depend on the other.

/// The object's file name in `target/sentinel-ebpf`.
const OBJECT: &str = "sentinel.bpf.o";
/// The file beside it with the hash of its sources.
const STAMP: &str = "sentinel.bpf.sha256";

/// The SHA-256 over names and contents of all that the object is built from, in the order of their names.
fn hash_of_sources(folder: &std::path::Path) -> std::io::Result<String> {
    hash_of_files(folder, &sources(folder)?)
}

/// The SHA-256 over names and contents of some files below a folder.
fn hash_of_files(folder: &std::path::Path, files: &[std::path::PathBuf]) -> std::io::Result<String> {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for file in files {
        hash.update(file.strip_prefix(folder).unwrap_or(file).to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update(std::fs::read(file)?);
        hash.update([0]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The files that the object is built from, sorted.
fn sources(folder: &std::path::Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut files = vec![folder.join("Cargo.toml"), folder.join("Cargo.lock"), folder.join("common/Cargo.toml")];
    let mut folders = vec![folder.join("src"), folder.join("common/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    Ok(files)
}
