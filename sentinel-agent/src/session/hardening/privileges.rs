//! Rights of the process: its user, its capabilities, its terminal.

use std::fs;

use rustix::process::{Signal, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::{Confinement, HardeningError, failed};

/// Without a terminal to control: nothing can be typed into the operator's shell through it.
pub(super) fn lead_own_session(_: &mut Confinement) -> Result<(), HardeningError> {
    setsid().map(drop).map_err(failed("cannot lead a session"))
}

/// No exec gives rights again: set-user-id bits and file capabilities do nothing.
pub(super) fn renounce_new_privileges(_: &mut Confinement) -> Result<(), HardeningError> {
    set_no_new_privs(true).map_err(failed("cannot renounce new privileges"))
}

/// No capability can ever be had again, not even by uid 0.
pub(super) fn bound_capabilities(_: &mut Confinement) -> Result<(), HardeningError> {
    // Up to the first number that the kernel doesn't know, so that one newer than this program goes too.
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(false) => {}
            Ok(true) => remove_capability_from_bounding_set(capability)
                .map_err(failed(format!("cannot drop capability {number} from the bounding set")))?,
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(failed("cannot read the bounding set")(errno)),
        }
    }
    clear_ambient_capability_set().map_err(failed("cannot clear the ambient capabilities"))?;
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(failed("cannot lock the secure bits"))
}

/// Another user than root, in that user's groups.
pub(super) fn become_user(confinement: &mut Confinement) -> Result<(), HardeningError> {
    let user = &confinement.user;
    if user.uid == 0 {
        return Err(HardeningError::Unsupported("a session never runs as root".to_owned()));
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // Without root's rights the groups can't be changed, and are the launcher's own.
    if confinement.root {
        let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups).map_err(failed("cannot set the groups"))?;
    }
    set_thread_res_gid(gid, gid, gid).map_err(failed(format!("cannot become group {}", user.gid)))?;
    set_thread_res_uid(uid, uid, uid).map_err(failed(format!("cannot become user {}", user.uid)))
}

/// Every capability that the process still holds.
pub(super) fn drop_capabilities(_: &mut Confinement) -> Result<(), HardeningError> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(failed("cannot drop the capabilities"))
}

/// The kernel kills the command when its launcher dies. After the change of user, which would undo it.
pub(super) fn die_with_launcher(confinement: &mut Confinement) -> Result<(), HardeningError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("cannot be tied to the launcher's life"))?;
    // It may have died just before.
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned());
    if parent == confinement.launcher {
        Ok(())
    } else {
        Err(HardeningError::Unsupported("the launcher is gone".to_owned()))
    }
}

/// What the kernel says of this process is what the steps before were for.
pub(super) fn verify(confinement: &mut Confinement) -> Result<(), HardeningError> {
    let file = "/proc/self/status";
    let status = fs::read_to_string(file).map_err(failed(format!("cannot read `{file}`")))?;
    let (uid, gid) = (confinement.user.uid, confinement.user.gid);
    let expected = [
        ("Uid", format!("{uid} {uid} {uid} {uid}")),
        ("Gid", format!("{gid} {gid} {gid} {gid}")),
        ("CapInh", "0000000000000000".to_owned()),
        ("CapPrm", "0000000000000000".to_owned()),
        ("CapEff", "0000000000000000".to_owned()),
        ("CapBnd", "0000000000000000".to_owned()),
        ("CapAmb", "0000000000000000".to_owned()),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
    ];
    for (key, wanted) in expected {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let found = found.unwrap_or("missing").split_whitespace().collect::<Vec<_>>().join(" ");
        if found != wanted {
            return Err(HardeningError::Unsupported(format!("`{key}` is {found}, not {wanted}")));
        }
    }
    Ok(())
}
