//! Resolves the executables of a policy's grants, and refuses those that would open more than they say.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use sentinel_ebpf_common::ImageRule;
use sentinel_engine::{ExecRule, Grant, GrantSet};

use super::images::{Image, ImageError};
use super::mountinfo::{Mount, mounts};
use super::walk::{Writer, walk};
use super::{EnforcerError, FirstImage};

/// Where dynamic loaders stand on x86-64 hosts.
const LOADERS: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/libx32/ld-linux-x32.so.2",
    "/lib/ld-musl-x86_64.so.1",
];

/// What the kernel side is told of the executables of all grants.
#[derive(Debug, Default)]
pub(super) struct Executables {
    /// By device and inode.
    pub(super) rules: BTreeMap<(u32, u64), ImageRule>,
    /// Keep their inodes from being given to other files.
    pub(super) held: Vec<OwnedFd>,
}

/// A script, whose interpreter must be granted where it is.
struct Script<'a> {
    rule: &'a ExecRule,
    bit: u64,
    executed: FirstImage,
    interpreter: PathBuf,
}

impl Executables {
    /// Those of all grants, for a session whose processes have the uid `user`.
    ///
    /// # Errors
    /// A rule's file can't be told, could be changed by that user, or would open more than it says.
    pub(super) fn resolve(grants: &[Grant], user: u32) -> Result<Self, EnforcerError> {
        let mut resolved = Self::default();
        if grants.iter().all(|grant| grant.exec.is_empty()) {
            return Ok(resolved);
        }
        let mounts = mounts()?;
        let writer = Writer::with_uid(user).map_err(|cause| EnforcerError::Unavailable {
            what: format!("cannot look up user {user}"),
            cause: cause.to_string(),
            way_out: "mend the system's lists of users and groups".to_owned(),
        })?;
        let loaders = open_loaders(&mounts);
        let mut scripts = Vec::new();
        for (index, grant) in grants.iter().enumerate() {
            let bit = GrantSet::of(index).0;
            for rule in &grant.exec {
                let refuse = refusal(rule);
                if bit == 0 {
                    return Err(refuse(
                        "it belongs to a grant beyond the 64 that the kernel side tells apart".into(),
                    ));
                }
                let image = Image::open(&rule.path, &mounts).map_err(|cause| refuse(cause.to_string()))?;
                check(rule, &image, &loaders, &writer).map_err(&refuse)?;
                if image.is_script() {
                    scripts.push(script(rule, bit, &mounts).map_err(|cause| refuse(cause.to_string()))?);
                }
                resolved.add(image, bit);
            }
        }
        for script in &scripts {
            resolved.check_script(script)?;
        }
        Ok(resolved)
    }

    fn add(&mut self, image: Image, bit: u64) {
        let Image { file, identity: FirstImage { dev, ino, generation }, .. } = image;
        let rule = self.rules.entry((dev, ino)).or_insert_with(|| ImageRule {
            bits: 0,
            inode_generation: generation.unwrap_or(0),
            generation_known: u32::from(generation.is_some()),
        });
        rule.bits |= bit;
        self.held.push(file);
    }

    fn check_script(&self, script: &Script<'_>) -> Result<(), EnforcerError> {
        let FirstImage { dev, ino, .. } = script.executed;
        let granted = self.rules.get(&(dev, ino)).map_or(0, |rule| rule.bits);
        if granted & (script.bit | GrantSet::BASELINE.0) != 0 {
            return Ok(());
        }
        let interpreter = script.interpreter.display();
        Err(refusal(script.rule)(format!(
            "it is a script, which needs its interpreter too: list `{interpreter}` beside it if that may run whatever it is \
             given there (at tier `kill` any other script of it can then be executed as well, at tier `lsm` those that are \
             listed)"
        )))
    }
}

fn refusal(rule: &ExecRule) -> impl Fn(String) -> EnforcerError {
    |cause| EnforcerError::Rule { rule: rule.path.display().to_string(), line: rule.line, cause }
}

fn script<'a>(rule: &'a ExecRule, bit: u64, mounts: &[Mount]) -> Result<Script<'a>, ImageError> {
    let executed = Image::open(&rule.path, mounts)?.executed(mounts)?;
    Ok(Script { rule, bit, executed: executed.identity, interpreter: executed.canonical })
}

fn open_loaders(mounts: &[Mount]) -> Vec<Image> {
    LOADERS.iter().filter_map(|path| Image::open(Path::new(path), mounts).ok()).collect()
}

/// Whether the path leads to a dynamic loader, which no rule may name.
pub(super) fn is_loader(path: &Path, image: &Image, mounts: &[Mount]) -> bool {
    is_one_of(path, image, &open_loaders(mounts))
}

