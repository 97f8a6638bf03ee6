//! Loads a program into the kernel, attaches it and pins both.
//!
//! Invariant: what can't be done is an error that names the program, never a hook less.

use std::fs::File;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{CgroupAttachMode, Program, ProgramError, ProgramFd};
use aya::{Ebpf, Endianness};

use super::btf::Btf;
use super::hooks::{Hook, On, Point};
use super::maps::with_causes;
use super::places::unavailable;
use super::{EnforcerError, Tier};

/// The loaded object, and what its programs are attached to.
pub(super) struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    /// The sessions' parent.
    cgroup: File,
    /// The kernel's hooks, where programs are attached to some.
    kernel: Option<aya::Btf>,
}

impl<'a> Attacher<'a> {
    pub(super) fn new(ebpf: &'a mut Ebpf, tier: Tier, cgroup: &Path) -> Result<Self, EnforcerError> {
        let kernel = (tier == Tier::Lsm).then(described_hooks).transpose()?;
        let cgroup = File::open(cgroup).map_err(|cause| unavailable("open", cgroup, cause))?;
        Ok(Self { ebpf, cgroup, kernel })
    }

    /// Loads a program. None: this kernel doesn't have what it guards.
    pub(super) fn load(&mut self, hook: &Hook) -> Result<Option<ProgramFd>, EnforcerError> {
        let loaded = self.program(hook).and_then(|(program, kernel)| {
            match (&mut *program, hook.2) {
                (Program::CgroupSock(program), Point::Cgroup) => program.load()?,
                (Program::CgroupSockAddr(program), Point::Cgroup) => program.load()?,
                (Program::CgroupSkb(program), Point::Cgroup) => program.load()?,
                (Program::TracePoint(program), Point::Tracepoint(..)) => program.load()?,
                (Program::Lsm(program), Point::Lsm(name)) => {
                    program.load(name, kernel.ok_or(ProgramError::NotLoaded)?)?;
                }
                _ => return Err(ProgramError::UnexpectedProgramType),
            }
            Ok(program.fd()?.try_clone()?)
        });
        match loaded {
            Err(cause) if hook.1 == On::LsmWhereKnown && is_unknown_hook(&cause) => {
                tracing::info!(hook = hook.0, "this kernel doesn't have what the hook guards");
                Ok(None)
            }
            loaded => loaded.map(Some).map_err(|cause| refused(hook, &cause)),
        }
    }

    /// Attaches a loaded program where it belongs, and pins the link.
    pub(super) fn link(&mut self, hook: &Hook, pin: &Path) -> Result<PinnedLink, EnforcerError> {
        let link = self.attach(hook).map_err(|cause| refused(hook, &*cause))?;
        link.pin(pin).map_err(|cause| refused(hook, &cause))
    }

    /// Pins a loaded program itself, for cgroups that are bound later.
    pub(super) fn pin(&mut self, hook: &Hook, pin: &Path) -> Result<(), EnforcerError> {
        let (program, _) = self.program(hook).map_err(|cause| refused(hook, &cause))?;
        program.pin(pin).map_err(|cause| refused(hook, &cause))
    }

    fn attach(&mut self, hook: &Hook) -> Result<FdLink, Box<dyn std::error::Error>> {
        let cgroup = self.cgroup.try_clone()?;
        // A link on a cgroup stands beside those of others there and below, whatever they allow.
        let mode = CgroupAttachMode::Single;
        Ok(match (self.program(hook)?.0, hook.2) {
            (Program::CgroupSock(program), Point::Cgroup) => {
                let id = program.attach(cgroup, mode)?;
                program.take_link(id)?.try_into()?
            }
            (Program::CgroupSockAddr(program), Point::Cgroup) => {
                let id = program.attach(cgroup, mode)?;
                program.take_link(id)?.try_into()?
            }
            (Program::CgroupSkb(program), Point::Cgroup) => {
                let direction = program.expected_attach_type().ok_or(ProgramError::UnexpectedProgramType)?;
                let id = program.attach(cgroup, direction, mode)?;
                program.take_link(id)?.try_into()?
            }
            (Program::TracePoint(program), Point::Tracepoint(category, event)) => {
                let id = program.attach(category, event)?;
                program.take_link(id)?.try_into()?
            }
            (Program::Lsm(program), Point::Lsm(_)) => {
                let id = program.attach()?;
                program.take_link(id)?.into()
            }
            _ => return Err(ProgramError::UnexpectedProgramType.into()),
        })
    }

    fn program(&mut self, hook: &Hook) -> Result<(&mut Program, Option<&aya::Btf>), ProgramError> {
        let program = self.ebpf.program_mut(hook.0).ok_or(ProgramError::NotLoaded)?;
        Ok((program, self.kernel.as_ref()))
    }
}

fn refused((name, _, point): &Hook, cause: &dyn std::error::Error) -> EnforcerError {
    EnforcerError::Unavailable {
        what: format!("cannot attach `{name}` ({point:?})"),
        cause: with_causes(cause),
        way_out: "run the agent as root on Linux 6.1 or newer with CONFIG_CGROUP_BPF and CONFIG_BPF_EVENTS"
            .to_owned(),
    }
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
const fn is_unknown_hook(cause: &ProgramError) -> bool {
    matches!(cause, ProgramError::Btf(aya::BtfError::UnknownBtfTypeName { .. }))
}
