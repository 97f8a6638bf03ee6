//! Finds the files behind the paths of a policy, as the kernel numbers them.
//!
//! Invariant: an image is a device, an inode and its generation, never a path's text. What the kernel would number
//! otherwise than this process sees it, is an error.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::ioctl::{Getter, ioctl, opcode};

use super::mountinfo::{Mount, kernel_device, mounts};
use super::walk::walk;
use super::{FirstImage, Tier, Writer, executables};

/// `FS_IOC_GETVERSION`. Its number says `long`, but an `int` is written.
const GET_VERSION: rustix::ioctl::Opcode = opcode::read::<std::ffi::c_long>(b'v', 1);
/// The most that the kernel reads of a file to see how to execute it (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// How many `#!` lines may lead to each other.
const SCRIPT_LEVELS: u32 = 4;

/// Why a path doesn't stand for something that the kernel side can tell.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It can't be looked at.
    #[error("`{}`: {cause}", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It is a folder, or has no right to be executed.
    #[error("`{}` is no executable file", .0.display())]
    NotExecutable(PathBuf),
    /// The kernel side would see other numbers than those that are known here.
    #[error(
        "the kernel numbers `{}` otherwise than it tells programs (as overlayfs and btrfs subvolumes do); put it on \
         a plain file system, such as ext4, xfs or tmpfs",
        .0.display()
    )]
    Renumbered(PathBuf),
    /// Scripts that name each other as interpreters.
    #[error("`{}` is a script of more than {SCRIPT_LEVELS} interpreters in a row", .0.display())]
    TooManyInterpreters(PathBuf),
    /// A `#!` line without an absolute path.
    #[error("the first line of `{}` names no interpreter by an absolute path", .0.display())]
    NoInterpreter(PathBuf),
    /// The list of mounts can't be read.
    #[error("{0}")]
    Mounts(#[from] super::EnforcerError),
}

/// A file that is held open, so that its number is not given to another.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) file: OwnedFd,
    /// Its path without symbolic links.
    pub(super) canonical: PathBuf,
    pub(super) identity: FirstImage,
    /// The first bytes, by which the kernel sees how to execute it.
    head: Vec<u8>,
}

impl Image {
    /// The file at `path`.
    pub(super) fn open(path: &Path, mounts: &[Mount]) -> Result<Self, ImageError> {
        let unreadable = |cause: io::Error| ImageError::Unreadable { path: path.to_owned(), cause };
        let canonical = walk(path).map_err(unreadable)?.canonical;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(CWD, &canonical, flags, Mode::empty()).map_err(|errno| unreadable(errno.into()))?;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let found =
            statx(&file, "", AtFlags::EMPTY_PATH, wanted).map_err(|errno| unreadable(errno.into()))?;
        if found.stx_mode & 0o170_000 != 0o100_000 || found.stx_mode & 0o111 == 0 {
            return Err(ImageError::NotExecutable(path.to_owned()));
        }
        let mount = mounts.iter().find(|mount| mount.id == found.stx_mnt_id);
        let dev = kernel_device(found.stx_dev_major, found.stx_dev_minor);
        let Some(dev) = dev.filter(|dev| mount.is_some_and(|mount| mount.dev == *dev)) else {
            return Err(ImageError::Renumbered(path.to_owned()));
        };
        let readable = reopen(file.as_fd()).map_err(unreadable)?;
        let generation = generation(&readable).map_err(unreadable)?;
        let mut head = Vec::with_capacity(HEAD);
        readable.take(HEAD as u64).read_to_end(&mut head).map_err(unreadable)?;
        Ok(Self { file, canonical, identity: FirstImage { dev, ino: found.stx_ino, generation }, head })
    }

    /// What the kernel executes for it: itself, or the interpreter at the end of its `#!` lines.
    pub(super) fn executed(self, mounts: &[Mount]) -> Result<Self, ImageError> {
        let mut image = self;
        for _ in 0..=SCRIPT_LEVELS {
            if !image.is_script() {
                return Ok(image);
            }
            let interpreter =
                interpreter(&image.head).ok_or_else(|| ImageError::NoInterpreter(image.canonical.clone()))?;
            image = Self::open(&interpreter, mounts)?;
        }
        Err(ImageError::TooManyInterpreters(image.canonical))
    }

