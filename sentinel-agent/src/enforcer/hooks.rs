//! The programs, where each is attached, and the one loop that does it.
//!
//! Invariant: each link is pinned as soon as it is there, so that it outlives this process. A link that can't be made
//! or pinned is an error, never a hook less.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, ProgramFd, ProgramInfo};

use sentinel_proto::examination;

use super::maps::with_causes;
use super::places::unavailable;
use super::{EnforcerError, Places};

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// The sessions' parent cgroup.
    Cgroup,
    /// A classic tracepoint, for the whole host.
    Tracepoint(&'static str, &'static str),
}

const HOOKS: &[(&str, Point)] = &[
    ("task_newtask", Point::Tracepoint("task", "task_newtask")),
    ("process_free", Point::Tracepoint("sched", "sched_process_free")),
    ("process_exec", Point::Tracepoint("sched", "sched_process_exec")),
    // Before any socket can be made that they would judge.
    ("egress", Point::Cgroup),
    ("ingress", Point::Cgroup),
    ("socket_create", Point::Cgroup),
    ("socket_release", Point::Cgroup),
    ("bind4", Point::Cgroup),
    ("bind6", Point::Cgroup),
    ("connect4", Point::Cgroup),
    ("connect6", Point::Cgroup),
    ("sendmsg4", Point::Cgroup),
    ("sendmsg6", Point::Cgroup),
];

/// Those that are attached to the sessions' parent, and to each bound cgroup.
pub(super) fn cgroup_hooks() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().filter(|(_, point)| matches!(point, Point::Cgroup)).map(|(name, _)| *name)
}

/// Where a program is pinned.
pub(super) fn program_pin(places: &Places, name: &str) -> PathBuf {
    places.pins.join(format!("program_{name}"))
}

/// The attached programs.
#[derive(Debug)]
pub(super) struct Hooks {
    /// Held beside their pins: who removes a pin takes no hook away while the agent lives.
    _links: Vec<PinnedLink>,
    programs: Vec<(&'static str, ProgramFd)>,
}

impl Hooks {
    /// Loads, attaches and pins all. To be called where a tracefs is mounted.
    pub(super) fn attach(ebpf: &mut Ebpf, places: &Places) -> Result<Self, EnforcerError> {
        let cgroup =
            File::open(&places.cgroup).map_err(|cause| unavailable("open", &places.cgroup, cause))?;
        let (mut links, mut programs) = (Vec::new(), Vec::new());
        for (name, point) in HOOKS {
            let refused = |cause: &dyn std::error::Error| EnforcerError::Unavailable {
                what: format!("cannot attach `{name}` ({point:?})"),
                cause: with_causes(cause),
                way_out:
                    "run the agent as root on Linux 6.1 or newer with CONFIG_CGROUP_BPF and CONFIG_BPF_EVENTS"
                        .to_owned(),
            };
            let (program, link) = attach(ebpf, name, *point, &cgroup).map_err(|cause| refused(&*cause))?;
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
        for (name, _) in HOOKS {
            let pin = places.pins.join(format!("link_{name}"));
            let link = PinnedLink::from_pin(&pin);
            links.push(link.map_err(|cause| unavailable("take over", &pin, with_causes(&cause)))?);
            let pin = program_pin(places, name);
            let program = ProgramInfo::from_pin(&pin).and_then(|program| program.fd());
            programs
                .push((*name, program.map_err(|cause| unavailable("take over", &pin, with_causes(&cause)))?));
        }
        Ok(Self { _links: links, programs })
    }

    /// The enforcing programs, and what the kernel counted of each. A run that it left out because another ran on the same CPU may be a
    /// denial that did not happen.
    ///
    /// `process_free` enforces nothing and is left out here: it runs in a softirq, which may come in the middle of one of
    /// our own map updates, and those shut tracepoints out (`bpf_disable_instrumentation`). A mark that stays is no
    /// longer valid for anybody, and goes with its session.
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
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    };
    Ok((program.fd()?.try_clone()?, link))
}
