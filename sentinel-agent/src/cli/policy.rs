//! `sentinel policy check FILE`: what a policy lets through in plain words, or everything that is wrong with it.
//!
//! Reads the file and nothing else: no agent has to run, and whether its executables are there is not asked.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use sentinel_engine::{Grant, Mode, OnExhausted, Policy};
use sentinel_policy::{MAX_BYTES, network_entry, parse_bytes};

/// The file is no valid policy.
const EXIT_PROBLEMS: u8 = 1;
/// The file can't be read (`EX_NOINPUT`).
const EXIT_UNREADABLE: u8 = 66;

/// Checks the policy in a file: 0 and a summary on standard output, 1 and all problems on standard error, or 66.
#[must_use]
pub fn check(file: &Path) -> ExitCode {
    ExitCode::from(report(file, &mut io::stdout().lock(), &mut io::stderr().lock()))
}

/// The exit code, after everything is written that could be: a closed pipe changes no verdict.
fn report(file: &Path, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let name = file.display().to_string();
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let name = name.escape_debug();
            let _closed_pipe =
                writeln!(err, "error: `{name}` can't be read: {error}; check the path and who may read it");
            return EXIT_UNREADABLE;
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    match parse_bytes(&bytes) {
        Ok(parsed) => {
            let _closed_pipe = err.write_all(parsed.warnings.render(&name, &text).as_bytes());
            let _closed_pipe =
                write!(out, "{}: a valid policy\n\n{}", name.escape_debug(), summary(&parsed.policy));
            0
        }
        Err(problems) => {
            let _closed_pipe = err.write_all(problems.render(&name, &text).as_bytes());
            EXIT_PROBLEMS
        }
    }
}

