//! `cargo xtask vm`: the tests on other kernels than this machine's, each booted in QEMU without hardware support.
//!
//! Invariant: a kernel whose tests were not seen to run and pass, all of them, is a failure that says why: see `verdict`.

mod initramfs;
mod kernels;
mod machine;
mod packages;
mod programs;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use self::kernels::{Kernel, Kernels};
use self::packages::{Apt, Unpacked};
use self::programs::Program;
pub(crate) use self::verdict::Passed;
use crate::{build_ebpf, setup, toolchain};

/// Which tests run in the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Selection<'a> {
    /// Those that `tests/kernels.toml` names.
    Listed,
    /// Those with this in their name.
    Having(&'a str),
}

/// What is ready to be booted.
#[derive(Debug)]
pub(crate) struct Vm {
    root: PathBuf,
    kernels: Kernels,
    programs: Vec<Program>,
}

/// Runs the tests on one kernel or on all.
///
/// # Errors
/// Names the kernels on which something failed, or what keeps them from being booted at all.
pub(crate) fn vm(root: &Path, kernel: Option<&str>, test: Option<&str>) -> anyhow::Result<()> {
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    let vm = Vm::prepare(root)?;
    let names: Vec<String> = match kernel {
        Some(name) => vec![vm.kernels.find(name)?.name.clone()],
        None => vm.kernels.kernel.iter().map(|kernel| kernel.name.clone()).collect(),
    };
    let selection = test.map_or(Selection::Listed, Selection::Having);
    let (mut passed, mut failed) = (0, Vec::new());
    for name in names {
        match vm.run(&name, selection) {
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
    println!("{passed} passed on the kernels that passed; {} kernels failed", failed.len());
    ensure!(failed.is_empty(), "failed on: {}", failed.join(", "));
    Ok(())
}

impl Vm {
    /// Builds the test programs.
    ///
    /// # Errors
    /// There is no QEMU, or cargo fails.
    pub(crate) fn prepare(root: &Path) -> anyhow::Result<Self> {
        machine::check()?;
        let kernels = Kernels::read(root)?;
        let programs = programs::build(root, &kernels.program)?;
        Ok(Self { root: root.to_owned(), kernels, programs })
    }

    /// Boots a kernel and runs the tests.
    ///
    /// # Errors
    /// Something failed, with the last lines of its console, or can't be had.
    pub(crate) fn run(&self, kernel: &str, selection: Selection<'_>) -> anyhow::Result<Passed> {
        let kernel = self.kernels.find(kernel.strip_prefix("vm/").unwrap_or(kernel))?;
        let unpacked = packages::kernel(&cache(), kernel)?;
        println!("vm/{}: boots Debian's Linux {} ({})", kernel.name, unpacked.release, unpacked.package);
        let folder = self.root.join("target/vm/machines").join(&kernel.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("`{}`", folder.display()))?;
        let image = folder.join("initramfs");
        let programs = self.write_image(&image, kernel, &unpacked, selection)?;
        let start = Instant::now();
        let seen = machine::run(kernel, &unpacked.image, &image, &folder.join("console"))?;
        let passed = verdict::judge(&seen, programs)?;
        if passed.passed == 0 {
            bail!("no test ran");
        }
        Ok(Passed { seconds: start.elapsed().as_secs(), ..passed })
    }

    /// The guest's file system; how many programs are run in it.
    fn write_image(
        &self,
        to: &Path,
        kernel: &Kernel,
        unpacked: &Unpacked,
        selection: Selection<'_>,
    ) -> anyhow::Result<usize> {
        let mut archive = initramfs::Archive::default();
        initramfs::add_system(&mut archive)?;
        let modules = unpacked.modules(&kernel.modules)?;
        initramfs::add_modules(&mut archive, &modules)?;
        let mut script = initramfs::init(kernel, modules.len());
        let mut runs = 0;
        for program in &self.programs {
            if let Some(run) = program.run(kernel, selection) {
                archive.file(&program.place(), 0o755, &std::fs::read(&program.executable)?)?;
                script.push_str(&run);
                runs += 1;
            }
        }
        script.push_str(initramfs::END);
        archive.file("init", 0o755, script.as_bytes())?;
        archive.write(to)?;
        Ok(runs)
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
    let release = packages::release()?;
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
    let kernels = Kernels::read(root)?.kernel;
    Ok(kernels.iter().map(|kernel| format!("vm/{}", kernel.name)).collect())
}

/// Where what was downloaded is kept: outside the target folder, so that a clean build finds it again.
fn cache() -> PathBuf {
    toolchain::cache().join("vm")
}
