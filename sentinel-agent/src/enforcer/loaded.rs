//! One session's rules in the kernel's maps.
//!
//! Invariant: a session is known to the kernel side only after all of its rules are, and its rules go only after it is
//! known no more. What is half done denies.

use std::os::fd::OwnedFd;

use aya::maps::lpm_trie::Key;
use sentinel_ebpf_common::{Endpoint, Image, Session};
use sentinel_engine::{Mode, Policy};
use sentinel_proto::SessionId;

use super::EnforcerError;
use super::executables::Executables;
use super::maps::{Maps, NEW, done_or_gone};
use super::rules;

/// Which of its rules hold. Another generation comes with the reload of policies.
pub(super) const GENERATION: u32 = 1;

/// What stands in the maps for a session.
#[derive(Debug)]
pub(super) struct Loaded {
    id: SessionId,
    cgroup_id: u64,
    value: Session,
    addresses: Vec<Endpoint>,
    prefixes: Vec<(u32, Endpoint)>,
    images: Vec<Image>,
    /// Keep the inodes of executables from being given to other files.
    _held: Vec<OwnedFd>,
}

impl Loaded {
    /// Writes all that a policy says. On failure nothing stays.
    pub(super) fn load(
        maps: &mut Maps,
        id: SessionId,
        cgroup_id: u64,
        policy: &Policy,
        user: u32,
    ) -> Result<Self, EnforcerError> {
        let doors = rules::compile(&policy.grants)?;
        let executables = Executables::resolve(&policy.grants, user)?;
        let audit = if policy.mode == Mode::Audit { Session::AUDIT } else { 0 };
        let mut loaded = Self {
            id,
            cgroup_id,
            value: Session { generation: GENERATION, flags: Session::BASELINE_NETWORK | audit },
            addresses: Vec::new(),
            prefixes: Vec::new(),
            images: Vec::new(),
            _held: Vec::new(),
        };
        match loaded.write(maps, &doors, &executables) {
            Ok(()) => {
                loaded._held = executables.held;
                Ok(loaded)
            }
            Err(cause) => {
                if let Err(error) = loaded.unload(maps) {
                    tracing::error!(session = %id, %error, "rules of a session that didn't start are left");
                }
                Err(cause)
            }
        }
    }

    fn write(
        &mut self,
        maps: &mut Maps,
        doors: &[rules::Door],
        executables: &Executables,
    ) -> Result<(), EnforcerError> {
        let session = self.id.0;
        for door in doors {
            let endpoint = door.endpoint(session, GENERATION);
            if door.is_single() {
                self.addresses.push(endpoint);
                maps.network.put(&endpoint, &door.bits, 0)?;
            } else {
                let length = Endpoint::BITS_BEFORE_ADDRESS.saturating_add(door.prefix());
                self.prefixes.push((length, endpoint));
                let written = maps.prefixes.map.insert(&Key::new(length, endpoint), door.bits, 0);
                written.map_err(maps.prefixes.refused())?;
            }
        }
        for ((dev, ino), rule) in &executables.rules {
            let image = Image { session, generation: GENERATION, ino: *ino, dev: *dev, reserved: 0 };
            self.images.push(image);
            maps.exec.put(&image, rule, 0)?;
        }
        maps.sessions.put(&session, &self.value, NEW)?;
        maps.cgroups.put(&self.cgroup_id, &session, 0)
    }

    /// Opens or closes its baseline network.
    pub(super) fn set_baseline_network(&mut self, maps: &mut Maps, open: bool) -> Result<(), EnforcerError> {
        let mut value = self.value;
        if open {
            value.flags |= Session::BASELINE_NETWORK;
        } else {
            value.flags &= !Session::BASELINE_NETWORK;
        }
        maps.sessions.put(&self.id.0, &value, super::maps::EXISTING)?;
        self.value = value;
        Ok(())
    }

    /// Removes all that stands in the maps for it. What can't be removed doesn't keep the rest.
    pub(super) fn unload(&self, maps: &mut Maps) -> Result<(), EnforcerError> {
        let id = self.id;
        let mut results = vec![maps.sessions.remove(&id.0), forget(maps, id)];
        results.extend(self.addresses.iter().map(|endpoint| maps.network.remove(endpoint)));
        results.extend(self.prefixes.iter().map(|(length, endpoint)| {
            let removed = maps.prefixes.map.remove(&Key::new(*length, *endpoint));
            done_or_gone(removed).map_err(maps.prefixes.refused())
        }));
        results.extend(self.images.iter().map(|image| maps.exec.remove(image)));
        results.push(maps.cgroups.remove(&self.cgroup_id));
        results.into_iter().collect()
    }
}

/// Removes a session's scopes and marks.
pub(super) fn forget(maps: &mut Maps, session: SessionId) -> Result<(), EnforcerError> {
    for scope in maps.scopes.keys_where(|scope| scope.session == session.0)? {
        maps.scopes.remove(&scope)?;
    }
    for tgid in maps.tasks.keys_where(|mark| mark.session == session.0)? {
        maps.tasks.remove(&tgid)?;
    }
    Ok(())
}
