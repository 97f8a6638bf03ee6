//! The network hooks on cgroups that a session did not make: a systemd unit's, or any other's that an operator bound.
//!
//! Invariant: hooks go on the bound cgroup itself, never on its parent, so that nobody outside it is touched. Each link is pinned, as all
//! others are; those of a session that has ended are gone.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, CgroupSockAddrAttachType,
    CgroupSockAttachType, ProgramError,
};
use sentinel_ebpf_common::DEEPEST_SESSION;
use sentinel_proto::SessionId;

use super::hooks::{cgroup_hooks, program_pin};
use super::maps::with_causes;
use super::places::{cgroup2, unavailable};
use super::{EnforcerError, Places};

/// A bound cgroup and what holds it.
#[derive(Debug)]
pub(super) struct Bound {
    /// How far below the root it stands.
    pub(super) level: u32,
    cgroup: PathBuf,
    /// Held beside their pins.
    _links: Vec<PinnedLink>,
}

impl Bound {
    /// Attaches the hooks to a session's cgroup; those that an earlier agent has attached are taken over.
    ///
    /// # Errors
    /// One can't be attached. Nothing stays.
    pub(super) fn take(places: &Places, session: SessionId, cgroup: &Path) -> Result<Self, EnforcerError> {
        let level = level(cgroup)?;
        let file = File::open(cgroup).map_err(|cause| unavailable("open", cgroup, cause))?;
        let links = cgroup_hooks().map(|hook| {
            let pin = pin(places, hook, session);
            let refused = |cause: &dyn std::error::Error| EnforcerError::Unavailable {
                what: format!("cannot attach `{hook}` to `{}`", cgroup.display()),
                cause: with_causes(cause),
                way_out:
                    "see that it is a cgroup of cgroup2, and that no other program forbids to attach there"
                        .to_owned(),
            };
            if pin.exists() {
                return PinnedLink::from_pin(&pin).map_err(|cause| refused(&cause));
            }
            let link = attach(hook, &program_pin(places, hook), &file).map_err(|cause| refused(&*cause))?;
            link.pin(&pin).map_err(|cause| refused(&cause))
        });
        let links: Result<Vec<PinnedLink>, EnforcerError> = links.collect();
        match links {
            Ok(links) => Ok(Self { level, cgroup: cgroup.to_owned(), _links: links }),
            Err(error) => {
                release(places, session)?;
                Err(error)
            }
        }
    }
}

impl Bound {
    /// The numbers of its cgroup and of all that are below it now: each of them counts its own sockets alone.
    pub(super) fn cgroups(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut folders = vec![self.cgroup.clone()];
        while let Some(folder) = folders.pop() {
            // What can't be read has been removed meanwhile, and had no process any more.
            let Ok(metadata) = fs::metadata(&folder) else { continue };
            numbers.push(metadata.ino());
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(below.map(|entry| entry.path()));
        }
        numbers
    }
}

/// Detaches what is attached for a session, if anything is. To be called when what holds the links is dropped.
///
/// # Errors
/// A pin can't be removed; its hook stays.
pub(super) fn release(places: &Places, session: SessionId) -> Result<(), EnforcerError> {
    for hook in cgroup_hooks() {
        let pin = pin(places, hook, session);
        match fs::remove_file(&pin) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(unavailable("remove", &pin, cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The level of a cgroup below the root of all cgroups.
fn level(cgroup: &Path) -> Result<u32, EnforcerError> {
    let root = cgroup2()?;
    let below = cgroup
        .strip_prefix(&root)
        .map_err(|_elsewhere| unavailable("bind", cgroup, format!("it isn't below `{}`", root.display())))?;
    let level = u32::try_from(below.components().count()).unwrap_or(u32::MAX);
    if (1..=DEEPEST_SESSION).contains(&level) {
        return Ok(level);
    }
    Err(unavailable(
        "bind",
        cgroup,
        format!("it stands {level} levels below the root; 1 to {DEEPEST_SESSION} can be"),
    ))
}

fn pin(places: &Places, hook: &str, session: SessionId) -> PathBuf {
    places.pins.join(format!("link_{hook}_session_{session}"))
}

fn attach(hook: &str, program: &Path, cgroup: &File) -> Result<FdLink, Box<dyn std::error::Error>> {
    let mode = CgroupAttachMode::Single;
    let socket = |kind| -> Result<FdLink, Box<dyn std::error::Error>> {
        let mut program = CgroupSock::from_pin(program, kind)?;
        let id = program.attach(cgroup, mode)?;
        Ok(program.take_link(id)?.try_into()?)
    };
    let packets = |kind| -> Result<FdLink, Box<dyn std::error::Error>> {
        let mut program = CgroupSkb::from_pin(program, kind)?;
        let id = program.attach(cgroup, kind, mode)?;
        Ok(program.take_link(id)?.try_into()?)
    };
    let address = match hook {
        "egress" => return packets(CgroupSkbAttachType::Egress),
        "ingress" => return packets(CgroupSkbAttachType::Ingress),
        "socket_create" => return socket(CgroupSockAttachType::SockCreate),
        "socket_release" => return socket(CgroupSockAttachType::SockRelease),
        "bind4" => CgroupSockAddrAttachType::Bind4,
        "bind6" => CgroupSockAddrAttachType::Bind6,
        "connect4" => CgroupSockAddrAttachType::Connect4,
        "connect6" => CgroupSockAddrAttachType::Connect6,
        "sendmsg4" => CgroupSockAddrAttachType::UDPSendMsg4,
        "sendmsg6" => CgroupSockAddrAttachType::UDPSendMsg6,
        "recvmsg4" => CgroupSockAddrAttachType::UDPRecvMsg4,
        "recvmsg6" => CgroupSockAddrAttachType::UDPRecvMsg6,
        "getpeername4" => CgroupSockAddrAttachType::GetPeerName4,
        "getpeername6" => CgroupSockAddrAttachType::GetPeerName6,
        _unknown => return Err(ProgramError::UnexpectedProgramType.into()),
    };
    let mut program = CgroupSockAddr::from_pin(program, address)?;
    let id = program.attach(cgroup, mode)?;
    Ok(program.take_link(id)?.try_into()?)
}
