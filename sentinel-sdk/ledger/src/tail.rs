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
    let end = file.seek(SeekFrom::End(0))?;
    let bytes = last_bytes(&mut file, end, count)?;
    let Some(end) = bytes.iter().rposition(is_line_break) else { return Ok(Vec::new()) };
    let whole = bytes.get(..end).unwrap_or_default();
    let mut lines: Vec<Vec<u8>> = whole.split(is_line_break).map(<[u8]>::to_vec).collect();
    Ok(lines.split_off(lines.len().saturating_sub(count)))
}

/// What lies before `end`, from so far back that so many whole lines are in it, or from the beginning.
fn last_bytes(file: &mut File, end: u64, lines: usize) -> std::io::Result<Vec<u8>> {
    let (mut start, mut line_breaks, mut chunks) = (end, 0_usize, Vec::new());
    // One more line break than lines: the one before the first of them.
    while start > 0 && line_breaks <= lines {
        let step = CHUNK.min(start);
        start = start.saturating_sub(step);
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = Vec::new();
        file.by_ref().take(step).read_to_end(&mut chunk)?;
        line_breaks = line_breaks.saturating_add(chunk.iter().filter(|byte| is_line_break(byte)).count());
        chunks.push(chunk);
    }
    chunks.reverse();
    Ok(chunks.concat())
}

fn is_line_break(byte: &u8) -> bool {
    *byte == b'\n'
}

/// What is appended to a ledger from now on.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    /// Kept open, so that its last lines still come after it was moved away.
    file: File,
    inode: u64,
    /// The end of the last whole line. What lies behind it is read anew each time: its writer may take it back.
    offset: u64,
}

impl Follow {
    /// Begins behind the file's last whole line: one that is being written just now will come whole.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn from_end(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let bytes = last_bytes(&mut file, metadata.len(), 0)?;
        let unfinished = bytes.split(is_line_break).next_back().unwrap_or_default().len();
        let offset = metadata.len().saturating_sub(u64::try_from(unfinished).unwrap_or(u64::MAX));
        Ok(Self { path: path.to_owned(), file, inode: metadata.ino(), offset })
    }

    /// The whole lines that have come since the last call. After the file was moved away, those of its successor from the beginning; until
    /// there is one, none.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn new_lines(&mut self) -> std::io::Result<Vec<Vec<u8>>> {
        let at_path = match File::open(&self.path) {
            Ok(file) => Some((file.metadata()?.ino(), file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut lines = self.read_on()?;
        if let Some((inode, file)) = at_path.filter(|(inode, _)| *inode != self.inode) {
            (self.file, self.inode, self.offset) = (file, inode, 0);
            lines.append(&mut self.read_on()?);
        }
        Ok(lines)
    }

    fn read_on(&mut self) -> std::io::Result<Vec<Vec<u8>>> {
        // A file that became shorter had lines taken back, which were never acknowledged.
        self.offset = self.offset.min(self.file.metadata()?.len());
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        let Some(end) = bytes.iter().rposition(is_line_break) else { return Ok(Vec::new()) };
        let read = u64::try_from(end).unwrap_or(u64::MAX).saturating_add(1);
        self.offset = self.offset.saturating_add(read);
        let whole = bytes.get(..end).unwrap_or_default();
        Ok(whole.split(is_line_break).map(<[u8]>::to_vec).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write as _;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sentinel-tail-{name}-{}", std::process::id()))
    }

    fn texts(lines: Vec<Vec<u8>>) -> Vec<String> {
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_come_oldest_first_and_a_torn_one_is_left_out() {
        let path = place("last");
        let long = "x".repeat(200_000);
        std::fs::write(&path, format!("one\ntwo\n{long}\nfour\ntor")).unwrap();
        let last = |count| texts(last_lines(&path, count).unwrap());
        assert_eq!(last(1), ["four"]);
        assert_eq!(last(2), [long.as_str(), "four"]);
        assert_eq!(last(9), ["one", "two", long.as_str(), "four"]);
        assert_eq!(last(usize::MAX).len(), 4);
        assert!(last(0).is_empty());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_follows_gets_each_new_line_once_and_whole() {
        let path = place("follow");
        std::fs::write(&path, "old\nhal").unwrap();
        let mut follow = Follow::from_end(&path).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut after = |written: &str| {
            file.write_all(written.as_bytes()).unwrap();
            texts(follow.new_lines().unwrap())
        };
        assert!(after("").is_empty());
        assert_eq!(after("f\nnext\nagain "), ["half", "next"]);
        assert!(after("ha").is_empty());
        assert_eq!(after("lf\n"), ["again half"]);
        assert!(after("").is_empty());
        // The operator moves the file away, and the agent begins a new one.
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(texts(follow.new_lines().unwrap()), ["new"]);
        std::fs::remove_file(path.with_extension("old")).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_write_that_was_taken_back_is_not_followed_and_nothing_comes_twice() {
        let path = place("taken-back");
        std::fs::write(&path, "old\n").unwrap();
        let mut follow = Follow::from_end(&path).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"one\nunfin").unwrap();
        assert_eq!(texts(follow.new_lines().unwrap()), ["one"]);
        file.set_len(8).unwrap();
        assert!(follow.new_lines().unwrap().is_empty(), "the disk was full");
        file.write_all(b"two\n").unwrap();
        assert_eq!(texts(follow.new_lines().unwrap()), ["two"]);
        // Whole lines of a batch that was not acknowledged, too.
        file.write_all(b"three\nfo").unwrap();
        assert_eq!(texts(follow.new_lines().unwrap()), ["three"]);
        file.set_len(12).unwrap();
        assert!(follow.new_lines().unwrap().is_empty());
        file.write_all(b"five\n").unwrap();
        assert_eq!(texts(follow.new_lines().unwrap()), ["five"]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_follows_waits_for_the_successor_of_a_file_that_was_moved_away_and_misses_no_line() {
        let path = place("moved");
        std::fs::write(&path, "old\n").unwrap();
        let mut follow = Follow::from_end(&path).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"last\n").unwrap();
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        assert_eq!(texts(follow.new_lines().unwrap()), ["last"]);
        file.write_all(b"later\n").unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(texts(follow.new_lines().unwrap()), ["later", "new"]);
        assert!(follow.new_lines().unwrap().is_empty());
        std::fs::remove_file(path.with_extension("old")).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
