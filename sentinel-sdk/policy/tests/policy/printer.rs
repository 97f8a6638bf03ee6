//! Prints a policy as YAML that means the same.

use std::fmt::Write as _;

use sentinel_engine::{ExecRule, Grant, Mode, NetworkRule, OnExhausted, Policy};
use sentinel_policy::network_entry;

/// The policy's text. Every key is there whose absence would mean something else.
pub(crate) fn yaml(policy: &Policy) -> String {
    let mut out = String::from("strict_mode: true\nbudgets:\n");
    for (key, limit) in [("session", policy.budgets.session), ("run", policy.budgets.run)] {
        if let Some(limit) = limit {
            writeln!(out, "  {key}: {}", limit.amount).unwrap();
        }
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
        let (network, exec) = (network(&grant.network), exec(&grant.exec));
        write!(
            out,
            "{name}: {{cost_usd: {cost}, tags: [{tags}], max_seconds: {seconds}, grants: {{network: {network}, exec: {exec}}}}}, "
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
    writeln!(out, "  network: {{allow: {}}}", network(&baseline.network)).unwrap();
    writeln!(
        out,
        "  exec: {{allow: {}, libraries: [{}]}}",
        exec(&baseline.exec),
        paths(&policy.exec_libraries)
    )
    .unwrap();
    writeln!(out, "  unix: {{allow: [{}]}}", paths(&policy.unix_allow)).unwrap();
    out
}

/// The policy with every line forgotten, to compare two that stand in different texts.
pub(crate) fn without_lines(mut policy: Policy) -> Policy {
    let Policy { budgets, denied, allowed, rates, actions, grants, .. } = &mut policy;
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
        grant.network.iter_mut().for_each(|rule| rule.line = 0);
        grant.exec.iter_mut().for_each(|rule| rule.line = 0);
    }
    policy
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn network(rules: &[NetworkRule]) -> String {
    format!("[{}]", joined(rules.iter().map(|rule| quoted(&network_entry(rule)))))
}

fn exec(rules: &[ExecRule]) -> String {
    let entry = |rule: &ExecRule| {
        let path = quoted(rule.path.to_str().unwrap());
        if rule.writable_accepted { format!("{{path: {path}, writable: accept}}") } else { path }
    };
    format!("[{}]", joined(rules.iter().map(entry)))
}
