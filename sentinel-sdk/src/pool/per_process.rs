//! A value that a forked child doesn't share with its parent.
//!
//! Invariant: what is handed out was made by the calling process. A child makes its own at its first use, without
//! touching any lock of its parent's: another thread may have held it when the process forked.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A page that the kernel empties in a forked child. Null: not made yet.
static WIPED: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
const PAGE_BYTES: usize = 4096;

/// The pid of the calling process. The kernel is asked once in each: it is asked for with every action, several times.
pub(crate) fn own_pid() -> u32 {
    let mut page = WIPED.load(Ordering::Acquire);
    if page.is_null() {
        page = wiped_page();
    }
    // SAFETY: null, or a page that is never unmapped, of which any bytes are valid.
    let Some(kept) = (unsafe { page.as_ref() }) else { return std::process::id() };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let pid = std::process::id();
            kept.store(pid, Ordering::Relaxed);
            pid
        }
        pid => pid,
    }
}

/// Makes the page; null where the kernel can't.
#[cold]
fn wiped_page() -> *mut AtomicU32 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping of memory that is nobody's.
    let made = unsafe { mmap_anonymous(std::ptr::null_mut(), PAGE_BYTES, access, MapFlags::PRIVATE) };
    let Ok(made) = made else { return std::ptr::null_mut() };
    // SAFETY: it was just mapped, with this length.
    let is_wiped = unsafe { madvise(made, PAGE_BYTES, Advice::LinuxWipeOnFork) }.is_ok();
    if is_wiped {
        let null = std::ptr::null_mut();
        match WIPED.compare_exchange(null, made.cast(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_null) => return made.cast(),
            Err(first) => {
                // SAFETY: it was never published.
                let _unmapped = unsafe { munmap(made, PAGE_BYTES) };
                return first;
            }
        }
    }
    // SAFETY: as above.
    let _unmapped = unsafe { munmap(made, PAGE_BYTES) };
    std::ptr::null_mut()
}

/// One value for each process that comes by.
#[derive(Debug)]
pub(crate) struct PerProcess<T: Send + Sync> {
    /// Null, or an entry that is freed at the earliest when this is dropped.
    current: AtomicPtr<OfProcess<T>>,
}

struct OfProcess<T> {
    pid: u32,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// No value yet.
    pub(crate) const fn new() -> Self {
        Self { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The value of this process. `make` gets the one of the parent, if there is one: its locks may be held for ever.
    pub(crate) fn get_or_make(&self, make: impl FnOnce(Option<&T>) -> T) -> &T {
        let pid = own_pid();
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: `current` is null or came from `Box::into_raw` below and lives as long as `self` does.
        let known = unsafe { current.as_ref() };
        if let Some(known) = known
            && known.pid == pid
        {
            return &known.value;
        }
        let made = Box::into_raw(Box::new(OfProcess { pid, value: make(known.map(|known| &known.value)) }));
        match self.current.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: `made` was just allocated, and is freed only with `self`. The parent's entry is left as it is.
            Ok(_parents) => unsafe { &(*made).value },
            Err(first) => {
                // SAFETY: `made` was never published.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: another thread of this process published `first`, and it is freed only with `self`.
                unsafe { &(*first).value }
            }
        }
    }
}

impl<T: Send + Sync> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        // SAFETY: null, or from `Box::into_raw`; nobody else can reach it any more.
        let Some(known) = (unsafe { current.as_ref() }) else { return };
        // A parent's value is left alone: dropping it might wait for a lock that nobody will release.
        if known.pid == own_pid() {
            // SAFETY: as above, and the reference isn't used any more.
            drop(unsafe { Box::from_raw(current) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PerProcess;

    #[test]
    fn eight_threads_that_ask_at_once_get_the_same_value() {
        let shared = PerProcess::new();
        let first: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8_u8)
                .map(|number| {
                    let shared = &shared;
                    scope.spawn(move || std::ptr::from_ref(shared.get_or_make(|_| number)).addr())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(first.iter().all(|address| *address == first[0]));
    }
}
