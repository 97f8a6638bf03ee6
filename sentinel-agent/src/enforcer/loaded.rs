//! One session's rules in the kernel's maps.
//!
//! Invariant: a session is known to the kernel side only after all of its rules are, and its rules go only after it is
//! known no more. What is half done denies.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use aya::maps::lpm_trie::Key;
use sentinel_ebpf_common::{BASELINE, Endpoint, Image, NamedDoor, ServerNameKey, Session};
use sentinel_engine::{GrantSet, Mode, Policy, TlsNames};
use sentinel_proto::{HostName, SessionId};

use super::EnforcerError;
use super::executables::Executables;
use super::identities::identities;
use super::maps::{Maps, NEW, done_or_gone};
use super::mountinfo::mounts;
use super::named::{NameRules, NamedDoors, Room};
use super::told::{Told, ToldAddress};
use super::{rules, server_names};
use crate::clock;

/// The first version of a session's rules.
const FIRST_GENERATION: u32 = 1;

/// What stands in the maps for a session.
#[derive(Debug)]
pub(super) struct Loaded {
    id: SessionId,
    cgroup_id: u64,
    value: Session,
    rules: Rules,
    /// Rules that stand beside those that hold, and the flags that come with them.
    prepared: Option<(Rules, u32)>,
    told: Told,
}

/// One version of a session's rules.
#[derive(Debug)]
struct Rules {
    session: SessionId,
    generation: u32,
    addresses: Vec<Endpoint>,
    prefixes: Vec<(u32, Endpoint)>,
    named: NamedDoors,
    server_names: Vec<ServerNameKey>,
    images: Vec<Image>,
    /// The grants whose connections outlive their actions.
    keep_alive: u64,
    sockets: Vec<Image>,
    libraries: Vec<Image>,
    /// Keep the inodes of executables, sockets and library folders from being given to other files.
    _held: Vec<OwnedFd>,
}

impl Rules {
    /// Writes all that a policy says. On failure nothing stays.
    fn write(
        maps: &mut Maps,
        session: SessionId,
        generation: u32,
        policy: &Policy,
        user: u32,
        told: &Told,
        share: usize,
    ) -> Result<Self, EnforcerError> {
        let doors = rules::compile(&policy.grants)?;
        let executables = Executables::resolve(&policy.grants, user)?;
        let mut rules = Self {
            session,
            generation,
            addresses: Vec::new(),
            prefixes: Vec::new(),
            named: NamedDoors::new(session.0, generation, NameRules::compile(&policy.grants)),
            server_names: Vec::new(),
            images: Vec::new(),
            keep_alive: keep_alive_of(policy),
            sockets: Vec::new(),
            libraries: Vec::new(),
            _held: Vec::new(),
        };
        let written = rules
            .put(maps, &doors, &executables)
            .and_then(|()| rules.put_files(maps, policy))
            .and_then(|()| rules.put_server_names(maps, policy))
            .and_then(|()| rules.named.write_all(maps, told, boot_nanoseconds(), share));
        match written {
            Ok(()) => {
                rules._held.extend(executables.held);
                Ok(rules)
            }
            Err(cause) => {
                if let Err(error) = rules.remove(maps) {
                    tracing::error!(%session, %error, "rules that don't hold are left");
                }
                Err(cause)
            }
        }
    }

    fn put(
        &mut self,
        maps: &mut Maps,
        doors: &[rules::Door],
        executables: &Executables,
    ) -> Result<(), EnforcerError> {
        let (session, generation) = (self.session.0, self.generation);
        for door in doors {
            let endpoint = door.endpoint(session, generation);
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
            let image = Image { session, generation, ino: *ino, dev: *dev, reserved: 0 };
            self.images.push(image);
            maps.exec.put(&image, rule, 0)?;
        }
        Ok(())
    }

    /// What the hooks of tier `lsm` ask for: sockets and library folders.
    fn put_files(&mut self, maps: &mut Maps, policy: &Policy) -> Result<(), EnforcerError> {
        if policy.unix_allow.is_empty() && policy.exec_libraries.is_empty() {
            return Ok(());
        }
        let mounts = mounts()?;
        let (session, generation) = (self.session.0, self.generation);
        for socket in identities("enforcement.unix.allow", &policy.unix_allow, &mounts) {
            let image = Image { session, generation, ino: socket.ino, dev: socket.dev, reserved: 0 };
            self.sockets.push(image);
            self._held.push(socket.held);
            maps.unix.put(&image, &BASELINE, 0)?;
        }
        for folder in identities("enforcement.exec.libraries", &policy.exec_libraries, &mounts) {
            let image = Image { session, generation, ino: folder.ino, dev: folder.dev, reserved: 0 };
            self.libraries.push(image);
            self._held.push(folder.held);
            maps.libraries.put(&image, &BASELINE, 0)?;
        }
        Ok(())
    }

    /// Whom TLS may ask for.
    fn put_server_names(&mut self, maps: &mut Maps, policy: &Policy) -> Result<(), EnforcerError> {
        for (key, bits) in server_names::compile(self.session.0, self.generation, policy)? {
            self.server_names.push(key);
            maps.server_names.put(&key, &bits, 0)?;
        }
        Ok(())
    }

