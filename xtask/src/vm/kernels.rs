//! `tests/kernels.toml`: which kernels are booted, and what runs on them.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::Selection;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernels {
    pub(crate) kernel: Vec<Kernel>,
    pub(crate) program: Vec<Listed>,
}

/// A kernel, and how it is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// Debian's suites; the newest version in them is taken.
    pub(crate) suites: Vec<String>,
    pub(crate) package: String,
    pub(crate) tier: Tier,
    /// The machine's processor, as QEMU calls it.
    pub(crate) processor: String,
    /// More of its command line.
    #[serde(default)]
    pub(crate) arguments: String,
    /// What is loaded before the tests run.
    #[serde(default)]
    pub(crate) modules: Vec<String>,
    /// What runs here instead of the programs' own lists.
    #[serde(default)]
    pub(crate) tests: Vec<String>,
}

/// What Sentinel must enforce on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tier {
    /// BPF is among the kernel's security modules.
    Lsm,
    /// It isn't.
    Kill,
    /// It isn't, and the kernel preempts: there Sentinel refuses to start.
    None,
}

/// A test program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    pub(crate) package: String,
    /// `lib`, or the name of an integration test.
    pub(crate) target: String,
    /// What runs on every kernel: tests with one of these in their name.
    pub(crate) tests: Vec<String>,
    /// What runs besides where all is wanted.
    #[serde(default)]
    pub(crate) soak: Vec<String>,
    /// Of those, not tests with one of these in their name.
    #[serde(default)]
    pub(crate) skip: Vec<String>,
    /// What it starts itself: `package/program`.
    #[serde(default)]
    pub(crate) starts: Vec<String>,
}

impl Kernels {
    /// Reads the file.
    ///
    /// # Errors
    /// It can't be read or parsed, or says something twice or nothing.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let path = root.join("tests/kernels.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("`{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("`{}`", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Self = toml::from_str(text)?;
        ensure!(!file.kernel.is_empty(), "it names no kernel");
        for (index, kernel) in file.kernel.iter().enumerate() {
            let name = &kernel.name;
            ensure!(!kernel.suites.is_empty(), "the kernel `{name}` comes from no suite");
            ensure!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'),
                "the kernel `{name}`: a name is letters, digits, `.` and `-`"
            );
            ensure!(
                !file.kernel[..index].iter().any(|other| other.name == *name),
                "two kernels are named `{name}`"
            );
        }
        for started in file.program.iter().flat_map(|program| &program.starts) {
            ensure!(started.split('/').count() == 2, "`{started}` is no `package/program`");
        }
        ensure!(
            file.program.iter().any(|program| !program.tests.is_empty()),
            "it names no test that runs on every kernel"
        );
        Ok(file)
    }

    /// The programs that have tests of a selection.
    ///
    /// # Errors
    /// There is none; names those that there are.
    pub(crate) fn selected(&self, selection: &Selection) -> anyhow::Result<Vec<Listed>> {
        let is_selected = |program: &&Listed| match selection {
            Selection::Listed | Selection::All | Selection::Having(_) => !program.tests.is_empty(),
            Selection::Of(name, _) => program.name() == *name,
        };
        let selected: Vec<Listed> = self.program.iter().filter(is_selected).cloned().collect();
        if selected.is_empty() {
            let names: Vec<String> = self.program.iter().map(Listed::name).collect();
            bail!("`tests/kernels.toml` has no such program, but: {}", names.join(", "));
        }
        Ok(selected)
    }

    /// The names of all.
    pub(crate) fn names(&self) -> Vec<String> {
        self.kernel.iter().map(|kernel| kernel.name.clone()).collect()
    }

    /// The kernel of this name.
    ///
    /// # Errors
    /// There is none; names those that there are.
    pub(crate) fn find(&self, name: &str) -> anyhow::Result<&Kernel> {
        let Some(kernel) = self.kernel.iter().find(|kernel| kernel.name == name) else {
            let names: Vec<&str> = self.kernel.iter().map(|kernel| kernel.name.as_str()).collect();
            bail!("`tests/kernels.toml` has no kernel `{name}`, but: {}", names.join(", "));
        };
        Ok(kernel)
    }
}

