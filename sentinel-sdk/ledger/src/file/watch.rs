//! Watches a file for what those do to it who take no turns: move it, remove it, open it.
//!
//! Invariant: whatever the kernel reports, and whatever keeps it from reporting, means that the file has to be looked at. Writes aren't reported, or
//! one's own would be; but to write into it somebody has to open it.
//!
//! To ask the kernel for reports takes a fifth of the time that a look takes: and a file that was looked at gets a new time with the next write.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};

/// A watch on one file.
#[derive(Debug)]
pub(super) struct Watch {
    /// There until this is dropped.
    reports: Option<OwnedFd>,
    watched: i32,
}

impl Watch {
    /// Watches an open file, whatever its name is now.
    ///
    /// # Errors
    /// The system's: it has few of them for each user.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let reports = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watched = watch(&reports, file)?;
        Ok(Self { reports: Some(reports), watched })
    }

    /// Watches another file instead.
    ///
    /// # Errors
    /// The system's: then it is of no use any more.
    pub(super) fn follow(&mut self, file: &File) -> io::Result<()> {
        let reports = self.reports.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let before = std::mem::replace(&mut self.watched, watch(reports, file)?);
        Ok(remove_watch(reports, before)?)
    }

    /// Whether nothing was done to it since the last time.
    pub(super) fn is_quiet(&self) -> bool {
        let Some(reports) = &self.reports else { return false };
        if rustix::io::ioctl_fionread(reports) == Ok(0) {
            return true;
        }
        // What is left over is found the next time.
        let _reported = rustix::io::read(reports, &mut [0; 4096]);
        false
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The kernel takes up to some 20 ms to end one: not in a turn. Where there can be no thread it is closed here.
        let reports = self.reports.take();
        let _handed_over = std::thread::Builder::new().spawn(move || drop(reports));
    }
}

fn watch(reports: &OwnedFd, file: &File) -> io::Result<i32> {
    let wanted = WatchFlags::ATTRIB
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::OPEN;
    Ok(add_watch(reports, format!("/proc/self/fd/{}", file.as_raw_fd()), wanted)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_done_to_a_file_is_reported_once_and_what_is_written_through_it_is_not() {
        let path = std::env::temp_dir().join(format!("sentinel-watch-{}", std::process::id()));
        let elsewhere = path.with_extension("elsewhere");
        let mut file = File::create(&path).unwrap();
        let watch = Watch::of(&file).unwrap();
        assert!(watch.is_quiet());
        file.write_all(b"own").unwrap();
        assert!(watch.is_quiet());
        let once = |what: &str| assert!(!watch.is_quiet() && watch.is_quiet(), "{what}");
        drop(File::open(&path).unwrap());
        once("opened");
        std::fs::rename(&path, &elsewhere).unwrap();
        once("moved");
        std::fs::remove_file(&elsewhere).unwrap();
        once("removed");
        let mut other = File::create(&path).unwrap();
        let mut watch = watch;
        watch.follow(&other).unwrap();
        assert!(!watch.is_quiet() && watch.is_quiet(), "the first is watched no more");
        other.write_all(b"own").unwrap();
        assert!(watch.is_quiet());
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.is_quiet());
    }
}
