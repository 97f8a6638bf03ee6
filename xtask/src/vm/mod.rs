//! `cargo xtask vm`: the tests on other kernels than this machine's, each booted in QEMU without hardware support.
//!
//! Invariant: a kernel whose tests were not seen to run and pass, all of them, is a failure that says why: see `verdict`.

mod apt;
mod initramfs;
mod kernels;
mod machine;
mod packages;
mod programs;
mod verdict;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail, ensure};

use self::apt::Apt;
use self::kernels::{Kernel, Kernels};
pub(crate) use self::machine::Seen;
use self::packages::Unpacked;
use self::programs::{Copied, Program};
pub(crate) use self::verdict::{EXIT, Passed, START};
use crate::{build_ebpf, setup, test, toolchain};

/// Which tests run in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Those that `tests/kernels.toml` names.
    Listed,
    /// As `Listed`, and on every kernel all that the programs' lists name, those for soak too. Where Sentinel refuses to start, its own alone.
    All,
    /// Those with this in their name, of the programs of which it names some.
    Having(String),
    /// Those of one program, `package/target`, with this in their name.
    Of(String, String),
}

impl Selection {
    /// From what `--test` was given.
    fn parse(test: Option<&str>) -> Self {
        let Some(test) = test else { return Self::Listed };
        match test.split_once("::") {
            Some((program, part)) if program.contains('/') => Self::Of(program.to_owned(), part.to_owned()),
            None if test.contains('/') => Self::Of(test.to_owned(), String::new()),
            _ => Self::Having(test.to_owned()),
        }
    }
}

/// A file for the guest, besides what it needs itself.
#[derive(Debug)]
pub(crate) struct File {
    /// Where it is there, without the first slash.
    pub(crate) place: String,
    pub(crate) content: Vec<u8>,
}

/// What is ready to be booted.
#[derive(Debug)]
pub(crate) struct Vm {
    root: PathBuf,
    kernels: Kernels,
    selection: Selection,
    programs: Vec<Program>,
    /// What they start, and the libraries of all.
    copied: Vec<Copied>,
}

/// Runs the tests on one kernel or on all.
///
/// # Errors
/// Names the kernels on which something failed, or what keeps them from being booted at all.
pub(crate) fn vm(root: &Path, kernel: Option<&str>, test: Option<&str>) -> anyhow::Result<()> {
    let kernels = Kernels::read(root)?;
    let names: Vec<String> = match kernel {
        Some(name) => vec![kernels.find(name)?.name.clone()],
        None => kernels.names(),
    };
    println!("{}", run_on(root, names, Selection::parse(test))?);
    Ok(())
}

/// Runs all that any list names on every kernel.
///
/// # Errors
/// As [`vm`].
pub(crate) fn all(root: &Path) -> anyhow::Result<String> {
    run_on(root, Kernels::read(root)?.names(), Selection::All)
}

/// What passed.
fn run_on(root: &Path, names: Vec<String>, selection: Selection) -> anyhow::Result<String> {
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    let vm = Vm::prepare(root, selection)?;
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, told) in vm.run_each(&names) {
        match told {
            Ok(told) => {
                println!("vm/{name}: {told}");
                passed += told.passed;
            }
            Err(failure) => {
                println!("vm/{name}: FAILED: {failure:#}");
                failed.push(name);
            }
        }
    }
    let told = format!("{passed} passed on the kernels without a failure; {} kernels with one", failed.len());
    ensure!(failed.is_empty(), "{told}; failed on: {}", failed.join(", "));
    Ok(told)
}

impl Vm {
    /// Builds the test programs, and what they start.
    ///
    /// # Errors
    /// There is no QEMU, nothing is selected, or cargo fails.
    pub(crate) fn prepare(root: &Path, selection: Selection) -> anyhow::Result<Self> {
        machine::check()?;
        let kernels = Kernels::read(root)?;
        let selected = kernels.selected(&selection)?;
        let programs = programs::find(&test::build(root)?, &selected)?;
        let mut copied = programs::started(root, &selected)?;
        let executables = programs.iter().map(|program| program.executable.as_path());
        let executables: Vec<&Path> =
            executables.chain(copied.iter().map(|file| file.from.as_path())).collect();
        let libraries = programs::libraries(&executables)?;
        copied.extend(libraries);
        Ok(Self { root: root.to_owned(), kernels, selection, programs, copied })
    }

