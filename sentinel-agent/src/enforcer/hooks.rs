//! The programs, where each is attached, and the one loop that does it.
//!
//! Invariant: each link is pinned as soon as it is there, so that it outlives this process. A link that can't be made
//! or pinned is an error, never a hook less.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, ProgramFd, ProgramInfo};
use aya::{Ebpf, Endianness};
use sentinel_proto::examination;

use super::btf::Btf;
use super::maps::with_causes;
use super::places::unavailable;
use super::{EnforcerError, Places, Tier};

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// The sessions' parent cgroup.
    Cgroup,
    /// A classic tracepoint, for the whole host.
    Tracepoint(&'static str, &'static str),
    /// A hook of the kernel's security modules, for the whole host.
    Lsm(&'static str),
}

/// On which tiers a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Both,
    /// At tier `lsm` the same is refused before it happens.
    Kill,
    Lsm,
    /// At tier `lsm`, on kernels that have the hook; without it they lack what it guards, too.
    LsmWhereKnown,
}

const HOOKS: &[(&str, On, Point)] = &[
    ("task_newtask", On::Both, Point::Tracepoint("task", "task_newtask")),
    ("process_free", On::Both, Point::Tracepoint("sched", "sched_process_free")),
    ("process_exec", On::Kill, Point::Tracepoint("sched", "sched_process_exec")),
    // Before any socket can be made that they would judge.
    ("egress", On::Both, Point::Cgroup),
    ("ingress", On::Both, Point::Cgroup),
    ("socket_create", On::Both, Point::Cgroup),
    ("socket_release", On::Both, Point::Cgroup),
    ("bind4", On::Both, Point::Cgroup),
    ("bind6", On::Both, Point::Cgroup),
    ("connect4", On::Both, Point::Cgroup),
    ("connect6", On::Both, Point::Cgroup),
    ("sendmsg4", On::Both, Point::Cgroup),
    ("sendmsg6", On::Both, Point::Cgroup),
    ("bprm_check", On::Lsm, Point::Lsm("bprm_check_security")),
    ("bprm_committed", On::Lsm, Point::Lsm("bprm_committed_creds")),
    ("bprm_creds", On::Lsm, Point::Lsm("bprm_creds_from_file")),
    ("socket_made", On::Lsm, Point::Lsm("socket_post_create")),
    ("socket_accepted", On::Lsm, Point::Lsm("sock_graft")),
    ("lsm_create", On::Lsm, Point::Lsm("socket_create")),
    ("lsm_connect", On::Lsm, Point::Lsm("socket_connect")),
    ("lsm_sendmsg", On::Lsm, Point::Lsm("socket_sendmsg")),
    ("unix_connect", On::Lsm, Point::Lsm("unix_stream_connect")),
    ("unix_send", On::Lsm, Point::Lsm("unix_may_send")),
    ("ptrace_access", On::Lsm, Point::Lsm("ptrace_access_check")),
    ("ptrace_traceme", On::Lsm, Point::Lsm("ptrace_traceme")),
    ("task_kill", On::Lsm, Point::Lsm("task_kill")),
    ("task_alloc", On::Lsm, Point::Lsm("task_alloc")),
    ("bpf_call", On::Lsm, Point::Lsm("bpf")),
    ("perf_event", On::Lsm, Point::Lsm("perf_event_open")),
    ("kernel_load", On::Lsm, Point::Lsm("kernel_load_data")),
    ("kernel_read", On::Lsm, Point::Lsm("kernel_read_file")),
    ("sb_mount", On::Lsm, Point::Lsm("sb_mount")),
    ("sb_umount", On::Lsm, Point::Lsm("sb_umount")),
    ("sb_pivotroot", On::Lsm, Point::Lsm("sb_pivotroot")),
    ("move_mount", On::Lsm, Point::Lsm("move_mount")),
    ("userns_create", On::Lsm, Point::Lsm("userns_create")),
    ("uring_creds", On::LsmWhereKnown, Point::Lsm("uring_override_creds")),
    ("uring_sqpoll", On::LsmWhereKnown, Point::Lsm("uring_sqpoll")),
    ("uring_cmd", On::LsmWhereKnown, Point::Lsm("uring_cmd")),
    ("file_open", On::Lsm, Point::Lsm("file_open")),
    ("file_receive", On::Lsm, Point::Lsm("file_receive")),
    ("mmap_file", On::Lsm, Point::Lsm("mmap_file")),
    ("file_mprotect", On::Lsm, Point::Lsm("file_mprotect")),
    ("path_truncate", On::LsmWhereKnown, Point::Lsm("path_truncate")),
    ("inode_create", On::Lsm, Point::Lsm("inode_create")),
    ("inode_unlink", On::Lsm, Point::Lsm("inode_unlink")),
    ("inode_symlink", On::Lsm, Point::Lsm("inode_symlink")),
    ("inode_mkdir", On::Lsm, Point::Lsm("inode_mkdir")),
    ("inode_rmdir", On::Lsm, Point::Lsm("inode_rmdir")),
    ("inode_mknod", On::Lsm, Point::Lsm("inode_mknod")),
    ("inode_link", On::Lsm, Point::Lsm("inode_link")),
    ("inode_rename", On::Lsm, Point::Lsm("inode_rename")),
];

