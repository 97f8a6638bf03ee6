//! The test programs and what they start, as they are built for this machine; and the libraries that these need, which the guest has not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::Selection;
use super::kernels::{Kernel, Listed, Tier};
use crate::command::output;
use crate::test::Target;

/// A test program, built.
#[derive(Debug)]
pub(crate) struct Program {
    listed: Listed,
    pub(crate) executable: PathBuf,
}

/// A file of this machine's for the guest.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Where it is there, without the first slash.
    pub(crate) place: String,
    pub(crate) from: PathBuf,
}

/// Finds the test programs among what was built.
///
/// # Errors
/// One isn't there.
pub(crate) fn find(built: &[Target], listed: &[Listed]) -> anyhow::Result<Vec<Program>> {
    let find = |listed: &Listed| {
        let is_it = |target: &&Target| {
            target.is_test && target.package == listed.package && target.name == listed.target
        };
        let found = built.iter().find(is_it);
        let found =
            found.with_context(|| format!("cargo built no `{}/{}`", listed.package, listed.target))?;
        Ok(Program { listed: listed.clone(), executable: found.executable.clone().into() })
    };
    listed.iter().map(find).collect()
}

/// The programs that these start, as they were built.
///
/// # Errors
/// One isn't there.
pub(crate) fn started(root: &Path, listed: &[Listed]) -> anyhow::Result<Vec<Copied>> {
    let names = listed.iter().flat_map(|listed| &listed.starts).filter_map(|name| name.split_once('/'));
    let names: BTreeSet<&str> = names.map(|(_package, program)| program).collect();
    let find = |program: &str| {
        let place = format!("target/debug/{program}");
        let from = root.join(&place);
        ensure!(from.exists(), "cargo built no `{}`", from.display());
        Ok(Copied { place, from })
    };
    names.into_iter().map(find).collect()
}

/// The shared libraries of these programs, and what loads them.
///
/// # Errors
/// One isn't to be found.
pub(crate) fn libraries(programs: &[&Path]) -> anyhow::Result<Vec<Copied>> {
    let mut found = BTreeMap::new();
    for program in programs {
        let told = output(Path::new("/"), "ldd", &[&program.display().to_string()])?;
        for path in told.lines().filter_map(library) {
            let path =
                path.with_context(|| format!("a library of `{}` is missing:\n{told}", program.display()))?;
            found.insert(path.trim_start_matches('/').to_owned(), PathBuf::from(path));
        }
    }
    Ok(found.into_iter().map(|(place, from)| Copied { place, from }).collect())
}

/// The file of a line of `ldd`'s; none where the kernel itself brings it, and none inside that where it isn't found.
fn library(line: &str) -> Option<Option<&str>> {
    let line = line.trim();
    let found = match line.split_once(" => ") {
        Some((_name, found)) => found,
        None if line.starts_with('/') => line,
        None => return None,
    };
    let path = found.rsplit_once(" (0x").map_or(found, |(path, _address)| path);
    Some(path.starts_with('/').then_some(path))
}

impl Program {
    /// `package/target`.
    pub(crate) fn name(&self) -> String {
        self.listed.name()
    }

    /// Where it is in the guest: as in a target folder, for programs look for each other there.
    pub(crate) fn place(&self) -> String {
        format!("target/debug/deps/{}-{}", self.listed.package, self.listed.target)
    }

    /// What the guest's init calls to run it.
    pub(crate) fn run(&self, kernel: &Kernel, selection: &Selection) -> String {
        let mut arguments = Vec::new();
        match selection {
            Selection::Listed | Selection::All => {
                let is_all = *selection == Selection::All && kernel.tier != Tier::None;
                let common = if is_all || kernel.tests.is_empty() { &self.listed.tests[..] } else { &[] };
                let soak = if is_all { &self.listed.soak[..] } else { &[] };
                arguments.extend(common.iter().chain(&kernel.tests).chain(soak).map(|test| quoted(test)));
                arguments.extend(self.listed.skip.iter().map(|test| format!("--skip {}", quoted(test))));
            }
            Selection::Having(part) | Selection::Of(_, part) => arguments.push(quoted(part)),
        }
        format!("run {} /{} {}\n", quoted(&self.name()), self.place(), arguments.join(" "))
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Kernels;
    use super::*;

    #[test]
    fn what_loads_programs_and_their_libraries_are_files_and_what_the_kernel_brings_is_none() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ffd)"), None);
        assert_eq!(library("\tstatically linked"), None);
        assert_eq!(library("\tlibc.so.6 => /lib/libc.so.6 (0x00007f0c)"), Some(Some("/lib/libc.so.6")));
        assert_eq!(library("\t/lib64/ld.so.2 (0x00007f0c)"), Some(Some("/lib64/ld.so.2")));
        assert_eq!(library("\tlibodd.so => not found"), Some(None));
    }

    #[test]
    fn a_kernels_own_list_stands_for_the_programs_but_where_all_is_wanted_and_sentinel_starts() {
        let kernels: Kernels = toml::from_str(
            "[[kernel]]\nname = 'own'\nsuites = []\npackage = ''\nprocessor = ''\ntier = 'lsm'\ntests = ['few']\n\
             [[kernel]]\nname = 'none'\nsuites = []\npackage = ''\nprocessor = ''\ntier = 'none'\ntests = ['few']\n\
             [[kernel]]\nname = 'plain'\nsuites = []\npackage = ''\nprocessor = ''\ntier = 'kill'\n\
             [[program]]\npackage = 'p'\ntarget = 'lib'\ntests = ['many']\nsoak = ['more']\n",
        )
        .unwrap();
        let program = Program { listed: kernels.program[0].clone(), executable: PathBuf::new() };
        let arguments = |kernel: &str, selection: &Selection| {
            let line = program.run(kernels.find(kernel).unwrap(), selection);
            line.trim_end().rsplit_once("p-lib ").unwrap().1.to_owned()
        };
        for (kernel, listed, all) in [
            ("own", "'few'", "'many' 'few' 'more'"),
            ("none", "'few'", "'few'"),
            ("plain", "'many'", "'many' 'more'"),
        ] {
            assert_eq!(arguments(kernel, &Selection::Listed), listed);
            assert_eq!(arguments(kernel, &Selection::All), all);
        }
    }
}
