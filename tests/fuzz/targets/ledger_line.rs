//! Ledger lines: any bytes, as they may stand in a file that somebody changed.
//!
//! Invariant: no bytes panic those who read them; a line that is sealed checks, and one that was changed since doesn't.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sentinel_authority::{Fold, particulars};
use sentinel_engine::Now;
use sentinel_ledger::{Head, Log as _, MemoryLog};

const NOW: Now = Now { wall_micros: 1_736_937_000_123_456, elapsed: Duration::from_secs(3_600) };

fuzz_target!(|bytes: &[u8]| {
    let (mut head, mut fold) = (Head::genesis(), Fold::new(NOW));
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(next) = head.check(line) {
            assert_eq!(next.seq, head.seq + 1);
            let last = line.len() - 1;
            assert!(head.check(&line[..last]).is_err(), "a torn line checks");
            assert!(next.check(line).is_err(), "a repeated line checks");
            head = next;
        }
        // Whether it is the next line or not: who folds or shows doesn't ask.
        let _folded = fold.line(line);
        if let Ok(seen) = particulars(line) {
            let keys = seen.as_object().expect("a line is an object");
            assert!(!keys.contains_key("payload"), "a payload is shown");
        }
        seal(line);
    }
    let _state = fold.into_state();
});

/// Whatever stands before the seal, it is checked as it was sealed.
fn seal(body: &[u8]) {
    if body.is_empty() {
        return;
    }
    let mut log = MemoryLog::new();
    log.append(&[body.to_vec()]).expect("memory has room");
    let lines: Vec<&[u8]> = log.lines().collect();
    let [line] = lines[..] else { panic!("one body is {} lines", lines.len()) };
    assert_eq!(Head::genesis().check(line).as_ref(), Ok(log.head()), "a sealed line doesn't check");
    let changed = [&[line[0] ^ 1], &line[1..]].concat();
    assert!(Head::genesis().check(&changed).is_err(), "a changed line checks");
}
