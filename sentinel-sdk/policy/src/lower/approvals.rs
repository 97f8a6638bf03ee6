//! `approvals:`: which actions need a human's word, and who may give it.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel_engine::{Approvals, Approver, Limit};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::lower::lists;
use crate::problem::{Complaint, Findings};
use crate::quoted::{Quoted, shown};
use crate::scalar::{money, whole_number};
use crate::shape::{Key, Keys, Needed, Shape, Text};

/// How long there is for an answer, where the policy doesn't say.
const DEFAULT_TIMEOUT_SECONDS: u64 = 300;
/// A week: a human has holidays, but the arguments of an action don't keep for ever.
const MAX_TIMEOUT_SECONDS: u64 = 7 * 86_400;
/// No user's or group's name is longer.
const MAX_NAME: usize = 256;

pub(super) const SHAPE: Shape = Shape::Section(&KEYS);

const KEYS: Keys = Keys {
    known: &[
        Key { name: "actions", about: "Actions that need an approval.", shape: lists::NEEDING_APPROVAL },
        Key {
            name: "tags",
            about: "Actions with one of these tags need an approval, whether the policy or the application gives it.",
            shape: lists::TAGS,
        },
        Key {
            name: "risk_levels",
            about: "Actions of one of these risk levels need an approval, whether the policy or the application says so. Upper and lower case are alike.",
            shape: lists::RISK_LEVELS,
        },
        Key {
            name: "above_usd",
            about: "Actions that cost so many dollars or more need an approval.",
            shape: Shape::Dollars,
        },
        Key {
            name: "approvers",
            about: "Who may approve: `user:NAME` or `group:NAME`. Absent: whoever may operate the agent; empty: nobody.",
            shape: Shape::List { of: &APPROVER, example: "['user:alice']" },
        },
        Key {
            name: "timeout_seconds",
            about: "How long there is for an answer, after which the action is denied; 300 where it is absent.",
            shape: Shape::Whole { what: "a number of seconds", range: 1..=MAX_TIMEOUT_SECONDS },
        },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{actions: [send_money], approvers: ['group:finance']}",
};

const APPROVER: Shape = Shape::Text(Text {
    what: "an approver",
    example: "user:alice",
    most: Some(MAX_NAME.saturating_add("group:".len())),
    pattern: Some(r"^(user|group):[^\s:]+$"),
});

pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Option<Approvals> {
    let section = field.section(found)?;
    let mut approvals = Approvals {
        actions: BTreeMap::new(),
        tags: BTreeMap::new(),
        risk_levels: Vec::new(),
        from_cost: None,
        approvers: None,
        timeout: Duration::from_secs(DEFAULT_TIMEOUT_SECONDS),
        line: field.line(),
    };
    if let Some(field) = section.field("actions") {
        approvals.actions = lists::needing_approval(field, mentions, found);
    }
    if let Some(field) = section.field("tags") {
        approvals.tags = lists::tag_lines(field, found);
    }
    if let Some(field) = section.field("risk_levels") {
        approvals.risk_levels = lists::risk_levels(field, found);
    }
    if let Some(field) = section.field("above_usd") {
        approvals.from_cost = money(field, found).map(|amount| Limit { amount, line: field.line() });
        mentions.approval_cost(field);
    }
    if let Some(field) = section.field("approvers") {
        approvals.approvers = Some(approvers(field, found));
    }
    if let Some(field) = section.field("timeout_seconds") {
        let seconds = whole_number(field, found)?;
        approvals.timeout = Duration::from_secs(seconds);
    }
    warn_of_all(field, &approvals, found);
    Some(approvals)
}

fn warn_of_all(field: &Field<'_>, approvals: &Approvals, found: &mut Findings) {
    let Approvals { actions, tags, risk_levels, from_cost, .. } = approvals;
    let has_criteria =
        !actions.is_empty() || !tags.is_empty() || !risk_levels.is_empty() || from_cost.is_some();
    let is_any_cost = from_cost.is_some_and(|limit| limit.amount.nanos() == 0);
    let message = if is_any_cost {
        "every action costs 0 dollars or more, so every action needs an approval"
    } else if has_criteria {
        return;
    } else {
        "without an entry under `actions`, `tags` or `risk_levels` and without `above_usd`, every action needs an approval"
    };
    let complaint = Complaint::new(message, "say which actions need one, or keep it so");
    found.warning(field.label, &field.path, complaint);
}

/// The approvers of the list, each once.
fn approvers(field: &Field<'_>, found: &mut Findings) -> Vec<Approver> {
    let items = field.items(found).unwrap_or_default();
    let mut approvers: Vec<(Approver, u32)> = Vec::new();
    for field in &items {
        let Some(scalar) = field.text(found) else { continue };
        let (approver, name) = match approver(&scalar.text) {
            Ok(read) => read,
            Err(complaint) => {
                field.complain(complaint, found);
                continue;
            }
        };
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            let message = format!("{} is taken for a name, not for a number", Quoted(name));
            found.warning(field.place(), &field.path, Complaint::new(message, "write the name"));
        }
        if let Some((_, line)) = approvers.iter().find(|(earlier, _)| *earlier == approver) {
            let message = format!("{} is in this list already, on line {line}", Quoted(&scalar.text));
            found.warning(field.place(), &field.path, Complaint::new(message, "remove one of the two"));
            continue;
        }
        approvers.push((approver, field.line()));
    }
    if items.is_empty() {
        let complaint = Complaint::new(
            "nobody may approve, so whatever needs an approval is denied",
            "name users and groups, or leave `approvers` out: then it is whoever may operate the agent",
        );
        found.warning(field.place(), &field.path, complaint);
    }
    approvers.into_iter().map(|(approver, _)| approver).collect()
}

/// An approver and its bare name.
fn approver(text: &str) -> Result<(Approver, &str), Complaint> {
    let (kind, name): (fn(String) -> Approver, &str) =
        match (text.strip_prefix("user:"), text.strip_prefix("group:")) {
            (Some(name), _) => (Approver::User, name),
            (_, Some(name)) => (Approver::Group, name),
            (None, None) => {
                let name = text.rsplit(':').next().unwrap_or_default().trim();
                let name = shown(if name.is_empty() { "alice" } else { name });
                return Err(Complaint::new(
                    format!("{} names neither a user nor a group", Quoted(text)),
                    format!("write `user:{name}` or `group:{name}`"),
                ));
            }
        };
    let is_odd = |c: char| c.is_whitespace() || c == ':' || !sentinel_proto::is_visible(c);
    let complaint = if name.is_empty() {
        Complaint::new(
            format!("{} has no name", Quoted(text)),
            "write one such as `user:alice` or `group:finance`",
        )
    } else if name.chars().count() > MAX_NAME {
        Complaint::new(
            format!("the name in {} is too long", Quoted(text)),
            format!("write at most {MAX_NAME} characters"),
        )
    } else if let Some(odd) = name.chars().find(|c| is_odd(*c)) {
        Complaint::new(
            format!("the name in {} has the character {odd:?}", Quoted(text)),
            "write one name an entry, without spaces and colons",
        )
    } else {
        return Ok((kind(name.to_owned()), name));
    };
    Err(complaint)
}