impl Listed {
    /// `package/target`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.package, self.target)
    }
}

impl Kernel {
    /// Its command line.
    pub(crate) fn command_line(&self) -> String {
        let bpf = match self.tier {
            Tier::Lsm => ",bpf",
            Tier::Kill | Tier::None => "",
        };
        // An oops must not go on unseen; whether it hangs is told from outside, by what it prints.
        format!(
            "console=ttyS0 loglevel=5 panic=-1 oops=panic nowatchdog rcupdate.rcu_cpu_stall_suppress=1 \
             lsm=landlock,lockdown,yama,integrity,apparmor{bpf} {}",
            self.arguments
        )
    }
}

impl Tier {
    /// As `sentinel doctor` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::Kill => "kill",
            Self::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "[[kernel]]\nname = \"a\"\nsuites = [\"s\"]\npackage = \"p\"\nprocessor = \"c\"\n";
    const PROGRAM: &str = "[[program]]\npackage = \"p\"\ntarget = \"lib\"\ntests = [\"t\"]\n";

    #[test]
    fn the_projects_own_file_is_valid() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let kernels = Kernels::read(root).unwrap();
        assert!(kernels.kernel.iter().any(|kernel| kernel.tier == Tier::Lsm));
        assert!(kernels.kernel.iter().any(|kernel| kernel.tier == Tier::Kill));
    }

    #[test]
    fn what_each_hook_refuses_is_tried_on_every_kernel_of_tier_lsm() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let kernels = Kernels::read(root).unwrap();
        let listed =
            &kernels.program.iter().find(|program| program.name() == "sentinel-agent/lib").unwrap().tests;
        let mutations = std::fs::read_to_string(root.join("tests/mutations.toml")).unwrap();
        let mutations: toml::Table = toml::from_str(&mutations).unwrap();
        let hooks = mutations["hook"].as_array().unwrap();
        assert!(!hooks.is_empty());
        for test in hooks.iter().map(|hook| hook["test"].as_str().unwrap()) {
            assert!(listed.iter().any(|part| test.contains(part.as_str())), "{test}");
        }
        for name in ["6.1", "6.12", "newest"] {
            assert!(kernels.find(name).unwrap().tests.is_empty(), "`{name}` does without the programs' list");
        }
    }

    #[test]
    fn bpf_is_among_the_security_modules_of_tier_lsm_alone() {
        for (tier, has_bpf) in [("lsm", true), ("kill", false)] {
            let text = format!("{KERNEL}tier = \"{tier}\"\narguments = \"preempt=full\"\n{PROGRAM}");
            let line = Kernels::parse(&text).unwrap().find("a").unwrap().command_line();
            assert_eq!(line.contains(",bpf"), has_bpf, "{line}");
            assert!(line.ends_with("preempt=full"), "{line}");
        }
    }

    #[test]
    fn what_is_said_twice_or_not_at_all_is_refused() {
        let kernel = format!("{KERNEL}tier = \"lsm\"\n");
        let refused = |text: &str| format!("{:#}", Kernels::parse(text).unwrap_err());
        assert!(refused(&format!("{kernel}{kernel}{PROGRAM}")).contains("two kernels are named `a`"));
        assert!(
            refused(&format!("{}{PROGRAM}", kernel.replace("[\"s\"]", "[]"))).contains("comes from no suite")
        );
        assert!(
            refused(&format!("{}{PROGRAM}", kernel.replace("\"a\"", "\"a/b\"")))
                .contains("a name is letters")
        );
        assert!(refused(&format!("kernel = []\n{PROGRAM}")).contains("names no kernel"));
        assert!(refused(&format!("{kernel}{}", PROGRAM.replace("[\"t\"]", "[]"))).contains("names no test"));
        let unknown =
            Kernels::parse(&format!("{kernel}{PROGRAM}")).unwrap().find("b").unwrap_err().to_string();
        assert!(unknown.ends_with("no kernel `b`, but: a"), "{unknown}");
    }
}
