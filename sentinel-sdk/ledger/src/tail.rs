//! Reads a ledger from its end, and goes on as it grows.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const CHUNK: u64 = 64 * 1024;

/// The last lines, oldest first, without their line breaks. Reads no more of the file than they take. A torn line at the end is left out.
///
/// # Errors
/// The file can't be read.
pub fn last_lines(path: &Path, count: usize) -> std::io::Result<Vec<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mut start = file.seek(SeekFrom::End(0))?;
    let mut bytes = Vec::new();
    // One more line break than lines: the one before the first of them.
    while start > 0 && bytes.iter().filter(|byte| **byte == b'\n').count() <= count {
        let step = CHUNK.min(start);
        start = start.saturating_sub(step);
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = Vec::new();
        file.by_ref().take(step).read_to_end(&mut chunk)?;
        chunk.append(&mut bytes);
        bytes = chunk;
    }
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
    let whole = bytes.get(..end).unwrap_or_default();
    let mut lines: Vec<Vec<u8>> = whole.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    Ok(lines.split_off(lines.len().saturating_sub(count)))
}

/// What is appended to a ledger from now on.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    inode: u64,
    offset: u64,
    rest: Vec<u8>,
}

impl Follow {
    /// Begins at the file's end.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn from_end(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), inode: metadata.ino(), offset: metadata.len(), rest: Vec::new() })
    }

    /// The whole lines that have come since the last call. After the file was moved away, those of its successor from the beginning.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn new_lines(&mut self) -> std::io::Result<Vec<Vec<u8>>> {
        let mut file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        if metadata.ino() != self.inode || metadata.len() < self.offset {
            self.inode = metadata.ino();
            self.offset = 0;
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.read_to_end(&mut self.rest)?;
        self.offset = self.offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.rest.split_off(end.saturating_add(1));
        let whole = std::mem::replace(&mut self.rest, rest);
        Ok(whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_come_oldest_first_and_a_torn_one_is_left_out() {
        let path = std::env::temp_dir().join(format!("sentinel-tail-{}", std::process::id()));
        let long = "x".repeat(100_000);
        std::fs::write(&path, format!("one\ntwo\n{long}\nfour\ntor")).unwrap();
        let texts = |count| -> Vec<String> {
            last_lines(&path, count)
                .unwrap()
                .into_iter()
                .map(|line| String::from_utf8(line).unwrap())
                .collect()
        };
        assert_eq!(texts(1), ["four"]);
        assert_eq!(texts(2), [long.as_str(), "four"]);
        assert_eq!(texts(9), ["one", "two", long.as_str(), "four"]);
        assert!(texts(0).is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
