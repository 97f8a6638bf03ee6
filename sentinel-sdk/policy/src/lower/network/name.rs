//! Names of hosts: `NAME`, or `*.NAME` for all that are one label longer.
//!
//! Invariant: a name stands in a policy in the one form in which it is compared, and is whole: nobody's search list adds to it. What a
//! wildcard stands for belongs to one owner, as far as the public suffix list knows.

use sentinel_engine::NamePattern;
use sentinel_proto::{HostName, HostNameError};

use crate::problem::Complaint;
use crate::quoted::{Quoted, shown};

/// The names that a part before the port means; `behind` is the rest of the entry.
pub(super) fn pattern(text: &str, behind: &str) -> Result<NamePattern, Complaint> {
    if let Some((name, prefix)) = text.split_once('/') {
        let message = format!("{} has a prefix or a path, and a name has neither", Quoted(text));
        let (name, prefix) = (shown(name), shown(prefix));
        return Err(Complaint::new(message, format!("write `{name}:{}` without `/{prefix}`", shown(behind))));
    }
    let apex = text.strip_prefix("*.").filter(|apex| !apex.contains('*'));
    if apex.is_none() && text.contains('*') {
        return Err(misplaced_star(text, behind));
    }
    let name = HostName::parse(apex.unwrap_or(text)).map_err(|error| unnameable(text, behind, error))?;
    let pattern = match apex {
        Some(_) => NamePattern::OneBelow(name.clone()),
        None => NamePattern::Exactly(name.clone()),
    };
    check_domain(&name, behind)?;
    match apex {
        Some(_) if name.as_str().len() > HostName::MAX.saturating_sub(2) => {
            let message = format!("{} is so long that no name is a label longer", Quoted(text));
            return Err(Complaint::new(message, format!("write at most {} characters", HostName::MAX)));
        }
        Some(_) if is_public(&name) => return Err(public(&name, behind)),
        None if name.labels().count() == 1 => return Err(single_label(&name, behind)),
        Some(_) | None => {}
    }
    check_encoded(&name)?;
    let right = pattern.to_string();
    if right != text {
        let message = format!("{} is not spelt as names are compared", Quoted(text));
        return Err(Complaint::new(message, format!("write `{}:{}`", shown(&right), shown(behind))));
    }
    Ok(pattern)
}

/// What is to be said of a name where own addresses stand.
pub(super) fn not_an_own_address(text: &str, behind: &str) -> Complaint {
    if HostName::parse(text).is_ok_and(|name| is_local(&name)) {
        return local(text, behind);
    }
    Complaint::new(
        format!("{} is not an address, and sockets are bound to addresses", Quoted(text)),
        format!(
            "write an address of this machine, or `0.0.0.0:{0}` and `[::]:{0}` for all of them",
            shown(behind)
        ),
    )
}

fn unnameable(text: &str, behind: &str, error: HostNameError) -> Complaint {
    let quoted = Quoted(text);
    match error {
        HostNameError::Empty => Complaint::new(
            format!("{quoted} names no host"),
            format!("write a name, as in `api.example.com:{}`", shown(behind)),
        ),
        HostNameError::NotAscii { character, position: _ } => {
            let message = format!(
                "{quoted} has {} (U+{:04X}), and DNS knows names in ASCII only",
                Quoted(&character.to_string()),
                u32::from(character)
            );
            let way_out = encoded(text).filter(|encoded| pattern(encoded, behind).is_ok()).map_or_else(
                || "write the name in its `xn--` form".to_owned(),
                |encoded| format!("write `{}:{}` if that is the name", shown(&encoded), shown(behind)),
            );
            Complaint::new(message, way_out)
        }
        HostNameError::Character { character, position: _ } => Complaint::new(
            format!("{quoted} has {}, and no host's name has that", Quoted(&character.to_string())),
            "write letters, digits, `-` and `_` with dots between them",
        ),
        HostNameError::EmptyLabel => Complaint::new(
            format!("{quoted} has nothing before one of its dots"),
            "write one dot between labels",
        ),
        HostNameError::LabelTooLong { length } => Complaint::new(
            format!("a label of {quoted} has {length} characters"),
            format!("write at most {} between two dots", HostName::MAX_LABEL),
        ),
        HostNameError::TooLong { length } => Complaint::new(
            format!("{quoted} has {length} characters"),
            format!("write at most {}", HostName::MAX),
        ),
        HostNameError::Hyphen { label } => Complaint::new(
            format!("the label {} begins or ends with `-`", Quoted(&label)),
            "write a letter or a digit there",
        ),
        HostNameError::LooksLikeAddress => Complaint::new(
            format!("{quoted} ends in a number, so that programs take it for an IPv4 address"),
            "write the address as four numbers from 0 to 255: `192.0.2.10`",
        ),
    }
}

