//! What a socket carries with it. An accepted one is born with its listener's, before any packet of it.
//!
//! A definition of our own: that of aya-ebpf has no place for `BPF_F_CLONE`.

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use sentinel_ebpf_common::SocketMark;

/// The map as the loader reads it out of the object's types: each number is the length of an array.
#[repr(C)]
pub(crate) struct SocketStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketMark,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: its pointers are for the loader, and nothing ever follows them.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    pub(crate) const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    /// A socket's mark; null where it has none, or isn't a full socket.
    #[inline(always)]
    pub(crate) fn find(&self, socket: *mut bpf_sock) -> *mut SocketMark {
        // SAFETY: the socket is one that the kernel handed to the program, which has seen that it isn't null.
        unsafe { bpf_sk_storage_get(self.as_ptr(), socket.cast(), core::ptr::null_mut(), 0) }.cast()
    }

    /// Gives a socket a mark; null where it could not be stored.
    #[inline(always)]
    pub(crate) fn create(&self, socket: *mut bpf_sock, mark: &mut SocketMark) -> *mut SocketMark {
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        // SAFETY: as above, and the mark outlives the call, which copies it.
        unsafe { bpf_sk_storage_get(self.as_ptr(), socket.cast(), (&raw mut *mark).cast(), flags) }.cast()
    }

    #[inline(always)]
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
