//! A program that acts with its first instruction: whoever is killed before that writes nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes an ELF whose very first instructions write one byte to descriptor 1 and exit. The caller removes it.
///
/// # Panics
/// If the temporary folder can't be written.
#[must_use]
pub fn first_syscall_writer() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let path = std::env::temp_dir().join(format!("sentinel-writer-{}-{count}", std::process::id()));
    #[rustfmt::skip]
    let code: &[u8] = &[
        0xb8, 1, 0, 0, 0,                       // mov eax, 1 (write)
        0xbf, 1, 0, 0, 0,                       // mov edi, 1
        0x48, 0x8d, 0x35, 0x10, 0, 0, 0,        // lea rsi, [rip+16]
        0xba, 1, 0, 0, 0,                       // mov edx, 1
        0x0f, 0x05,                             // syscall
        0xb8, 60, 0, 0, 0,                      // mov eax, 60 (exit)
        0x31, 0xff,                             // xor edi, edi
        0x0f, 0x05,                             // syscall
        b'!',
    ];
    let mut elf = Vec::new();
    let base = 0x40_0000_u64;
    let (header, entry) = (64_u64, 56_u64);
    let size = header + entry + code.len() as u64;
    elf.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend_from_slice(&2_u16.to_le_bytes());
    elf.extend_from_slice(&62_u16.to_le_bytes());
    elf.extend_from_slice(&1_u32.to_le_bytes());
    elf.extend_from_slice(&(base + header + entry).to_le_bytes());
    elf.extend_from_slice(&header.to_le_bytes());
    elf.extend_from_slice(&0_u64.to_le_bytes());
    elf.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    elf.extend_from_slice(&1_u32.to_le_bytes());
    elf.extend_from_slice(&5_u32.to_le_bytes());
    for word in [0, base, base, size, size, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(code);
    std::fs::write(&path, elf).expect("the temporary folder is writable");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("own file");
    path
}