/// Those that are attached to the sessions' parent, and to each bound cgroup.
pub(super) fn cgroup_hooks() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().filter(|(_, _, point)| matches!(point, Point::Cgroup)).map(|(name, ..)| *name)
}

/// Where a program is pinned.
pub(super) fn program_pin(places: &Places, name: &str) -> PathBuf {
    places.pins.join(format!("program_{name}"))
}

/// The hook whose pinned link tells the tier.
const TELLS_LSM: &str = "bprm_check";

fn hooks_of(tier: Tier) -> impl Iterator<Item = &'static (&'static str, On, Point)> {
    HOOKS.iter().filter(move |(_, on, _)| match on {
        On::Both => true,
        On::Kill => tier == Tier::Kill,
        On::Lsm | On::LsmWhereKnown => tier == Tier::Lsm,
    })
}

/// The attached programs.
#[derive(Debug)]
pub(super) struct Hooks {
    /// Held beside their pins: who removes a pin takes no hook away while the agent lives.
    _links: Vec<PinnedLink>,
    programs: Vec<(&'static str, ProgramFd)>,
}

impl Hooks {
    /// Loads, attaches and pins all of a tier. To be called where a tracefs is mounted.
    pub(super) fn attach(ebpf: &mut Ebpf, tier: Tier, places: &Places) -> Result<Self, EnforcerError> {
        let cgroup =
            File::open(&places.cgroup).map_err(|cause| unavailable("open", &places.cgroup, cause))?;
        let (mut links, mut programs) = (Vec::new(), Vec::new());
        let refused = |name: &str, point: Point, cause: &dyn std::error::Error| EnforcerError::Unavailable {
            what: format!("cannot attach `{name}` ({point:?})"),
            cause: with_causes(cause),
            way_out:
                "run the agent as root on Linux 6.1 or newer with CONFIG_CGROUP_BPF and CONFIG_BPF_EVENTS"
                    .to_owned(),
        };
        let kernel = (tier == Tier::Lsm).then(described_hooks).transpose()?;
        for (name, on, point) in hooks_of(tier) {
            let refused = |cause: &dyn std::error::Error| refused(name, *point, cause);
            let attached = match attach(ebpf, name, *point, &cgroup, kernel.as_ref()) {
                Err(cause) if *on == On::LsmWhereKnown && is_unknown_hook(&*cause) => {
                    tracing::info!(hook = name, "this kernel doesn't have what the hook guards");
                    continue;
                }
                attached => attached,
            };
            let (program, link) = attached.map_err(|cause| refused(&*cause))?;
            let pin = places.pins.join(format!("link_{name}"));
            links.push(link.pin(&pin).map_err(|cause| refused(&cause))?);
            let pin = program_pin(places, name);
            let pinned = ebpf.program_mut(name).map(|program| program.pin(&pin));
            pinned.transpose().map_err(|cause| refused(&cause))?;
            programs.push((*name, program));
        }
        Ok(Self { _links: links, programs })
    }

    /// Takes those over that an earlier agent has pinned: they never were off.
    pub(super) fn adopt(places: &Places) -> Result<Self, EnforcerError> {
        let (mut links, mut programs) = (Vec::new(), Vec::new());
        for (name, on, _) in hooks_of(Self::tier_of(places)) {
            let pin = places.pins.join(format!("link_{name}"));
            if *on == On::LsmWhereKnown && !pin.exists() {
                continue;
            }
            let link = PinnedLink::from_pin(&pin);
            links.push(link.map_err(|cause| unavailable("take over", &pin, with_causes(&cause)))?);
            let pin = program_pin(places, name);
            let program = ProgramInfo::from_pin(&pin).and_then(|program| program.fd());
            programs
                .push((*name, program.map_err(|cause| unavailable("take over", &pin, with_causes(&cause)))?));
        }
        Ok(Self { _links: links, programs })
    }

