//! How the kernel side comes to be: loaded anew, or taken over from an earlier agent.
//!
//! Invariant: what is there is never used unproven, and never by a build that means something else by it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use aya::{Ebpf, EbpfLoader};
use sentinel_proto::examination::Examination;

use super::EbpfEnforcer;
use crate::enforcer::connections::Connections;
use crate::enforcer::hooks::Hooks;
use crate::enforcer::layout::Layout;
use crate::enforcer::maps::{self, Maps, Records, with_causes};
use crate::enforcer::object::{FORMAT, object};
use crate::enforcer::tracefs::with_tracefs;
use crate::enforcer::{
    Enforcement, Enforcer as _, EnforcerError, Places, Tier, leftovers, lsm, preconditions, preemption,
    takeover,
};

impl EbpfEnforcer {
    /// Ends what a dead instance left in `places`, loads and attaches the kernel side there, and proves by denials that
    /// really happen that it enforces.
    ///
    /// # Errors
    /// This host can't enforce, or it could not be proven. Nothing stays.
    pub fn start(places: &Places) -> Result<Self, EnforcerError> {
        preconditions::check()?;
        let started = match lsm::is_active()? {
            Ok(()) => Self::start_at(Tier::Lsm, places).or_else(|error| {
                tracing::error!(
                    %error,
                    "this kernel asks BPF before it lets things happen, and can't be told what: forbidden images are killed and not \
                     refused, and the rest of tier `lsm` is missing"
                );
                Self::start_at(Tier::Kill, places)
            }),
            Err(cause) => {
                tracing::info!(%cause, "tier `lsm` is not to be had");
                Self::start_at(Tier::Kill, places)
            }
        };
        give_memory_back();
        started
    }

    fn start_at(tier: Tier, places: &Places) -> Result<Self, EnforcerError> {
        leftovers::remove(places)?;
        let started = places.make().and_then(|()| Self::load(tier, places)).and_then(|mut enforcer| {
            enforcer.prove()?;
            Ok(enforcer)
        });
        if started.is_err()
            && let Err(error) = leftovers::remove(places)
        {
            tracing::error!(%error, "a start that failed left something behind");
        }
        started
    }

    /// Loads and attaches the kernel side for as long as it takes to try out what this host enforces.
    ///
    /// # Errors
    /// It can't be loaded or tried. Nothing stays, either way.
    pub fn try_out(places: &Places) -> Result<Examination, EnforcerError> {
        preconditions::check()?;
        leftovers::remove(places)?;
        let at = |tier| places.make().and_then(|()| Self::load(tier, places)).and_then(|mut it| it.examine());
        let examined = match lsm::is_active()? {
            Ok(()) => at(Tier::Lsm).or_else(|error| {
                tracing::error!(%error, "tier `lsm` is not to be had");
                leftovers::remove(places)?;
                at(Tier::Kill)
            }),
            Err(_none) => at(Tier::Kill),
        };
        let removed = leftovers::remove(places);
        let examination = examined?;
        removed?;
        Ok(examination)
    }

    /// Takes over the kernel side that an earlier agent of this instance left running, with all doors of actions shut; and proves by denials that
    /// really happen that it enforces. None: there is nothing that this build could take over. Programs of another build are replaced, if it means
    /// the same by what stands in the maps.
    ///
    /// # Errors
    /// It is there but can't be taken over, or doesn't enforce.
    pub fn adopt(places: &Places) -> Result<Option<Self>, EnforcerError> {
        preconditions::check()?;
        if !places.pins.join("TASKS").exists() {
            return Ok(None);
        }
        let (left, own) = (Build::noted(places)?, Build::own());
        let tier = Hooks::tier_of(places);
        check_preemption(tier)?;
        let hooks = if left == own {
            Hooks::adopt(places)?
        } else if left.format == own.format {
            tracing::info!("the kernel side is another build's: its programs are replaced, one by one");
            let mut ebpf = load_object(tier, Some(places))?;
            with_tracefs(|| takeover::replace(&mut ebpf, places))?
        } else {
            return Ok(None);
        };
        let (maps, records) = Maps::adopt(&places.pins)?;
        let enforcement = Enforcement { tier, proven: false };
        let mut enforcer = Self::of(enforcement, places, hooks, maps, records);
        // Before any heartbeat: what the dead agent had opened must not live on.
        for scope in enforcer.maps.scopes.keys(|_| true)? {
            enforcer.maps.scopes.remove(&scope)?;
        }
        for (tgid, mark) in enforcer.marks()? {
            enforcer.connections.note_process(mark.session, tgid);
        }
        enforcer.connections.sweep(&mut enforcer.maps)?;
        enforcer.prove()?;
        give_memory_back();
        Ok(Some(enforcer))
    }

