//! Whether this kernel lets another task run on a CPU while one is in the middle of a call.
//!
//! Why that matters: the kernel leaves a tracepoint's programs out while a BPF map is being written on the same CPU (`bpf_prog_active`, kernel/trace/bpf_trace.c). Where the
//! writer can be preempted, an exec that comes in between is not judged: measured on 7.3, where 8 of 263 forbidden images ran while doors opened and
//! shut. At tier `lsm` execs are judged elsewhere, and what a tracepoint misses takes from a session and gives it nothing.
//!
//! Invariant: what can't be told counts as "yes".

use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use rustix::mount::{MountFlags, mount};

use super::EnforcerError;
use super::tracefs::in_own_namespace;

const DEBUGFS: &str = "/sys/kernel/debug";
const MODEL: &str = "/sys/kernel/debug/sched/preempt";
/// The kernel's configuration is some 300 KiB.
const MOST_CONFIGURATION: u64 = 4 << 20;

/// When the kernel changes to another task by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    /// Not inside a call.
    None,
    /// Where the kernel's own code offers it.
    Voluntary,
    /// At a tick.
    Lazy,
    /// At any time.
    Full,
}

/// Refuses a kernel on which forbidden images could run at tier `kill`.
///
/// # Errors
/// It preempts, or doesn't tell.
pub(super) fn check() -> Result<(), EnforcerError> {
    let cause = match read() {
        Some(Model::None | Model::Voluntary) => return Ok(()),
        Some(model) => format!(
            "this kernel preempts ({}), so that a forbidden image can come by while a map is written",
            format!("{model:?}").to_lowercase()
        ),
        None => {
            "whether this kernel preempts can't be told: it shows neither `sched/preempt` in a debugfs nor \
                 its configuration, and `preempt=` is not on its command line"
                .to_owned()
        }
    };
    Err(EnforcerError::Unavailable {
        what: "execs can't be held at tier `kill`".to_owned(),
        cause,
        way_out:
            "boot with `bpf` in `lsm=` for tier `lsm`, or, on a kernel that has it, with `preempt=voluntary`"
                .to_owned(),
    })
}

fn read() -> Option<Model> {
    let version = rustix::system::uname().version().to_string_lossy().into_owned();
    let command_line = fs::read_to_string("/proc/cmdline").ok();
    model(told_by_debugfs().as_deref(), command_line.as_deref(), configuration().as_deref(), &version)
}

/// The first that says something, of: what the scheduler does now, what it was told at the start, what it was built for. A command line that can't be
/// read may have told it anything.
fn model(
    debugfs: Option<&str>,
    command_line: Option<&str>,
    configuration: Option<&str>,
    version: &str,
) -> Option<Model> {
    if let Some(chosen) = debugfs.and_then(|text| Some(text.split_once('(')?.1.split_once(')')?.0)) {
        return named(chosen);
    }
    // What stands behind `--` is for the first process.
    let words = command_line?.split_whitespace().take_while(|word| *word != "--");
    if let Some(ordered) = words.filter_map(|word| word.strip_prefix("preempt=")).last() {
        return named(ordered);
    }
    if !version.contains("PREEMPT") {
        return Some(Model::Voluntary);
    }
    let is_set = |name: &str| configuration?.lines().any(|line| line == name).then_some(());
    let built = [
        ("CONFIG_PREEMPT_RT=y", Model::Full),
        ("CONFIG_PREEMPT_LAZY=y", Model::Lazy),
        ("CONFIG_PREEMPT=y", Model::Full),
        ("CONFIG_PREEMPT_VOLUNTARY=y", Model::Voluntary),
        ("CONFIG_PREEMPT_NONE=y", Model::None),
    ];
    built.into_iter().find_map(|(name, model)| is_set(name).map(|()| model))
}

fn named(name: &str) -> Option<Model> {
    match name {
        "none" => Some(Model::None),
        "voluntary" => Some(Model::Voluntary),
        "lazy" => Some(Model::Lazy),
        "full" => Some(Model::Full),
        _unknown => None,
    }
}

/// As the scheduler tells it, on a kernel that can change it and lets it be read.
fn told_by_debugfs() -> Option<String> {
    if let Ok(text) = fs::read_to_string(MODEL) {
        return Some(text);
    }
    let mounted = in_own_namespace(|| {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let mounted = mount("debugfs", DEBUGFS, "debugfs", flags, None).is_ok();
        Ok(mounted.then(|| fs::read_to_string(MODEL).ok()).flatten())
    });
    mounted.ok().flatten()
}

/// What the kernel was built with, if it or the distribution tells.
fn configuration() -> Option<String> {
    let mut text = String::new();
    if let Ok(file) = fs::File::open("/proc/config.gz") {
        GzDecoder::new(file).take(MOST_CONFIGURATION).read_to_string(&mut text).ok()?;
        return Some(text);
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    fs::read_to_string(Path::new("/boot").join(format!("config-{release}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.1-1";

    #[test]
    fn what_the_scheduler_does_now_goes_before_what_it_was_told_and_that_before_what_it_was_built_for() {
        let (debugfs, ordered) = (
            Some("none voluntary (full) lazy\n"),
            Some("quiet preempt=none preempt=voluntary -- preempt=full"),
        );
        let built = Some("CONFIG_PREEMPT_BUILD=y\nCONFIG_PREEMPT_LAZY=y\n");
        assert_eq!(model(debugfs, ordered, built, DYNAMIC), Some(Model::Full));
        assert_eq!(model(None, ordered, built, DYNAMIC), Some(Model::Voluntary), "the last one counts");
        assert_eq!(model(None, Some("quiet"), built, DYNAMIC), Some(Model::Lazy));
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        let unset = Some("# CONFIG_PREEMPT_NONE is not set\nCONFIG_PREEMPT_NONE_BUILD=y\n");
        assert_eq!(model(None, Some("quiet"), unset, DYNAMIC), None);
        assert_eq!(model(None, Some("quiet"), None, DYNAMIC), None);
        let built = Some("CONFIG_PREEMPT_VOLUNTARY=y\n");
        assert_eq!(model(None, Some("quiet"), built, DYNAMIC), Some(Model::Voluntary));
        assert_eq!(model(None, None, built, DYNAMIC), None, "it may have been told otherwise");
        assert_eq!(model(None, Some("preempt=sometimes"), None, DYNAMIC), None);
        assert_eq!(
            model(None, Some("quiet"), None, "#1 SMP Debian 6.1.1-1"),
            Some(Model::Voluntary),
            "it can't"
        );
    }

    #[test]
    fn this_kernel_tells() {
        assert!(read().is_some());
    }
}
