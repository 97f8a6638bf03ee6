//! The programs, where each is attached, and the loop that does it.
//!
//! Invariant: each link is pinned as soon as it is there, so that it outlives this process. A link that can't be made
//! or pinned is an error, never a hook less.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::links::PinnedLink;
use aya::programs::{ProgramFd, ProgramInfo};
use sentinel_proto::examination;

use super::attach::Attacher;
use super::maps::with_causes;
use super::places::unavailable;
use super::{EnforcerError, Places, Tier};

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    /// The sessions' parent cgroup.
    Cgroup,
    /// A classic tracepoint, for the whole host.
    Tracepoint(&'static str, &'static str),
    /// A hook of the kernel's security modules, for the whole host.
    Lsm(&'static str),
}

/// On which tiers a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Both,
    /// At tier `lsm` the same is refused before it happens.
    Kill,
    Lsm,
    /// At tier `lsm`, on kernels that have the hook; without it they lack what it guards, too.
    LsmWhereKnown,
}

/// A program, the tiers that it belongs to, and where it is attached.
pub(super) type Hook = (&'static str, On, Point);

const HOOKS: &[Hook] = &[
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
    ("recvmsg4", On::Both, Point::Cgroup),
    ("recvmsg6", On::Both, Point::Cgroup),
    ("getpeername4", On::Both, Point::Cgroup),
    ("getpeername6", On::Both, Point::Cgroup),
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
    // Before what it forgets can be kept.
    ("task_free", On::Lsm, Point::Lsm("task_free")),
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

/// Whether `cargo xtask mutate` has this test program do without a hook, to see a test fail for it. There is no such way in the agent.
#[cfg(test)]
fn is_left_out(name: &str) -> bool {
    std::env::var_os("SENTINEL_LEAVE_OUT").is_some_and(|left_out| left_out == name)
}

#[cfg(not(test))]
const fn is_left_out(_name: &str) -> bool {
    false
}

fn hooks() -> impl Iterator<Item = &'static Hook> {
    HOOKS.iter().filter(|(name, ..)| !is_left_out(name))
}

/// Those that are attached to the sessions' parent, and to each bound cgroup.
pub(super) fn cgroup_hooks() -> impl Iterator<Item = &'static str> {
    hooks().filter(|(_, _, point)| matches!(point, Point::Cgroup)).map(|(name, ..)| *name)
}

/// Where a program is pinned.
pub(super) fn program_pin(places: &Places, name: &str) -> PathBuf {
    places.pins.join(format!("program_{name}"))
}

/// Where its link to the sessions' parent, or to the whole host, is pinned.
pub(super) fn link_pin(places: &Places, name: &str) -> PathBuf {
    places.pins.join(format!("link_{name}"))
}

/// The hook whose pinned link tells the tier.
const TELLS_LSM: &str = "bprm_check";

/// The programs of a tier, in the order in which they are attached.
pub(super) fn hooks_of(tier: Tier) -> impl Iterator<Item = &'static Hook> {
    hooks().filter(move |(_, on, _)| match on {
        On::Both => true,
        On::Kill => tier == Tier::Kill,
        On::Lsm | On::LsmWhereKnown => tier == Tier::Lsm,
    })
}

/// The attached programs.
#[derive(Debug)]
pub(super) struct Hooks {
    /// Held beside their pins: who removes a pin takes no hook away while the agent lives.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) links: Vec<PinnedLink>,
    pub(super) programs: Vec<(&'static str, ProgramFd)>,
}

impl Hooks {
    /// Loads, attaches and pins all of a tier. To be called where a tracefs is mounted.
    pub(super) fn attach(ebpf: &mut Ebpf, tier: Tier, places: &Places) -> Result<Self, EnforcerError> {
        let (mut links, mut programs) = (Vec::new(), Vec::new());
        let mut attacher = Attacher::new(ebpf, tier, &places.cgroup)?;
        for hook in hooks_of(tier) {
            let Some(program) = attacher.load(hook)? else { continue };
            links.push(attacher.link(hook, &link_pin(places, hook.0))?);
            attacher.pin(hook, &program_pin(places, hook.0))?;
            programs.push((hook.0, program));
        }
        Ok(Self { links, programs })
    }

    /// Takes those over that an earlier agent has pinned: they never were off.
    pub(super) fn adopt(places: &Places) -> Result<Self, EnforcerError> {
        let (mut links, mut programs) = (Vec::new(), Vec::new());
        for (name, on, _) in hooks_of(Self::tier_of(places)) {
            let pin = link_pin(places, name);
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
        Ok(Self { links, programs })
    }

    /// The tier of what an earlier agent has pinned.
    pub(super) fn tier_of(places: &Places) -> Tier {
        let is_lsm = link_pin(places, TELLS_LSM).exists();
        if is_lsm { Tier::Lsm } else { Tier::Kill }
    }

    /// The enforcing programs, and what the kernel counted of each. A run that it left out because another ran on the same CPU, or a map was being written there, may be a
    /// denial that did not happen.
    ///
    /// Two are left out here, which tracepoints run and which nothing forbidden depends on. `process_free` runs in a softirq, which may come in the
    /// middle of one of our own map updates; a mark that stays is no longer valid for anybody, and the driver removes it. At tier `lsm`, where the
    /// kernel may preempt, `task_newtask`: a child without a mark is held by its cgroup, has no action's doors, and is marked by the driver.
    pub(super) fn programs(&self) -> Result<Vec<examination::Program>, EnforcerError> {
        let is_lsm = self.programs.iter().any(|(name, _)| *name == TELLS_LSM);
        let enforces = |name: &str| name != "process_free" && !(is_lsm && name == "task_newtask");
        let enforcing = self.programs.iter().filter(|(name, _)| enforces(name));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Mutations {
        hook: Vec<LeftOut>,
    }

    #[derive(serde::Deserialize)]
    struct LeftOut {
        name: String,
        tier: String,
    }

    #[test]
    fn for_each_hook_a_test_is_named_that_fails_without_it() {
        let told: Mutations = toml::from_str(include_str!("../../../tests/mutations.toml")).unwrap();
        let told: BTreeMap<&str, &str> =
            told.hook.iter().map(|hook| (hook.name.as_str(), hook.tier.as_str())).collect();
        let tier = |on: On| match on {
            On::Both => "both",
            On::Kill => "kill",
            On::Lsm | On::LsmWhereKnown => "lsm",
        };
        let all: BTreeMap<&str, &str> = HOOKS.iter().map(|(name, on, _)| (*name, tier(*on))).collect();
        assert_eq!(told, all);
    }
}