    /// Removes what is there of another generation, before that is written.
    fn forget_generation(&mut self, maps: &mut Maps, generation: u32) -> Result<(), EnforcerError> {
        let (addresses, prefixes, images) = (&self.addresses, &self.prefixes, &self.images);
        let of_it = |images: &[Image]| {
            images.iter().filter(|key| key.generation == generation).copied().collect::<Vec<_>>()
        };
        let stale = Self {
            session: self.session,
            generation,
            addresses: addresses.iter().filter(|key| key.generation == generation).copied().collect(),
            prefixes: prefixes.iter().filter(|(_, key)| key.generation == generation).copied().collect(),
            named: self.named.split_off(generation),
            server_names: self
                .server_names
                .iter()
                .filter(|key| key.generation == generation)
                .copied()
                .collect(),
            keep_alive: 0,
            images: of_it(images),
            sockets: of_it(&self.sockets),
            libraries: of_it(&self.libraries),
            _held: Vec::new(),
        };
        stale.remove(maps)?;
        self.addresses.retain(|key| key.generation != generation);
        self.prefixes.retain(|(_, key)| key.generation != generation);
        self.server_names.retain(|key| key.generation != generation);
        for images in [&mut self.images, &mut self.sockets, &mut self.libraries] {
            images.retain(|key| key.generation != generation);
        }
        Ok(())
    }

    /// Removes all of it. What can't be removed doesn't keep the rest.
    fn remove(&self, maps: &mut Maps) -> Result<(), EnforcerError> {
        let mut results: Vec<Result<(), EnforcerError>> = Vec::new();
        results.extend(self.addresses.iter().map(|endpoint| maps.network.remove(endpoint)));
        results.extend(self.prefixes.iter().map(|(length, endpoint)| {
            let removed = maps.prefixes.map.remove(&Key::new(*length, *endpoint));
            done_or_gone(removed).map_err(maps.prefixes.refused())
        }));
        results.push(self.named.remove(maps));
        results.extend(self.server_names.iter().map(|name| maps.server_names.remove(name)));
        results.extend(self.images.iter().map(|image| maps.exec.remove(image)));
        results.extend(self.sockets.iter().map(|socket| maps.unix.remove(socket)));
        results.extend(self.libraries.iter().map(|folder| maps.libraries.remove(folder)));
        results.into_iter().collect()
    }
}

fn keep_alive_of(policy: &Policy) -> u64 {
    let kept = policy.grants.iter().enumerate().filter(|(_, grant)| grant.keep_alive);
    kept.fold(GrantSet::EMPTY, |kept, (index, _)| kept.union(GrantSet::of(index))).0
}

fn flags_of(policy: &Policy) -> u32 {
    let mode = match policy.mode {
        Mode::Audit => Session::AUDIT,
        Mode::Enforce => 0,
    };
    let names = if policy.has_names() { Session::NAMES } else { 0 };
    let tls = match policy.tls_names {
        TlsNames::Enforce => Session::TLS_NAMES,
        TlsNames::Off => 0,
    };
    mode | names | tls
}