    fn prove(&mut self) -> Result<(), EnforcerError> {
        if let Some(cause) = self.examine()?.failure() {
            return Err(EnforcerError::Unavailable {
                what: "this host does not enforce what it is told".to_owned(),
                cause,
                way_out: "don't run sessions here; report it with the kernel's version".to_owned(),
            });
        }
        self.enforcement.proven = true;
        Ok(())
    }

    /// Leaves everything as it is, for the next agent of this instance.
    ///
    /// # Errors
    /// Which build it is of can't be noted: then the next one can't take it over.
    pub fn note_build(&self) -> Result<(), EnforcerError> {
        self.places.note_build(&Build::own().to_string())
    }

    fn load(tier: Tier, places: &Places) -> Result<Self, EnforcerError> {
        check_preemption(tier)?;
        let mut ebpf = load_object(tier, None)?;
        let hooks = with_tracefs(|| Hooks::attach(&mut ebpf, tier, places))?;
        let (maps, records) = Maps::take(&mut ebpf, &places.pins)?;
        let enforcement = Enforcement { tier, proven: false };
        let mut enforcer = Self::of(enforcement, places, hooks, maps, records);
        let own = enforcer.places.session_level()?;
        enforcer.tell_level(own)?;
        Ok(enforcer)
    }

    fn of(enforcement: Enforcement, places: &Places, hooks: Hooks, maps: Maps, records: Records) -> Self {
        let (sessions, bound, taken) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let (places, connections) = (places.clone(), Connections::new());
        Self {
            enforcement,
            places,
            hooks,
            maps,
            records,
            sessions,
            named_doors: 0,
            bound,
            taken,
            connections,
            own: Vec::new(),
        }
    }
}

/// At tier `kill` execs are judged by a tracepoint, which a kernel that preempts leaves out at times.
fn check_preemption(tier: Tier) -> Result<(), EnforcerError> {
    if tier == Tier::Lsm { Ok(()) } else { preemption::check() }
}

/// Which build a kernel side is of.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    /// The SHA-256 of its object.
    object: String,
    /// What it means by its maps: see [`FORMAT`].
    format: String,
}

impl Build {
    fn own() -> Self {
        use sha2::Digest as _;
        let object = sha2::Sha256::digest(object()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { object, format: FORMAT.to_owned() }
    }

    /// As an agent has noted it; both empty where none has.
    fn noted(places: &Places) -> Result<Self, EnforcerError> {
        let note = places.build()?;
        let (object, format) = note.split_once(' ').unwrap_or_default();
        Ok(Self { object: object.to_owned(), format: format.to_owned() })
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.format)
    }
}

/// Loads the object's maps, or has it share those that are pinned; its programs are loaded when they are attached.
fn load_object(tier: Tier, shared: Option<&Places>) -> Result<Ebpf, EnforcerError> {
    let layout = Layout::of_kernel(tier)?;
    let mut loader = EbpfLoader::new();
    // The object has no relocations against the kernel's description: no need to keep that in memory.
    loader.btf(None);
    layout.tell(&mut loader);
    if let Some(places) = shared {
        maps::share(&mut loader, &places.pins);
    }
    #[cfg(test)]
    for (map, entries) in crate::enforcer::testing::small_maps() {
        loader.map_max_entries(map, entries);
    }
    loader.load(object()).map_err(|cause| EnforcerError::Unavailable {
        what: "cannot load the kernel side".to_owned(),
        cause: with_causes(&cause),
        way_out: "run the agent as root on Linux 6.1 or newer, with enough locked memory".to_owned(),
    })
}

/// Gives back what the kernel's description took while it was read: tens of megabytes, once.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
