//! The guest's whole system: an archive with busybox, a script that is its first process, and the test programs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use object::Object as _;

use super::kernels::Kernel;
use super::verdict::{DONE, EXIT, START};

/// Debian's static busybox.
const BUSYBOX: &str = "/bin/busybox";

/// What it is called by. Copies, not links: Sentinel tells programs apart by their file.
const COPIES: &[&str] = &["bin/sh", "bin/cat", "usr/bin/id"];
/// What scripts call; these are links.
const LINKS: &[&str] = &[
    "bin/chmod",
    "bin/cp",
    "bin/dmesg",
    "bin/echo",
    "bin/kill",
    "bin/ls",
    "bin/mkdir",
    "bin/mount",
    "bin/ps",
    "bin/sleep",
    "bin/stty",
    "sbin/insmod",
    "sbin/ip",
    "sbin/poweroff",
    "usr/bin/env",
];

/// An archive in the format `newc` of cpio, which the kernel unpacks.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: std::collections::BTreeSet<String>,
}

impl Archive {
    /// Adds a file, and the folders that it is in.
    ///
    /// # Errors
    /// It is too large for the format.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.parents(path)?;
        self.entry(path, 0o100_000 | mode, content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// None in practice.
    fn link(&mut self, path: &str, to: &str) -> anyhow::Result<()> {
        self.parents(path)?;
        self.entry(path, 0o120_777, to.as_bytes())
    }

    /// Adds a folder, where it isn't there already.
    ///
    /// # Errors
    /// None in practice.
    fn folder(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        self.parents(path)?;
        if self.folders.insert(path.to_owned()) {
            self.entry(path, 0o040_000 | mode, &[])?;
        }
        Ok(())
    }

    fn parents(&mut self, path: &str) -> anyhow::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent, 0o755),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("`{path}` is too large"))?;
        let name = u32::try_from(path.len() + 1).context("a path is short")?;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn write(mut self, to: &Path) -> anyhow::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        std::fs::write(to, &self.bytes).with_context(|| format!("`{}`", to.display()))
    }
}

/// The busybox.
///
/// # Errors
/// There is none, or it needs libraries.
pub(crate) fn busybox() -> anyhow::Result<Vec<u8>> {
    let busybox = std::fs::read(BUSYBOX)
        .with_context(|| format!("`{BUSYBOX}`: `cargo xtask setup` installs Debian's busybox-static"))?;
    let elf = object::File::parse(&*busybox).with_context(|| format!("`{BUSYBOX}` is no program"))?;
    let needs_libraries = elf.section_by_name(".interp").is_some();
    ensure!(
        !needs_libraries,
        "`{BUSYBOX}` needs libraries; Debian's package busybox-static has one that doesn't"
    );
    Ok(busybox)
}

/// Adds what a system has.
///
/// # Errors
/// There is no busybox, or it isn't static.
pub(crate) fn add_system(archive: &mut Archive) -> anyhow::Result<()> {
    let busybox = busybox()?;
    archive.file("bin/busybox", 0o755, &busybox)?;
    for copy in COPIES {
        archive.file(copy, 0o755, &busybox)?;
    }
    // Tests call these by other names, by which busybox wouldn't know itself.
    archive.file("bin/true", 0o755, &exiting(0))?;
    archive.file("bin/false", 0o755, &exiting(1))?;
    for link in LINKS {
        archive.link(link, "/bin/busybox")?;
    }
    for folder in ["dev", "proc", "sys", "run", "root", "var/lib", "etc"] {
        archive.folder(folder, 0o755)?;
    }
    archive.folder("tmp", 0o1777)?;
    archive.folder("var/tmp", 0o1777)?;
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\nuser:x:1000:1000:user:/tmp:/bin/sh\n",
    )?;
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\nuser:x:1000:\n")?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    archive.file("etc/nsswitch.conf", 0o644, b"passwd: files\ngroup: files\nhosts: files\n")
}

/// The smallest program that exits with this status.
fn exiting(status: u8) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u16 = 64 + 56;
    // mov edi, status; mov eax, exit_group; syscall
    let code = [0xbf, status, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
    let size = u64::from(HEADERS) + 12;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for x86-64, of version 1.
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    // Where it starts, where its one segment is described, no sections, no flags.
    for word in [BASE + u64::from(HEADERS), 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&[0; 4]);
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    // The segment: loaded, to be read and executed, from the whole file.
    elf.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(&code);
    elf
}

