//! What the tests of this module share.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

thread_local! {
    static SMALL_MAPS: RefCell<Vec<(&'static str, u32)>> = const { RefCell::new(Vec::new()) };
}

/// What this test's thread loads from now on has maps of so many entries.
pub(super) fn make_small(maps: &[(&'static str, u32)]) {
    SMALL_MAPS.with(|small| small.borrow_mut().extend(maps));
}

pub(super) fn small_maps() -> Vec<(&'static str, u32)> {
    SMALL_MAPS.with(|small| small.borrow().clone())
}

/// A folder of a test's own below the system's temporary one, removed with all that is in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sentinel-enforcer-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