    /// Boots each of these kernels, by its name or as a test (`vm/NAME`), and runs the tests: as many at a time as there are CPUs. Two guests are
    /// done sooner than one with two tests at a time, which keep each other from running what the emulator has translated.
    ///
    /// What fails says so with the last lines of its console.
    pub(crate) fn run_each<'a>(&self, kernels: &'a [String]) -> Vec<(&'a str, anyhow::Result<Passed>)> {
        let at_a_time = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let waiting = Mutex::new(kernels.iter());
        let run_next = || {
            let mut done = Vec::new();
            loop {
                // A thread that panicked took one from the list and no more.
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(kernel) = next else { return done };
                done.push((kernel.as_str(), self.run(kernel)));
            }
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..at_a_time.min(kernels.len())).map(|_| scope.spawn(run_next)).collect();
            let panicked = |_panic| vec![("a guest", Err(anyhow!("its thread panicked")))];
            running.into_iter().flat_map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    }

    fn run(&self, kernel: &str) -> anyhow::Result<Passed> {
        let kernel = self.kernels.find(kernel.strip_prefix("vm/").unwrap_or(kernel))?;
        let runs = self.programs.iter().map(|program| program.run(kernel, &self.selection));
        let start = Instant::now();
        let seen = self.boot_with(kernel, &runs.collect::<String>(), &[])?;
        let passed = verdict::judge(&seen, self.programs.len())?;
        if passed.passed == 0 {
            bail!("no test ran");
        }
        Ok(Passed { seconds: start.elapsed().as_secs(), ..passed })
    }

    /// Boots a kernel and has its first process run these lines instead of the tests; of what they come to nothing is judged.
    ///
    /// # Errors
    /// It can't be had, reports a fault or doesn't come to its end.
    pub(crate) fn boot(&self, kernel: &str, lines: &str, files: &[File]) -> anyhow::Result<Seen> {
        let seen = self.boot_with(self.kernels.find(kernel)?, lines, files)?;
        verdict::is_whole(&seen)?;
        Ok(seen)
    }

    /// Where a program is in the guest.
    ///
    /// # Errors
    /// It isn't there.
    pub(crate) fn place(&self, program: &str) -> anyhow::Result<String> {
        let found = self.programs.iter().find(|built| built.name() == program);
        found.map(Program::place).with_context(|| format!("`{program}` isn't among the programs"))
    }

    fn boot_with(&self, kernel: &Kernel, lines: &str, files: &[File]) -> anyhow::Result<Seen> {
        let unpacked = packages::kernel(&cache(), kernel)?;
        println!("vm/{}: boots Debian's Linux {} ({})", kernel.name, unpacked.release, unpacked.package);
        let folder = self.root.join("target/vm/machines").join(&kernel.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("`{}`", folder.display()))?;
        let image = folder.join("initramfs");
        self.write_image(&image, kernel, &unpacked, lines, files)?;
        machine::run(kernel, &unpacked.image, &image, &folder.join("console"))
    }

    /// Writes the guest's file system.
    fn write_image(
        &self,
        to: &Path,
        kernel: &Kernel,
        unpacked: &Unpacked,
        lines: &str,
        files: &[File],
    ) -> anyhow::Result<()> {
        let mut archive = initramfs::Archive::default();
        initramfs::add_system(&mut archive)?;
        let modules = unpacked.modules(&kernel.modules)?;
        initramfs::add_modules(&mut archive, &modules)?;
        for file in &self.copied {
            let content = std::fs::read(&file.from).with_context(|| format!("`{}`", file.from.display()))?;
            archive.file(&file.place, 0o755, &content)?;
        }
        for file in files {
            archive.file(&file.place, 0o644, &file.content)?;
        }
        let mut script = initramfs::init(kernel, modules.len());
        for program in &self.programs {
            archive.file(&program.place(), 0o755, &std::fs::read(&program.executable)?)?;
        }
        script.push_str(lines);
        script.push_str(initramfs::END);
        archive.file("init", 0o755, script.as_bytes())?;
        archive.write(to)
    }
}

/// Whether machines can be run here.
pub(crate) fn has_emulator() -> bool {
    machine::check().is_ok()
}

/// Whether there is a busybox that needs nothing else.
pub(crate) fn has_busybox() -> bool {
    initramfs::busybox().is_ok()
}

/// An `apt-get` that installs from this release's backports.
///
/// # Errors
/// Their list can't be downloaded.
pub(crate) fn backports_installer() -> anyhow::Result<Command> {
    let release = apt::release()?;
    let backports = format!("{release}-backports");
    let apt = Apt::new(&cache().join("apt").join("installer"), &[release, backports.clone()])?;
    let mut command = apt.command("apt-get");
    command.args(["--target-release", &backports]);
    Ok(command)
}

/// The names of the kernels as tests: `vm/NAME`.
///
/// # Errors
/// `tests/kernels.toml` can't be read.
pub(crate) fn tests(root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(Kernels::read(root)?.names().iter().map(|name| format!("vm/{name}")).collect())
}

/// Where what was downloaded is kept: outside the target folder, so that a clean build finds it again.
fn cache() -> PathBuf {
    toolchain::cache().join("vm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_a_program_or_is_for_those_that_are_listed() {
        let of = |program: &str, part: &str| Selection::Of(program.to_owned(), part.to_owned());
        assert_eq!(Selection::parse(None), Selection::Listed);
        assert_eq!(Selection::parse(Some("host::exec")), Selection::Having("host::exec".to_owned()));
        assert_eq!(Selection::parse(Some("a/lib::host::exec")), of("a/lib", "host::exec"));
        assert_eq!(Selection::parse(Some("a/lib")), of("a/lib", ""));
    }
}
