//! The chain in a file that one process writes.
//!
//! Invariant: what is in the file is what was acknowledged. A write that fails is taken back; if even that fails, nothing is ever appended
//! again, and the next open finds the torn line.

mod behind;
mod error;
mod parts;
#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod tests;
mod watch;

use std::fs::{DirBuilder, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Broken, Head, Log, head_file};
use behind::Behind;
pub use error::LedgerError;
use watch::Watch;

/// How large a ledger's parts become, and all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A part that has so many bytes is rotated.
    pub segment_bytes: u64,
    /// All parts together have at most so many.
    pub quota_bytes: u64,
}

impl Limits {
    /// 1 MiB, some 2,500 lines, is folded within a moment at a start; 8 GiB in all.
    pub const DEFAULT: Self = Self { segment_bytes: 1 << 20, quota_bytes: 8 << 30 };
}

impl Default for Limits {
    /// [`Limits::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A part is at least so many times as long as the state that it begins with.
const STATE_SHARE: u64 = 4;

/// A process that looks after its file so often has it watched: the system has but few watches.
const LOOKS_BEFORE_WATCH: u32 = 64;

/// A ledger that was opened.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub log: FileLog,
    /// A torn last line, which was set aside.
    pub torn: Option<TornTail>,
    /// The last line that is known, where lines behind it are gone: what was spent by then is unknown.
    pub gap: Option<Head>,
}

/// Where a log that others write too stands, after it caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// It goes on in its file.
    Here,
    /// Somebody has moved its file away: what comes belongs in a new part.
    Moved,
    /// Another part is there: it has to be opened anew.
    Replaced,
}

/// What a sync needs to know, on whichever thread.
#[derive(Debug)]
struct Written {
    file: Arc<File>,
    head: Head,
}

