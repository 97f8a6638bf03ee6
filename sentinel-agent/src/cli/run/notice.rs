//! What `sentinel run` says on standard error, beside what the command says there.
//!
//! Invariant: no control character of an application, a path or a policy reaches the terminal raw.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use sentinel_proto::admin::{ApprovalStatus, Notice};

use crate::cli::private_agent::RUNTIME;
use crate::cli::terminal::visible;

/// Where a shared agent keeps its ledger, and `sentinel why` looks by itself.
const DEFAULT_LEDGER: &str = "/var/lib/agent-sentinel/ledger.jsonl";

/// As many characters of an id tell it from others.
const ID_SHOWN: usize = 8;

/// Says a sentence.
pub(super) fn say(text: &str) {
    tell(&format!("sentinel: {}\n", visible(text)));
}

/// Tells of a denial.
pub(super) fn tell_notice(notice: &Notice, ledger: &Path) {
    tell(&rendered(notice, ledger));
}

/// Tells that an action waits for a human, and how to answer.
pub(super) fn tell_waits(approval: &ApprovalStatus, runtime: &Path) {
    tell(&question(approval, runtime));
}

/// In one piece, so that no output of the command comes between its lines. Nothing depends on its being read.
fn tell(text: &str) {
    let _closed = io::stderr().write_all(text.as_bytes());
}

fn question(approval: &ApprovalStatus, runtime: &Path) -> String {
    let ApprovalStatus { approval: id, action, cost_usd, rule, expires_in_seconds, .. } = approval;
    let id: String = id.to_string().chars().take(ID_SHOWN).collect();
    let agent = if runtime == Path::new(RUNTIME) {
        String::new()
    } else {
        format!(" --runtime {}", visible(&runtime.display().to_string()))
    };
    format!(
        "sentinel: waiting: `{}` ({cost_usd} USD) needs a human's word within {expires_in_seconds} s: `{}`, line {} of the policy\n\
         sentinel:   sentinel approvals show {id}{agent}, then `approve` or `deny`\n",
        visible(action.as_str()),
        visible(&rule.rule),
        rule.line,
    )
}

fn rendered(notice: &Notice, ledger: &Path) -> String {
    let denial = &notice.denial;
    let mut text = format!(
        "sentinel: {}: {} by `{}` (pid {})\n",
        visible(&denial.fate),
        visible(&denial.attempt),
        visible(&notice.process),
        notice.pid
    );
    match &denial.would_allow {
        Some(yaml) => {
            text.push_str("sentinel:   the policy would allow it with these lines (a key that is there is not repeated)\n");
            for line in yaml.lines() {
                let _infallible = writeln!(text, "sentinel:     {}", visible(line));
            }
        }
        None => text.push_str("sentinel:   no policy would allow it\n"),
    }
    let _infallible = write!(text, "sentinel:   more: sentinel why {}", visible(&denial.id));
    if ledger != Path::new(DEFAULT_LEDGER) {
        let _infallible = write!(text, " --ledger {}", visible(&ledger.display().to_string()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use sentinel_proto::app::KernelDenial;

    use super::*;

    fn notice(process: &str, would_allow: Option<&str>) -> Notice {
        Notice {
            process: process.to_owned(),
            pid: 7,
            denial: KernelDenial {
                id: "d1".to_owned(),
                attempt: "connect to 192.0.2.1:443 (tcp)".to_owned(),
                fate: "refused".to_owned(),
                would_allow: would_allow.map(str::to_owned),
            },
        }
    }

    #[test]
    fn a_denial_is_told_with_what_would_allow_it_and_where_to_read_more() {
        let allow = "enforcement:\n  network:\n    allow:\n      - \"192.0.2.1:443\"";
        assert_eq!(
            rendered(&notice("curl", Some(allow)), Path::new("/tmp/ledger.jsonl")),
            "sentinel: refused: connect to 192.0.2.1:443 (tcp) by `curl` (pid 7)\n\
             sentinel:   the policy would allow it with these lines (a key that is there is not repeated)\n\
             sentinel:     enforcement:\n\
             sentinel:       network:\n\
             sentinel:         allow:\n\
             sentinel:           - \"192.0.2.1:443\"\n\
             sentinel:   more: sentinel why d1 --ledger /tmp/ledger.jsonl\n"
        );
        let told = rendered(&notice("curl", None), Path::new(DEFAULT_LEDGER));
        assert!(told.contains("no policy would allow it") && told.ends_with("sentinel why d1\n"), "{told}");
    }

    #[test]
    fn what_a_process_calls_itself_never_reaches_the_terminal_raw() {
        let told = rendered(&notice("\u{1b}[2Jroot\r\u{202e}\u{9b}", Some("a\u{7}\nb")), Path::new("/l"));
        assert!(told.chars().all(|character| character == '\n' || !character.is_control()), "{told:?}");
        assert!(told.contains(r"`\u{1b}[2Jroot\r\u{202e}\u{9b}`"), "{told}");
    }
}
