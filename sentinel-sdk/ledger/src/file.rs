//! The chain in a file that one process writes.
//!
//! Invariant: what is in the file is what was acknowledged. A write that fails is taken back; if even that fails, nothing is ever appended
//! again, and the next open finds the torn line.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::{Broken, Head, Log};

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

/// Why a ledger's file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system said no.
    #[error("`{path}` can't be {what}: {cause}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What could not be done to it.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process writes it.
    #[error("another agent writes `{0}`; end it, or give this one a state folder of its own")]
    Busy(PathBuf),
    /// Its chain is broken.
    #[error(
        "`{path}`, line {line}: {what}; move the file away to begin a new one, and look into who changed it"
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        what: Broken,
    },
    /// A line is chained, but can't be understood by whoever reads it.
    #[error(
        "`{path}`, line {line}: {cause}; was it written by a newer version? move the file away to begin a new one"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What the reader says.
        cause: String,
    },
    /// An earlier write failed and could not be taken back.
    #[error(
        "`{0}` ends with an unfinished write that could not be taken back; restart the agent, which sets it aside"
    )]
    Poisoned(PathBuf),
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
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
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
            let head = self.head.check(content).map_err(|what| LedgerError::Broken {
                path: self.path.clone(),
                line: number,
                what,
            })?;
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
        if let Err(cause) = write(&mut self.file, &self.buffer) {
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

fn write(file: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)
}

/// A ledger that is a symbolic link was put there by somebody else.
fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::CLOEXEC).bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("sentinel-ledger-{name}-{}", std::process::id()));
            drop(std::fs::remove_dir_all(&folder));
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("state/ledger.jsonl")
        }

        fn open(&self) -> Result<(FileLog, Option<TornTail>), LedgerError> {
            FileLog::open(&self.file(), |_line| Ok::<(), String>(()))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn body(text: &str) -> Vec<u8> {
        format!("{{\"x\":\"{text}\"").into_bytes()
    }

    #[test]
    fn a_ledger_goes_on_where_it_ended() {
        let folder = Folder::new("goes-on");
        folder.open().unwrap().0.append(&[body("a"), body("b")]).unwrap();
        let mut seen = 0;
        let (mut log, torn) = FileLog::open(&folder.file(), |_line| {
            seen += 1;
            Ok::<(), String>(())
        })
        .unwrap();
        assert_eq!((seen, torn, log.head().seq), (2, None, 2));
        log.append(&[body("c")]).unwrap();
        let bytes = std::fs::read(folder.file()).unwrap();
        assert_eq!(crate::verify(bytes.as_slice(), None).unwrap().head, *log.head());
    }

    #[test]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new("modes");
        folder.open().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.file()), mode(folder.file().parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn a_second_writer_is_refused() {
        let folder = Folder::new("busy");
        let first = folder.open().unwrap();
        assert!(matches!(folder.open(), Err(LedgerError::Busy(_))));
        drop(first);
        assert!(folder.open().is_ok());
    }

    #[test]
    fn a_torn_last_line_is_set_aside_wherever_it_was_torn() {
        let folder = Folder::new("torn");
        folder.open().unwrap().0.append(&[body("a"), body("b")]).unwrap();
        let whole = std::fs::read(folder.file()).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in first + 1..whole.len() {
            std::fs::write(folder.file(), &whole[..end]).unwrap();
            let (mut log, torn) = folder.open().unwrap();
            let torn = torn.unwrap();
            assert_eq!((log.head().seq, torn.bytes), (1, (end - first) as u64));
            assert_eq!(std::fs::read(&torn.kept_in).unwrap(), &whole[first..end]);
            std::fs::remove_file(torn.kept_in).unwrap();
            log.append(&[body("c")]).unwrap();
            let bytes = std::fs::read(folder.file()).unwrap();
            assert_eq!(crate::verify(bytes.as_slice(), None).unwrap().head.seq, 2);
        }
    }

    #[test]
    fn a_broken_chain_is_not_gone_on_with() {
        let folder = Folder::new("broken");
        folder.open().unwrap().0.append(&[body("a"), body("b"), body("c")]).unwrap();
        let text = std::fs::read_to_string(folder.file()).unwrap().replace("\"b\"", "\"B\"");
        std::fs::write(folder.file(), &text).unwrap();
        assert!(matches!(folder.open(), Err(LedgerError::Broken { line: 2, what: Broken::Hash, .. })));
        assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text, "and nothing in it is changed");
    }

    #[test]
    fn a_line_that_its_reader_refuses_stops_the_start() {
        let folder = Folder::new("reader");
        folder.open().unwrap().0.append(&[body("a")]).unwrap();
        let opened = FileLog::open(&folder.file(), |_line| Err("what is that?"));
        assert!(matches!(opened, Err(LedgerError::Unreadable { line: 1, .. })));
    }

    #[test]
    fn a_symbolic_link_is_no_ledger() {
        let folder = Folder::new("link");
        std::fs::create_dir_all(folder.file().parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.file()).unwrap();
        assert!(folder.open().is_err());
    }

    #[test]
    fn an_append_to_a_full_disk_fails_and_leaves_whole_lines() {
        // A file size limit makes the write come up short, as a full disk does. It holds for the whole process, so the test runs in one of its
        // own, started by a shell that ignores the limit's signal.
        if std::env::var_os("SENTINEL_LEDGER_LIMIT").is_none() {
            let name = "file::tests::an_append_to_a_full_disk_fails_and_leaves_whole_lines";
            let output = std::process::Command::new("sh")
                .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\""])
                .arg(std::env::current_exe().unwrap())
                .arg(name)
                .env("SENTINEL_LEDGER_LIMIT", "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        use rustix::process::{Resource, Rlimit, setrlimit};
        let folder = Folder::new("full");
        let (mut log, _) = folder.open().unwrap();
        log.append(&[body("a")]).unwrap();
        let length = std::fs::metadata(folder.file()).unwrap().len();
        for limit in length..length + 90 {
            setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: None }).unwrap();
            assert!(log.append(&[body("b")]).is_err());
            assert_eq!(std::fs::metadata(folder.file()).unwrap().len(), length);
        }
        setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
        log.append(&[body("b")]).unwrap();
        let bytes = std::fs::read(folder.file()).unwrap();
        assert_eq!(crate::verify(bytes.as_slice(), None).unwrap().head.seq, 2);
    }
}
