//! The head file beside a ledger: the number and hash of a line that is known to be on the disk. Whoever cuts the ledger off before it is found out.
//!
//! Invariant: it is never ahead of the disk, and it is replaced whole. It may lag behind by a moment.

use std::io;
use std::path::{Path, PathBuf};

use crate::Head;

impl Head {
    /// Reads a head file; none where there is none, or nothing in it, as after a power cut.
    ///
    /// # Errors
    /// It can't be read, or holds something else.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let garbage = || io::Error::new(io::ErrorKind::InvalidData, "it is no `{\"seq\":N,\"hash\":\"…\"}`");
        let rest = text.trim().strip_prefix("{\"seq\":").ok_or_else(garbage)?;
        let (seq, rest) = rest.split_once(",\"hash\":\"").ok_or_else(garbage)?;
        let hash = rest.strip_suffix("\"}").ok_or_else(garbage)?;
        let seq = seq.parse().map_err(|_no_number| garbage())?;
        Ok(Some(Self { seq, hash: hash.to_owned() }))
    }

    /// Writes a head file, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("head.new");
        std::fs::write(&new, format!("{{\"seq\":{},\"hash\":\"{}\"}}\n", self.seq, self.hash))?;
        std::fs::rename(new, path)
    }
}

/// Where a ledger's head file is.
#[must_use]
pub fn head_file(ledger: &Path) -> PathBuf {
    ledger.with_extension("head")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was_written_and_garbage_does_not() {
        let path = std::env::temp_dir().join(format!("sentinel-head-{}", std::process::id()));
        assert_eq!(Head::read(&path).unwrap(), None);
        let head = Head { seq: 7, hash: "ab".repeat(32) };
        head.write(&path).unwrap();
        assert_eq!(Head::read(&path).unwrap(), Some(head));
        std::fs::write(&path, "").unwrap();
        assert_eq!(Head::read(&path).unwrap(), None, "a power cut may leave that");
        std::fs::write(&path, "{}").unwrap();
        assert!(Head::read(&path).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
