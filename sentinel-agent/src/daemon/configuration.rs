//! The agent's configuration: from its file to users and cgroups of this host.
//!
//! Invariant: a configuration that can't be kept to as a whole keeps the agent from starting.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use sentinel_policy::configuration::{Binding, Configuration, MinimumTier, parse};

use super::{LoadedPolicy, read_bounded};
use crate::driver::BoundCgroup;
use crate::enforcer::{Enforcement, EnforcerError, Tier, cgroup2};
use crate::session::user::{User, UserError};

/// Where it is, unless the command line says otherwise.
const FILE: &str = "/etc/agent-sentinel/agent.yaml";

/// Why a configuration can't be kept to.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file can't be read or understood: a report for a person, safe on a terminal.
    #[error("{0}")]
    File(String),
    /// A binding names a policy that isn't there.
    #[error("line {line}: no policy is named `{policy}`; there are: {known}")]
    UnknownPolicy {
        /// The line of the binding.
        line: u32,
        /// The name.
        policy: String,
        /// The names of those that are there.
        known: String,
    },
    /// A binding names somebody who can't be held.
    #[error("line {line}: {cause}")]
    User {
        /// The line of the binding.
        line: u32,
        /// What is wrong.
        #[source]
        cause: UserError,
    },
    /// There is no cgroup2 to find a cgroup in.
    #[error(transparent)]
    NoCgroups(#[from] EnforcerError),
    /// The host enforces less than is asked for.
    #[error("`minimum_tier` is `{wanted}`, and this host enforces at tier `{found}`; {way_out}")]
    Tier {
        /// What is asked for.
        wanted: &'static str,
        /// What there is.
        found: &'static str,
        /// What an operator can do.
        way_out: &'static str,
    },
}

/// Reads the configuration: the file that was named, which has to be there, or the default one, which may be absent. Warnings come as text
/// beside.
///
/// # Errors
/// All problems of the file at once.
pub fn load(named: Option<&Path>) -> Result<(Configuration, String), ConfigurationError> {
    let file = named.unwrap_or_else(|| Path::new(FILE));
    let shown = file.display().to_string();
    let bytes = match read_bounded(file) {
        Ok(bytes) => bytes,
        Err(absent) if named.is_none() && absent.kind() == ErrorKind::NotFound => {
            return Ok((Configuration::default(), String::new()));
        }
        Err(error) => {
            let cause = format!("cannot read the configuration `{}`: {error}", shown.escape_debug());
            return Err(ConfigurationError::File(cause));
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    match parse(&bytes) {
        Ok((configuration, warnings)) => Ok((configuration, warnings.render(&shown, &text))),
        Err(problems) => Err(ConfigurationError::File(problems.render(&shown, &text).trim_end().to_owned())),
    }
}

/// What the bindings mean on this host.
pub(super) fn bindings(
    configuration: &Configuration,
    policies: &BTreeMap<String, LoadedPolicy>,
) -> Result<Vec<BoundCgroup>, ConfigurationError> {
    configuration.bind.iter().map(|binding| resolved(binding, policies)).collect()
}

fn resolved(
    binding: &Binding,
    policies: &BTreeMap<String, LoadedPolicy>,
) -> Result<BoundCgroup, ConfigurationError> {
    let Binding { cgroup, policy, user, session, line } = binding;
    if !policies.contains_key(policy) {
        let known = policies.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(ConfigurationError::UnknownPolicy { line: *line, policy: policy.clone(), known });
    }
    let user = User::named(user).map_err(|cause| ConfigurationError::User { line: *line, cause })?;
    let below = cgroup.strip_prefix("/").unwrap_or(cgroup);
    Ok(BoundCgroup {
        cgroup: cgroup2()?.join(below),
        shown: cgroup.display().to_string(),
        session: session.clone(),
        policy: policy.clone(),
        uid: user.uid,
    })
}

/// Whether the host enforces as much as is asked for.
pub(super) fn check_tier(
    configuration: &Configuration,
    found: &Enforcement,
) -> Result<(), ConfigurationError> {
    let (wanted, name, way_out) = match configuration.minimum_tier {
        None => return Ok(()),
        Some(MinimumTier::Kill) => (Tier::Kill, "kill", "run it on Linux 6.1 or newer"),
        Some(MinimumTier::Lsm) => {
            (Tier::Lsm, "lsm", "boot with `bpf` among the kernel's `lsm=`, on Linux 6.1 or newer")
        }
    };
    if found.tier >= wanted {
        return Ok(());
    }
    Err(ConfigurationError::Tier { wanted: name, found: found.tier.as_str(), way_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies() -> BTreeMap<String, LoadedPolicy> {
        let (policy, _) = LoadedPolicy::parse(b"budgets: {session: 1}").unwrap();
        BTreeMap::from([("web".to_owned(), policy)])
    }

    fn configuration(text: &str) -> Configuration {
        parse(text.as_bytes()).unwrap().0
    }

    #[test]
    fn a_binding_is_a_folder_of_cgroup2_and_a_user_of_this_host() {
        let bound = configuration("bind: [{unit: web.service, policy: web, user: '4242'}]");
        let bound = bindings(&bound, &policies()).unwrap();
        assert!(bound[0].cgroup.ends_with("system.slice/web.service") && bound[0].cgroup.is_absolute());
        assert_eq!((bound[0].shown.as_str(), bound[0].uid), ("/system.slice/web.service", 4242));
    }

    #[test]
    fn a_policy_or_a_user_that_is_not_there_is_told_with_its_line() {
        let unknown = configuration("bind:\n  - {unit: web.service, policy: other, user: '4242'}\n");
        let told = bindings(&unknown, &policies()).unwrap_err().to_string();
        assert_eq!(told, "line 2: no policy is named `other`; there are: web");
        let nobody = configuration("bind: [{unit: web.service, policy: web, user: no-such-user}]");
        assert!(bindings(&nobody, &policies()).unwrap_err().to_string().contains("no-such-user"));
    }

    #[test]
    fn a_host_below_the_minimum_tier_is_refused_and_one_at_it_is_not() {
        let of = |tier| Enforcement { tier, proven: true };
        let wanted = configuration("minimum_tier: kill");
        assert!(check_tier(&wanted, &of(Tier::Kill)).is_ok());
        let told = check_tier(&wanted, &of(Tier::None)).unwrap_err().to_string();
        assert!(told.contains("`minimum_tier` is `kill`, and this host enforces at tier `none`"), "{told}");
    }

    #[test]
    fn a_file_that_was_named_has_to_be_there() {
        let told = load(Some(Path::new("/nonexistent/agent.yaml"))).unwrap_err().to_string();
        assert!(told.contains("cannot read the configuration `/nonexistent/agent.yaml`"), "{told}");
    }
}
