//! Checks a whole chain, as a stranger would.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use crate::{Broken, Head};

/// A chain that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The number of the first line that was there: 1, unless older parts are elsewhere.
    pub first_seq: u64,
    /// The last line.
    pub head: Head,
}

/// A chain that is not.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It can't be read.
    #[error("the ledger can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// The line, from 1; the first that is wrong.
        line: u64,
        /// What is wrong with it.
        what: Broken,
    },
    /// The last line is torn off.
    #[error("line {line} has no end: the last write was cut short, or somebody cut the file")]
    Torn {
        /// The line, from 1.
        line: u64,
    },
    /// It is in this part.
    #[error("`{}`: {cause}", path.display())]
    Part {
        /// The part.
        path: PathBuf,
        /// What is wrong.
        cause: Box<Self>,
    },
    /// Lines between two parts are not there.
    #[error("lines {first} to {last} are missing: a part was removed, or moved away")]
    Missing {
        /// The first line that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
    /// It ends before, or elsewhere than, where it is known to end.
    #[error(
        "it ends with line {found} (hash {found_hash}), and line {expected} (hash {expected_hash}) is known to have been written"
    )]
    Head {
        /// The number of its last line.
        found: u64,
        /// The hash of its last line.
        found_hash: String,
        /// The number of the line that is known.
        expected: u64,
        /// The hash of the line that is known.
        expected_hash: String,
    },
}

/// Checks every line. With an expected head, also that the chain runs through it: whoever cuts the end off, or writes all anew, is found.
///
/// # Errors
/// What is wrong, at the first line that is.
pub fn verify(reader: impl BufRead, expected: Option<&Head>) -> Result<Summary, VerifyError> {
    let mut check = Check::new(expected);
    check.part(reader)?;
    check.finish()
}

/// Checks a ledger in parts, oldest first, as one chain. The first part may begin in the middle, where older ones are elsewhere.
///
/// # Errors
/// What is wrong, in which part, at the first line that is.
pub fn verify_parts(parts: &[PathBuf], expected: Option<&Head>) -> Result<Summary, VerifyError> {
    let mut check = Check::new(expected);
    for path in parts {
        let checked =
            File::open(path).map_err(VerifyError::from).and_then(|file| check.part(BufReader::new(file)));
        checked.map_err(|cause| VerifyError::Part { path: path.clone(), cause: Box::new(cause) })?;
    }
    check.finish()
}

struct Check<'a> {
    head: Head,
    first_seq: Option<u64>,
    expected: Option<&'a Head>,
    met_expected: bool,
}

impl<'a> Check<'a> {
    fn new(expected: Option<&'a Head>) -> Self {
        let head = Head::genesis();
        let met_expected = expected.is_none_or(|expected| *expected == head);
        Self { head, first_seq: None, expected, met_expected }
    }

