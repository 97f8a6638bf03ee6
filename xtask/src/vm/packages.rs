//! Debian's kernels, unpacked from their packages and kept.
//!
//! Invariant: this machine's own packages, sources and lists are as before. Everything goes through an apt configuration of our own, whose
//! sources are this machine's with another suite in the place of its release's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::kernels::Kernel;
use crate::command::{output_of, run};

/// The beginnings of the names of the packages that a kernel consists of.
const PARTS: &[&str] = &["linux-image-", "linux-binary-", "linux-modules-"];

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

/// An apt of our own.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Makes its configuration and downloads the lists of packages.
    ///
    /// # Errors
    /// This is no Debian, or apt fails.
    pub(crate) fn new(folder: &Path, suites: &[String]) -> anyhow::Result<Self> {
        let release = release()?;
        let sources = sources(Path::new("/etc/apt"), &release, suites)?;
        for place in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(folder.join(place)).with_context(|| format!("`{}`", folder.display()))?;
        }
        std::fs::write(folder.join("own.sources"), sources)?;
        let at = folder.display();
        let configuration = format!(
            "Dir::Etc::sourcelist \"{at}/own.sources\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State::lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\n\
             Acquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Retries \"3\";\nAPT::Sandbox::User \"root\";\n\
             #clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
        );
        std::fs::write(folder.join("apt.conf"), configuration)?;
        let apt = Self { folder: folder.to_owned() };
        apt.ask("apt-get", &["update", "--quiet=2", "--error-on=any"])?;
        Ok(apt)
    }

    /// A command that uses this configuration.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(self.folder.join("apt.conf")).current_dir(&self.folder);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        output_of(command, &format!("{program} {}", arguments.join(" ")))
    }

    /// The newest version of a package.
    fn newest(&self, package: &str) -> anyhow::Result<String> {
        let told = self.ask("apt-cache", &["madison", package])?;
        let mut newest: Option<&str> = None;
        for version in versions(&told) {
            let is_newer = match newest {
                None => true,
                Some(newest) => Command::new("dpkg")
                    .args(["--compare-versions", version, "gt", newest])
                    .status()
                    .context("`dpkg` can't be started")?
                    .success(),
            };
            if is_newer {
                newest = Some(version);
            }
        }
        Ok(newest.with_context(|| format!("there is no package `{package}`"))?.to_owned())
    }

    /// The parts of a kernel that a package depends on.
    fn dependencies(&self, package: &str, version: &str) -> anyhow::Result<Vec<String>> {
        Ok(parts(&self.ask("apt-cache", &["show", &format!("{package}={version}")])?))
    }

    fn download(&self, package: &str, version: &str) -> anyhow::Result<PathBuf> {
        self.ask("apt-get", &["download", "--quiet=2", &format!("{package}={version}")])?;
        let files: Vec<_> = std::fs::read_dir(&self.folder)?.collect::<Result<_, _>>()?;
        let begin = format!("{package}_");
        let file = files.iter().find(|file| file.file_name().to_string_lossy().starts_with(&begin));
        Ok(file.with_context(|| format!("`apt-get download {package}` left no file"))?.path())
    }
}

/// The versions in what `apt-cache madison` prints: `package | version | source`.
fn versions(madison: &str) -> impl Iterator<Item = &str> {
    madison
        .lines()
        .filter(|line| line.ends_with(" Packages"))
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
}

/// The parts of a kernel in the field `Depends` of what `apt-cache show` prints.
fn parts(record: &str) -> Vec<String> {
    let fields = record.lines().filter_map(|line| line.strip_prefix("Depends:"));
    fields
        .flat_map(|field| field.split([',', '|']))
        .filter_map(|one| one.split_whitespace().next())
        .filter(|package| PARTS.iter().any(|part| package.starts_with(part)))
        .map(str::to_owned)
        .collect()
}

/// This machine's release, by its name.
///
/// # Errors
/// This is no Debian.
pub(crate) fn release() -> anyhow::Result<String> {
    let file = "/etc/os-release";
    let text = std::fs::read_to_string(file).with_context(|| format!("`{file}`"))?;
    release_in(&text)
}

fn release_in(text: &str) -> anyhow::Result<String> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim_matches('"').to_owned())
    };
    ensure!(
        field("ID=").as_deref() == Some("debian"),
        "the kernels come from Debian's packages, by this machine's own apt, and this machine isn't Debian"
    );
    field("VERSION_CODENAME=").context("this Debian has no name, so its sources can't be told from others")
}

