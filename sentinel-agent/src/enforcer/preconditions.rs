//! What a host must be before enforcement is even tried: each a clear refusal, never a degraded start.

use std::fs;
use std::path::Path;

use super::EnforcerError;

/// The namespaces that the kernel's own numbers (pids, cgroup levels, times) are counted in, with their inodes, which
/// are the same on every Linux host (`include/uapi/linux/nsfs.h`).
const INITIAL_NAMESPACES: &[(&str, &str, &str)] = &[
    ("pid", "pid:[4026531836]", "hooks see the host's pids"),
    ("cgroup", "cgroup:[4026531835]", "hooks count cgroup levels from the host's root"),
    ("time", "time:[4026531834]", "hooks compare times with the host's clock"),
];

/// Checks all of them.
///
/// # Errors
/// The first that isn't met, with the way out.
pub(super) fn check() -> Result<(), EnforcerError> {
    if !rustix::process::geteuid().is_root() {
        return Err(unmet(
            "this process isn't root",
            "start the agent as root, or use the SDK's embedded mode, which enforces nothing",
        ));
    }
    for (name, initial, why) in INITIAL_NAMESPACES {
        let file = Path::new("/proc/self/ns").join(name);
        match fs::read_link(&file) {
            Ok(namespace) if namespace == Path::new(initial) => {}
            // A kernel without time namespaces has only the one time.
            Err(cause) if *name == "time" && cause.kind() == std::io::ErrorKind::NotFound => {}
            Ok(_) => {
                return Err(unmet(
                    &format!("this process isn't in the initial {name} namespace, and {why}"),
                    "run the agent on the host itself, not in a container",
                ));
            }
            Err(cause) => {
                return Err(unmet(&format!("`{}`: {cause}", file.display()), "mount procfs at `/proc`"));
            }
        }
    }
    if is_realtime(&rustix::system::uname().version().to_string_lossy(), Path::new("/sys/kernel/realtime")) {
        return Err(unmet(
            "the kernel is a PREEMPT_RT one, on which a forbidden image can run before its signal comes",
            "boot a kernel without PREEMPT_RT",
        ));
    }
    Ok(())
}

fn is_realtime(version: &str, flag: &Path) -> bool {
    version.contains("PREEMPT_RT") || fs::read_to_string(flag).is_ok_and(|text| text.trim() == "1")
}

fn unmet(cause: &str, way_out: &str) -> EnforcerError {
    EnforcerError::Unavailable {
        what: "enforcement is not possible here".to_owned(),
        cause: cause.to_owned(),
        way_out: way_out.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realtime_kernel_is_told_by_its_version_and_an_ordinary_one_is_not() {
        let none = Path::new("/nonexistent");
        assert!(is_realtime("#1 SMP PREEMPT_RT Debian 6.12.1-1", none));
        assert!(!is_realtime("#1 SMP PREEMPT_DYNAMIC Debian 6.12.1-1", none));
    }
}
