//! A ledger in parts: rotated, moved away, cut off, tampered with.

use proptest::prelude::*;

use super::*;
use crate::{VerifyError, rotated, segments, verify_parts};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sentinel-parts-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("ledger.jsonl")
    }

    fn open_with(&self, limits: Limits) -> Result<(Opened, Vec<String>), LedgerError> {
        let mut lines = Vec::new();
        let opened = FileLog::open_with(&self.file(), limits, |line| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok::<(), String>(())
        })?;
        Ok((opened, lines))
    }

    fn open(&self) -> Result<(Opened, Vec<String>), LedgerError> {
        self.open_with(Limits::default())
    }

    fn open_shared(&self) -> Result<(Opened, Vec<String>), LedgerError> {
        let mut lines = Vec::new();
        let opened = FileLog::open_shared(&self.file(), Limits::default(), |line| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok::<(), String>(())
        })?;
        Ok((opened, lines))
    }

    fn verify(&self, expected: Option<&Head>) -> Result<crate::Summary, VerifyError> {
        verify_parts(&segments(&self.file()).unwrap(), expected)
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

/// A ledger of three parts with this many lines each, and its head.
fn three_parts(folder: &Folder, lines: usize) -> Head {
    let mut log = folder.open().unwrap().0.log;
    for part in 0..3 {
        if part > 0 {
            log.rotate(&body("state")).unwrap();
        }
        for line in 0..lines {
            log.append(&[body(&format!("{part}-{line}"))]).unwrap();
        }
    }
    log.to_disk()().unwrap();
    log.head().clone()
}

#[test]
fn a_rotated_ledger_is_one_chain_and_a_start_reads_its_last_part_alone() {
    let folder = Folder::new("rotated");
    let head = three_parts(&folder, 4);
    assert_eq!(head.seq, 14);
    assert_eq!(folder.verify(Some(&head)).unwrap(), crate::Summary { first_seq: 1, head: head.clone() });
    let parts = segments(&folder.file()).unwrap();
    assert_eq!(parts, [rotated(&folder.file(), 1), rotated(&folder.file(), 5), folder.file()]);
    let (opened, lines) = folder.open().unwrap();
    assert_eq!((opened.log.head(), opened.gap), (&head, None));
    assert_eq!(lines.len(), 5);
    assert!(lines[0].contains("\"x\":\"state\",\"previous\":\""), "{}", lines[0]);
    // The newer parts can be checked without the older ones.
    std::fs::remove_file(&parts[0]).unwrap();
    assert_eq!(folder.verify(Some(&head)).unwrap().first_seq, 5);
    std::fs::remove_file(&parts[1]).unwrap();
    assert_eq!(folder.verify(Some(&head)).unwrap().first_seq, 10);
}

#[test]
fn a_part_is_rotated_when_it_is_large_enough() {
    let folder = Folder::new("large");
    let limits = Limits { segment_bytes: 1_000, ..Limits::default() };
    let mut log = folder.open_with(limits).unwrap().0.log;
    assert!(!log.wants_rotation());
    log.append(&[body(&"x".repeat(1_000))]).unwrap();
    assert!(log.wants_rotation());
    log.rotate(&body("state")).unwrap();
    assert!(!log.wants_rotation());
}

#[test]
fn a_part_that_begins_with_a_large_state_has_room_for_more_than_that() {
    let folder = Folder::new("large-state");
    let limits = Limits { segment_bytes: 1_000, ..Limits::default() };
    let mut log = folder.open_with(limits).unwrap().0.log;
    log.rotate(&body(&"x".repeat(2_000))).unwrap();
    assert!(!log.wants_rotation());
    log.append(&[body(&"x".repeat(7_000))]).unwrap();
    assert!(log.wants_rotation());
}

#[test]
fn a_crash_while_a_part_is_begun_leaves_the_old_one() {
    let folder = Folder::new("crash");
    let mut log = folder.open().unwrap().0.log;
    log.append(&[body("a")]).unwrap();
    log.to_disk()().unwrap();
    drop(log);
    std::fs::write(folder.0.join("ledger.jsonl.new"), "half a li").unwrap();
    std::fs::hard_link(folder.file(), rotated(&folder.file(), 1)).unwrap();
    let (mut opened, lines) = folder.open().unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(segments(&folder.file()).unwrap(), [folder.file()]);
    assert!(!folder.0.join("ledger.jsonl.new").exists());
    opened.log.rotate(&body("state")).unwrap();
    assert_eq!(folder.verify(None).unwrap().head.seq, 2);
}

#[test]
fn a_rotation_that_fails_leaves_the_old_part_to_go_on() {
    let folder = Folder::new("fails");
    let mut log = folder.open().unwrap().0.log;
    log.append(&[body("a")]).unwrap();
    // The name that the old part would get is taken by something else.
    std::fs::write(rotated(&folder.file(), 1), "another's").unwrap();
    assert!(log.rotate(&body("state")).is_err());
    log.append(&[body("b")]).unwrap();
    assert!(!log.was_moved());
    std::fs::remove_file(rotated(&folder.file(), 1)).unwrap();
    assert_eq!(folder.verify(None).unwrap().head, *log.head());
    log.rotate(&body("state")).unwrap();
    assert_eq!(folder.verify(None).unwrap().head, *log.head());
}

#[test]
fn a_file_that_was_moved_away_is_followed_by_one_that_names_its_last_line() {
    let folder = Folder::new("moved");
    let mut log = folder.open().unwrap().0.log;
    log.append(&[body("a"), body("b")]).unwrap();
    let elsewhere = folder.0.join("kept.jsonl");
    std::fs::rename(folder.file(), &elsewhere).unwrap();
    assert!(log.was_moved());
    log.append(&[body("c")]).unwrap();
    log.rotate(&body("state")).unwrap();
    log.append(&[body("d")]).unwrap();
    assert!(!log.was_moved());
    assert_eq!(folder.verify(None).unwrap().first_seq, 4);
    assert_eq!(verify_parts(&[elsewhere, folder.file()], None).unwrap().head, *log.head());
    log.to_disk()().unwrap();
    drop(log);
    assert_eq!(folder.open().unwrap().0.gap, None);
}

#[test]
fn a_ledger_that_is_gone_while_its_head_is_known_goes_on_from_there_and_says_so() {
    let folder = Folder::new("gone");
    let head = three_parts(&folder, 2);
    let kept = folder.0.join("kept.jsonl");
    std::fs::rename(folder.file(), &kept).unwrap();
    let (mut opened, lines) = folder.open().unwrap();
    assert_eq!((opened.gap, lines.len()), (Some(head.clone()), 0));
    opened.log.append(&[body("after")]).unwrap();
    assert_eq!(opened.log.head().seq, head.seq + 1);
    drop(opened.log);
    assert!(
        matches!(folder.verify(None), Err(VerifyError::Part { cause, .. }) if matches!(*cause, VerifyError::Missing { first: 6, last: 8 }))
    );
    let mut parts = segments(&folder.file()).unwrap();
    parts.insert(2, kept);
    assert_eq!(verify_parts(&parts, None).unwrap().head.seq, 9);
    // Nothing at all is left but the rotated parts.
    std::fs::remove_file(folder.file()).unwrap();
    std::fs::remove_file(head_file(&folder.file())).unwrap();
    assert_eq!(folder.open().unwrap().0.gap.unwrap().seq, 5);
}

#[test]
fn a_ledger_that_ends_before_its_known_head_is_not_opened() {
    let folder = Folder::new("cut");
    three_parts(&folder, 3);
    let text = std::fs::read_to_string(folder.file()).unwrap();
    let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.file(), cut).unwrap();
    let error = folder.open().unwrap_err();
    assert!(matches!(error, LedgerError::HeadMissing { found: 9, expected: 11, .. }), "{error}");
    // Set aside by who knows: it begins anew, and says that it does.
    std::fs::remove_file(folder.file()).unwrap();
    assert_eq!(folder.open().unwrap().0.gap.unwrap().seq, 11);
}