/// This machine's sources of its release, with these suites instead.
fn sources(apt: &Path, release: &str, suites: &[String]) -> anyhow::Result<String> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut found = String::new();
    for file in files {
        // A file that isn't there has no sources.
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(std::ffi::OsStr::to_str) {
            Some("sources") => found.push_str(&paragraphs(&text, release, suites)),
            Some("list") => found.push_str(&one_liners(&text, release, suites)),
            _ => {}
        }
    }
    ensure!(
        !found.is_empty(),
        "`{}` has no source of `{release}`; the kernels come from where this machine's packages do",
        apt.display()
    );
    Ok(found)
}

/// Of a file of paragraphs, those of the release.
fn paragraphs(text: &str, release: &str, suites: &[String]) -> String {
    let mut kept = String::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        let value = |name: &str| {
            let line = paragraph.iter().find(|line| line.to_lowercase().starts_with(name))?;
            Some(line.split_once(':')?.1.trim())
        };
        let is_off = value("enabled:").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let is_ours =
            value("suites:").is_some_and(|value| value.split_whitespace().any(|suite| suite == release));
        if is_off || !is_ours {
            continue;
        }
        for line in paragraph {
            let name = line.split_once(':').map(|(name, _)| name.to_lowercase());
            match name.as_deref() {
                Some("suites") => kept.push_str(&format!("Suites: {}\n", suites.join(" "))),
                Some("types") => kept.push_str("Types: deb\n"),
                Some("components") => kept.push_str("Components: main\n"),
                _ => kept.push_str(&format!("{line}\n")),
            }
        }
        kept.push('\n');
    }
    kept
}

/// Of a file of one-line sources, those of the release, as paragraphs.
fn one_liners(text: &str, release: &str, suites: &[String]) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let (options, rest) = match rest.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        if suite != release {
            continue;
        }
        kept.push_str(&format!("Types: deb\nURIs: {uri}\nSuites: {}\nComponents: main\n", suites.join(" ")));
        let signed = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        if let Some(key) = signed {
            kept.push_str(&format!("Signed-By: {key}\n"));
        }
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites() -> Vec<String> {
        ["one-backports", "two"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_release_is_told_by_its_name_and_another_distribution_is_refused() {
        assert_eq!(release_in("ID=debian\nVERSION_CODENAME=one\n").unwrap(), "one");
        assert!(
            release_in("ID=other\nVERSION_CODENAME=one\n").unwrap_err().to_string().contains("isn't Debian")
        );
        assert!(release_in("ID=debian\n").is_err());
    }

    #[test]
    fn sources_keep_their_place_and_key_and_take_other_suites() {
        let text = "# said\nTypes: deb deb-src\nURIs: http://mirror.test/debian\nSuites: one one-updates\nComponents: main contrib\n\
                    Signed-By: /keys/a\n\nTypes: deb\nURIs: http://mirror.test/security\nSuites: one-security\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://off.test\nSuites: one\nComponents: main\n";
        assert_eq!(
            paragraphs(text, "one", &suites()),
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: one-backports two\nComponents: main\nSigned-By: /keys/a\n\n"
        );
        let text = "# deb http://off.test one main\ndeb [arch=amd64 signed-by=/keys/a] http://mirror.test/debian one main\n\
                    deb http://mirror.test/security one-security main\ndeb http://plain.test one main\n";
        assert_eq!(
            one_liners(text, "one", &suites()),
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: one-backports two\nComponents: main\nSigned-By: /keys/a\n\n\
             Types: deb\nURIs: http://plain.test\nSuites: one-backports two\nComponents: main\n\n"
        );
    }

    #[test]
    fn a_kernels_parts_are_what_its_package_needs_and_no_tools() {
        let record = "Package: linux-image-9\nDepends: dracut | initramfs-tools (>= 0.1), linux-base-9 (= 1), \
                      linux-binary-9 (= 1), linux-modules-9 (= 1)\nRecommends: linux-image-other\n";
        assert_eq!(parts(record), ["linux-binary-9", "linux-modules-9"]);
    }

    #[test]
    fn versions_are_those_of_programs_not_of_sources() {
        let told = " linux | 9.1-1 | http://mirror.test two/main amd64 Packages\n linux | 9.2-1 | http://mirror.test two/main Sources\n";
        assert_eq!(versions(told).collect::<Vec<_>>(), ["9.1-1"]);
    }

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
