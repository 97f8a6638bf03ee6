//! Prints a policy as YAML that means the same.

use std::fmt::Write as _;

use sentinel_engine::{
    Approvals, Approver, CountLimits, ExecRule, Grant, Hours, Mode, NameRule, NetworkRule, OnExhausted,
    Policy, TlsNames,
};
use sentinel_policy::{name_entry, network_entry};

/// The policy's text. Every key is there whose absence would mean something else.
pub(crate) fn yaml(policy: &Policy) -> String {
    let mut out = format!("strict_mode: {}\nbudgets:\n", policy.strict);
    for (key, limit) in [("session", policy.budgets.session), ("run", policy.budgets.run)] {
        if let Some(limit) = limit {
            writeln!(out, "  {key}: {}", limit.amount).unwrap();
        }
    }
    if let Some(day) = policy.budgets.day {
        writeln!(out, "  day: {{limit: {}, timezone: {}}}", day.limit.amount, day.timezone).unwrap();
    }
    let limits = policy
        .budgets
        .actions
        .iter()
        .map(|(name, limit)| format!("{}: {}", quoted(name.as_str()), limit.amount));
    writeln!(out, "  actions: {{{}}}", joined(limits)).unwrap();
    writeln!(out, "denied_actions: [{}]", joined(policy.denied.keys().map(|name| quoted(name.as_str()))))
        .unwrap();
    if let Some(allowed) = &policy.allowed {
        writeln!(
            out,
            "allowed_actions: [{}]",
            joined(allowed.names.keys().map(|name| quoted(name.as_str())))
        )
        .unwrap();
    }
    if policy.limits != CountLimits::default() {
        writeln!(out, "limits: {{{}}}", counts(&policy.limits)).unwrap();
    }
    if let Some(hours) = &policy.hours {
        writeln!(out, "hours: {}", hours_yaml(hours)).unwrap();
    }
    if let Some(approvals) = &policy.approvals {
        writeln!(out, "approvals: {}", approvals_yaml(approvals)).unwrap();
    }
    out.push_str("rate_limits:\n  {");
    for (name, rate) in &policy.rates {
        let (name, count, window) = (quoted(name.as_str()), rate.max_count, rate.window.as_secs());
        write!(out, "{name}: {{max_count: {count}, window_seconds: {window}}}, ").unwrap();
    }
    out.push_str("}\nactions:\n  {");
    for (name, rule) in &policy.actions {
        let grant = rule.grant.map_or_else(Grant::default, |index| policy.grants.get(index).unwrap().clone());
        let tags = joined(rule.tags.iter().map(|tag| quoted(tag.as_str())));
        let (name, cost, seconds) = (quoted(name.as_str()), rule.cost_floor, rule.max_seconds);
        let (listen, keep) = (listen(&grant.listen), grant.keep_alive);
        let (network, exec) = (network(&grant), exec(&grant.exec));
        let mut more = counts(&rule.limits);
        if let Some(risk) = &rule.risk {
            write!(more, "risk_level: {}, ", quoted(risk.as_str())).unwrap();
        }
        if let Some(hours) = &rule.hours {
            write!(more, "hours: {}, ", hours_yaml(hours)).unwrap();
        }
        write!(
            out,
            "{name}: {{{more}cost_usd: {cost}, tags: [{tags}], max_seconds: {seconds}, grants: {{network: {network}, listen: {listen}, keep_alive: {keep}, exec: {exec}}}}}, "
        )
        .unwrap();
    }
    let mode = match policy.mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    };
    let on_exhausted = match policy.on_exhausted {
        OnExhausted::Close => "close",
        OnExhausted::Keep => "keep",
    };
    let baseline = policy.grants.first().unwrap();
    let paths =
        |paths: &[std::path::PathBuf]| joined(paths.iter().map(|path| quoted(path.to_str().unwrap())));
    writeln!(out, "}}\nenforcement:\n  mode: {mode}\n  on_exhausted: {on_exhausted}").unwrap();
    let (allow, listen) = (network(baseline), listen(&baseline.listen));
    writeln!(out, "  network: {{allow: {allow}, listen: {listen}}}").unwrap();
    writeln!(
        out,
        "  exec: {{allow: {}, libraries: [{}]}}",
        exec(&baseline.exec),
        paths(&policy.exec_libraries)
    )
    .unwrap();
    writeln!(out, "  unix: {{allow: [{}]}}", paths(&policy.unix_allow)).unwrap();
    if policy.tls_names == TlsNames::Enforce {
        out.push_str("tls_names: enforce\n");
    }
    out
}

