//! The Python package: builds its wheel, installs it where any user can read it, and runs its tests and its type checker.
//!
//! Invariant: what is tested is the wheel's contents, never the source folder; and a test file that runs no test is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::command::output_of;

const PACKAGE: &str = "sentinel-sdk/python";
const EXAMPLE: &str = "sentinel-sdk/proto/examples";
/// What builds and checks it, from the package index that pip is set up for.
const TOOLS: &[&str] = &["maturin==1.16.0", "mypy==1.18.2"];
/// A session's user can't run one that is somewhere in root's home.
const INTERPRETER: &str = "/usr/bin/python3";

/// The package, built and installed.
#[derive(Debug)]
pub(crate) struct Python {
    /// What `PYTHONPATH` has to name.
    pub(crate) site: PathBuf,
    /// The folder of its wheel.
    pub(crate) wheels: PathBuf,
    tools: PathBuf,
    tests: PathBuf,
    /// The client that `PROTOCOL.md` shows. Its tests are the protocol's.
    example: PathBuf,
}

/// Builds and installs it.
///
/// # Errors
/// A tool can't be had, or the package not be built.
pub(crate) fn build(root: &Path) -> anyhow::Result<Python> {
    let folder = root.join("target/python");
    let (tools, wheels, site) = (folder.join("tools"), folder.join("wheels"), folder.join("site"));
    install_tools(&tools)?;
    for stale in [&wheels, &site] {
        if stale.exists() {
            std::fs::remove_dir_all(stale).with_context(|| format!("`{}`", stale.display()))?;
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([tools.join("bin")].into_iter().chain(std::env::split_paths(&path)))?;
    let mut maturin = Command::new(tools.join("bin/maturin"));
    maturin
        .current_dir(root.join(PACKAGE))
        .args(["build", "--quiet", "--locked", "--profile", "dev", "--compatibility", "linux", "--out"])
        .arg(&wheels)
        .env("CARGO_TARGET_DIR", root.join("target"))
        .env("PYTHONPATH", &tools)
        .env("PATH", path);
    output_of(maturin, "maturin build")?;
    let wheel = std::fs::read_dir(&wheels)?.next().context("maturin built no wheel")??.path();
    let mut install = pip();
    install.args(["--no-deps", "--target"]).arg(&site).arg(wheel);
    output_of(install, "pip install of the wheel")?;
    let (tests, example) = (root.join(PACKAGE).join("tests"), root.join(EXAMPLE));
    Ok(Python { site, wheels, tools, tests, example })
}

fn pip() -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]);
    pip
}

fn install_tools(tools: &Path) -> anyhow::Result<()> {
    let marker = tools.join("installed");
    let wanted = TOOLS.join(" ");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("python: installs {wanted} into `{}`", tools.display());
    let mut install = pip();
    install.args(["--upgrade", "--target"]).arg(tools).args(TOOLS);
    output_of(install, "pip install of the tools")?;
    std::fs::write(&marker, wanted).with_context(|| format!("`{}`", marker.display()))
}

impl Python {
    /// Its test files and the type checker, each as one test that `tests/tiers.toml` and a filter know by this name.
    ///
    /// # Errors
    /// Their folder can't be read.
    pub(crate) fn tests(&self) -> anyhow::Result<Vec<String>> {
        let mut tests = vec!["sentinel-python/mypy".to_owned()];
        for entry in std::fs::read_dir(&self.tests)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(".py").filter(|name| name.starts_with("test_")) {
                tests.push(format!("sentinel-python/{name}"));
            }
        }
        tests.sort();
        Ok(tests)
    }

    /// Runs one of them; how many tests were in it.
    ///
    /// # Errors
    /// One failed, with what was said.
    pub(crate) fn run(&self, test: &str) -> anyhow::Result<usize> {
        let name = test.rsplit('/').next().unwrap_or(test);
        if name == "mypy" {
            let mut mypy = Command::new("python3");
            mypy.args(["-m", "mypy", "--strict", "--python-version", "3.9", "--cache-dir"])
                .arg(self.tools.join("cache"))
                .args([&self.site.join("agent_sentinel"), &self.example])
                .env("PYTHONPATH", &self.tools);
            output_of(mypy, "mypy --strict")?;
            return Ok(1);
        }
        let mut unittest = Command::new(INTERPRETER);
        unittest
            .current_dir(&self.tests)
            .args(["-W", "error::ResourceWarning", "-m", "unittest", name])
            .env("PYTHONPATH", &self.site)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let finished = unittest.output().with_context(|| format!("`{INTERPRETER}` can't be started"))?;
        let said = String::from_utf8_lossy(&finished.stderr);
        let ran =
            said.lines().rev().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok());
        let ran: usize = ran.unwrap_or(0);
        if !finished.status.success() {
            bail!("{test}: {}\n{}{said}", finished.status, String::from_utf8_lossy(&finished.stdout));
        }
        ensure!(ran > 0, "{test}: no test ran\n{said}");
        ensure!(!said.contains("skipped="), "{test}: tests were skipped; put them in a tier instead\n{said}");
        Ok(ran)
    }
}
