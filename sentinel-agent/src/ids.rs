//! Ids that nobody can guess.

use sentinel_proto::ActionId;
use uuid::Builder;

const ID_BYTES: usize = 16;
const IDS_AT_ONCE: usize = 64;

/// Makes ids of random bytes, which it takes from the kernel many at a time.
#[derive(Debug, Default)]
pub struct Ids {
    bytes: Vec<u8>,
}

impl Ids {
    /// An id that was never used before.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn make(&mut self) -> std::io::Result<ActionId> {
        if self.bytes.is_empty() {
            let mut bytes = vec![0; ID_BYTES * IDS_AT_ONCE];
            let mut rest = bytes.as_mut_slice();
            while !rest.is_empty() {
                let filled = rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())?;
                rest = rest.get_mut(filled..).unwrap_or_default();
            }
            self.bytes = bytes;
        }
        let Some((rest, id)) = self.bytes.split_last_chunk::<ID_BYTES>() else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let (left, id) = (rest.len(), *id);
        self.bytes.truncate(left);
        Ok(ActionId(Builder::from_random_bytes(id).into_uuid()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_random_uuids_and_all_different() {
        let mut ids = Ids::default();
        let many: BTreeSet<ActionId> = (0..1_000).map(|_| ids.make().unwrap()).collect();
        assert_eq!(many.len(), 1_000);
        assert!(many.iter().all(|id| id.0.get_version_num() == 4));
    }
}
