//! `--policy`: a file's text, checked before anything starts, or the name of a policy that a running agent has.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;

use sentinel_engine::Policy;

use super::failure::Failure;
use crate::daemon::{LoadedPolicy, read_bounded};

/// A policy's file, which was read once and is valid.
#[derive(Debug)]
pub(super) struct PolicyFile {
    pub(super) text: Vec<u8>,
    pub(super) policy: Policy,
    /// What is legal in it but probably not meant, rendered.
    pub(super) warnings: String,
}

impl PolicyFile {
    /// Reads and checks it.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = read_bounded(path)
            .map_err(|source| Failure::UnreadablePolicy { path: path.to_owned(), source })?;
        let (shown, readable) = (path.display().to_string(), String::from_utf8_lossy(&text));
        match LoadedPolicy::parse(&text) {
            Err(problems) => Err(Failure::InvalidPolicy(problems.render(&shown, &readable))),
            Ok((loaded, warnings)) => {
                let warnings = warnings.render(&shown, &readable);
                Ok(Self { policy: loaded.policy, warnings, text })
            }
        }
    }
}

/// The policy to start a session with.
#[derive(Debug)]
pub(super) enum PolicyArgument {
    /// By name.
    Name(String),
    /// By text, read once. The file may change meanwhile: the session has what was checked.
    File { name: String, text: Vec<u8> },
}

impl PolicyArgument {
    /// Reads what stands behind `--policy`. Warnings about a file go to standard error.
    pub(super) fn read(argument: &OsStr) -> Result<Self, Failure> {
        let path = Path::new(argument);
        let is_file = argument.as_encoded_bytes().contains(&b'/')
            || path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if !is_file {
            return match argument.to_str().filter(|name| !name.is_empty()) {
                Some(name) => Ok(Self::Name(name.to_owned())),
                None => Err(Failure::PolicyName(argument.to_string_lossy().into_owned())),
            };
        }
        let PolicyFile { text, warnings, .. } = PolicyFile::read(path)?;
        let _closed = io::stderr().write_all(warnings.as_bytes());
        let name = path.file_stem().unwrap_or(argument).to_string_lossy().into_owned();
        Ok(Self::File { name, text })
    }

    /// The name that the agent knows it by: of a file, its own without the ending.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::File { name, .. } => name,
        }
    }

    /// The text of a file.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Name(_) => None,
            Self::File { text, .. } => Some(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_or_an_ending_makes_a_file_and_all_else_is_a_name() {
        assert_eq!(PolicyArgument::read(OsStr::new("web")).unwrap().name(), "web");
        for missing in ["no-such-file.yaml", "no-such-file.yml", "./no-such-file", "/no/such/file"] {
            let failure = PolicyArgument::read(OsStr::new(missing)).unwrap_err();
            assert!(matches!(failure, Failure::UnreadablePolicy { .. }), "{missing}: {failure}");
            assert_eq!(failure.exit_code(), 66);
        }
        assert_eq!(PolicyArgument::read(OsStr::new("")).unwrap_err().exit_code(), 64);
    }

    #[test]
    fn a_file_with_a_problem_is_told_at_its_place_and_one_without_gives_its_name_and_text() {
        let path = std::env::temp_dir().join(format!("sentinel-policy-{}.yaml", std::process::id()));
        std::fs::write(&path, "budgets: {session: 1}\n").unwrap();
        let policy = PolicyArgument::read(path.as_os_str()).unwrap();
        assert_eq!(policy.text(), Some(b"budgets: {session: 1}\n".as_slice()));
        assert_eq!(policy.name(), format!("sentinel-policy-{}", std::process::id()));
        std::fs::write(&path, "budget: {session: 1}\n").unwrap();
        let failure = PolicyArgument::read(path.as_os_str()).unwrap_err();
        assert_eq!(failure.exit_code(), 78);
        assert!(failure.to_string().contains(":1:1"), "{failure}");
        std::fs::remove_file(path).unwrap();
    }
}
