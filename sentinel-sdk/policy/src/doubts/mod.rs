//! What is legal in a policy but probably not meant.
//!
//! Invariant: a doubt is only ever a warning: nothing here changes the policy.

mod doors;
mod names;

use std::collections::BTreeMap;

use sentinel_engine::{ExecRule, NameRule, NetworkRule, Policy, Protocol};
use sentinel_proto::{ActionName, Money};

use crate::field::Field;
use crate::problem::{Complaint, Findings, Place};
use crate::quoted::Quoted;

/// Where the policy says what, as far as doubts ask for it.
#[derive(Debug, Default)]
pub(crate) struct Mentions {
    in_baseline: bool,
    session_limit: Option<Spot>,
    run_limit: Option<Spot>,
    approval_cost: Option<Spot>,
    tls_names: Option<Spot>,
    action_limits: BTreeMap<ActionName, Spot>,
    cost_floors: BTreeMap<ActionName, Spot>,
    denied: BTreeMap<ActionName, Spot>,
    allowed: BTreeMap<ActionName, Spot>,
    rules: Vec<(ActionName, Spot)>,
    endpoints: Vec<Door<NetworkRule>>,
    names: Vec<Door<NameRule>>,
    executables: Vec<Door<ExecRule>>,
}

#[derive(Clone, Debug)]
struct Spot {
    place: Place,
    path: String,
}

impl Spot {
    fn of(field: &Field<'_>) -> Self {
        Self { place: field.place(), path: field.path.clone() }
    }

    fn key_of(field: &Field<'_>) -> Self {
        Self { place: field.label, path: field.path.clone() }
    }

    /// The list that an entry stands in.
    fn list(&self) -> &str {
        self.path.rsplit_once('[').map_or(&self.path, |(list, _)| list)
    }
}

#[derive(Debug)]
struct Door<R> {
    rule: R,
    spot: Spot,
    in_baseline: bool,
}

impl Mentions {
    pub(crate) fn enter_baseline(&mut self) {
        self.in_baseline = true;
    }

    pub(crate) fn leave_baseline(&mut self) {
        self.in_baseline = false;
    }

    pub(crate) fn session_limit(&mut self, field: &Field<'_>) {
        self.session_limit = Some(Spot::of(field));
    }

    pub(crate) fn run_limit(&mut self, field: &Field<'_>) {
        self.run_limit = Some(Spot::of(field));
    }

    pub(crate) fn approval_cost(&mut self, field: &Field<'_>) {
        self.approval_cost = Some(Spot::of(field));
    }

    pub(crate) fn action_limit(&mut self, name: &ActionName, field: &Field<'_>) {
        self.rule(name, field);
        self.action_limits.insert(name.clone(), Spot::of(field));
    }

    pub(crate) fn cost_floor(&mut self, name: &ActionName, field: &Field<'_>) {
        self.cost_floors.insert(name.clone(), Spot::key_of(field));
    }

    pub(crate) fn denied(&mut self, name: &ActionName, field: &Field<'_>) {
        self.denied.insert(name.clone(), Spot::of(field));
    }

    pub(crate) fn allowed(&mut self, name: &ActionName, field: &Field<'_>) {
        self.allowed.insert(name.clone(), Spot::of(field));
    }

    pub(crate) fn tls_names(&mut self, field: &Field<'_>) {
        self.tls_names = Some(Spot::of(field));
    }

    /// Where hosts are named with UDP, if TLS is to be looked into.
    pub(crate) fn hosts_by_udp_under_tls(&self) -> impl Iterator<Item = (Place, &str)> {
        let looked_into = self.names.iter().filter(|_| self.tls_names.is_some());
        let by_udp = looked_into.filter(|door| door.rule.protocol == Protocol::Udp);
        by_udp.map(|door| (door.spot.place, door.spot.path.as_str()))
    }

    /// Any rule for an action, by its key.
    pub(crate) fn rule(&mut self, name: &ActionName, field: &Field<'_>) {
        self.rules.push((name.clone(), Spot::key_of(field)));
    }

    pub(crate) fn endpoint(&mut self, rule: NetworkRule, field: &Field<'_>) {
        self.endpoints.push(self.door(rule, field));
    }

