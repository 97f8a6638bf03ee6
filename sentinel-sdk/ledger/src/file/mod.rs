//! The chain in a file that one process writes.
//!
//! Invariant: what is in the file is what was acknowledged. A write that fails is taken back; if even that fails, nothing is ever appended
//! again, and the next open finds the torn line.

mod error;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::{Head, Log};
pub use error::LedgerError;

/// A ledger's file, open for appending.
#[derive(Debug)]
pub struct FileLog {
    file: File,
    path: PathBuf,
    head: Head,
    /// The bytes that were acknowledged.
    length: u64,
    /// What is in the file is unknown: a failed write could not be taken back.
    poisoned: bool,
    buffer: Vec<u8>,
}

/// A last line that a crash had cut short, and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file beside the ledger that has it now.
    pub kept_in: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

impl FileLog {
    /// Opens the file for appending, or makes it, and hands every line to `on_line`, oldest first, without its line break. The folder is made
    /// for root alone, the file for its owner alone.
    ///
    /// # Errors
    /// Another process has it open, its chain is broken, `on_line` can't read a line, or the system says no. Nothing in it was changed, but
    /// for a torn last line.
    pub fn open<E: std::fmt::Display>(
        path: &Path,
        mut on_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(Self, Option<TornTail>), LedgerError> {
        let failed = |what| move |cause| LedgerError::Io { path: path.to_owned(), what, cause };
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("created"))?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(path)
            .map_err(failed("opened"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::Busy(path.to_owned())),
            Err(error) => return Err(failed("locked")(error.into())),
        }
        // A new file's name must survive a crash like its contents.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("made durable"))?;

        let mut log = Self {
            file,
            path: path.to_owned(),
            head: Head::genesis(),
            length: 0,
            poisoned: false,
            buffer: Vec::new(),
        };
        let torn = log.read(&mut on_line)?;
        let torn = if torn.is_empty() { None } else { Some(log.set_aside(&torn)?) };
        Ok((log, torn))
    }

    /// Reads and checks all lines; answers the torn one at the end, if any.
    fn read<E: std::fmt::Display>(
        &mut self,
        on_line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Vec<u8>, LedgerError> {
        let failed = |cause| LedgerError::Io { path: self.path.clone(), what: "read", cause };
        let mut reader = BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
            let Some(content) = line.strip_suffix(b"\n") else { return Ok(line) };
            let number = self.head.seq.saturating_add(1);
            let head = match self.head.check(content) {
                Ok(head) => head,
                Err(what) => {
                    let is_last = reader.fill_buf().map_err(failed)?.is_empty();
                    if is_last && !is_json(content) {
                        return Ok(line);
                    }
                    return Err(LedgerError::Broken { path: self.path.clone(), line: number, what });
                }
            };
            on_line(content).map_err(|cause| LedgerError::Unreadable {
                path: self.path.clone(),
                line: number,
                cause: cause.to_string(),
            })?;
            self.head = head;
            self.length = self.length.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
    }

    /// Moves a torn line into a file of its own: nothing is silently dropped.
    fn set_aside(&self, torn: &[u8]) -> Result<TornTail, LedgerError> {
        let next = self.head.seq.saturating_add(1);
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".torn-{next}"));
        let kept_in = PathBuf::from(name);
        let failed = |cause| LedgerError::Io { path: kept_in.clone(), what: "written", cause };
        let mut beside =
            OpenOptions::new().append(true).create(true).mode(0o600).open(&kept_in).map_err(failed)?;
        beside.write_all(torn).and_then(|()| beside.sync_all()).map_err(failed)?;
        let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
        cut.map_err(|cause| LedgerError::Io {
            path: self.path.clone(),
            what: "cut to its whole lines",
            cause,
        })?;
        let bytes = u64::try_from(torn.len()).unwrap_or(u64::MAX);
        Ok(TornTail { kept_in, bytes })
    }

    /// What brings all that was appended to the disk. It can be called on another thread while lines are appended.
    ///
    /// # Errors
    /// The file's handle can't be copied.
    pub fn to_disk(&self) -> Result<impl Fn() -> std::io::Result<()> + Send + Sync + use<>, LedgerError> {
        let file = self.file.try_clone().map_err(|cause| LedgerError::Io {
            path: self.path.clone(),
            what: "opened a second time",
            cause,
        })?;
        Ok(move || file.sync_data())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Log for FileLog {
    type Error = LedgerError;

    fn append(&mut self, bodies: &[Vec<u8>]) -> Result<(), LedgerError> {
        if self.poisoned {
            return Err(LedgerError::Poisoned(self.path.clone()));
        }
        self.buffer.clear();
        let mut head = self.head.clone();
        for body in bodies {
            head = head.seal(body, &mut self.buffer);
        }
        if let Err(cause) = self.file.write_all(&self.buffer) {
            self.poisoned = self.file.set_len(self.length).is_err();
            return Err(LedgerError::Io { path: self.path.clone(), what: "written", cause });
        }
        self.length = self.length.saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
        self.head = head;
        Ok(())
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

/// A power cut can leave a line whose end is on the disk and whose beginning is not. What is JSON was changed, not torn.
fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(line).is_ok()
}

/// A ledger that is a symbolic link was put there by somebody else.
fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::CLOEXEC).bits().cast_signed()
}
