//! Whether this kernel asks BPF programs before it lets things happen.
//!
//! Invariant: only the kernel's own list counts. A program that is attached where `bpf` isn't in it is never asked.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::EnforcerError;
use super::tracefs::in_own_namespace;

/// Where the kernel lists its active security modules.
const LIST: &str = "/sys/kernel/security/lsm";
const SECURITYFS: &str = "/sys/kernel/security";

/// Whether BPF is among the active security modules; what speaks against it where not.
///
/// # Errors
/// The list can't be read though the kernel has one.
pub(super) fn is_active() -> Result<Result<(), String>, EnforcerError> {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => Some(list),
        // A host may have it mounted nowhere.
        Err(_unmounted) => in_own_namespace(mounted_list)?,
    };
    Ok(judge(list.as_deref()))
}

/// None: this kernel has no security modules at all.
fn mounted_list() -> Result<Option<String>, EnforcerError> {
    if !Path::new(SECURITYFS).exists() {
        return Ok(None);
    }
    let unreadable = |cause: String| EnforcerError::Unavailable {
        what: format!("cannot read `{LIST}`"),
        cause,
        way_out: format!("mount a securityfs: `mount -t securityfs securityfs {SECURITYFS}`"),
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("securityfs", SECURITYFS, "securityfs", flags, None) {
        Ok(()) => {}
        Err(rustix::io::Errno::NODEV) => return Ok(None),
        Err(cause) => return Err(unreadable(cause.to_string())),
    }
    match fs::read_to_string(LIST) {
        Ok(list) => Ok(Some(list)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(unreadable(cause.to_string())),
    }
}

fn judge(list: Option<&str>) -> Result<(), String> {
    match list.map(str::trim) {
        None => Err("this kernel has no list of security modules".to_owned()),
        Some(list) if list.split(',').any(|module| module == "bpf") => Ok(()),
        Some(list) => Err(format!(
            "`bpf` is not among the active security modules ({list}); boot with `lsm={list},bpf` to have it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bpf_itself_in_the_kernels_list_counts() {
        assert_eq!(judge(Some("lockdown,capability,bpf\n")), Ok(()));
        assert_eq!(judge(Some("bpf")), Ok(()));
        for inactive in ["capability,landlock", "capability,bpfx", ""] {
            let cause = judge(Some(inactive)).unwrap_err();
            assert!(cause.contains(&format!("lsm={inactive},bpf")), "{cause}");
        }
        assert!(judge(None).is_err());
    }
}
