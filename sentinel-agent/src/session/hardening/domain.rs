//! The session's Landlock domain: no signal, no abstract socket, no ptrace and no `/proc/PID/mem` across its border.
//!
//! Files are not restricted here. The right to link and rename across folders is handled only because a domain must
//! handle something on kernels that know no scopes, and is given back for the whole tree.

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::{Confinement, HardeningError};

/// The version that knows scopes.
const SCOPES: ABI = ABI::V6;

/// Enters a domain of its own; a kernel that has Landlock without scopes is a warning, one without Landlock an error.
pub(super) fn enter_domain(confinement: &mut Confinement) -> Result<(), HardeningError> {
    let status = restrict().map_err(|error| {
        HardeningError::Unsupported(format!("cannot enter a Landlock domain: {}", chain(&error)))
    })?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        missing @ (LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => {
            return Err(HardeningError::Unsupported(format!(
                "this kernel has no Landlock ({missing:?}), so processes outside could be changed through \
                 `/proc`; add `landlock` to the `lsm=` boot parameter"
            )));
        }
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(HardeningError::Unsupported(format!(
            "Landlock enforces nothing here (ABI {abi}); use a kernel of 5.19 or later"
        )));
    }
    if abi < SCOPES {
        confinement.warnings.push(format!(
            "this kernel's Landlock (ABI {abi}) has no scopes: signals to processes of the same user and abstract \
             unix sockets are not held; kernels from 6.12 on hold them"
        ));
    }
    Ok(())
}

fn restrict() -> Result<landlock::RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::Refer)?
        .scope(Scope::from_all(SCOPES))?
        .create()?;
    match PathFd::new("/") {
        Ok(root) => ruleset.add_rule(PathBeneath::new(root, AccessFs::Refer))?.restrict_self(),
        // Without the rule the domain only holds more: nothing can be moved across folders.
        Err(_unreadable) => ruleset.restrict_self(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
