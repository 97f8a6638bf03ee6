//! The file on a real file system: goes on, is torn, is full, is another's.

use std::process::{Command, Stdio};
use std::sync::{RwLock, RwLockReadGuard};

use std::fs::OpenOptions;

use super::*;
use crate::Broken;

/// Between fork and exec a child has its parent's files open, and so holds their locks: none is started while a test has a ledger open.
static NO_CHILD_IS_STARTED: RwLock<()> = RwLock::new(());

struct Folder {
    path: PathBuf,
    _guard: RwLockReadGuard<'static, ()>,
}

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sentinel-ledger-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        Self { path, _guard: NO_CHILD_IS_STARTED.read().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.path.join("state/ledger.jsonl")
    }

    fn open(&self) -> Result<(FileLog, Option<TornTail>), LedgerError> {
        let Opened { log, torn, gap } = FileLog::open(&self.file(), |_line| Ok::<(), String>(()))?;
        assert_eq!(gap, None);
        Ok((log, torn))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
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
    let Opened { mut log, torn, .. } = FileLog::open(&folder.file(), |_line| {
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
fn a_last_line_that_a_power_cut_left_without_its_beginning_is_torn_too() {
    let folder = Folder::new("zeroed");
    folder.open().unwrap().0.append(&[body("a"), body("b")]).unwrap();
    let mut bytes = std::fs::read(folder.file()).unwrap();
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[first..first + 5].fill(0);
    std::fs::write(folder.file(), &bytes).unwrap();
    let (log, torn) = folder.open().unwrap();
    assert_eq!(log.head().seq, 1);
    assert_eq!(std::fs::read(torn.unwrap().kept_in).unwrap(), &bytes[first..]);
}

#[test]
fn only_the_last_line_can_be_torn() {
    let folder = Folder::new("middle");
    folder.open().unwrap().0.append(&[body("a"), body("b"), body("c")]).unwrap();
    let mut bytes = std::fs::read(folder.file()).unwrap();
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[first..first + 5].fill(0);
    std::fs::write(folder.file(), &bytes).unwrap();
    assert!(matches!(folder.open(), Err(LedgerError::Broken { line: 2, .. })));
    assert_eq!(std::fs::read(folder.file()).unwrap(), bytes, "and nothing in it is changed");
}

#[test]
fn a_last_line_that_was_changed_is_not_taken_for_torn() {
    let folder = Folder::new("changed");
    folder.open().unwrap().0.append(&[body("a"), body("b")]).unwrap();
    let text = std::fs::read_to_string(folder.file()).unwrap().replace("\"b\"", "\"B\"");
    std::fs::write(folder.file(), &text).unwrap();
    assert!(matches!(folder.open(), Err(LedgerError::Broken { line: 2, what: Broken::Hash, .. })));
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

/// Runs the rest of a test in a process of its own, for a limit of file sizes holds for a whole process. A write beyond it comes up short, as
/// on a full disk. Started by a shell that ignores the limit's signal. Whether this is that process.
fn is_in_its_own_process(test: &str) -> bool {
    if std::env::var_os("SENTINEL_LEDGER_LIMIT").is_some() {
        return true;
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("file::tests::{test}"))
        .env("SENTINEL_LEDGER_LIMIT", "1")
        .stdout(Stdio::piped());
    let child = {
        let _none_is_open = NO_CHILD_IS_STARTED.write().unwrap();
        command.spawn().unwrap()
    };
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn limit_file_sizes(current: Option<u64>) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

#[test]
fn an_append_to_a_full_disk_fails_and_leaves_whole_lines() {
    if !is_in_its_own_process("an_append_to_a_full_disk_fails_and_leaves_whole_lines") {
        return;
    }
    let folder = Folder::new("full");
    let (mut log, _) = folder.open().unwrap();
    log.append(&[body("a")]).unwrap();
    let one = std::fs::metadata(folder.file()).unwrap().len();
    let batch = [body("b"), body("c"), body("d")];
    // Wherever the room ends, in the first line of a batch or in the last, the whole batch is taken back.
    for room in one..one * 4 {
        limit_file_sizes(Some(room));
        assert!(matches!(log.append(&batch), Err(LedgerError::Io { what: "written", .. })));
        assert_eq!((std::fs::metadata(folder.file()).unwrap().len(), log.head().seq), (one, 1));
    }
    limit_file_sizes(None);
    log.append(&batch).unwrap();
    let bytes = std::fs::read(folder.file()).unwrap();
    assert_eq!(crate::verify(bytes.as_slice(), None).unwrap().head, *log.head());
    assert_eq!((bytes.len() as u64, log.head().seq), (one * 4, 4));
}

/// A shared ledger in whose file nobody else has a turn, after so many turns.
fn quiet_after(turns: u32, name: &str) -> (PathBuf, FileLog) {
    let folder = std::env::temp_dir().join(format!("sentinel-quiet-{name}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    let path = folder.join("ledger.jsonl");
    let opened = FileLog::open_shared(&path, Limits::default(), |_| Ok::<(), String>(()));
    let mut log = opened.unwrap().log;
    for _ in 0..turns {
        log.append(&[body("own")]).unwrap();
        assert!(log.is_caught_up(true).unwrap());
    }
    (path, log)
}

/// What somebody does to a file.
type Deed = fn(&Path);

#[test]
fn who_is_alone_with_a_ledger_notices_at_once_that_it_was_moved_removed_or_written_into() {
    // Looked after by itself at first, and then by the kernel.
    for turns in [1, 3 * LOOKS_BEFORE_WATCH] {
        let deeds: [(&str, Deed); 3] = [
            ("moved", |path| std::fs::rename(path, path.with_extension("old")).unwrap()),
            ("removed", |path| std::fs::remove_file(path).unwrap()),
            ("written", |path| {
                OpenOptions::new().append(true).open(path).unwrap().write_all(b"{}").unwrap();
            }),
        ];
        for (name, done) in deeds {
            let (path, mut log) = quiet_after(turns, name);
            done(&path);
            assert!(!log.is_caught_up(true).unwrap(), "{name} after {turns} turns");
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }
}

#[test]
fn what_others_wrote_in_their_turns_is_found_though_nobody_opened_the_file() {
    let (path, mut log) = quiet_after(3 * LOOKS_BEFORE_WATCH, "others");
    let opened = FileLog::open_shared(&path, Limits::default(), |_| Ok::<(), String>(()));
    let mut others = opened.unwrap().log;
    assert!(log.is_caught_up(true).unwrap(), "they only looked");
    others.append(&[body("theirs")]).unwrap();
    assert!(!log.is_caught_up(false).unwrap());
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn after_a_write_that_can_not_be_taken_back_nothing_is_ever_appended() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    if !is_in_its_own_process("after_a_write_that_can_not_be_taken_back_nothing_is_ever_appended") {
        return;
    }
    // A file that can't shrink any more.
    let file = memfd_create("ledger", MemfdFlags::ALLOW_SEALING).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let file = Arc::new(File::from(file));
    let mut log = FileLog {
        written: Arc::new(Mutex::new(Written { file: Arc::clone(&file), head: Head::genesis() })),
        identity: parts::Identity::of(&file).unwrap(),
        watch: None,
        looks: 0,
        file,
        path: PathBuf::from("memfd"),
        limits: Limits::default(),
        behind: None,
        sharing: parts::Sharing::Nobody,
        rotated_bytes: 0,
        first_seq: 1,
        rotate_at: u64::MAX,
        head: Head::genesis(),
        length: 0,
        poisoned: false,
        buffer: Vec::new(),
    };
    log.append(&[body("a")]).unwrap();
    let (length, head) = (log.length, log.head().clone());
    limit_file_sizes(Some(length + 10));
    assert!(matches!(log.append(&[body("b")]), Err(LedgerError::Io { .. })));
    limit_file_sizes(None);
    assert!(matches!(log.append(&[body("c")]), Err(LedgerError::Poisoned(_))));
    assert_eq!((log.file.metadata().unwrap().len(), log.head()), (length + 10, &head));
}