    /// The tier of what an earlier agent has pinned.
    pub(super) fn tier_of(places: &Places) -> Tier {
        let is_lsm = places.pins.join(format!("link_{TELLS_LSM}")).exists();
        if is_lsm { Tier::Lsm } else { Tier::Kill }
    }

    /// The enforcing programs, and what the kernel counted of each. A run that it left out because another ran on the same CPU may be a
    /// denial that did not happen.
    ///
    /// `process_free` enforces nothing and is left out here: it runs in a softirq, which may come in the middle of one of
    /// our own map updates, and those shut tracepoints out (`bpf_disable_instrumentation`). A mark that stays is no
    /// longer valid for anybody, and is removed by the driver when it looks after strays.
    pub(super) fn programs(&self) -> Result<Vec<examination::Program>, EnforcerError> {
        let enforcing = self.programs.iter().filter(|(name, _)| *name != "process_free");
        enforcing.map(|(name, program)| counted(name, program)).collect()
    }

    /// How often the kernel left an enforcing program out.
    pub(super) fn missed_runs(&self) -> Result<u64, EnforcerError> {
        let programs = self.programs()?;
        Ok(programs.iter().fold(0, |missed, program| missed.saturating_add(program.missed)))
    }
}

fn counted(name: &str, program: &ProgramFd) -> Result<examination::Program, EnforcerError> {
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    let mut text = String::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
    read.map_err(|cause| unavailable("read", path.as_ref(), cause))?;
    let count = |key: &str| {
        let count = text.lines().find_map(|line| line.strip_prefix(key));
        count
            .and_then(|count| count.trim().parse::<u64>().ok())
            .ok_or_else(|| unavailable("read", path.as_ref(), format!("it doesn't say `{key}` of `{name}`")))
    };
    Ok(examination::Program {
        name: name.to_owned(),
        missed: count("recursion_misses:")?,
        runs: count("run_cnt:")?,
        nanoseconds: count("run_time_ns:")?,
    })
}

fn attach(
    ebpf: &mut Ebpf,
    name: &str,
    point: Point,
    cgroup: &File,
    kernel: Option<&aya::Btf>,
) -> Result<(ProgramFd, FdLink), Box<dyn std::error::Error>> {
    let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
    // A link on a cgroup stands beside those of others there and below, whatever they allow.
    let mode = CgroupAttachMode::Single;
    let link = match (&mut *program, point) {
        (Program::CgroupSock(program), Point::Cgroup) => {
            program.load()?;
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        (Program::CgroupSockAddr(program), Point::Cgroup) => {
            program.load()?;
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        (Program::CgroupSkb(program), Point::Cgroup) => {
            program.load()?;
            let direction = program.expected_attach_type().unwrap_or(CgroupSkbAttachType::Egress);
            let id = program.attach(cgroup, direction, mode)?;
            program.take_link(id)?.try_into()?
        }
        (Program::TracePoint(program), Point::Tracepoint(category, event)) => {
            program.load()?;
            let id = program.attach(category, event)?;
            program.take_link(id)?.try_into()?
        }
        (Program::Lsm(program), Point::Lsm(hook)) => {
            program.load(hook, kernel.ok_or(ProgramError::NotLoaded)?)?;
            let id = program.attach()?;
            program.take_link(id)?.into()
        }
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    };
    Ok((program.fd()?.try_clone()?, link))
}

/// Which hooks the kernel has, by its own description.
fn described_hooks() -> Result<aya::Btf, EnforcerError> {
    let unreadable = |cause: String| EnforcerError::Unavailable {
        what: "cannot learn the kernel's hooks".to_owned(),
        cause,
        way_out: "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build them".to_owned(),
    };
    let whole = Btf::of_kernel().map_err(|cause| unreadable(cause.to_string()))?;
    // Without the rest it is read, and searched for each hook, in no time.
    aya::Btf::parse(&whole.only_functions("bpf_lsm_"), Endianness::default())
        .map_err(|cause| unreadable(with_causes(&cause)))
}

/// Whether the kernel has no hook of that name.
fn is_unknown_hook(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        cause.downcast_ref::<ProgramError>(),
        Some(ProgramError::Btf(aya::BtfError::UnknownBtfTypeName { .. }))
    )
}