#[test]
fn what_is_behind_the_known_head_is_kept() {
    let folder = Folder::new("behind");
    let head = three_parts(&folder, 3);
    let mut log = folder.open().unwrap().0.log;
    log.append(&[body("not synced")]).unwrap();
    drop(log);
    assert_eq!(folder.open().unwrap().0.log.head().seq, head.seq + 1);
}

#[test]
fn beyond_its_quota_nothing_is_written_until_old_parts_are_removed() {
    let folder = Folder::new("quota");
    let limits = Limits { segment_bytes: 1_000, quota_bytes: 4_000 };
    let mut log = folder.open_with(limits).unwrap().0.log;
    let long = || [body(&"x".repeat(400))];
    let mut was_told = false;
    let refused = loop {
        if log.wants_rotation() {
            log.rotate(&body("state")).unwrap();
        }
        was_told |= log.is_nearly_full();
        if let Err(error) = log.append(&long()) {
            break error;
        }
    };
    assert!(matches!(refused, LedgerError::Quota { quota: 4_000, .. }), "{refused}");
    assert!(was_told, "before it was full");
    let head = log.head().clone();
    let oldest = segments(&folder.file()).unwrap().remove(0);
    std::fs::remove_file(oldest).unwrap();
    log.append(&long()).unwrap();
    assert_eq!(log.head().seq, head.seq + 1);
}

