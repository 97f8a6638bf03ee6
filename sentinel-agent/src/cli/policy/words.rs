//! Parts of a policy in plain words. Names and paths in a policy are printable, so they stand here as they are.

use sentinel_engine::{Approvals, Approver, Grant, Policy, TlsNames};
use sentinel_policy::{name_entry, network_entry};

/// What doors let a session do, a line each.
pub(super) fn doors(grant: &Grant) -> impl Iterator<Item = String> {
    let network = grant.network.iter().map(|rule| format!("  connect to {}", network_entry(rule)));
    let names = grant.names.iter().map(|rule| {
        let private = if rule.allow_private { ", also where that is a private address" } else { "" };
        format!("  connect to {}{private}", name_entry(rule))
    });
    let listen = grant.listen.iter().map(|rule| format!("  be reached at {}", network_entry(rule)));
    let kept =
        grant.keep_alive.then(|| "  use connections of the same grant that are left from before".to_owned());
    let exec = grant.exec.iter().map(|rule| {
        let risk = if rule.writable_accepted { ", also where the application can write it" } else { "" };
        format!("  execute {}{risk}", rule.path.display())
    });
    network.chain(names).chain(kept).chain(listen).chain(exec)
}

/// What is open without any action, a line each.
pub(super) fn baseline(policy: &Policy) -> impl Iterator<Item = String> {
    let sockets = policy.unix_allow.iter().map(|path| format!("  connect to the socket {}", path.display()));
    policy.grants.first().into_iter().flat_map(doors).chain(sockets)
}

/// What connections to hosts by name are held to.
pub(super) fn tls(policy: &Policy) -> Option<String> {
    (policy.tls_names == TlsNames::Enforce && policy.has_names()).then(|| {
        "A connection to a host by name has to begin with TLS that asks for a server of the list in the clear: `tls_names: enforce`."
            .to_owned()
    })
}

pub(super) fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Who may approve.
pub(super) fn approvers(approvals: &Approvals) -> String {
    match approvals.approvers.as_deref() {
        None => "whoever may operate the agent".to_owned(),
        Some([]) => "nobody".to_owned(),
        Some(approvers) => {
            let names = approvers.iter().map(|approver| match approver {
                Approver::User(name) => format!("the user `{name}`"),
                Approver::Group(name) => format!("the group `{name}`"),
            });
            names.collect::<Vec<_>>().join(" or ")
        }
    }
}
