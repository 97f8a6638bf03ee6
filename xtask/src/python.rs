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
/// What programs of tests use besides the package, and what that needs.
const PACKAGES: &[&str] = &[
    "numpy==2.3.5",
    "requests==2.32.5",
    "certifi==2026.10.19.post1",
    "charset-normalizer==3.5.3",
    "idna==3.20",
    "urllib3==2.8.0",
];
/// A program's client that a test uses, and what that needs.
const OPENAI: &[&str] = &[
    "openai==3.57.0",
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "h11==0.16.0",
    "httpcore2==2.16.2",
    "httpx2==2.16.2",
    "idna==3.20",
    "jiter==0.19.0",
    "pydantic==2.14.4",
    "pydantic-core==2.50.5",
    "sniffio==1.3.1",
    "truststore==0.10.5",
    "typing-extensions==4.16.0",
    "typing-inspection==0.4.5",
];
/// Tests of the wheel itself, which make environments of their own.
const TESTS_OF_THE_WHEEL: &[&str] = &["fresh_venv", "stubs"];
/// Debian's own, for everything: a session's user can't run one that is somewhere in root's home, and what is compiled for one of another version
/// doesn't run by it.
pub(crate) const INTERPRETER: &str = "/usr/bin/python3";

/// The package, built and installed.
#[derive(Debug)]
pub(crate) struct Python {
    /// What `PYTHONPATH` has to name.
    pub(crate) site: PathBuf,
    /// The folder of its wheel.
    pub(crate) wheels: PathBuf,
    /// The folder of what programs of tests use besides it.
    pub(crate) packages: PathBuf,
    /// The folder of OpenAI's client.
    pub(crate) openai: PathBuf,
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
    let (tools, wheels, site) = (folder.join("tools"), folder.join("wheels-of-tests"), folder.join("site"));
    let (packages, openai) = (folder.join("packages"), folder.join("openai"));
    install(&tools, TOOLS)?;
    install(&packages, PACKAGES)?;
    install(&openai, OPENAI)?;
    let wheel = build_into(&wheels, root, &tools, &["--profile", "dev", "--compatibility", "linux"])?;
    remove(&site)?;
    let mut install_wheel = pip();
    install_wheel.args(["--no-deps", "--target"]).arg(&site).arg(wheel);
    output_of(install_wheel, "pip install of the wheel")?;
    let (tests, example) = (root.join(PACKAGE).join("tests"), root.join(EXAMPLE));
    Ok(Python { site, wheels, packages, openai, tools, tests, example })
}

/// Builds the wheel that users install, for any Linux that is as old as this one's libraries let it, and prints its path.
///
/// # Errors
/// A tool can't be had, or the package not be built.
pub(crate) fn build_wheel(root: &Path) -> anyhow::Result<()> {
    println!("{}", users_wheel(root, &["--release"])?.display());
    Ok(())
}

/// Installs the wheel that users install into a folder, as the only package there.
///
/// # Errors
/// As [`build_wheel`].
pub(crate) fn install_wheel(root: &Path, site: &Path) -> anyhow::Result<()> {
    // Whatever this host's libraries are, it is for this host.
    let wheel = users_wheel(root, &["--release", "--compatibility", "linux"])?;
    remove(site)?;
    let mut install = pip();
    install.args(["--no-deps", "--target"]).arg(site).arg(wheel);
    output_of(install, "pip install of the wheel").map(drop)
}

fn users_wheel(root: &Path, options: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = root.join("target/python");
    let tools = folder.join("tools");
    install(&tools, TOOLS)?;
    build_into(&folder.join("wheels"), root, &tools, options)
}

/// Builds the wheel as these options say, the only thing in the folder then.
fn build_into(wheels: &Path, root: &Path, tools: &Path, options: &[&str]) -> anyhow::Result<PathBuf> {
    remove(wheels)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([tools.join("bin")].into_iter().chain(std::env::split_paths(&path)))?;
    let mut maturin = Command::new(tools.join("bin/maturin"));
    maturin
        .current_dir(root.join(PACKAGE))
        .args(["build", "--quiet", "--locked"])
        .args(options)
        .arg("--out")
        .arg(wheels)
        .env("CARGO_TARGET_DIR", root.join("target"))
        .env("PYTHONPATH", tools)
        .env("PATH", path);
    output_of(maturin, "maturin build")?;
    Ok(std::fs::read_dir(wheels)?.next().context("maturin built no wheel")??.path())
}

pub(crate) fn remove(stale: &Path) -> anyhow::Result<()> {
    if stale.exists() {
        std::fs::remove_dir_all(stale).with_context(|| format!("`{}`", stale.display()))?;
    }
    Ok(())
}

fn pip() -> Command {
    let mut pip = Command::new(INTERPRETER);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]);
    pip
}

/// Installs these into the folder, unless just they are there.
pub(crate) fn install(folder: &Path, wanted: &[&str]) -> anyhow::Result<()> {
    let marker = folder.join("installed");
    let names = wanted.join(" ");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == names) {
        return Ok(());
    }
    println!("python: installs {names} into `{}`", folder.display());
    remove(folder)?;
    let mut pip = pip();
    pip.arg("--target").arg(folder).args(wanted);
    output_of(pip, "pip install").context("`cargo xtask setup` installs pip where it is missing")?;
    std::fs::write(&marker, names).with_context(|| format!("`{}`", marker.display()))
}

impl Python {
    /// Its test files and the type checker, each as one test that `tests/tiers.toml` and a filter know by this name.
    ///
    /// # Errors
    /// Their folder can't be read.
    pub(crate) fn tests(&self) -> anyhow::Result<Vec<String>> {
        let mut tests = vec!["sentinel-python/mypy".to_owned()];
        tests.extend(TESTS_OF_THE_WHEEL.iter().map(|name| format!("sentinel-python/{name}")));
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
            let mut mypy = Command::new(INTERPRETER);
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
            .env("SENTINEL_PYTHON_WHEELS", &self.wheels)
            .env("SENTINEL_PYTHON_TOOLS", &self.tools)
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
