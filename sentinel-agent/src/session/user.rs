//! Whom a session's command runs as.
//!
//! Invariant: never root, and in no group that is as good as root.

use std::ffi::CString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{self, Gid, Group, Uid};
use rustix::process::{getgid, getgroups, getuid};
use serde::{Deserialize, Serialize};

/// Groups through whose files or sockets one becomes root, or reads what only root should; and the operators' own.
const ROOT_LIKE_GROUPS: &[&str] =
    &["root", "disk", "docker", "incus-admin", "kmem", "libvirt", "lxd", "podman", "sentinel", "shadow"];

/// Why there is no user to run the command as.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Nobody is called so.
    #[error("there is no user `{0}`; give `--user` a name or uid of `getent passwd`")]
    Unknown(String),
    /// Root was asked for.
    #[error(
        "a session can't run as root where the kernel enforces at tier `kill`: uid 0 could leave its cgroup and \
         change the enforcement's maps; name another user with `--user`"
    )]
    Root,
    /// Another user was asked for, without the right to become one.
    #[error("only root can run a command as `{0}`; leave `--user` out, or use sudo")]
    NotRoot(String),
    /// `sudo` left something else than a number.
    #[error("`{variable}` is `{value}`, not a number; unset it, or name the user with `--user`")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
    /// The system's lists of users and groups can't be read.
    #[error("cannot look up user `{user}`: {source}")]
    Lookup {
        /// Who was looked for.
        user: String,
        /// What the system said.
        #[source]
        source: nix::Error,
    },
}

/// A user, with what a process needs to become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The number.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All groups, those that are as good as root left out.
    pub groups: Vec<u32>,
    /// The name; the number in digits where there is none.
    pub name: String,
    /// The home folder.
    pub home: PathBuf,
}

