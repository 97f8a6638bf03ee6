//! Where file systems are mounted, as the kernel tells this process.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::EnforcerError;

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The number that `statx` gives for files on it.
    pub(super) id: u64,
    /// The file system's device as the kernel numbers it (`major << 20 | minor`).
    pub(super) dev: u32,
    /// Which folder of the file system is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// The file system's type.
    pub(super) kind: String,
}

/// The mounts of this mount namespace, each behind those that it covers.
pub(super) fn mounts() -> Result<Vec<Mount>, EnforcerError> {
    let text = fs::read("/proc/self/mountinfo").map_err(|cause| EnforcerError::Unavailable {
        what: "cannot read `/proc/self/mountinfo`".to_owned(),
        cause: cause.to_string(),
        way_out: "mount procfs at `/proc`".to_owned(),
    })?;
    Ok(parse(&text))
}

/// Lines of another form than proc(5) describes are left out: nothing is found on them, which is an error where it counts.
fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let _parent = fields.next()?;
    let mut device = fields.next()?.splitn(2, |byte| *byte == b':');
    let dev = kernel_device(number(device.next()?)?, number(device.next()?)?)?;
    let (root, point) = (path(fields.next()?), path(fields.next()?));
    // Options, then optional fields up to a lone dash.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { id, dev, root, point, kind: String::from_utf8(kind.to_vec()).ok()? })
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The number that the kernel has in `s_dev`; none for numbers beyond its 12 and 20 bits.
pub(super) fn kernel_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some(major << 20 | minor)
}

/// Undoes the kernel's `\040` for a blank, and likewise.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if byte == b'\\' => {
                bytes.push(escaped);
                rest = behind.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_a_blank_in_its_path_is_read() {
        let text = b"41 31 0:38 / /sys/fs/cgroup\\040two rw,relatime shared:7 master:1 - cgroup2 cgroup2 rw\ngarbage\n";
        let expected = Mount {
            id: 41,
            dev: 38,
            root: PathBuf::from("/"),
            point: PathBuf::from("/sys/fs/cgroup two"),
            kind: "cgroup2".to_owned(),
        };
        assert_eq!(parse(text), [expected]);
    }

    #[test]
    fn this_machines_root_is_found() {
        let mounts = mounts().unwrap();
        assert!(mounts.iter().any(|mount| mount.point == Path::new("/")));
    }

    #[test]
    fn a_device_number_that_the_kernel_cannot_have_is_none() {
        assert_eq!(kernel_device(254, 0), Some(254 << 20));
        assert_eq!(kernel_device(1, 1 << 20), None);
        assert_eq!(kernel_device(1 << 12, 0), None);
    }
}
