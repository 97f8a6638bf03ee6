//! The policies that sessions can be started with.
//!
//! Invariant: all or none. An agent never starts with the valid half of a folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sentinel_engine::Policy;
use sentinel_policy::{Problems, Warnings};
use sha2::{Digest as _, Sha256};

/// A policy, and the digest of the text that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedPolicy {
    /// The policy.
    pub policy: Policy,
    /// The SHA-256 of its text, in lower-case hex.
    pub sha256: String,
}

impl LoadedPolicy {
    /// Reads a policy from its text's bytes.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &[u8]) -> Result<(Self, Warnings), Problems> {
        let parsed = sentinel_policy::parse_bytes(text)?;
        let mut sha256 = String::with_capacity(64);
        for byte in Sha256::digest(text) {
            let _infallible = write!(sha256, "{byte:02x}");
        }
        Ok((Self { policy: parsed.policy, sha256 }, parsed.warnings))
    }
}

/// Why no policy could be loaded: a report for a person, safe on a terminal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PoliciesError(String);

impl PoliciesError {
    /// That this is why.
    pub(crate) fn new(cause: impl std::fmt::Display) -> Self {
        Self(cause.to_string())
    }
}

/// Where an agent's policies are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoliciesSource {
    /// Each `NAME.yaml` of this folder.
    Folder(PathBuf),
    /// Nowhere: they were handed over at the start.
    Fixed,
}

impl PoliciesSource {
    /// Reads them. Warnings go to the log.
    ///
    /// # Errors
    /// All problems at once; or there is nothing to read from.
    pub(crate) fn read(&self) -> Result<BTreeMap<String, LoadedPolicy>, PoliciesError> {
        match self {
            Self::Folder(folder) => {
                let (policies, warnings) = load_folder(folder)?;
                for warning in warnings.lines().filter(|line| !line.is_empty()) {
                    tracing::warn!("{warning}");
                }
                Ok(policies)
            }
            Self::Fixed => Err(PoliciesError::new(
                "this agent was handed its policy at the start; end the command and run it anew",
            )),
        }
    }
}

/// Reads each `NAME.yaml` of a folder; NAME is the policy's name. Warnings come as text beside.
///
/// # Errors
/// The folder or a file can't be read, no policy is there, or one is invalid: all problems of all files at once.
pub fn load_folder(folder: &Path) -> Result<(BTreeMap<String, LoadedPolicy>, String), PoliciesError> {
    let shown = folder.display().to_string();
    let shown = shown.escape_debug();
    let entries = fs::read_dir(folder).map_err(|error| {
        PoliciesError(format!(
            "cannot read the policies in `{shown}`: {error}; name their folder by --policies"
        ))
    })?;
    let mut policies = BTreeMap::new();
    let (mut report, mut warnings) = (String::new(), String::new());
    for entry in entries {
        let path = entry
            .map_err(|error| PoliciesError(format!("cannot list the policies in `{shown}`: {error}")))?
            .path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let file = path.display().to_string();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
            let _infallible = writeln!(
                report,
                "error: the name of `{}` is no UTF-8; rename it, for its name is the policy's",
                file.escape_debug()
            );
            continue;
        };
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) => {
                let _infallible = writeln!(report, "error: cannot read `{}`: {error}", file.escape_debug());
                continue;
            }
        };
        let lossy = String::from_utf8_lossy(&text);
        match LoadedPolicy::parse(&text) {
            Ok((policy, found)) => {
                warnings.push_str(&found.render(&file, &lossy));
                policies.insert(name.to_owned(), policy);
            }
            Err(problems) => report.push_str(&problems.render(&file, &lossy)),
        }
    }
    if !report.is_empty() {
        return Err(PoliciesError(report.trim_end().to_owned()));
    }
    if policies.is_empty() {
        return Err(PoliciesError(format!(
            "no policy in `{shown}`: an agent without one starts no session; write `NAME.yaml` there"
        )));
    }
    Ok((policies, warnings))
}

/// A file's bytes; one beyond the longest policy is cut just behind it, so that the parser says what is wrong.
///
/// # Errors
/// It can't be read.
pub fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let most = u64::try_from(sentinel_policy::MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = Vec::new();
    fs::File::open(path)?.take(most).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("sentinel-policies-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_of_valid_policies_gives_each_by_the_name_of_its_file() {
        let folder = folder(
            "valid",
            &[
                ("a.yaml", "budgets: {session: 1}\n"),
                ("b.yaml", "allowed_actions: []\n"),
                ("README", "no policy"),
            ],
        );
        let (policies, _warnings) = load_folder(&folder).unwrap();
        assert_eq!(policies.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(policies["a"].sha256.len(), 64);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_invalid_policy_keeps_all_from_being_loaded_and_every_problem_is_told() {
        let folder = folder(
            "invalid",
            &[
                ("a.yaml", "budgets: {session: 1}\n"),
                ("b.yaml", "budget: {}\nmode: lax\n"),
                ("c.yaml", "nonsense: 1\n"),
            ],
        );
        let report = load_folder(&folder).unwrap_err().to_string();
        for part in ["b.yaml:1:1", "b.yaml:2:1", "c.yaml:1:1"] {
            assert!(report.contains(part), "{part} is missing in:\n{report}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_without_any_policy_is_refused_and_so_is_one_that_is_not_there() {
        let folder = folder("none", &[]);
        assert!(load_folder(&folder).unwrap_err().to_string().contains("no policy in"));
        fs::remove_dir_all(&folder).unwrap();
        assert!(load_folder(&folder).unwrap_err().to_string().contains("--policies"));
    }
}