/// Now, on CLOCK_BOOTTIME.
fn boot_nanoseconds() -> u64 {
    u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX)
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
        let told = Told::default();
        let rules = Rules::write(maps, id, FIRST_GENERATION, policy, user, &told, 0)?;
        let flags = Session::BASELINE_NETWORK | flags_of(policy);
        let value = Session { generation: FIRST_GENERATION, flags };
        let loaded = Self { id, cgroup_id, value, rules, prepared: None, told };
        let known =
            maps.sessions.put(&id.0, &value, NEW).and_then(|()| maps.cgroups.put(&cgroup_id, &id.0, 0));
        match known {
            Ok(()) => Ok(loaded),
            Err(cause) => {
                if let Err(error) = loaded.unload(maps) {
                    tracing::error!(session = %id, %error, "rules of a session that didn't start are left");
                }
                Err(cause)
            }
        }
    }

    /// Takes over what an earlier agent wrote for a session: its rules hold until others are committed, which removes all that it had. Where they
    /// are of the same policy, what its resolver has opened without any action stays open under them: actions are over.
    pub(super) fn adopt(
        maps: &Maps,
        id: SessionId,
        cgroup_id: u64,
        is_same_policy: bool,
    ) -> Result<Self, EnforcerError> {
        let unknown = || EnforcerError::Missing(format!("the kernel side knows no session {id}"));
        let value = maps.sessions.find(&id.0)?.ok_or_else(unknown)?;
        if maps.cgroups.find(&cgroup_id)? != Some(id.0) {
            return Err(EnforcerError::Missing(format!("session {id} is another cgroup's")));
        }
        let prefixes = maps.prefixes.map.keys().take(1 << 18).collect::<Result<Vec<_>, _>>();
        let prefixes = prefixes.map_err(maps.prefixes.refused())?;
        let named = maps.named.keys(|key| key.session == id.0)?;
        let mut told = Told::default();
        for endpoint in named.iter().filter(|key| is_same_policy && key.generation == value.generation) {
            if let Some(door) = maps.named.find(endpoint)?.filter(|door| door.bits & BASELINE != 0) {
                told.carry(endpoint, NamedDoor { bits: BASELINE, ..door });
            }
        }
        let rules = Rules {
            session: id,
            generation: value.generation,
            named: NamedDoors::of_earlier(id.0, value.generation, &named),
            // Of whatever generation: an agent may have died between two.
            addresses: maps.network.keys(|key| key.session == id.0)?,
            prefixes: prefixes
                .into_iter()
                .filter(|key| key.data().session == id.0)
                .map(|key| (key.prefix_len(), key.data()))
                .collect(),
            server_names: maps.server_names.keys(|key| key.session == id.0)?,
            images: maps.exec.keys(|key| key.session == id.0)?,
            // No door is opened by these: only by rules that were committed since.
            keep_alive: 0,
            sockets: maps.unix.keys(|key| key.session == id.0)?,
            libraries: maps.libraries.keys(|key| key.session == id.0)?,
            _held: Vec::new(),
        };
        Ok(Self { id, cgroup_id, value, rules, prepared: None, told })
    }

    /// How many doors by name it has, under the rules that hold or under those that are prepared, whichever are more.
    pub(super) fn named_doors(&self) -> usize {
        let prepared = self.prepared.as_ref().map_or(0, |(rules, _)| rules.named.len());
        self.rules.named.len().max(prepared)
    }

    /// Opens the doors of addresses that stand for a name, under the rules that hold.
    ///
    /// # Errors
    /// Not all could be opened: none is that was not open before.
    pub(super) fn open_name(
        &mut self,
        maps: &mut Maps,
        name: &HostName,
        addresses: &[ToldAddress],
        room: &mut Room<'_>,
    ) -> Result<(), EnforcerError> {
        self.rules.named.open(maps, &mut self.told, name, addresses, boot_nanoseconds(), room)
    }

    /// Takes from addresses that hosts share what is over.
    ///
    /// # Errors
    /// Something may still be open.
    pub(super) fn sweep_names(&mut self, maps: &mut Maps) -> Result<(), EnforcerError> {
        self.rules.named.sweep(maps, &self.told, boot_nanoseconds())
    }

    /// The names that an address stood for, those that hold first.
    pub(super) fn names_of(&self, address: &IpAddr) -> Vec<HostName> {
        self.told.names_of(address)
    }

    /// What the hooks know of it.
    pub(super) const fn value(&self) -> &Session {
        &self.value
    }

    /// Its cgroup's id.
    pub(super) const fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }

    /// Which version of its rules holds.
    pub(super) const fn generation(&self) -> u32 {
        self.value.generation
    }

    /// The grants whose connections outlive their actions.
    pub(super) const fn keep_alive(&self) -> u64 {
        self.rules.keep_alive
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

    /// Writes another version of its rules beside those that hold. `share` is how many doors by name it may have.
    pub(super) fn prepare(
        &mut self,
        maps: &mut Maps,
        policy: &Policy,
        user: u32,
        share: usize,
    ) -> Result<(), EnforcerError> {
        self.discard(maps)?;
        let next = self.value.generation.checked_add(1).ok_or_else(|| {
            EnforcerError::Missing(format!("session {} has had too many versions of its rules", self.id))
        })?;
        // What an agent that died may have prepared is of this generation too.
        self.rules.forget_generation(maps, next)?;
        let rules = Rules::write(maps, self.id, next, policy, user, &self.told, share)?;
        self.prepared = Some((rules, flags_of(policy)));
        Ok(())
    }

    /// Lets the prepared rules hold, by one write.
    pub(super) fn commit(&mut self, maps: &mut Maps) -> Result<(), EnforcerError> {
        let Some((rules, flags)) = self.prepared.take() else {
            return Err(EnforcerError::Missing(format!("session {} has no prepared rules", self.id)));
        };
        let flags = flags | (self.value.flags & Session::BASELINE_NETWORK);
        let value = Session { generation: rules.generation, flags };
        maps.sessions.put(&self.id.0, &value, super::maps::EXISTING)?;
        self.value = value;
        let old = std::mem::replace(&mut self.rules, rules);
        // What is left of the old ones holds for nobody.
        if let Err(error) = old.remove(maps) {
            tracing::error!(session = %self.id, %error, "rules that hold no longer are left");
        }
        Ok(())
    }

    /// Removes prepared rules.
    pub(super) fn discard(&mut self, maps: &mut Maps) -> Result<(), EnforcerError> {
        self.prepared.take().map_or(Ok(()), |(rules, _)| rules.remove(maps))
    }

    /// Removes all that stands in the maps for it. What can't be removed doesn't keep the rest.
    pub(super) fn unload(&self, maps: &mut Maps) -> Result<(), EnforcerError> {
        let id = self.id;
        let mut results = vec![maps.sessions.remove(&id.0), forget(maps, id), self.rules.remove(maps)];
        results.extend(self.prepared.iter().map(|(rules, _)| rules.remove(maps)));
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