    pub(crate) fn name(&mut self, rule: &NameRule, field: &Field<'_>) {
        self.names.push(self.door(rule.clone(), field));
    }

    pub(crate) fn executable(&mut self, rule: &ExecRule, field: &Field<'_>) {
        self.executables.push(self.door(rule.clone(), field));
    }

    fn door<R>(&self, rule: R, field: &Field<'_>) -> Door<R> {
        Door { rule, spot: Spot::of(field), in_baseline: self.in_baseline }
    }
}

/// Warns of what is doubtful.
pub(crate) fn look(policy: &Policy, mentions: &Mentions, found: &mut Findings) {
    if *policy == Policy::empty() {
        let message = "the policy says nothing: any action may start, and nothing is open to any";
        warn(
            &Spot { place: Place::START, path: String::new() },
            message,
            "write rules, or keep it so",
            found,
        );
    }
    actions_that_never_start(policy, mentions, found);
    limits_that_are_never_reached(policy, mentions, found);
    doors::endpoints(policy, mentions, found);
    doors::executables(mentions, found);
    names::look(policy, mentions, found);
}

fn warn(spot: &Spot, message: impl Into<String>, way_out: impl Into<String>, found: &mut Findings) {
    found.warning(spot.place, &spot.path, Complaint::new(message, way_out));
}

fn actions_that_never_start(policy: &Policy, mentions: &Mentions, found: &mut Findings) {
    for (name, spot) in &mentions.allowed {
        if let Some(line) = policy.denied.get(name) {
            let message =
                format!("{} is denied too, on line {line}, and denied it stays", Quoted(name.as_str()));
            warn(spot, message, "remove it from one of the two lists", found);
        }
    }
    for (name, spot) in &mentions.rules {
        let action = Quoted(name.as_str());
        if let Some(line) = policy.denied.get(name) {
            let message = format!("{action} is denied on line {line}, so this never matters");
            warn(spot, message, "remove it from `denied_actions`, or remove this", found);
        } else if let Some(allowed) = &policy.allowed
            && policy.strict
            && !allowed.names.contains_key(name)
        {
            let message = format!(
                "{action} is not in `allowed_actions` (line {}), so this never matters",
                allowed.line
            );
            warn(spot, message, "add it to `allowed_actions`, or remove this", found);
        }
    }
}

fn limits_that_are_never_reached(policy: &Policy, mentions: &Mentions, found: &mut Findings) {
    let budgets = &policy.budgets;
    if let Some(session) = budgets.session {
        let mut compare = |what: &str, amount: Money, spot: &Spot| {
            if amount > session.amount {
                let message = format!(
                    "{what} may spend {amount} dollars, but the whole session only {} (line {})",
                    session.amount, session.line
                );
                warn(spot, message, "lower it to what can be reached, or raise `session`", found);
            }
        };
        if let (Some(run), Some(spot)) = (budgets.run, &mentions.run_limit) {
            compare("a run", run.amount, spot);
        }
        for (name, limit) in &budgets.actions {
            if let Some(spot) = mentions.action_limits.get(name) {
                compare("the action", limit.amount, spot);
            }
        }
    }
    if !policy.strict {
        return;
    }
    let for_all = [budgets.session, budgets.run, budgets.day.map(|day| day.limit)];
    if let Some(spot) = &mentions.approval_cost
        && let Some(cost) = policy.approvals.as_ref().and_then(|approvals| approvals.from_cost)
        && let Some(limit) = for_all.into_iter().flatten().find(|limit| limit.amount < cost.amount)
    {
        let message = format!(
            "an action of {} dollars is denied by the budget of line {}, which is {}: nobody is ever asked",
            cost.amount, limit.line, limit.amount
        );
        warn(spot, message, "raise the budget, or lower this", found);
    }
    for (name, spot) in &mentions.cost_floors {
        let Some(rule) = policy.actions.get(name) else { continue };
        let limits = for_all.into_iter().chain([budgets.actions.get(name).copied()]);
        if let Some(limit) = limits.flatten().find(|limit| limit.amount < rule.cost_floor) {
            let message = format!(
                "the action costs at least {} dollars, but the budget of line {} is {}: it can never start",
                rule.cost_floor, limit.line, limit.amount
            );
            warn(spot, message, "raise the budget, or lower `cost_usd`", found);
        }
    }
}