/// The policy with every line forgotten, to compare two that stand in different texts.
pub(crate) fn without_lines(mut policy: Policy) -> Policy {
    let Policy { budgets, denied, allowed, rates, limits: counts, hours, approvals, actions, grants, .. } =
        &mut policy;
    forget_counts(counts);
    hours.iter_mut().for_each(|hours| hours.line = 0);
    for rule in actions.values_mut() {
        forget_counts(&mut rule.limits);
        rule.hours.iter_mut().for_each(|hours| hours.line = 0);
    }
    if let Some(approvals) = approvals {
        approvals.line = 0;
        approvals.actions.values_mut().for_each(|line| *line = 0);
        approvals.tags.values_mut().for_each(|line| *line = 0);
        approvals.risk_levels.iter_mut().for_each(|(_, line)| *line = 0);
        approvals.from_cost.iter_mut().for_each(|limit| limit.line = 0);
    }
    budgets.day.iter_mut().for_each(|day| day.limit.line = 0);
    let limits = budgets.session.iter_mut().chain(&mut budgets.run).chain(budgets.actions.values_mut());
    limits.for_each(|limit| limit.line = 0);
    denied.values_mut().for_each(|line| *line = 0);
    if let Some(allowed) = allowed {
        allowed.line = 0;
        allowed.names.values_mut().for_each(|line| *line = 0);
    }
    rates.values_mut().for_each(|rate| rate.line = 0);
    actions.values_mut().for_each(|rule| rule.line = 0);
    for grant in grants {
        grant.network.iter_mut().chain(&mut grant.listen).for_each(|rule| rule.line = 0);
        grant.names.iter_mut().for_each(|rule| rule.line = 0);
        grant.exec.iter_mut().for_each(|rule| rule.line = 0);
    }
    policy
}

fn forget_counts(limits: &mut CountLimits) {
    limits.calls.iter_mut().chain(&mut limits.concurrent).for_each(|limit| limit.line = 0);
}

/// The entries of a mapping, each with a comma behind it.
fn counts(limits: &CountLimits) -> String {
    let mut out = String::new();
    for (key, limit) in [("max_calls", limits.calls), ("max_concurrent", limits.concurrent)] {
        if let Some(limit) = limit {
            write!(out, "{key}: {}, ", limit.most).unwrap();
        }
    }
    out
}

fn hours_yaml(hours: &Hours) -> String {
    let spans = joined(hours.spans.iter().map(|span| quoted(&span.text)));
    format!("{{timezone: {}, allow: [{spans}]}}", hours.timezone)
}

fn approvals_yaml(approvals: &Approvals) -> String {
    let actions = joined(approvals.actions.keys().map(|name| quoted(name.as_str())));
    let tags = joined(approvals.tags.keys().map(|tag| quoted(tag.as_str())));
    let levels = joined(approvals.risk_levels.iter().map(|(level, _)| quoted(level.as_str())));
    let mut out = format!("{{actions: [{actions}], tags: [{tags}], risk_levels: [{levels}], ");
    if let Some(limit) = approvals.from_cost {
        write!(out, "above_usd: {}, ", limit.amount).unwrap();
    }
    if let Some(approvers) = &approvals.approvers {
        let approvers = approvers.iter().map(|approver| match approver {
            Approver::User(name) => quoted(&format!("user:{name}")),
            Approver::Group(name) => quoted(&format!("group:{name}")),
        });
        write!(out, "approvers: [{}], ", joined(approvers)).unwrap();
    }
    write!(out, "timeout_seconds: {}}}", approvals.timeout.as_secs()).unwrap();
    out
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn network(grant: &Grant) -> String {
    let name = |rule: &NameRule| {
        let host = quoted(&name_entry(rule));
        if rule.allow_private { format!("{{host: {host}, allow_private: true}}") } else { host }
    };
    let addresses = grant.network.iter().map(|rule| quoted(&network_entry(rule)));
    format!("[{}]", joined(addresses.chain(grant.names.iter().map(name))))
}

fn listen(rules: &[NetworkRule]) -> String {
    format!("[{}]", joined(rules.iter().map(|rule| quoted(&network_entry(rule)))))
}

fn exec(rules: &[ExecRule]) -> String {
    let entry = |rule: &ExecRule| {
        let path = quoted(rule.path.to_str().unwrap());
        if rule.writable_accepted { format!("{{path: {path}, writable: accept}}") } else { path }
    };
    format!("[{}]", joined(rules.iter().map(entry)))
}
