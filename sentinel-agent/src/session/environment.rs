//! The environment of a session's command.

use std::ffi::{OsStr, OsString};

use super::hardening::SOCKET_IN_SESSION;
use super::user::User;

/// What leads to services of the operator's login, names its descriptors, or is the agent's own matter.
const REMOVED: &[&str] = &[
    "AGENT_SENTINEL_HOME",
    "GPG_AGENT_INFO",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "SSH_AGENT_PID",
    "SSH_AUTH_SOCK",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_RUNTIME_DIR",
];

/// Families of such variables. Those of sudo tell programs that they run for somebody with root's rights.
const REMOVED_PREFIXES: &[&str] = &["DBUS_", "SUDO_"];

/// The launcher's variables without those above, with the session's own and the user's.
pub fn for_command(
    inherited: impl IntoIterator<Item = (OsString, OsString)>,
    user: &User,
    session: &str,
) -> Vec<(OsString, OsString)> {
    let set: [(&str, OsString); 5] = [
        ("AGENT_SENTINEL_SOCKET", SOCKET_IN_SESSION.into()),
        ("AGENT_SENTINEL_SESSION", session.into()),
        ("HOME", user.home.clone().into_os_string()),
        ("USER", user.name.clone().into()),
        ("LOGNAME", user.name.clone().into()),
    ];
    inherited
        .into_iter()
        .filter(|(name, _)| !is_removed(name) && set.iter().all(|(own, _)| name != *own))
        .chain(set.iter().map(|(name, value)| (OsString::from(name), value.clone())))
        .collect()
}

fn is_removed(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    REMOVED.iter().any(|removed| name == *removed)
        || REMOVED_PREFIXES.iter().any(|prefix| bytes.starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_outside_is_gone_and_all_else_stays() {
        let inherited = [
            ("PATH", "/usr/bin"),
            ("LANG", "C"),
            ("HOME", "/root"),
            ("SUDO_COMMAND", "/bin/sh"),
            ("SUDOKU", "9"),
            ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus"),
            ("SSH_AUTH_SOCK", "/tmp/agent"),
            ("AGENT_SENTINEL_SESSION", "forged"),
        ];
        let inherited = inherited.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let mut found = for_command(inherited, &User::nameless(5, 6), "s1");
        found.sort();
        let expected = [
            ("AGENT_SENTINEL_SESSION", "s1"),
            ("AGENT_SENTINEL_SOCKET", "/run/agent-sentinel/agent.sock"),
            ("HOME", "/"),
            ("LANG", "C"),
            ("LOGNAME", "5"),
            ("PATH", "/usr/bin"),
            ("SUDOKU", "9"),
            ("USER", "5"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (OsString::from(name), OsString::from(value))));
    }
}