/// A ledger's file, open for appending.
#[derive(Debug)]
pub struct FileLog {
    file: Arc<File>,
    identity: parts::Identity,
    /// On that file, where it is looked after often.
    watch: Option<Watch>,
    /// How often it was looked after.
    looks: u32,
    path: PathBuf,
    limits: Limits,
    /// The bytes of the parts that are rotated.
    rotated_bytes: u64,
    /// The number of the file's first line.
    first_seq: u64,
    /// The file is rotated when it has so many bytes.
    rotate_at: u64,
    written: Arc<Mutex<Written>>,
    head: Head,
    /// The bytes that were acknowledged.
    length: u64,
    sharing: parts::Sharing,
    /// Brings the file's beginning to the disk, where nobody waits for that.
    behind: Option<Behind>,
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
    /// Opens the file for appending, or makes it, and hands every line of it to `on_line`, oldest first, without its line break. Parts that are
    /// rotated are not read. The folder is made for root alone, the file for its owner alone.
    ///
    /// # Errors
    /// Another process has it open, its chain is broken or ends too early, `on_line` can't read a line, or the system says no. Nothing in it was
    /// changed, but for a torn last line.
    pub fn open<E: std::fmt::Display>(
        path: &Path,
        on_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Opened, LedgerError> {
        Self::open_with(path, Limits::default(), on_line)
    }

    /// [`FileLog::open`] with other limits.
    ///
    /// # Errors
    /// As there.
    pub fn open_with<E: std::fmt::Display>(
        path: &Path,
        limits: Limits,
        on_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Opened, LedgerError> {
        Self::open_for(path, limits, parts::Sharing::Nobody, on_line)
    }

    /// [`FileLog::open`] for one of many processes that write the same ledger. They take turns by a lock of their own, which whoever calls this,
    /// or anything that changes the log, holds; and each first [catches up](FileLog::catch_up).
    ///
    /// # Errors
    /// As there.
    pub fn open_shared<E: std::fmt::Display>(
        path: &Path,
        limits: Limits,
        on_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Opened, LedgerError> {
        Self::open_for(path, limits, parts::Sharing::Others, on_line)
    }

    fn open_for<E: std::fmt::Display>(
        path: &Path,
        limits: Limits,
        sharing: parts::Sharing,
        mut on_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Opened, LedgerError> {
        let failed = |what| move |cause| LedgerError::Io { path: path.to_owned(), what, cause };
        let folder = folder_of(path);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("created"))?;
        let was_there = std::fs::symlink_metadata(path).is_ok();
        let file = parts::open(path, false).map_err(failed("opened"))?;
        parts::lock(&file, path, sharing)?;
        parts::tidy(path, &file).map_err(failed("tidied up"))?;
        // One that somebody has moved away is not taken back.
        let taken_back = match sharing {
            parts::Sharing::Others if was_there => parts::take_back(path, sharing)?,
            _ => None,
        };
        let is_taken_back = taken_back.is_some();
        let file = Arc::new(taken_back.unwrap_or(file));
        // A new file's name must survive a crash like its contents.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("made durable"))?;

        let known = Head::read(&head_file(path)).map_err(|cause| LedgerError::Io {
            path: head_file(path),
            what: "read",
            cause,
        })?;
        let is_empty = file.metadata().map_err(failed("read"))?.len() == 0;
        let older = parts::newest_head(path).map_err(failed("read"))?;
        let gap = if is_empty { known.clone().or_else(|| older.clone()) } else { None };
        let head = gap.clone().unwrap_or_else(Head::genesis);
        let mut log = Self {
            written: Arc::new(Mutex::new(Written { file: Arc::clone(&file), head: head.clone() })),
            identity: parts::Identity::of(&file).map_err(failed("read"))?,
            watch: None,
            looks: 0,
            file,
            path: path.to_owned(),
            limits,
            rotated_bytes: 0,
            first_seq: head.seq.saturating_add(1),
            rotate_at: limits.segment_bytes,
            head,
            length: 0,
            sharing,
            behind: None,
            poisoned: false,
            buffer: Vec::new(),
        };
        log.rotated_bytes = parts::rotated_bytes(path).map_err(failed("measured"))?;
        let torn = log.read(known.as_ref(), older.as_ref(), &mut on_line)?;
        let torn = if torn.is_empty() { None } else { Some(log.set_aside(&torn)?) };
        log.tell_written();
        let gap = if is_taken_back { Some(log.head.clone()) } else { gap };
        Ok(Opened { log, torn, gap })
    }

    /// Reads and checks all lines; answers the torn one at the end, if any.
    fn read<E: std::fmt::Display>(
        &mut self,
        known: Option<&Head>,
        older: Option<&Head>,
        on_line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Vec<u8>, LedgerError> {
        let failed = |cause| LedgerError::Io { path: self.path.clone(), what: "read", cause };
        let file = Arc::clone(&self.file);
        let mut reader = BufReader::new(&*file);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut line = Vec::new();
        let mut is_met = known.is_none_or(|known| known.seq == 0 || *known == self.head);
        let torn = loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
            let Some(content) = line.strip_suffix(b"\n") else { break line };
            if self.length == 0
                && let Some(before) = Head::before(content)
            {
                self.first_seq = before.seq.saturating_add(1);
                is_met |= known.is_some_and(|known| known.seq < before.seq || *known == before);
                // What was rotated last is what lies before; a part between may have been moved away.
                let is_behind = older.is_none_or(|older| older.seq < before.seq || *older == before);
                if !is_behind {
                    let what = Broken::Hash;
                    return Err(LedgerError::Broken { path: self.path.clone(), line: self.first_seq, what });
                }
                self.head = before;
            }
            let number = self.head.seq.saturating_add(1);
            let head = match self.head.check(content) {
                Ok(head) => head,
                Err(what) => {
                    let is_last = reader.fill_buf().map_err(failed)?.is_empty();
                    if is_last && !is_json(content) {
                        break line;
                    }
                    return Err(LedgerError::Broken { path: self.path.clone(), line: number, what });
                }
            };
            on_line(content).map_err(|cause| LedgerError::Unreadable {
                path: self.path.clone(),
                line: number,
                cause: cause.to_string(),
            })?;
            is_met |= known == Some(&head);
            self.head = head;
            self.length = self.length.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        };
        match known {
            Some(known) if !is_met => Err(LedgerError::HeadMissing {
                path: self.path.clone(),
                head: head_file(&self.path),
                found: self.head.seq,
                expected: known.seq,
                hash: known.hash.clone(),
            }),
            Some(_) | None => Ok(torn),
        }
    }

    /// Whether its file is where it was, and holds nothing that others have written since. Then there is nothing to catch up with. `has_next_turn`:
    /// nobody else had a turn meanwhile, so only those count who take none.
    ///
    /// # Errors
    /// The system's.
    pub fn is_caught_up(&mut self, has_next_turn: bool) -> Result<bool, LedgerError> {
        if self.poisoned {
            return Ok(false);
        }
        if has_next_turn && self.watch.as_ref().is_some_and(Watch::is_quiet) {
            return Ok(true);
        }
        // Before the look: what is done after it is reported.
        self.looks = self.looks.saturating_add(1);
        if has_next_turn && self.watch.is_none() && self.looks.is_multiple_of(LOOKS_BEFORE_WATCH) {
            self.watch = Watch::of(&self.file).ok();
        }
        let place = parts::place(self.identity, &self.path).map_err(|cause| LedgerError::Io {
            path: self.path.clone(),
            what: "read",
            cause,
        })?;
        Ok(place == parts::Place::Own(self.length))
    }

    /// Hands every line to `on_line` that others have written since. What a process that died left half written is set aside.
    ///
    /// # Errors
    /// As [`FileLog::open`]: then nothing more can be said of what is in the file, and nothing should be appended.
    pub fn catch_up<E: std::fmt::Display>(
        &mut self,
        mut on_line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<CaughtUp, LedgerError> {
        let failed = |cause| LedgerError::Io { path: self.path.clone(), what: "read", cause };
        let place = parts::place(self.identity, &self.path).map_err(failed)?;
        let length = match place {
            parts::Place::Own(length) => length,
            // What they wrote before somebody moved it away is in there all the same.
            parts::Place::Nothing => self.file.metadata().map_err(failed)?.len(),
            parts::Place::Another => return Ok(CaughtUp::Replaced),
        };
        if length != self.length || self.poisoned {
            self.read_on(length, &mut on_line)?;
        }
        Ok(if place == parts::Place::Nothing { CaughtUp::Moved } else { CaughtUp::Here })
    }

    fn read_on<E: std::fmt::Display>(
        &mut self,
        length: u64,
        on_line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), LedgerError> {
        if length < self.length {
            return Err(LedgerError::Shortened {
                path: self.path.clone(),
                head: head_file(&self.path),
                bytes: length,
                expected: self.length,
            });
        }
        let failed = |cause| LedgerError::Io { path: self.path.clone(), what: "read", cause };
        let mut new = Vec::new();
        let file = Arc::clone(&self.file);
        (&*file).seek(SeekFrom::Start(self.length)).map_err(failed)?;
        (&*file).read_to_end(&mut new).map_err(failed)?;
        let mut rest = new.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = rest.split_at_checked(end).unwrap_or_default();
            let number = self.head.seq.saturating_add(1);
            let broken = |what| LedgerError::Broken { path: self.path.clone(), line: number, what };
            let head = self.head.check(line).map_err(broken)?;
            on_line(line).map_err(|cause| LedgerError::Unreadable {
                path: self.path.clone(),
                line: number,
                cause: cause.to_string(),
            })?;
            self.head = head;
            self.length =
                self.length.saturating_add(u64::try_from(end).unwrap_or(u64::MAX)).saturating_add(1);
            rest = behind.get(1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            self.set_aside(rest)?;
        }
        self.poisoned = false;
        self.tell_written();
        Ok(())
    }

    /// Moves a torn line into a file of its own.
    fn set_aside(&self, torn: &[u8]) -> Result<TornTail, LedgerError> {
        let kept_in = parts::keep_beside(&self.path, self.head.seq.saturating_add(1), torn)?;
        let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
        cut.map_err(|cause| LedgerError::Io {
            path: self.path.clone(),
            what: "cut to its whole lines",
            cause,
        })?;
        let bytes = u64::try_from(torn.len()).unwrap_or(u64::MAX);
        Ok(TornTail { kept_in, bytes })
    }

    /// What brings all that was appended to the disk, and then notes in the head file that it is there. It can be called on another thread while
    /// lines are appended and parts rotated.
    pub fn to_disk(&self) -> impl Fn() -> std::io::Result<()> + Send + Sync + use<> {
        let (written, path) = (Arc::clone(&self.written), head_file(&self.path));
        self.tell_written();
        let noted = Mutex::new(Head::genesis());
        move || {
            let (file, head) = {
                let written = written.lock().unwrap_or_else(PoisonError::into_inner);
                (Arc::clone(&written.file), written.head.clone())
            };
            file.sync_data()?;
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            // One that can't be written, as on a full disk, stays as it is: behind, and right.
            if *noted != head && head.write(&path).is_ok() {
                *noted = head;
            }
            Ok(())
        }
    }

    fn tell_written(&self) {
        // Where nobody brings it to the disk, nobody asks.
        if Arc::strong_count(&self.written) == 1 {
            return;
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        (written.file, written.head) = (Arc::clone(&self.file), self.head.clone());
    }

    /// Whether what its file begins with is known to be on the disk.
    fn begins_on_disk(&self) -> bool {
        self.behind.as_ref().is_none_or(Behind::is_done)
    }

    fn used(&self) -> u64 {
        self.rotated_bytes.saturating_add(self.length)
    }

    /// Whether what is in the file has to be looked at before anything can be appended.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned
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
            let begins_part = self.length == 0 && self.buffer.is_empty() && head.seq > 0;
            head = if begins_part {
                head.seal_first(body, &mut self.buffer)
            } else {
                head.seal(body, &mut self.buffer)
            };
        }
        let bytes = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        if self.used().saturating_add(bytes) > self.limits.quota_bytes {
            // Somebody may have removed old parts. One that can't be measured counts as it did.
            self.rotated_bytes = parts::rotated_bytes(&self.path).unwrap_or(self.rotated_bytes);
            if self.used().saturating_add(bytes) > self.limits.quota_bytes {
                return Err(LedgerError::Quota { path: self.path.clone(), quota: self.limits.quota_bytes });
            }
        }
        if let Err(cause) = (&*self.file).write_all(&self.buffer) {
            let is_as_it_was = || self.file.metadata().is_ok_and(|metadata| metadata.len() == self.length);
            self.poisoned = self.file.set_len(self.length).is_err() && !is_as_it_was();
            return Err(LedgerError::Io { path: self.path.clone(), what: "written", cause });
        }
        self.length = self.length.saturating_add(bytes);
        self.head = head;
        self.tell_written();
        Ok(())
    }

    fn rotate(&mut self, body: &[u8]) -> Result<(), LedgerError> {
        let mut first_line = Vec::new();
        let head = self.head.seal_first(body, &mut first_line);
        // Of two parts in a row the first one's beginning is on the disk.
        let is_synced = self.sharing == parts::Sharing::Nobody || !self.begins_on_disk();
        match parts::begin(&self.path, &self.file, self.first_seq, &first_line, self.sharing, is_synced) {
            Ok((file, identity)) => {
                (self.file, self.identity) = (Arc::new(file), identity);
                self.behind = if is_synced { None } else { Some(Behind::bring(&self.file)) };
                self.watch.take_if(|watch| watch.follow(&self.file).is_err());
                self.length = u64::try_from(first_line.len()).unwrap_or(u64::MAX);
                (self.first_seq, self.head) = (head.seq, head);
                // However large a state is, most of a part is what happened.
                self.rotate_at = self.limits.segment_bytes.max(self.length.saturating_mul(STATE_SHARE));
                self.poisoned = false;
                self.rotated_bytes = parts::rotated_bytes(&self.path).unwrap_or(self.rotated_bytes);
                self.tell_written();
                Ok(())
            }
            Err(cause) => {
                // It is tried again, but not with every line.
                self.rotate_at = self.length.saturating_add(self.limits.segment_bytes);
                Err(LedgerError::Io { path: self.path.clone(), what: "rotated", cause })
            }
        }
    }

    fn wants_rotation(&self) -> bool {
        self.length >= self.rotate_at && !self.behind.as_ref().is_some_and(Behind::is_under_way)
    }

    fn was_moved(&self) -> bool {
        !parts::is_at(&self.file, &self.path)
    }

    fn is_nearly_full(&self) -> bool {
        self.used() > self.limits.quota_bytes.saturating_sub(self.limits.quota_bytes / 16)
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

/// A power cut can leave a line whose end is on the disk and whose beginning is not. What is JSON was changed, not torn.
fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(line).is_ok()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}