    fn part(&mut self, mut reader: impl BufRead) -> Result<(), VerifyError> {
        let mut line = Vec::new();
        let mut is_first = true;
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let number = self.head.seq.saturating_add(1);
            let content = line.strip_suffix(b"\n").ok_or(VerifyError::Torn { line: number })?;
            if std::mem::take(&mut is_first) {
                self.begin_part(content)?;
            }
            let number = self.head.seq.saturating_add(1);
            self.head = self.head.check(content).map_err(|what| VerifyError::Line { line: number, what })?;
            self.first_seq.get_or_insert(number);
            self.met_expected |= self.expected.is_some_and(|expected| *expected == self.head);
        }
    }

    /// A part's first line says what lies before it: nothing that was checked may lie between.
    fn begin_part(&mut self, content: &[u8]) -> Result<(), VerifyError> {
        let Some(before) = Head::before(content) else { return Ok(()) };
        if self.first_seq.is_none() {
            self.met_expected |= self.expected == Some(&before);
            self.head = before;
        } else if before.seq > self.head.seq {
            let first = self.head.seq.saturating_add(1);
            return Err(VerifyError::Missing { first, last: before.seq });
        }
        Ok(())
    }

    fn finish(self) -> Result<Summary, VerifyError> {
        match self.expected {
            Some(expected) if !self.met_expected => Err(VerifyError::Head {
                found: self.head.seq,
                found_hash: self.head.hash,
                expected: expected.seq,
                expected_hash: expected.hash.clone(),
            }),
            Some(_) | None => Ok(Summary { first_seq: self.first_seq.unwrap_or(1), head: self.head }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Log as _, MemoryLog};

    fn chain(bodies: &[String]) -> Vec<Vec<u8>> {
        let mut log = MemoryLog::new();
        log.append(&bodies.iter().map(|body| format!("{{\"x\":{body:?}").into_bytes()).collect::<Vec<_>>())
            .unwrap();
        log.lines().map(|line| [line, b"\n"].concat()).collect()
    }

    fn bodies() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-z]{0,12}", 2..20)
    }

    fn check(lines: &[Vec<u8>], expected: Option<&Head>) -> Result<Summary, VerifyError> {
        verify(lines.concat().as_slice(), expected)
    }

    proptest! {
        #[test]
        fn an_untouched_chain_passes(bodies in bodies()) {
            let lines = chain(&bodies);
            let head = check(&lines, None).unwrap().head;
            prop_assert_eq!(head.seq, lines.len() as u64);
            check(&lines, Some(&head)).unwrap();
        }

        #[test]
        fn a_changed_bit_is_found(bodies in bodies(), place in any::<prop::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = chain(&bodies).concat();
            let place = place.index(bytes.len());
            bytes[place] ^= 1_u8 << bit;
            prop_assert!(verify(bytes.as_slice(), None).is_err());
        }

        #[test]
        fn a_removed_and_an_added_byte_are_found(
            bodies in bodies(),
            place in any::<prop::sample::Index>(),
            added in any::<u8>(),
        ) {
            let bytes = chain(&bodies).concat();
            let place = place.index(bytes.len());
            let mut fewer = bytes.clone();
            fewer.remove(place);
            prop_assert!(verify(fewer.as_slice(), None).is_err());
            let mut more = bytes;
            more.insert(place, added);
            prop_assert!(verify(more.as_slice(), None).is_err());
        }

        #[test]
        fn a_line_that_was_sealed_elsewhere_is_found(bodies in bodies(), place in any::<prop::sample::Index>()) {
            let mut lines = chain(&bodies);
            let place = place.index(lines.len());
            let other: Vec<_> = bodies.iter().map(|body| format!("{body}!")).collect();
            lines[place] = chain(&other)[place].clone();
            prop_assert!(check(&lines, None).is_err());
        }

        #[test]
        fn a_deleted_a_repeated_and_a_swapped_line_are_found(bodies in bodies(), place in any::<prop::sample::Index>()) {
            let lines = chain(&bodies);
            let place = place.index(lines.len() - 1);
            let mut deleted = lines.clone();
            deleted.remove(place);
            prop_assert!(check(&deleted, None).is_err());
            let mut repeated = lines.clone();
            repeated.insert(place, lines[place].clone());
            prop_assert!(check(&repeated, None).is_err());
            let mut swapped = lines;
            swapped.swap(place, place + 1);
            prop_assert!(check(&swapped, None).is_err());
        }

        #[test]
        fn a_cut_end_is_found_by_who_knows_the_head(bodies in bodies(), kept in any::<prop::sample::Index>()) {
            let lines = chain(&bodies);
            let head = check(&lines, None).unwrap().head;
            let whole_lines = kept.index(lines.len());
            prop_assert!(check(&lines[..whole_lines], Some(&head)).is_err());
            let bytes = lines.concat();
            let kept = kept.index(bytes.len());
            prop_assert!(verify(&bytes[..kept], Some(&head)).is_err());
            // Whoever doesn't know the head still finds a cut that is not between two lines.
            let between = kept == 0 || bytes[kept - 1] == b'\n';
            prop_assert_eq!(verify(&bytes[..kept], None).is_ok(), between);
        }

        #[test]
        fn a_chain_that_was_written_anew_is_found_by_who_knows_the_head(bodies in bodies()) {
            let lines = chain(&bodies);
            let head = check(&lines, None).unwrap().head;
            let mut other = bodies;
            other[0].push('!');
            prop_assert!(check(&chain(&other), Some(&head)).is_err());
        }
    }
}
