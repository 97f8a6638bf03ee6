//! `sentinel run --advisory`: the command as it runs without Sentinel, told by its environment that its SDK decides for itself.
//!
//! Invariant: it never looks like more than it is. Nothing is enforced, every line of its own says `advisory`, and the first one says it all.
//! A policy that is none runs nothing.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sentinel_engine::{Policy, TlsNames};

use super::failure::Failure;
use super::policy::PolicyFile;
use super::{RunArguments, program};
use crate::cli::embedded::{self, DEFAULT_SESSION, HOME, MODE, POLICY, SESSION, SOCKET};
use crate::cli::terminal::visible;

/// Actions that a warning names; beyond, it counts them.
const MOST_NAMED: usize = 10;

/// What the command is told, beside its own environment.
#[derive(Debug)]
struct Advice {
    policy: Option<(PathBuf, PolicyFile)>,
    home: PathBuf,
    session: String,
}

/// Becomes the command: its signals, its terminal and its end are its own. Comes back only where it can't.
pub(super) fn become_command(arguments: &RunArguments) -> Failure {
    let (advice, program) = match prepare(arguments) {
        Ok(prepared) => prepared,
        Err(failure) => return failure,
    };
    advice.tell();
    let mut words = arguments.command.iter();
    let mut command = Command::new(&program);
    command.arg0(words.next().unwrap_or(&OsString::new())).args(words).env_remove(SOCKET).env_remove(POLICY);
    command.env(MODE, "embedded").env(HOME, &advice.home).env(SESSION, &advice.session);
    if let Some((path, _)) = &advice.policy {
        command.env(POLICY, path);
    }
    Failure::Exec { program, source: command.exec() }
}

/// All that can be wrong is found before the first line.
fn prepare(arguments: &RunArguments) -> Result<(Advice, PathBuf), Failure> {
    Ok((Advice::of(arguments)?, program::find(&arguments.command)?))
}

/// Says a sentence, whatever is in it, in one line. Nothing depends on its being read.
pub(super) fn say(text: &str) {
    let _closed = io::stderr().write_all(format!("advisory: {}\n", visible(text)).as_bytes());
}

impl Advice {
    fn of(arguments: &RunArguments) -> Result<Self, Failure> {
        // The command may change its folder.
        let absolute = |path: &Path| std::path::absolute(path).map_err(Failure::WorkingFolder);
        let policy = match arguments.policy.clone().or_else(|| embedded::own(POLICY)) {
            Some(given) => {
                let path = PathBuf::from(given);
                let policy = PolicyFile::read(&path)?;
                Some((absolute(&path)?, policy))
            }
            None => None,
        };
        Ok(Self {
            policy,
            home: absolute(&embedded::home(arguments.state.as_deref()))?,
            session: arguments.session.as_ref().map_or(DEFAULT_SESSION, |name| name.as_str()).to_owned(),
        })
    }

    fn tell(&self) {
        say(
            "nothing is enforced: CMD runs as you, its network and programs are open, and only what asks the SDK keeps to the policy",
        );
        if rustix::process::geteuid().is_root() {
            say("you are root, and so is CMD");
        }
        match &self.policy {
            Some((_, policy)) => {
                policy.warnings.lines().filter(|line| !line.is_empty()).for_each(say);
                what_does_not_hold(&policy.policy).iter().for_each(|warning| say(warning));
            }
            None => {
                say("there is no policy: every action may start, and is recorded; give one with --policy")
            }
        }
        let ledger = self.home.join("ledger.jsonl");
        say(&format!(
            "session `{}` has its totals in `{}`, which CMD can change",
            self.session,
            ledger.display()
        ));
    }
}

/// What the policy says and nobody holds the command to.
fn what_does_not_hold(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let baseline = policy.grants.first();
    let doors = [
        (
            "enforcement.network.allow",
            baseline.is_some_and(|grant| !(grant.network.is_empty() && grant.names.is_empty())),
        ),
        ("enforcement.network.listen", baseline.is_some_and(|grant| !grant.listen.is_empty())),
        ("enforcement.exec.allow", baseline.is_some_and(|grant| !grant.exec.is_empty())),
        ("enforcement.exec.libraries", !policy.exec_libraries.is_empty()),
        ("enforcement.unix.allow", !policy.unix_allow.is_empty()),
        ("tls_names", policy.tls_names == TlsNames::Enforce),
    ];
    let mut keys: Vec<String> =
        doors.iter().filter(|(_, is_said)| *is_said).map(|(key, _)| format!("`{key}`")).collect();
    let granted = policy.actions.iter().filter(|(_, rule)| rule.grant.is_some());
    let mut granted: Vec<String> = granted.map(|(name, _)| format!("`actions.{name}.grants`")).collect();
    let more = granted.len().saturating_sub(MOST_NAMED);
    granted.truncate(MOST_NAMED);
    keys.append(&mut granted);
    if !keys.is_empty() {
        let mut warning = format!("warning: not enforced, all doors stand open: {}", keys.join(", "));
        if more > 0 {
            let _infallible = write!(warning, " and those of {more} more actions");
        }
        warnings.push(warning);
    }
    if policy.approvals.is_some() {
        warnings.push(
            "warning: `approvals` are asked of CMD's own approval handler; `sentinel approvals` knows nothing of them"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::LoadedPolicy;

    fn warnings(yaml: &str) -> Vec<String> {
        what_does_not_hold(&LoadedPolicy::parse(yaml.as_bytes()).unwrap().0.policy)
    }

    #[test]
    fn what_only_the_kernel_could_hold_is_named() {
        let yaml = "enforcement: {network: {allow: ['192.0.2.1:443']}, exec: {allow: [/bin/true]}, unix: {allow: [/run/x.sock]}}\n\
                    actions:\n  fetch: {grants: {network: ['192.0.2.2:443']}}\n  think: {cost_usd: 1}\n";
        assert_eq!(
            warnings(yaml),
            [
                "warning: not enforced, all doors stand open: `enforcement.network.allow`, `enforcement.exec.allow`, \
              `enforcement.unix.allow`, `actions.fetch.grants`"
            ]
        );
    }

    #[test]
    fn what_the_sdk_holds_by_itself_is_no_warning() {
        let yaml = "budgets: {session: 1}\ndenied_actions: [a]\nrate_limits: {b: {max_count: 1, window_seconds: 1}}\n";
        assert_eq!(warnings(yaml), [""; 0]);
        assert_eq!(warnings("enforcement: {network: {allow: []}}\n"), [""; 0], "nothing is opened");
    }

    #[test]
    fn a_name_is_held_to_as_little_as_an_address() {
        let told = warnings("enforcement: {network: {allow: ['api.example.com:443']}}\n");
        assert_eq!(told, ["warning: not enforced, all doors stand open: `enforcement.network.allow`"]);
    }

    #[test]
    fn many_grants_are_counted_and_approvals_are_told() {
        let grants: String = (0..12)
            .map(|number| format!("  a{number:02}: {{grants: {{network: ['192.0.2.{number}:1']}}}}\n"))
            .collect();
        let told = warnings(&format!("approvals: {{actions: [a00]}}\nactions:\n{grants}"));
        assert!(told[0].ends_with("`actions.a09.grants` and those of 2 more actions"), "{told:?}");
        assert!(told[1].contains("approval handler"), "{told:?}");
    }
}