/// The file, up to one byte more than a policy can have.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let cap = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(file)?.take(cap).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the policy lets through. Names and paths in a policy are printable, so they stand here as they are.
fn summary(policy: &Policy) -> String {
    let mut lines = Vec::new();
    actions(policy, &mut lines);
    spending(policy, &mut lines);
    lines.push("Without any action, the session may:".to_owned());
    let baseline = policy.grants.first().cloned().unwrap_or_default();
    push_doors(&baseline, policy, &mut lines);
    for (name, rule) in &policy.actions {
        if let Some(grant) = rule.grant.and_then(|index| policy.grants.get(index)) {
            lines.push(format!(
                "While `{name}` runs, for {} s at most, its processes may also:",
                rule.max_seconds
            ));
            push_doors(grant, &Policy::empty(), &mut lines);
        }
    }
    lines.push(match policy.mode {
        Mode::Enforce => "Any other address or executable is refused by the kernel.".to_owned(),
        Mode::Audit => "NOTHING is refused by the kernel: mode `audit` only records.".to_owned(),
    });
    if !baseline.network.is_empty() && (policy.budgets.session.is_some() || policy.budgets.run.is_some()) {
        lines.push(match policy.on_exhausted {
            OnExhausted::Close => {
                "Once the session's or run's budget is spent, the addresses open without any action close too.".to_owned()
            }
            OnExhausted::Keep => {
                "Once a budget is spent, the addresses open without any action stay open.".to_owned()
            }
        });
    }
    if policy.grants.iter().any(|grant| !grant.exec.is_empty()) {
        lines.push(
            "A script is judged by its interpreter alone: an allowed interpreter runs any script.".to_owned(),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

fn actions(policy: &Policy, lines: &mut Vec<String>) {
    let names = |names: Vec<&str>| names.join(", ");
    let denied = names(policy.denied.keys().map(|name| name.as_str()).collect());
    match &policy.allowed {
        None if denied.is_empty() => lines.push("Any action may start.".to_owned()),
        None => lines.push(format!("Any action may start but: {denied}.")),
        Some(allowed) => {
            let starting = allowed.names.keys().filter(|name| !policy.denied.contains_key(*name));
            let starting = names(starting.map(|name| name.as_str()).collect());
            lines.push(if starting.is_empty() {
                "No action may start.".to_owned()
            } else {
                format!("Only these actions may start: {starting}.")
            });
        }
    }
    for (name, rate) in &policy.rates {
        lines.push(format!("`{name}` may start {} times in {} s.", rate.max_count, rate.window.as_secs()));
    }
}

fn spending(policy: &Policy, lines: &mut Vec<String>) {
    let budgets = &policy.budgets;
    let whole = [("the session", budgets.session), ("each run", budgets.run)];
    let mut limits: Vec<String> = whole
        .iter()
        .filter_map(|(who, limit)| limit.map(|limit| format!("{who} {}", limit.amount)))
        .collect();
    limits.extend(budgets.actions.iter().map(|(name, limit)| format!("`{name}` {}", limit.amount)));
    lines.push(if limits.is_empty() {
        "Spending is not limited.".to_owned()
    } else {
        format!("Dollars that may be spent: {}.", limits.join(", "))
    });
}

fn push_doors(grant: &Grant, policy: &Policy, lines: &mut Vec<String>) {
    let before = lines.len();
    lines.extend(grant.network.iter().map(|rule| format!("  connect to {}", network_entry(rule))));
    lines.extend(policy.unix_allow.iter().map(|path| format!("  connect to the socket {}", path.display())));
    lines.extend(grant.exec.iter().map(|rule| {
        let risk = if rule.writable_accepted { ", also where the application can write it" } else { "" };
        format!("  execute {}{risk}", rule.path.display())
    }));
    if lines.len() == before {
        lines.push("  connect to nothing and execute nothing but its own first image".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit code, standard output, standard error.
    fn checked(content: &[u8]) -> (u8, String, String) {
        static FILES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = FILES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("sentinel-check-{}-{number}.yaml", std::process::id()));
        std::fs::write(&file, content).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = report(&file, &mut out, &mut err);
        std::fs::remove_file(&file).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_valid_policy_is_told_in_plain_words() {
        let (code, out, err) = checked(include_bytes!("../../dist/policies/web-agent.yaml"));
        assert_eq!((code, err.as_str()), (0, ""));
        for line in [
            "Only these actions may start: ask_model, render_report, save_note, search_web.\n",
            "`search_web` may start 10 times in 60 s.\n",
            "Dollars that may be spent: the session 5, each run 1, `ask_model` 0.8.\n",
            "Without any action, the session may:\n  connect to 127.0.0.53:53/udp\n  execute /usr/bin/python3.11\n",
            "While `search_web` runs, for 30 s at most, its processes may also:\n  connect to 192.0.2.10:443/tcp\n  connect to [2001:db8::10]:443/tcp\n",
            "Any other address or executable is refused by the kernel.\n",
        ] {
            assert!(out.contains(line), "{line}\nis not in\n{out}");
        }
    }

    #[test]
    fn a_policy_that_lets_nothing_through_says_so() {
        let (code, out, _) = checked(b"allowed_actions: []\n");
        assert_eq!(code, 0);
        assert!(out.contains("No action may start.\n"), "{out}");
        assert!(out.contains("connect to nothing and execute nothing"), "{out}");
    }

    #[test]
    fn a_doubtful_policy_is_valid_and_warned_of() {
        let (code, out, err) = checked(b"enforcement: {mode: audit}\n");
        assert_eq!(code, 0);
        assert!(out.contains("NOTHING is refused"), "{out}");
        assert!(err.contains("warning: ") && err.contains(":1:21"), "{err}");
    }

    #[test]
    fn every_problem_is_told_with_its_place_and_nothing_is_summarised() {
        let (code, out, err) = checked(b"budgets: {run: '1'}\ndenied_action: [\xff]\n");
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(":2:17"), "{err}");
        let (code, out, err) = checked(b"budgets: {run: '1'}\ndenied_action: []\n");
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(":1:16") && err.contains(":2:1") && err.contains("2 problems"), "{err}");
    }

    #[test]
    fn a_file_that_cant_be_read_is_named_with_the_cause() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(report(Path::new("/nonexistent/p\u{1b}.yaml"), &mut out, &mut err), EXIT_UNREADABLE);
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("`/nonexistent/p\\u{1b}.yaml` can't be read: No such file"), "{err}");
        assert_eq!(report(Path::new("/"), &mut out, &mut Vec::new()), EXIT_UNREADABLE);
    }
}
