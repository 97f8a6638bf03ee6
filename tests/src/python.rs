//! The Python package as `cargo xtask test` has built it, where a session's user can read it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Finished, Host};

/// An interpreter that any user may run.
pub const INTERPRETER: &str = "/usr/bin/python3";

/// A copy of the package in a host's folder, with what a test adds to it, and folders to work in.
#[derive(Debug)]
pub struct Python<'host> {
    host: &'host Host,
    /// What `PYTHONPATH` names.
    pub folder: PathBuf,
}

impl<'host> Python<'host> {
    /// Where the package was built to.
    ///
    /// # Panics
    /// It wasn't.
    #[must_use]
    pub fn site() -> PathBuf {
        let site = std::env::var_os("SENTINEL_PYTHON_SITE").expect(
            "the Python package is built by `cargo xtask test`; run that instead of `cargo test` alone",
        );
        site.into()
    }

    /// Copies it: a session's user can't read the checkout.
    ///
    /// # Panics
    /// The temporary folder is full.
    #[must_use]
    pub fn on(host: &'host Host) -> Self {
        let folder = host.folder.join("python");
        copy_folder(&Self::site(), &folder);
        Self { host, folder }
    }

    /// Puts a file beside the package.
    ///
    /// # Panics
    /// It isn't there, or the temporary folder is full.
    pub fn copy(&self, file: &Path) {
        let name = file.file_name().expect("a file has a name");
        std::fs::copy(file, self.folder.join(name)).expect("a file of the checkout, and an own folder");
    }

    /// A new folder that any user may write.
    ///
    /// # Panics
    /// The temporary folder is full.
    #[must_use]
    pub fn work_folder(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = self.host.folder.join(format!("work-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&folder).expect("own folder");
        make_writable(&folder);
        folder
    }

    /// The interpreter with these arguments in a session, in a folder that it may write.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let words: Vec<&str> = std::iter::once(INTERPRETER).chain(arguments.iter().copied()).collect();
        let mut command = self.host.run_command(&[], &words);
        command
            .current_dir(self.work_folder())
            .env("PYTHONPATH", &self.folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("AGENT_SENTINEL_HOME");
        command
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.command(arguments))
    }
}

/// Lets any user write a file or folder.
///
/// # Panics
/// It isn't there.
pub fn make_writable(path: &Path) {
    let any = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(path, any).expect("own file");
}

/// Copies a folder with all that is in it.
///
/// # Panics
/// It can't be read, there is such a folder, or no room.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("own folder");
    for entry in std::fs::read_dir(from).expect("the package's folder") {
        let entry = entry.expect("the package's folder");
        let target = to.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("own folder");
        }
    }
}