/// Adds kernel modules as `modules/N.ko`, uncompressed.
///
/// # Errors
/// One can't be read.
pub(crate) fn add_modules(archive: &mut Archive, files: &[PathBuf]) -> anyhow::Result<()> {
    for (index, file) in files.iter().enumerate() {
        let content = match file.extension().and_then(std::ffi::OsStr::to_str) {
            Some("ko") => std::fs::read(file).with_context(|| format!("`{}`", file.display()))?,
            Some("xz") => {
                let mut xz = std::process::Command::new("xz");
                let told = xz.args(["--decompress", "--stdout"]).arg(file).output().context("`xz`")?;
                ensure!(told.status.success(), "`xz --decompress {}` failed", file.display());
                told.stdout
            }
            _ => anyhow::bail!("`{}` is packed in a way that isn't known here", file.display()),
        };
        archive.file(&format!("modules/{index}.ko"), 0o644, &content)?;
    }
    Ok(())
}

/// The beginning of the first process: what a system's start does. What is printed goes to the second serial port, so that it isn't mixed up
/// with what the kernel prints. No tracefs: the agent brings its own.
pub(crate) fn init(kernel: &Kernel, modules: usize) -> String {
    let loaded: String =
        (0..modules).map(|index| format!("insmod /modules/{index}.ko || fail module {index}\n")).collect();
    format!(
        r#"#!/bin/sh
fail() {{ echo "{EXIT}the guest's start: $* 1"; echo "{DONE}"; poweroff -f; }}
export PATH=/bin:/sbin:/usr/bin HOME=/root TMPDIR=/tmp
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t devtmpfs -o nosuid devtmpfs /dev
exec </dev/null >/dev/ttyS1 2>&1
stty -onlcr -echo </dev/ttyS1
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys || fail sysfs
mount -t securityfs securityfs /sys/kernel/security || fail securityfs
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup || fail cgroup2
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf /sys/fs/bpf || fail bpf
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts || fail devpts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm || fail shm
mount -t tmpfs -o mode=1777 tmpfs /tmp || fail tmp
mount -t tmpfs -o mode=755 tmpfs /run || fail run
ip link set lo up || fail loopback
ulimit -n 65536
{loaded}export SENTINEL_VM_TIER={tier} SENTINEL_VM_KERNEL={name} RUST_TEST_THREADS=1
echo "booted $(busybox uname -r): $(cat /sys/kernel/security/lsm); $(cat /proc/cmdline)"
run() {{
  name=$1; shift
  echo "{START}$name"
  "$@"
  echo "{EXIT}$name $?"
}}
"#,
        tier = kernel.tier.name(),
        name = kernel.name,
    )
}

/// The end of the first process.
pub(crate) const END: &str = "echo 'vm: done'\nsleep 0.2\npoweroff -f\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::output;

    #[test]
    fn the_smallest_program_exits_with_its_status() {
        use std::os::unix::fs::OpenOptionsExt as _;
        for status in [0, 1] {
            let path =
                std::env::temp_dir().join(format!("sentinel-xtask-exit-{status}-{}", std::process::id()));
            let mut file =
                std::fs::File::options().write(true).create_new(true).mode(0o755).open(&path).unwrap();
            std::io::Write::write_all(&mut file, &exiting(status)).unwrap();
            drop(file);
            let ended = std::process::Command::new(&path).status();
            std::fs::remove_file(&path).unwrap();
            assert_eq!(ended.unwrap().code(), Some(status.into()));
        }
    }

    #[test]
    fn cpio_reads_what_is_written() {
        let folder = std::env::temp_dir().join(format!("sentinel-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut archive = Archive::default();
        archive.file("a/b/program", 0o755, b"odd").unwrap();
        archive.file("a/c", 0o644, b"").unwrap();
        archive.link("a/l", "/a/c").unwrap();
        archive.write(&folder.join("archive")).unwrap();
        let list = output(
            &folder,
            "cpio",
            &["--list", "--verbose", "--numeric-uid-gid", "--quiet", "--file", "archive"],
        );
        let list = list.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 5, "{list}");
        for (line, (mode, name)) in lines.iter().zip([
            ("drwxr-xr-x", "a"),
            ("drwxr-xr-x", "a/b"),
            ("-rwxr-xr-x", "a/b/program"),
            ("-rw-r--r--", "a/c"),
            ("lrwxrwxrwx", "a/l -> /a/c"),
        ]) {
            assert!(line.starts_with(mode) && line.ends_with(name), "{line}");
        }
    }
}