/// A shared ledger of three parts, each with a line besides its state.
fn three_shared_parts(folder: &Folder) -> Head {
    let mut log = folder.open_shared().unwrap().0.log;
    for part in 0..3 {
        if part > 0 {
            log.rotate(&body("state")).unwrap();
        }
        log.append(&[body(&format!("{part}"))]).unwrap();
    }
    log.head().clone()
}

#[test]
fn a_part_of_a_shared_ledger_without_a_whole_beginning_gives_way_to_the_one_before_it() {
    for (name, torn) in
        [("empty", &b""[..]), ("half", b"{\"id\":"), ("zeros", &[0; 5_000]), ("holes", b"\0\0\"}\n{}\n")]
    {
        let folder = Folder::new(&format!("taken-back-{name}"));
        three_shared_parts(&folder);
        std::fs::write(folder.file(), torn).unwrap();
        let (mut opened, lines) = folder.open_shared().unwrap();
        assert_eq!(opened.gap.as_ref(), Some(opened.log.head()), "{name}");
        assert_eq!((opened.log.head().seq, lines.len()), (3, 2), "{name}");
        assert!(lines[1].contains("\"x\":\"1\""), "{name}: {}", lines[1]);
        if !torn.is_empty() {
            let kept = folder.0.join("ledger.jsonl.torn-4");
            assert_eq!(std::fs::read(kept).unwrap(), torn, "{name}");
        }
        opened.log.append(&[body("on")]).unwrap();
        assert_eq!(folder.verify(None).unwrap().head.seq, 4, "{name}");
        drop(opened);
        assert_eq!(folder.open_shared().unwrap().0.gap, None, "{name}: it is told once");
    }
}

#[test]
fn of_a_shared_ledger_as_many_parts_are_taken_back_as_have_no_whole_beginning() {
    let folder = Folder::new("taken-back-twice");
    three_shared_parts(&folder);
    std::fs::write(folder.file(), "").unwrap();
    std::fs::write(rotated(&folder.file(), 2), "half").unwrap();
    let (opened, lines) = folder.open_shared().unwrap();
    assert_eq!((opened.gap.unwrap().seq, lines.len()), (1, 1));
    assert_eq!(segments(&folder.file()).unwrap(), [folder.file()]);
}

#[test]
fn a_part_of_a_shared_ledger_that_was_changed_or_moved_away_or_is_whole_is_not_taken_for_torn() {
    let folder = Folder::new("not-taken-back");
    let head = three_shared_parts(&folder);
    assert_eq!(*folder.open_shared().unwrap().0.log.head(), head);
    let whole = std::fs::read_to_string(folder.file()).unwrap();
    std::fs::write(folder.file(), whole.replacen("state", "other", 1)).unwrap();
    let error = folder.open_shared().unwrap_err();
    assert!(matches!(error, LedgerError::Broken { line: 4, .. }), "{error}");
    std::fs::remove_file(folder.file()).unwrap();
    let (opened, lines) = folder.open_shared().unwrap();
    assert_eq!((opened.gap.unwrap().seq, lines.len()), (3, 0), "it begins anew, and says so");
}

#[test]
fn while_the_beginning_of_a_part_is_on_its_way_to_the_disk_no_other_is_begun() {
    let folder = Folder::new("on-its-way");
    let limits = Limits { segment_bytes: 1, ..Limits::default() };
    let mut log = FileLog::open_shared(&folder.file(), limits, |_| Ok::<(), String>(())).unwrap().log;
    log.append(&[body("a")]).unwrap();
    assert!(log.wants_rotation());
    log.rotate(&body("state")).unwrap();
    log.append(&[body(&"x".repeat(1_000))]).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !log.wants_rotation() {
        assert!(!log.begins_on_disk());
        assert!(std::time::Instant::now() < deadline, "it never was");
        std::thread::yield_now();
    }
    assert!(log.begins_on_disk());
}

/// Ways to tamper with a ledger of parts, and what they need.
#[derive(Clone, Debug)]
enum Tampering {
    Change { byte: prop::sample::Index, bit: u8 },
    Delete { line: prop::sample::Index },
    Insert { line: prop::sample::Index },
    Swap { line: prop::sample::Index },
    Truncate { lines: prop::sample::Index },
    ReplacePart { part: usize },
    Rewrite { line: prop::sample::Index },
}