/// Finds the user: `asked` (`--user`), else whom `sudo` ran for, else none: the agent gives one of its own.
/// Without root's rights it is the one who asks.
///
/// # Errors
/// See [`UserError`].
pub fn resolve(
    asked: Option<&str>,
    variable: impl Fn(&'static str) -> Option<String>,
) -> Result<Option<User>, UserError> {
    let own = getuid().as_raw();
    if own != 0 {
        let user = User::own()?;
        return match asked {
            Some(name) if name != user.name && name != own.to_string() => {
                Err(UserError::NotRoot(name.to_owned()))
            }
            _ => Ok(Some(user)),
        };
    }
    if let Some(asked) = asked {
        return User::named(asked).map(Some);
    }
    let Some(uid) = number("SUDO_UID", &variable)?.filter(|uid| *uid != 0) else { return Ok(None) };
    match User::with_uid(uid)? {
        Some(user) => Ok(Some(user)),
        None => Ok(Some(User::nameless(uid, number("SUDO_GID", &variable)?.unwrap_or(uid)))),
    }
}

fn number(
    name: &'static str,
    variable: impl Fn(&'static str) -> Option<String>,
) -> Result<Option<u32>, UserError> {
    variable(name)
        .map(|value| value.parse().map_err(|_no_number| UserError::Variable { variable: name, value }))
        .transpose()
}

impl User {
    /// One that stands in no list, such as the agent gives.
    #[must_use]
    pub fn nameless(uid: u32, gid: u32) -> Self {
        Self { uid, gid, groups: vec![gid], name: uid.to_string(), home: PathBuf::from("/") }
    }

    fn own() -> Result<Self, UserError> {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        let groups = getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
        let known = look_up(&uid.to_string(), unistd::User::from_uid(Uid::from_raw(uid)))?;
        let (name, home) =
            known.map_or_else(|| (uid.to_string(), PathBuf::from("/")), |known| (known.name, known.dir));
        Ok(Self { uid, gid, groups, name, home })
    }

    /// The user of this name or uid, who isn't root.
    ///
    /// # Errors
    /// There is none, it is root, or the system's lists can't be read.
    pub fn named(text: &str) -> Result<Self, UserError> {
        let by_name = look_up(text, unistd::User::from_name(text))?;
        let user = match (by_name, text.parse::<u32>()) {
            (Some(found), _) => Self::listed(found)?,
            (None, Ok(uid)) => Self::with_uid(uid)?.unwrap_or_else(|| Self::nameless(uid, uid)),
            (None, Err(_)) => return Err(UserError::Unknown(text.to_owned())),
        };
        if user.uid == 0 { Err(UserError::Root) } else { Ok(user) }
    }

    fn with_uid(uid: u32) -> Result<Option<Self>, UserError> {
        look_up(&uid.to_string(), unistd::User::from_uid(Uid::from_raw(uid)))?.map(Self::listed).transpose()
    }

    fn listed(found: unistd::User) -> Result<Self, UserError> {
        let name =
            CString::new(found.name.as_str()).map_err(|_holds_nul| UserError::Unknown(found.name.clone()))?;
        let mut groups = Vec::new();
        for group in look_up(&found.name, unistd::getgrouplist(&name, found.gid))? {
            // The primary group stays: a file's owner expects it. It has no name in the list, or an own one.
            if group == found.gid || !is_root_like(group)? {
                groups.push(group.as_raw());
            }
        }
        Ok(Self {
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
            groups,
            name: found.name,
            home: found.dir,
        })
    }

    /// Whether the user could change what is in a folder, or let itself do so.
    #[must_use]
    pub fn can_write(&self, folder: &Metadata) -> bool {
        folder.uid() == self.uid
            || (folder.mode() & 0o020 != 0
                && (folder.gid() == self.gid || self.groups.contains(&folder.gid())))
            || folder.mode() & 0o002 != 0
    }

    /// The first folder on the way to `path`, itself included, that the user could write. What isn't there isn't asked.
    #[must_use]
    pub fn writable_on_path<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.ancestors().find(|folder| folder.metadata().is_ok_and(|found| self.can_write(&found)))
    }
}

fn is_root_like(group: Gid) -> Result<bool, UserError> {
    let found = look_up(&group.to_string(), Group::from_gid(group))?;
    Ok(group.as_raw() == 0 || found.is_some_and(|found| ROOT_LIKE_GROUPS.contains(&found.name.as_str())))
}

fn look_up<T>(user: &str, found: nix::Result<T>) -> Result<T, UserError> {
    found.map_err(|source| UserError::Lookup { user: user.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &'static str) -> Option<String> {
        None
    }

    #[test]
    fn the_user_is_the_one_asked_for_else_the_one_who_called_sudo_else_the_agents() {
        let sudo = |name| Some(if name == "SUDO_UID" { "4242".to_owned() } else { "4243".to_owned() });
        let asked = resolve(Some("nobody"), sudo).unwrap().unwrap();
        assert_eq!((asked.uid, asked.name.as_str()), (65534, "nobody"));
        let caller = resolve(None, sudo).unwrap().unwrap();
        assert_eq!((caller.uid, caller.gid, caller.groups.as_slice()), (4242, 4243, [4243].as_slice()));
        assert_eq!(resolve(None, none).unwrap(), None);
    }

    #[test]
    fn root_is_refused_by_name_and_number_and_is_not_who_called_sudo() {
        assert!(matches!(resolve(Some("root"), none), Err(UserError::Root)));
        assert!(matches!(resolve(Some("0"), none), Err(UserError::Root)));
        assert_eq!(resolve(None, |_| Some("0".to_owned())).unwrap(), None);
    }

    #[test]
    fn a_user_who_is_not_there_is_refused_and_a_bare_number_is_one() {
        assert!(matches!(resolve(Some("no such user"), none), Err(UserError::Unknown(_))));
        assert!(matches!(resolve(None, |_| Some("x".to_owned())), Err(UserError::Variable { .. })));
        assert_eq!(resolve(Some("54321"), none).unwrap(), Some(User::nameless(54321, 54321)));
    }

    #[test]
    fn a_folder_is_writable_by_its_owner_its_group_or_all() {
        let user = User::nameless(54321, 54321);
        assert_eq!(user.writable_on_path(Path::new("/var/lib/no/such")), None);
        assert_eq!(user.writable_on_path(Path::new("/tmp/no/such")), Some(Path::new("/tmp")));
        let root = User { uid: 0, ..user };
        assert_eq!(root.writable_on_path(Path::new("/var/lib")), Some(Path::new("/var/lib")));
    }
}