    /// Whether the kernel executes an interpreter in its place.
    pub(super) fn is_script(&self) -> bool {
        self.head.starts_with(b"#!")
    }
}

/// What a session's process may execute first, where its command is this file: at tier `lsm` the file itself, whose interpreters the kernel side
/// lets follow; else what the kernel executes for it.
///
/// # Errors
/// The file can't be told, so no session can be given its image.
pub fn command_image(program: &Path, tier: Tier) -> Result<FirstImage, ImageError> {
    let executed = first_image(program)?;
    match tier {
        Tier::Lsm => file_image(program),
        Tier::Kill | Tier::None => Ok(executed),
    }
}

/// The file at this path, whatever the kernel executes for it.
pub(super) fn file_image(program: &Path) -> Result<FirstImage, ImageError> {
    Ok(Image::open(program, &mounts()?)?.identity)
}

/// What the kernel will see executed where a session's command is this file: for a script, its interpreter.
///
/// # Errors
/// The file can't be told, so no session can be given its image.
pub fn first_image(program: &Path) -> Result<FirstImage, ImageError> {
    let mounts = mounts()?;
    Ok(Image::open(program, &mounts)?.executed(&mounts)?.identity)
}

/// How a policy names a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) path: PathBuf,
    /// Whether it is the interpreter of the script that was asked for.
    pub(super) is_script: bool,
    /// Whether the user could make the path lead elsewhere.
    pub(super) is_changeable: bool,
}

/// How a policy names the file behind `path`, or its interpreter, if that has this number still; none also for what no
/// policy may name. A path that the user can't bend is preferred to the given one.
pub(super) fn named(path: &Path, dev: u32, ino: u64, user: Option<&Writer>) -> Option<Named> {
    let mounts = mounts().ok()?;
    let image = Image::open(path, &mounts).ok()?;
    let is_script = image.is_script();
    let image = image.executed(&mounts).ok()?;
    if !is_numbered(&image, dev, ino) || executables::is_loader(path, &image, &mounts) {
        return None;
    }
    let is_changeable = |path: &Path| {
        user.is_some_and(|user| {
            walk(path).and_then(|walk| user.can_change(&walk)).is_ok_and(|by| by.is_some())
        })
    };
    if !is_script && !is_changeable(path) {
        return Some(Named { path: path.to_owned(), is_script, is_changeable: false });
    }
    let canonical = image.canonical;
    if !is_changeable(&canonical) {
        return Some(Named { path: canonical, is_script, is_changeable: false });
    }
    let path = if is_script { canonical } else { path.to_owned() };
    Some(Named { path, is_script, is_changeable: true })
}

fn is_numbered(image: &Image, dev: u32, ino: u64) -> bool {
    image.identity.dev == dev && image.identity.ino == ino
}