/// The name as DNS has it, with the `*.` that it had.
fn encoded(text: &str) -> Option<String> {
    let (star, name) = text.strip_prefix("*.").map_or(("", text), |apex| ("*.", apex));
    idna::domain_to_ascii(name).ok().map(|name| format!("{star}{name}"))
}

fn misplaced_star(text: &str, behind: &str) -> Complaint {
    let quoted = Quoted(text);
    if text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '*')) {
        let message = format!("{quoted} has a `*` where an address has a number");
        return Complaint::new(message, "write a network by its prefix, as in `192.0.2.0/24:443`");
    }
    let message = format!("{quoted} has a `*` elsewhere than as its first label alone");
    let below = text.rsplit('*').next().and_then(|rest| rest.split_once('.'));
    let meant = below.map(|(_, apex)| format!("*.{apex}")).filter(|meant| pattern(meant, behind).is_ok());
    let way_out = match meant {
        Some(meant) => format!(
            "write `{}:{}` for all names of exactly one label more, or each name by itself",
            shown(&meant),
            shown(behind)
        ),
        None => "write each name by itself".to_owned(),
    };
    Complaint::new(message, way_out)
}

/// Whether it is a name that DNS is asked for.
fn check_domain(name: &HostName, behind: &str) -> Result<(), Complaint> {
    let quoted = Quoted(name.as_str());
    if is_local(name) {
        return Err(local(name.as_str(), behind));
    }
    if !is_top_level(name) {
        return Err(Complaint::new(
            format!("{quoted} is neither an address nor a name: no top-level domain begins so"),
            "write an address as in `192.0.2.10:443`, a network as in `192.0.2.0/24:443`, or a host's whole name",
        ));
    }
    Ok(())
}

fn is_local(name: &HostName) -> bool {
    name.labels().next_back() == Some("localhost")
}

fn local(text: &str, behind: &str) -> Complaint {
    Complaint::new(
        format!("{} is this machine, and DNS is not asked for it", Quoted(text)),
        format!("write `127.0.0.1:{0}`, and `[::1]:{0}` for IPv6", shown(behind)),
    )
}

fn is_top_level(name: &HostName) -> bool {
    name.labels().next_back().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn single_label(name: &HostName, behind: &str) -> Complaint {
    Complaint::new(
        format!(
            "{} is a single label, which each machine completes from its own search list",
            Quoted(name.as_str())
        ),
        format!("write the whole name, as in `{}.internal.example:{}`", shown(name.as_str()), shown(behind)),
    )
}

/// A label in the `xn--` form has to be the form of something.
fn check_encoded(name: &HostName) -> Result<(), Complaint> {
    let Some(label) = name.labels().find(|label| label.starts_with("xn--")) else { return Ok(()) };
    let (decoded, outcome) = idna::domain_to_unicode(name.as_str());
    let is_form =
        outcome.is_ok() && idna::domain_to_ascii(&decoded).is_ok_and(|again| again == name.as_str());
    if is_form {
        return Ok(());
    }
    let message =
        format!("the label {} of {} is the `xn--` form of nothing", Quoted(label), Quoted(name.as_str()));
    Err(Complaint::new(message, "copy the name from where it is registered"))
}

/// Whether the names one label below this one belong to whoever registers them: a public suffix, or what has only such below it.
fn is_public(apex: &HostName) -> bool {
    let is_suffix = |name: &str| psl::suffix_str(name) == Some(name);
    // No suffix has this label, so that only a rule for all of them can know it.
    is_suffix(apex.as_str()) || is_suffix(&format!("_.{apex}"))
}

fn public(apex: &HostName, behind: &str) -> Complaint {
    Complaint::new(
        format!("below {} anybody can have a name of their own", Quoted(apex.as_str())),
        format!(
            "write each name by itself, or a wildcard below a domain of one owner, as in `*.example.com:{}`",
            shown(behind)
        ),
    )
}
