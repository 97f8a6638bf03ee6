//! Ids that nobody can guess, of random bytes that are taken from the kernel many at a time.
//!
//! Invariant: a forked child never makes an id that its parent makes too: each process has its own.

use sentinel_proto::Denial;
use uuid::{Builder, Uuid};

use super::share::unavailable;

const ID_BYTES: usize = 16;
const BYTES_AT_ONCE: usize = 32 * ID_BYTES;

/// The ids of one process.
#[derive(Debug, Default)]
pub(super) struct Ids {
    bytes: Vec<u8>,
}

impl Ids {
    /// One that was never used before.
    pub(super) fn make(&mut self) -> Result<Uuid, Denial> {
        if self.bytes.is_empty() {
            let mut bytes = vec![0; BYTES_AT_ONCE];
            let mut filled = 0_usize;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                let flags = rustix::rand::GetRandomFlags::empty();
                let more = rustix::rand::getrandom(rest, flags).map_err(unavailable)?;
                filled = filled.saturating_add(more);
            }
            self.bytes = bytes;
        }
        let (left, id) =
            self.bytes.split_last_chunk().ok_or_else(|| unavailable("there are no random bytes"))?;
        let (left, id) = (left.len(), *id);
        self.bytes.truncate(left);
        Ok(Builder::from_random_bytes(id).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_random_uuids_and_all_different() {
        let mut ids = Ids::default();
        let many: BTreeSet<Uuid> = (0..1_000).map(|_| ids.make().unwrap()).collect();
        assert_eq!(many.len(), 1_000);
        assert!(many.iter().all(|id| id.get_version_num() == 4));
    }
}