/// Opens for reading what a path descriptor stands for. Never waits: it is a regular file.
fn reopen(file: BorrowedFd<'_>) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// The inode's generation; none where the file system doesn't tell.
fn generation(file: &File) -> io::Result<Option<u32>> {
    // SAFETY: the request reads nothing and writes one `int`, and `u32` takes any.
    let answer = unsafe { ioctl(file, Getter::<GET_VERSION, u32>::new()) };
    match answer.map_err(io::Error::from) {
        Ok(generation) => Ok(Some(generation)),
        Err(cause) if matches!(cause.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => Ok(None),
        Err(cause) if matches!(cause.raw_os_error(), Some(libc::ENOTTY)) => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// The interpreter of a `#!` line, as the kernel reads it.
fn interpreter(head: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;

    let line = head.strip_prefix(b"#!")?;
    // A line that ends with neither a newline nor the file was cut, and the kernel refuses a cut name.
    let is_whole = line.contains(&b'\n') || head.len() < HEAD;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = line.iter().position(|byte| !blank(byte))?;
    let name = line.get(begin..)?;
    let end = name.iter().position(|byte| blank(byte) || *byte == 0);
    let name = match end {
        Some(end) => name.get(..end)?,
        None if is_whole => name,
        None => return None,
    };
    (name.first() == Some(&b'/')).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::enforcer::testing::Folder;

    #[test]
    fn a_program_is_found_behind_symbolic_links() {
        let mounts = mounts().unwrap();
        let folder = Folder::new("images-links");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/bin/true", &link).unwrap();
        let (direct, linked) =
            (Image::open(Path::new("/bin/true"), &mounts).unwrap(), Image::open(&link, &mounts).unwrap());
        assert_eq!(direct.identity, linked.identity);
        assert_eq!(direct.identity.ino, fs::metadata("/bin/true").unwrap().ino());
        assert!(!direct.is_script());
    }

    #[test]
    fn a_scripts_first_image_is_its_last_interpreter() {
        let folder = Folder::new("images-scripts");
        let program = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let inner = program("inner", "#! /bin/true -x\n");
        let outer = program("outer", &format!("#!{}\nbody\n", inner.display()));
        assert_eq!(first_image(&outer).unwrap(), first_image(Path::new("/bin/true")).unwrap());

        let circle = program("circle", &format!("#!{}\n", folder.path().join("circle").display()));
        assert!(matches!(first_image(&circle), Err(ImageError::TooManyInterpreters(_))));
        let relative = program("relative", "#!sh\n");
        assert!(matches!(first_image(&relative), Err(ImageError::NoInterpreter(_))));
        let plain = program("plain", "text");
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(first_image(&plain), Err(ImageError::NotExecutable(_))));
        assert!(matches!(first_image(folder.path()), Err(ImageError::NotExecutable(_))));
    }

    #[test]
    fn a_shebang_line_is_read_as_the_kernel_reads_it() {
        let read = |line: &str| interpreter(line.as_bytes());
        assert_eq!(read("#!/bin/sh\n"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(read("#! \t/usr/bin/env python3\n"), Some(PathBuf::from("/usr/bin/env")));
        assert_eq!(read("#!/bin/sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(read("#!\n/bin/sh"), None);
        assert_eq!(read("#!sh\n"), None);
        assert_eq!(read(&format!("#!/{}", "x".repeat(HEAD - 3))), None, "the name is cut");
    }

    #[test]
    fn a_path_is_told_only_while_it_stands_for_the_same_file() {
        let first = first_image(Path::new("/bin/true")).unwrap();
        let path = |path: &str, ino| named(Path::new(path), first.dev, ino, None).map(|named| named.path);
        assert_eq!(path("/bin/true", first.ino), Some(PathBuf::from("/bin/true")));
        assert_eq!(path("/bin/true", first.ino + 1), None);
        assert_eq!(path("/nonexistent", first.ino), None);
    }

    #[test]
    fn the_dynamic_loader_is_not_named_for_no_policy_may() {
        let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
        let first = first_image(loader).unwrap();
        assert_eq!(named(loader, first.dev, first.ino, None), None);
    }

    #[test]
    fn a_path_that_the_user_can_bend_is_told_as_the_file_behind_it_and_a_file_that_it_can_change_with_that() {
        const USER: u32 = 54_321;
        let folder = Folder::new("images-named");
        let user = Writer::with_uid(USER).unwrap();
        let link = folder.path().join("python");
        std::os::unix::fs::symlink("/usr/bin/true", &link).unwrap();
        let first = first_image(&link).unwrap();
        let told = |path: &Path, first: &FirstImage| named(path, first.dev, first.ino, Some(&user)).unwrap();
        assert_eq!(told(&link, &first).path, link, "root's own link");
        std::os::unix::fs::chown(folder.path(), Some(USER), None).unwrap();
        let behind = told(&link, &first);
        assert_eq!((behind.path.as_path(), behind.is_changeable), (Path::new("/usr/bin/true"), false));

        let copy = folder.path().join("copy");
        fs::copy("/usr/bin/true", &copy).unwrap();
        let changeable = told(&copy, &first_image(&copy).unwrap());
        assert_eq!((changeable.path.as_path(), changeable.is_changeable), (copy.as_path(), true));

        let script = folder.path().join("script");
        fs::write(&script, "#!/usr/bin/true\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let interpreter = told(&script, &first);
        assert_eq!((interpreter.path.as_path(), interpreter.is_script), (Path::new("/usr/bin/true"), true));
    }
}
