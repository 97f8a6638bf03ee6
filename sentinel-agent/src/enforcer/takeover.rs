//! Takes the kernel side over from an agent of another build, hook by hook, while sessions run under it.
//!
//! Invariant: at any time each hook is held by the old program, or the new one, or both, over the same maps; a takeover that fails in the middle
//! leaves just that, and the next one goes on with it.

use std::fs;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::ProgramFd;
use aya::programs::links::PinnedLink;

use super::attach::Attacher;
use super::hooks::{Hook, Hooks, Point, hooks_of, link_pin, program_pin};
use super::maps::with_causes;
use super::places::unavailable;
use super::{EnforcerError, Places, syscall};

/// What begins the name of a pin that is yet to take its place. (A bpffs takes no dots.)
const NEW: &str = "new_";

/// Puts the object's programs in the place of those that are pinned. To be called where a tracefs is mounted.
///
/// # Errors
/// One can't be put there.
pub(super) fn replace(ebpf: &mut Ebpf, places: &Places) -> Result<Hooks, EnforcerError> {
    let tier = Hooks::tier_of(places);
    let mut attacher = Attacher::new(ebpf, tier, &places.cgroup)?;
    // All are loaded before the first is replaced: what this kernel refuses is known while nothing has changed.
    let mut loaded: Vec<(&Hook, ProgramFd)> = Vec::new();
    for hook in hooks_of(tier) {
        loaded.extend(attacher.load(hook)?.map(|program| (hook, program)));
    }
    let (mut links, mut programs) = (Vec::new(), Vec::new());
    for (hook, program) in loaded {
        let (name, _, point) = hook;
        let pin = link_pin(places, name);
        let link = match point {
            Point::Cgroup if pin.exists() => {
                for pin in links_on_cgroups(places, name)? {
                    let update = syscall::pinned(&pin).and_then(|link| syscall::update_link(link, &program));
                    update.map_err(|cause| failed(&pin, cause))?;
                }
                PinnedLink::from_pin(&pin).map_err(|cause| failed(&pin, with_causes(&cause)))?
            }
            // The kernel replaces no other program behind its link: the new one is attached beside the old, which goes with its pin. Meanwhile
            // both are asked. (At tier `kill` a session's command that is executed just then is killed: the first has taken its right to.)
            Point::Cgroup | Point::Tracepoint(..) | Point::Lsm(_) => {
                let new = newcomer(&pin)?;
                let link = attacher.link(hook, &new)?;
                fs::rename(&new, &pin).map_err(|cause| failed(&pin, cause))?;
                link
            }
        };
        links.push(link);
        let pin = program_pin(places, name);
        let new = newcomer(&pin)?;
        attacher.pin(hook, &new)?;
        fs::rename(&new, &pin).map_err(|cause| failed(&pin, cause))?;
        programs.push((*name, program));
    }
    remove_unknown(places, &programs)?;
    Ok(Hooks { links, programs })
}

fn failed(pin: &Path, cause: impl std::fmt::Display) -> EnforcerError {
    unavailable("take over", pin, cause)
}

/// Where the new pin stands until it takes the place of the old one. What a takeover that failed left there is removed.
fn newcomer(pin: &Path) -> Result<PathBuf, EnforcerError> {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    let new = pin.with_file_name(format!("{NEW}{name}"));
    match fs::remove_file(&new) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(failed(&new, cause)),
        _ => Ok(new),
    }
}

/// The pins of a hook's links: to the sessions' parent, and to each cgroup that is bound.
fn links_on_cgroups(places: &Places, hook: &str) -> Result<Vec<PathBuf>, EnforcerError> {
    let (own, of_session) = (format!("link_{hook}"), format!("link_{hook}_session_"));
    pins(places, |name| name == own || name.starts_with(&of_session))
}

/// Removes what is attached for hooks that this build doesn't have.
fn remove_unknown(places: &Places, known: &[(&str, ProgramFd)]) -> Result<(), EnforcerError> {
    let unknown = pins(places, |name| {
        let Some(hook) = name.strip_prefix("link_").or_else(|| name.strip_prefix("program_")) else {
            return name.starts_with(NEW);
        };
        let hook = hook.split_once("_session_").map_or(hook, |(hook, _)| hook);
        !known.iter().any(|(known, _)| *known == hook)
    })?;
    for pin in unknown {
        tracing::info!(pin = %pin.display(), "this build doesn't have this hook of the earlier one");
        fs::remove_file(&pin).map_err(|cause| failed(&pin, cause))?;
    }
    Ok(())
}

fn pins(places: &Places, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, EnforcerError> {
    let unreadable = |cause| unavailable("list", &places.pins, cause);
    let mut found = Vec::new();
    for entry in fs::read_dir(&places.pins).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
