//! The files of a ledger's parts: how a new one is begun, and what a crash leaves of that.
//!
//! Invariant: at each moment the ledger's name stands for a whole part: the old one until the new one is there with its first line. Of a ledger that one
//! process writes, it is on the disk then. Of a shared one it is brought there meanwhile: a power cut that leaves half of it leaves the part before it,
//! whose own beginning is on the disk, and that one is taken back.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{LedgerError, folder_of, is_json};
use crate::{Head, last_lines, rotated, segments};

/// Opens a part for appending; a new one must not be there yet. A symbolic link was put there by somebody else.
pub(super) fn open(path: &Path, is_new: bool) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::CLOEXEC).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600).custom_flags(flags);
    if is_new { options.create_new(true).open(path) } else { options.create(true).open(path) }
}

/// Who else may have a ledger's file open for appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Nobody,
    /// Whoever shares it, and takes turns.
    Others,
}

impl Sharing {
    const fn lock(self) -> FlockOperation {
        match self {
            Self::Nobody => FlockOperation::NonBlockingLockExclusive,
            Self::Others => FlockOperation::NonBlockingLockShared,
        }
    }
}

/// Keeps other writers out for as long as the file is open.
pub(super) fn lock(file: &File, path: &Path, sharing: Sharing) -> Result<(), LedgerError> {
    match rustix::fs::flock(file, sharing.lock()) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Busy(path.to_owned())),
        Err(error) => Err(LedgerError::Io { path: path.to_owned(), what: "locked", cause: error.into() }),
    }
}

/// Which file it is, as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    /// That of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

/// What stands where an open file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It, with so many bytes.
    Own(u64),
    /// Another file.
    Another,
    /// Nothing.
    Nothing,
}

/// What stands at that path.
pub(super) fn place(own: Identity, path: &Path) -> io::Result<Place> {
    let there = match std::fs::symlink_metadata(path) {
        Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(Place::Nothing),
        there => there?,
    };
    let is_own = own == Identity(there.dev(), there.ino());
    Ok(if is_own { Place::Own(there.len()) } else { Place::Another })
}

/// Whether this open file is the one at that path.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let same = |one: std::fs::Metadata, other: std::fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => same(open, there),
        _ => false,
    }
}

/// Begins a part: the old one gets its name among the rotated ones, the new one takes its place. `is_synced`: once it is on the disk.
pub(super) fn begin(
    path: &Path,
    old: &File,
    first_seq: u64,
    first_line: &[u8],
    sharing: Sharing,
    is_synced: bool,
) -> io::Result<(File, Identity)> {
    let unready = unready(path);
    remove(&unready)?;
    let made = (|| {
        let mut new = open(&unready, true)?;
        let identity = Identity::of(&new)?;
        rustix::fs::flock(&new, sharing.lock())?;
        new.write_all(first_line)?;
        if is_synced {
            new.sync_all()?;
        }
        // Of a shared ledger nothing is on the disk before the kernel brings it there but the state that a part begins with.
        if sharing == Sharing::Nobody {
            old.sync_data()?;
        }
        // One that was moved away has the name that its mover gave it.
        if is_at(old, path) {
            let name = rotated(path, first_seq);
            match std::fs::hard_link(path, &name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && is_at(old, &name) => {}
                linked => linked?,
            }
        }
        std::fs::rename(&unready, path)?;
        if sharing == Sharing::Nobody {
            File::open(folder_of(path))?.sync_all()?;
        }
        Ok((new, identity))
    })();
    if made.is_err() {
        // The first error is the one to tell; the next open removes what is left.
        let _left = remove(&unready);
        let name = rotated(path, first_seq);
        if is_at(old, path) && is_at(old, &name) {
            let _left = remove(&name);
        }
    }
    made
}

/// Removes what a crash in [`begin`] left: a part that was not begun, and a second name of the one that is written.
pub(super) fn tidy(path: &Path, file: &File) -> io::Result<()> {
    remove(&unready(path))?;
    for part in segments(path)?.into_iter().filter(|part| part != path) {
        if is_at(file, &part) {
            remove(&part)?;
        }
    }
    Ok(())
}

/// Takes the part before it back into the place of one that has no whole beginning, as a power cut can leave it. What there is of it is kept in a file
/// beside. Answers the part that is there now, where that is another.
pub(super) fn take_back(path: &Path, sharing: Sharing) -> Result<Option<File>, LedgerError> {
    let failed = |what| move |cause| LedgerError::Io { path: path.to_owned(), what, cause };
    let mut taken = None;
    loop {
        let older = segments(path).map_err(failed("read"))?.into_iter().rev().find(|part| part != path);
        let Some(older) = older else { return Ok(taken) };
        if begins(path).map_err(failed("read"))? {
            return Ok(taken);
        }
        let bytes = std::fs::read(path).map_err(failed("read"))?;
        let next = newest_head(path).map_err(failed("read"))?.map_or(1, |head| head.seq.saturating_add(1));
        keep_beside(path, next, &bytes)?;
        std::fs::rename(&older, path).map_err(failed("replaced by the part before it"))?;
        let file = open(path, false).map_err(failed("opened"))?;
        lock(&file, path, sharing)?;
        taken = Some(file);
    }
}

/// Whether a part has a whole first line. One that was changed is whole: who reads it says what is wrong.
fn begins(part: &Path) -> io::Result<bool> {
    let mut line = Vec::new();
    BufReader::new(File::open(part)?).read_until(b'\n', &mut line)?;
    let Some(line) = line.strip_suffix(b"\n") else { return Ok(false) };
    Ok(Head::before(line).is_some_and(|before| before.check(line).is_ok()) || is_json(line))
}

/// Writes what is torn into a file of its own, named for the line that it should have been: nothing is silently dropped.
pub(super) fn keep_beside(path: &Path, next: u64, torn: &[u8]) -> Result<PathBuf, LedgerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".torn-{next}"));
    let kept_in = PathBuf::from(name);
    let failed = |cause| LedgerError::Io { path: kept_in.clone(), what: "written", cause };
    let mut beside =
        OpenOptions::new().append(true).create(true).mode(0o600).open(&kept_in).map_err(failed)?;
    beside.write_all(torn).and_then(|()| beside.sync_all()).map_err(failed)?;
    Ok(kept_in)
}

/// The last line of the newest rotated part; none where there is none.
pub(super) fn newest_head(path: &Path) -> io::Result<Option<Head>> {
    let parts = segments(path)?;
    let Some(newest) = parts.iter().rev().find(|part| *part != path) else { return Ok(None) };
    Ok(last_lines(newest, 1)?.first().and_then(|line| Head::of(line)))
}

/// The bytes of all rotated parts.
pub(super) fn rotated_bytes(path: &Path) -> io::Result<u64> {
    let mut sum = 0_u64;
    for part in segments(path)?.into_iter().filter(|part| part != path) {
        match std::fs::symlink_metadata(part) {
            Ok(metadata) => sum = sum.saturating_add(metadata.len()),
            Err(gone) if gone.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

fn unready(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
