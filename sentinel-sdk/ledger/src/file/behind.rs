//! Brings a file to the disk while nobody waits for it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const UNDER_WAY: u8 = 0;
const DONE: u8 = 1;
const FAILED: u8 = 2;

/// A file on its way to the disk.
#[derive(Debug)]
pub(super) struct Behind(Arc<AtomicU8>);

impl Behind {
    /// Brings it there on a thread of its own; where there can be none, now.
    pub(super) fn bring(file: &Arc<File>) -> Self {
        let state = Arc::new(AtomicU8::new(UNDER_WAY));
        let sync = {
            let (file, state) = (Arc::clone(file), Arc::clone(&state));
            move || {
                let done = if file.sync_all().is_ok() { DONE } else { FAILED };
                state.store(done, Ordering::Release);
            }
        };
        if std::thread::Builder::new().name("sentinel-ledger".to_owned()).spawn(sync.clone()).is_err() {
            sync();
        }
        Self(state)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire) == UNDER_WAY
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) == DONE
    }
}
