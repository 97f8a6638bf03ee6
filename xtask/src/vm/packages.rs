//! Debian's kernels, unpacked from their packages and kept.
//!
//! Invariant: what has its name in the cache is whole, and one run at a time puts something there.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::apt::Apt;
use super::kernels::Kernel;
use crate::command::run;

/// A kernel that is here.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Its package and version.
    pub(crate) package: String,
    /// What `uname -r` says.
    pub(crate) release: String,
    /// What is booted.
    pub(crate) image: PathBuf,
    /// The folder with `modules.dep`.
    modules: PathBuf,
}

/// The kernel: the one that is kept in the cache, or the newest.
///
/// # Errors
/// It can't be downloaded or unpacked, or isn't what a kernel's packages are known to be.
pub(crate) fn kernel(cache: &Path, kernel: &Kernel) -> anyhow::Result<Unpacked> {
    std::fs::create_dir_all(cache).with_context(|| format!("`{}`", cache.display()))?;
    let lock = cache.join("lock");
    // Another run of this task may be downloading the same; the lock goes with the file.
    let lock = File::create(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("`{}`", lock.display()));
    let _lock = lock?;
    let folder = cache.join("kernels").join(format!("{}_{}", kernel.package, kernel.suites.join("+")));
    if !folder.exists() {
        // What is there is whole: it gets its name last.
        let partial = folder.with_extension("partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial)?;
        }
        std::fs::create_dir_all(&partial).with_context(|| format!("`{}`", partial.display()))?;
        download(cache, kernel, &partial)
            .with_context(|| format!("the kernel `{}` can't be had", kernel.name))?;
        std::fs::rename(&partial, &folder)?;
    }
    find(&folder).with_context(|| format!("`{}`; delete it to have it downloaded again", folder.display()))
}

fn download(cache: &Path, kernel: &Kernel, to: &Path) -> anyhow::Result<()> {
    println!("vm/{}: downloads `{}` from {}", kernel.name, kernel.package, kernel.suites.join(" and "));
    let apt = Apt::new(&cache.join("apt").join(kernel.suites.join("+")), &kernel.suites)?;
    let mut wanted = vec![(kernel.package.clone(), apt.newest(&kernel.package)?)];
    let mut parts: Vec<(String, String)> = Vec::new();
    while let Some((package, version)) = wanted.pop() {
        for needed in apt.dependencies(&package, &version)? {
            if parts.iter().all(|(part, _)| *part != needed) {
                let part = (needed.clone(), apt.newest(&needed)?);
                parts.push(part.clone());
                wanted.push(part);
            }
        }
    }
    ensure!(!parts.is_empty(), "`{}` needs no kernel", kernel.package);
    for (package, version) in &parts {
        let archive = apt.download(package, version)?;
        run(to, "dpkg-deb", &["--extract", &archive.display().to_string(), &to.display().to_string()])?;
        std::fs::remove_file(archive)?;
    }
    let (package, version) = &parts[0];
    std::fs::write(to.join("package"), format!("{package} {version}\n"))?;
    Ok(())
}

fn find(folder: &Path) -> anyhow::Result<Unpacked> {
    let package = std::fs::read_to_string(folder.join("package"))?.trim().to_owned();
    // A usr-merged package has them in /usr/lib, an older one in /lib.
    let all = ["usr/lib/modules", "lib/modules"].map(|place| folder.join(place));
    let all = all.iter().find(|place| place.is_dir()).context("it has no folder of modules")?;
    let releases: Vec<_> = std::fs::read_dir(all)?.collect::<Result<_, _>>()?;
    ensure!(releases.len() == 1, "it has {} kernels' modules in `{}`", releases.len(), all.display());
    let release = releases[0].file_name().to_string_lossy().into_owned();
    let modules = releases[0].path();
    let images = [modules.join("vmlinuz"), folder.join(format!("boot/vmlinuz-{release}"))];
    let image = images.into_iter().find(|image| image.is_file()).context("it has no `vmlinuz`")?;
    Ok(Unpacked { package, release, image, modules })
}

impl Unpacked {
    /// These modules and all that they need, in the order in which they can be loaded. One that is built into the kernel is none.
    ///
    /// # Errors
    /// The kernel has no such module, neither built in.
    pub(crate) fn modules(&self, names: &[String]) -> anyhow::Result<Vec<PathBuf>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let dependencies = self.dependencies()?;
        // The newest suite's package has no such list: there, whatever is asked for has to be a module.
        let builtin = match std::fs::read_to_string(self.modules.join("modules.builtin")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let builtin: Vec<&str> = builtin.lines().map(module_name).collect();
        let order = loading_order(&dependencies, &builtin, names)
            .with_context(|| format!("Linux {}", self.release))?;
        Ok(order.into_iter().map(|file| self.modules.join(file)).collect())
    }

    /// What `depmod` makes when a kernel is installed.
    fn dependencies(&self) -> anyhow::Result<String> {
        let file = self.modules.join("modules.dep");
        if !file.exists() {
            // It looks for modules below /lib only.
            let base = self.modules.with_extension("depmod");
            let link = base.join("lib/modules").join(&self.release);
            std::fs::create_dir_all(base.join("lib/modules"))?;
            if !link.exists() {
                std::os::unix::fs::symlink(&self.modules, &link)?;
            }
            run(&base, depmod(), &["--basedir", &base.display().to_string(), &self.release])?;
            // It stands among the kernels' folders, of which there must be one. The link is removed, not what it leads to.
            std::fs::remove_dir_all(&base)?;
        }
        std::fs::read_to_string(&file).with_context(|| format!("`{}`", file.display()))
    }
}

/// Debian keeps it in /usr/sbin, which isn't on every PATH.
fn depmod() -> &'static str {
    if Path::new("/usr/sbin/depmod").exists() { "/usr/sbin/depmod" } else { "depmod" }
}

/// `kernel/net/sctp/sctp.ko.xz` is `sctp`; `-` and `_` are the same.
fn module_name(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name)
}

/// From `modules.dep`, each line of which has a module and all that it needs, what is needed first last.
fn loading_order(dependencies: &str, builtin: &[&str], names: &[String]) -> anyhow::Result<Vec<String>> {
    let plain = |name: &str| name.replace('-', "_");
    let lines: BTreeMap<String, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (plain(module_name(file)), (file, needs)))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for name in names {
        let Some((file, needs)) = lines.get(&plain(name)) else {
            if builtin.iter().any(|builtin| plain(builtin) == plain(name)) {
                continue;
            }
            bail!("it has no module `{name}`");
        };
        for file in needs.split_whitespace().rev().chain([*file]) {
            if !order.iter().any(|there| there == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_built_in_ones_not_at_all() {
        let dependencies = "kernel/net/a-b.ko.xz: kernel/lib/c.ko.xz kernel/lib/d.ko.xz\nkernel/lib/c.ko.xz: kernel/lib/d.ko.xz\n\
                            kernel/lib/d.ko.xz:\n";
        let order = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            loading_order(dependencies, &["in_it"], &names)
        };
        let all = ["kernel/lib/d.ko.xz", "kernel/lib/c.ko.xz", "kernel/net/a-b.ko.xz"];
        assert_eq!(order(&["c", "in-it", "a_b"]).unwrap(), all);
        assert!(order(&["none"]).unwrap_err().to_string().contains("`none`"));
    }
}
