//! CMD's file, as the shell would find it.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// The absolute path of the command's file. Links stay: some programs look at the name that they are called by.
pub(super) fn find(command: &[OsString]) -> Result<PathBuf, Failure> {
    find_in(command, env::var_os("PATH").as_deref().unwrap_or_else(|| "/usr/bin:/bin".as_ref()))
}

fn find_in(command: &[OsString], path: &std::ffi::OsStr) -> Result<PathBuf, Failure> {
    let name = command.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Failure::ProgramNotFound(String::new()))?;
    let shown = || name.to_string_lossy().into_owned();
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        env::split_paths(path).map(|folder| folder.join(name)).collect()
    };
    if let Some(found) = candidates.iter().find(|file| is_executable(file)) {
        return std::path::absolute(found).map_err(Failure::WorkingFolder);
    }
    if candidates.iter().any(|file| file.exists()) {
        Err(Failure::ProgramNotExecutable(shown()))
    } else {
        Err(Failure::ProgramNotFound(shown()))
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Result<PathBuf, u8> {
        find_in(&[name.into()], "/no/such:/etc:/usr/bin:/bin".as_ref()).map_err(|failure| failure.exit_code())
    }

    #[test]
    fn a_program_is_found_by_its_path_or_in_the_search_path() {
        assert_eq!(found("env"), Ok(PathBuf::from("/usr/bin/env")));
        assert_eq!(found("/usr/bin/env"), Ok(PathBuf::from("/usr/bin/env")));
    }

    #[test]
    fn what_is_missing_is_127_and_what_is_no_program_126() {
        assert_eq!(found("no-such-program"), Err(127));
        assert_eq!(found("/no/such/program"), Err(127));
        assert_eq!(found(""), Err(127));
        assert_eq!(found("passwd-"), found("/etc/passwd-"));
        assert_eq!(found("/etc/passwd"), Err(126));
        assert_eq!(found("/etc"), Err(126));
        assert_eq!(found("hostname.of.nobody"), Err(127));
    }
}
