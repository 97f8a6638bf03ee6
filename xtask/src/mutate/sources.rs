//! Other texts in the sources, one at a time, each built and tried.
//!
//! Invariant: only a copy of the tree, below `target/mutate`, is changed. It is made like the checkout as it was when the run began, before each;
//! so a run that is ended early leaves nothing to be put right, and who goes on writing meanwhile is not in its way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::guest::{self, Run};
use super::hooks::HERE;
use super::list::{AGENT, Place, Source};
use super::ran::{self, Ended};
use super::table::Row;
use crate::build_ebpf;
use crate::command::{output, output_of};
use crate::test::{self, Target};
use crate::vm::{File, Selection, Vm};

/// A copy of the tree, with a target folder of its own.
#[derive(Debug)]
struct Copy {
    folder: PathBuf,
    log: PathBuf,
    /// The checkout's files.
    files: BTreeMap<String, Vec<u8>>,
}

/// Tries each of those in a guest, whose test programs load the kernel side that `SENTINEL_OBJECT` names.
///
/// # Errors
/// The guest doesn't come to its end, a test fails without a mutation, or what is needed can't be copied or built.
pub(super) fn in_a_guest(
    root: &Path,
    kernel: &str,
    sources: &[Source],
    told: &mut impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let sources: Vec<&Source> = sources.iter().filter(|source| source.place == Some(Place::Guest)).collect();
    if sources.is_empty() {
        return Ok(());
    }
    let vm = Vm::prepare(root, Selection::Of(AGENT.to_owned(), String::new()))?;
    let copy = Copy::of(root)?;
    let place = format!("Linux {kernel}");
    let (mut built, mut runs, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for source in sources {
        copy.refresh(Some(source))?;
        if let Err(cause) = build_ebpf::build_ebpf(&copy.folder) {
            told(Row::of_source(source, &place, Ended::Void(format!("it doesn't build: {cause}"))))?;
            continue;
        }
        let object = format!("objects/{}", source.name);
        let variable = format!("SENTINEL_OBJECT=/{object}");
        runs.push(Run { name: source.name.clone(), variable, test: source.test_in_guest()?.to_owned() });
        let content = std::fs::read(build_ebpf::object(&copy.folder)).context("the kernel side")?;
        files.push(File { place: object, content });
        built.push(source);
    }
    copy.refresh(None)?;
    for (source, ended) in built.into_iter().zip(guest::run_all(&vm, kernel, &runs, &files)?) {
        told(Row::of_source(source, &place, ended))?;
    }
    Ok(())
}

/// Tries each of those on this machine.
///
/// # Errors
/// A test fails without a mutation, or what is needed can't be copied, built or started.
pub(super) fn try_all(
    root: &Path,
    sources: &[Source],
    told: &mut impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let sources: Vec<&Source> = sources.iter().filter(|source| source.place.is_none()).collect();
    if sources.is_empty() {
        return Ok(());
    }
    let copy = Copy::of(root)?;
    copy.refresh(None)?;
    let tests: BTreeSet<&str> = sources.iter().map(|source| source.test.as_str()).collect();
    for program in tests.iter().filter_map(|test| Some(test.split_once("::")?.0)).collect::<BTreeSet<_>>() {
        let built = copy.build(program).with_context(|| format!("`{program}` as it stands"))?;
        for test in tests.iter().filter_map(|test| test.strip_prefix(program)?.strip_prefix("::")) {
            let ended = copy.run(&built, test)?;
            ensure!(
                ended == Ended::Passed,
                "`{program}::{test}` doesn't pass as the sources stand: {ended:?}"
            );
        }
    }
    for source in sources {
        let (program, test) = source.target_and_test()?;
        copy.refresh(Some(source))?;
        let ended = match copy.build(program) {
            Ok(built) => copy.run(&built, test)?,
            Err(cause) => Ended::Void(format!("it doesn't build: {cause}")),
        };
        told(Row::of_source(source, HERE, ended))?;
    }
    copy.refresh(None)
}

impl Copy {
    fn of(root: &Path) -> anyhow::Result<Self> {
        let listed = output(root, "git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let names = listed.split('\0').filter(|name| root.join(name).is_file());
        let read = |name: &str| std::fs::read(root.join(name)).with_context(|| format!("`{name}`"));
        let files = names.map(|name| Ok((name.to_owned(), read(name)?))).collect::<anyhow::Result<_>>()?;
        let target = root.join("target/mutate");
        Ok(Self { folder: target.join("tree"), log: target.join("log"), files })
    }

    /// Makes it like the checkout, but for one mutation. Files that are as they should be aren't touched, and so aren't built anew.
    fn refresh(&self, mutation: Option<&Source>) -> anyhow::Result<()> {
        for (name, content) in &self.files {
            let to = self.folder.join(name);
            let mutated = match mutation.filter(|source| source.file == *name) {
                Some(source) => Some(source.mutated(std::str::from_utf8(content)?)?.into_bytes()),
                None => None,
            };
            let wanted = mutated.as_ref().unwrap_or(content);
            if std::fs::read(&to).is_ok_and(|found| found == *wanted) {
                continue;
            }
            std::fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
            std::fs::write(&to, wanted).with_context(|| format!("`{}`", to.display()))?;
        }
        Ok(())
    }

    /// Builds the kernel side and a test program, `package/target`.
    fn build(&self, program: &str) -> anyhow::Result<Target> {
        let (package, target) = program.split_once('/').context("it is no `package/target`")?;
        if package == "sentinel-agent" {
            build_ebpf::build_ebpf(&self.folder)?;
        }
        let mut command = Command::new("cargo");
        command.current_dir(&self.folder).env_remove("CARGO_TARGET_DIR");
        command.args(["test", "--no-run", "--locked", "--quiet", "--package", package]);
        match target {
            "lib" => command.arg("--lib"),
            test => command.args(["--test", test]),
        };
        command.arg("--message-format=json-render-diagnostics");
        let built = test::executables(&output_of(command, "cargo test --no-run")?)?;
        let is_it = |built: &Target| built.is_test && built.package == package && built.name == target;
        built.into_iter().find(is_it).with_context(|| format!("cargo built no `{program}`"))
    }

    fn run(&self, target: &Target, test: &str) -> anyhow::Result<Ended> {
        let mut command = target.command();
        command.args(["--exact", test]);
        ran::run(command, &self.log)
    }
}
