//! Where a ledger's rotated parts are: beside its file, each named for its first line.
//!
//! `ledger.jsonl` is the part that is written; `ledger-00000000000000000001.jsonl` began with line 1, and so on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// As many as the largest line number has, so that names sort as their parts follow each other.
const DIGITS: usize = 20;

/// Where the part goes that begins with this line, once it is no longer written.
#[must_use]
pub fn rotated(path: &Path, first_seq: u64) -> PathBuf {
    let mut name = path.file_stem().map(OsString::from).unwrap_or_default();
    name.push(format!("-{first_seq:0DIGITS$}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// All parts of a ledger, oldest first; the last is the one that is written, if it is there.
///
/// # Errors
/// The folder can't be read.
pub fn segments(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(first) = first_seq(path, Path::new(&name)) {
            found.push((first, path.with_file_name(name)));
        }
    }
    found.sort();
    let mut found: Vec<PathBuf> = found.into_iter().map(|(_, part)| part).collect();
    if path.exists() {
        found.push(path.to_owned());
    }
    Ok(found)
}

/// The first line of the part with this file name; none where it is no part of this ledger.
fn first_seq(path: &Path, name: &Path) -> Option<u64> {
    if name.extension() != path.extension() {
        return None;
    }
    let (stem, digits) = name.file_stem()?.to_str()?.rsplit_once('-')?;
    let is_whole = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    (path.file_stem()?.to_str()? == stem && is_whole).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_ledger_come_oldest_first_and_nothing_else_does() {
        let folder = std::env::temp_dir().join(format!("sentinel-ledger-segments-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("ledger.jsonl");
        let expected = [rotated(&path, 1), rotated(&path, 900), rotated(&path, 10_000), path.clone()];
        let strangers =
            ["ledger.jsonl.torn-4", "ledger-7.jsonl", "other-00000000000000000001.jsonl", "ledger.head"];
        for part in expected.iter().cloned().chain(strangers.map(|name| folder.join(name))) {
            std::fs::write(part, "").unwrap();
        }
        assert_eq!(segments(&path).unwrap(), expected);
        assert!(expected[0].ends_with("ledger-00000000000000000001.jsonl"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