fn is_one_of(path: &Path, image: &Image, loaders: &[Image]) -> bool {
    [path, &image.canonical].into_iter().any(is_called_loader)
        || loaders.iter().any(|loader| loader.identity == image.identity)
}

/// What speaks against a rule, with the way out.
fn check(rule: &ExecRule, image: &Image, loaders: &[Image], writer: &Writer) -> Result<(), String> {
    if is_one_of(&rule.path, image, loaders) {
        return Err(
            "it is the dynamic loader, which runs any program that it is given; list the program itself"
                .into(),
        );
    }
    if rule.writable_accepted {
        return Ok(());
    }
    let changeable =
        walk(&rule.path).and_then(|walk| writer.can_change(&walk)).map_err(|cause| cause.to_string())?;
    match changeable {
        None => Ok(()),
        Some(place) => Err(format!(
            "the session's user can change `{place}`, and so what would be executed; make that root's alone, or accept it: \
             `{{path: {path}, writable: accept}}`",
            place = place.display(),
            path = rule.path.display()
        )),
    }
}

/// `ld-linux-x86-64.so.2`, `ld-musl-x86_64.so.1`, `ld-2.31.so`, `ld64.so.2`, `ld.so`.
fn is_called_loader(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let version = name.strip_prefix("ld").and_then(|rest| rest.split_once(".so"));
    version.is_some_and(|(variant, _)| variant.is_empty() || variant == "64" || variant.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::enforcer::images::first_image;
    use crate::enforcer::testing::Folder;

    const USER: u32 = 54_321;

    fn grant(paths: &[&Path]) -> Grant {
        let rule = |path: &&Path| ExecRule { path: (*path).to_owned(), writable_accepted: false, line: 3 };
        Grant { exec: paths.iter().map(rule).collect(), ..Grant::default() }
    }

    fn resolve(grants: &[Grant]) -> Result<Executables, String> {
        Executables::resolve(grants, USER).map_err(|error| error.to_string())
    }

    fn program(folder: &Folder, name: &str, text: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_file_that_two_grants_list_is_opened_by_both() {
        let (one, two) = (grant(&[Path::new("/bin/true")]), grant(&[Path::new("/usr/bin/true")]));
        let resolved = resolve(&[Grant::default(), one, two]).unwrap();
        let first = first_image(Path::new("/bin/true")).unwrap();
        assert_eq!(resolved.rules.len(), 1);
        assert_eq!(resolved.rules[&(first.dev, first.ino)].bits, 0b110);
        assert_eq!(resolved.held.len(), 2);
    }

    #[test]
    fn a_missing_file_is_refused_with_its_line() {
        let error = resolve(&[grant(&[Path::new("/nonexistent")])]).unwrap_err();
        assert!(error.starts_with("/nonexistent (line 3 of the policy)"), "{error}");
    }

    #[test]
    fn the_dynamic_loader_is_refused_by_name_by_number_and_through_a_link() {
        let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
        assert!(resolve(&[grant(&[loader])]).unwrap_err().contains("dynamic loader"));
        let folder = Folder::new("executables-loader");
        let link = folder.path().join("innocent");
        std::os::unix::fs::symlink(loader, &link).unwrap();
        assert!(resolve(&[grant(&[&link])]).unwrap_err().contains("dynamic loader"));
        assert!(is_called_loader(Path::new("/lib/ld-2.31.so")));
        assert!(!is_called_loader(Path::new("/usr/bin/ld")));
        assert!(!is_called_loader(Path::new("/usr/bin/ldd")));
    }

    #[test]
    fn a_script_needs_its_interpreter_in_the_same_grant_or_the_baseline() {
        let folder = Folder::new("executables-scripts");
        let script = program(&folder, "script", b"#!/bin/true\n");
        let (script, interpreter) = (script.as_path(), Path::new("/bin/true"));
        let error = resolve(&[Grant::default(), grant(&[script]), grant(&[interpreter])]).unwrap_err();
        assert!(
            error.contains("list `/usr/bin/true` beside it") || error.contains("list `/bin/true` beside it"),
            "{error}"
        );
        assert!(resolve(&[Grant::default(), grant(&[script, interpreter])]).is_ok());
        assert!(resolve(&[grant(&[interpreter]), grant(&[script])]).is_ok());
    }

    #[test]
    fn a_file_that_the_sessions_user_can_write_needs_the_policys_word() {
        let folder = Folder::new("executables-writable");
        let own = program(&folder, "own", b"\x7fELF");
        assert!(resolve(&[grant(&[&own])]).is_ok(), "root's");
        std::os::unix::fs::chown(&own, Some(USER), None).unwrap();
        let error = resolve(&[grant(&[&own])]).unwrap_err();
        assert!(error.contains("writable: accept"), "{error}");
        let mut accepted = grant(&[&own]);
        accepted.exec[0].writable_accepted = true;
        assert!(resolve(&[accepted]).is_ok());
    }
}