fn tamperings() -> impl Strategy<Value = Tampering> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 0..8_u8).prop_map(|(byte, bit)| Tampering::Change { byte, bit }),
        index().prop_map(|line| Tampering::Delete { line }),
        index().prop_map(|line| Tampering::Insert { line }),
        index().prop_map(|line| Tampering::Swap { line }),
        index().prop_map(|lines| Tampering::Truncate { lines }),
        (0..2_usize).prop_map(|part| Tampering::ReplacePart { part }),
        index().prop_map(|line| Tampering::Rewrite { line }),
    ]
}

/// Tampers with the parts' bytes. Answers the number of the first line that is wrong then, where the lines themselves tell.
fn tamper(parts: &mut [Vec<u8>], tampering: &Tampering) -> Option<u64> {
    let lines_of = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let mut lines: Vec<(usize, Vec<u8>)> = parts
        .iter()
        .enumerate()
        .flat_map(|(part, bytes)| lines_of(bytes).into_iter().map(move |line| (part, line)))
        .collect();
    let bad = match tampering {
        Tampering::Change { byte, bit } => {
            let line = byte.index(lines.len());
            let place = byte.index(lines[line].1.len());
            lines[line].1[place] ^= 1 << bit;
            Some(line)
        }
        Tampering::Delete { line } => {
            // The last one needs the head: that is `Truncate`.
            let line = line.index(lines.len() - 1);
            lines.remove(line);
            Some(line)
        }
        Tampering::Insert { line } => {
            let line = line.index(lines.len());
            let copy = lines[line].clone();
            lines.insert(line, copy);
            Some(line + 1)
        }
        Tampering::Swap { line } => {
            let line = line.index(lines.len() - 1);
            let (one, other) = (lines[line].1.clone(), lines[line + 1].1.clone());
            (lines[line].1, lines[line + 1].1) = (other, one);
            Some(line)
        }
        Tampering::Truncate { lines: kept } => {
            let kept = kept.index(lines.len());
            lines.truncate(kept);
            None
        }
        Tampering::ReplacePart { part } => {
            // Another ledger's part, sealed as it should be.
            let mut head = Head::genesis();
            let mut forged = Vec::new();
            for _ in 0..4 {
                head = head.seal(&body("forged"), &mut forged);
            }
            let first = lines.iter().position(|(of, _)| of == part).unwrap_or(0);
            lines.retain(|(of, _)| of != part);
            for (offset, line) in lines_of(&forged).into_iter().enumerate() {
                lines.insert(first + offset, (*part, line));
            }
            None
        }
        Tampering::Rewrite { line } => {
            // All from a line on is sealed anew, with another text: only who knows the head finds it.
            let from = line.index(lines.len());
            let mut head = Head::genesis();
            for (number, (_, line)) in lines.iter_mut().enumerate() {
                let mut sealed = Vec::new();
                let content: Vec<u8> =
                    line.splitn(2, |byte| *byte == b',').next().unwrap_or_default().to_vec();
                let text = if number == from { body("rewritten") } else { content };
                let has_previous = line.windows(12).any(|window| window == b",\"previous\":");
                head = if has_previous {
                    head.seal_first(&text, &mut sealed)
                } else {
                    head.seal(&text, &mut sealed)
                };
                *line = sealed;
            }
            None
        }
    };
    for (part, bytes) in parts.iter_mut().enumerate() {
        *bytes = lines.iter().filter(|(of, _)| *of == part).flat_map(|(_, line)| line.clone()).collect();
    }
    bad.map(|line| u64::try_from(line).unwrap() + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_is_tampered_with_is_found_with_the_first_line_that_is_wrong(tampering in tamperings(), case in any::<u32>()) {
        let folder = Folder::new(&format!("tampered-{case}"));
        let head = three_parts(&folder, 3);
        let paths = segments(&folder.file()).unwrap();
        let mut parts: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let whole = parts.clone();
        let bad = tamper(&mut parts, &tampering);
        prop_assume!(parts != whole);
        for (path, bytes) in paths.iter().zip(&parts) {
            std::fs::write(path, bytes).unwrap();
        }
        let found = folder.verify(Some(&head));
        let Err(error) = found else { return Err(TestCaseError::fail(format!("{tampering:?} was not found"))) };
        if let (Some(bad), VerifyError::Part { cause, .. }) = (bad, &error) {
            match **cause {
                VerifyError::Line { line, .. } | VerifyError::Torn { line } => {
                    // A part's first line that is gone makes the next one the first that is wrong.
                    prop_assert!(line == bad || line == bad + 1, "{tampering:?}: {line} instead of {bad}");
                }
                VerifyError::Missing { first, .. } => prop_assert_eq!(first, bad),
                ref other => return Err(TestCaseError::fail(format!("{tampering:?}: {other}"))),
            }
        }
    }
}
