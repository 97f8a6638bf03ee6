//! The policy text that would have allowed what was denied, a key a line.
//!
//! Invariant: it is a valid policy by itself, and each of its lines can be put below the lines above it wherever a
//! policy has those already: a newcomer's policy grows by what denials tell. What a line says besides stands in a
//! comment behind it.

use std::fmt::Write as _;

use sentinel_engine::Policy;

use super::records::printable;

/// Programs that run whatever they are given, by the beginning of their names.
const INTERPRETERS: &[&str] = &[
    "awk", "bash", "bun", "busybox", "dash", "deno", "env", "gawk", "ksh", "lua", "mawk", "node", "perl",
    "php", "pypy", "python", "ruby", "tclsh", "zsh",
];

/// An entry of one of a policy's lists.
#[derive(Debug)]
pub(super) enum Entry {
    /// An endpoint, as a policy writes it.
    Network(String),
    /// A host whose port isn't known.
    Host(String),
    /// An own address, as a policy writes it.
    Listen(String),
    /// A file.
    Exec(Executable),
}

/// The file that an exec rule has to name.
#[derive(Debug)]
pub(super) struct Executable {
    /// Its path: printable, and absolute.
    pub(super) path: String,
    /// The script that it was executed for.
    pub(super) script: Option<String>,
    /// Whether the session's user could put another file there.
    pub(super) is_changeable: bool,
}

impl Entry {
    /// The list's item, and what is to be known of it.
    fn item(&self) -> (String, Option<String>) {
        match self {
            Self::Network(endpoint) | Self::Listen(endpoint) => (quoted(endpoint), None),
            Self::Host(host) => {
                (quoted(&format!("{host}:443")), Some("or another port that it is needed at".to_owned()))
            }
            Self::Exec(Executable { path, script, is_changeable }) => {
                let mut notes = Vec::new();
                if *is_changeable {
                    notes.push("the program's own user could put another file there".to_owned());
                }
                match script {
                    Some(script) => notes.push(format!(
                        "`{script}` is a script; this host sees its interpreter alone, so this allows all scripts of that"
                    )),
                    None if is_interpreter(path) => {
                        notes.push("an interpreter: this allows all that it can be given to run".to_owned());
                    }
                    None => {}
                }
                let path = plain_or_quoted(path);
                let item = if *is_changeable { format!("{{path: {path}, writable: accept}}") } else { path };
                (item, (!notes.is_empty()).then(|| notes.join("; ")))
            }
        }
    }

    /// The keys above the baseline's list.
    fn in_baseline(&self) -> [String; 3] {
        let [section, list] = match self {
            Self::Network(_) | Self::Host(_) => ["network", "allow"],
            Self::Listen(_) => ["network", "listen"],
            Self::Exec(_) => ["exec", "allow"],
        };
        ["enforcement", section, list].map(str::to_owned)
    }

    /// The keys above an action's list.
    fn in_action(&self, action: &str) -> [String; 4] {
        let list = match self {
            Self::Network(_) | Self::Host(_) => "network",
            Self::Listen(_) => "listen",
            Self::Exec(_) => "exec",
        };
        ["actions".to_owned(), plain_or_quoted(action), "grants".to_owned(), list.to_owned()]
    }
}

/// What allows the entry: to the action that was in flight where it was denied, the likeliest first, else always.
pub(super) fn allow(entry: &Entry, in_flight: &[&str], opened_by: &[&str]) -> String {
    let (item, note) = entry.item();
    let mut notes: Vec<String> = note.into_iter().collect();
    let item = format!("- {item}");
    match in_flight {
        [] => {
            if !opened_by.is_empty() {
                notes.push(format!("as it is, it opens while an action runs here: {}", listed(opened_by)));
            }
            text(&entry.in_baseline(), &item, &notes)
        }
        [action, others @ ..] => {
            if !others.is_empty() {
                notes.push(format!("or to another action that was in flight: {}", listed(others)));
            }
            if !opened_by.is_empty() {
                notes.push(format!("as it is, it opens in another action: {}", listed(opened_by)));
            }
            text(&entry.in_action(action), &item, &notes)
        }
    }
}

/// What allows the always-open network to a session whose budget is spent.
pub(super) fn keep_when_exhausted() -> String {
    let note = "or a larger budget: this one is spent".to_owned();
    text(&["enforcement".to_owned()], "on_exhausted: keep", &[note])
}

/// Whether connections of this action outlive it already.
pub(super) fn is_kept_alive(policy: &Policy, action: &str) -> bool {
    let rule = policy.actions.iter().find(|(name, _)| name.as_str() == action);
    let grant = rule.and_then(|(_, rule)| policy.grants.get(rule.grant?));
    grant.is_some_and(|grant| grant.keep_alive)
}

/// What lets a connection outlive its action.
pub(super) fn keep_alive(action: &str) -> String {
    let keys = ["actions".to_owned(), plain_or_quoted(action), "grants".to_owned()];
    let note = "and then only in the next action; or finish with the connection before its action ends";
    text(&keys, "keep_alive: true", &[note.to_owned()])
}

/// The actions whose grants have one of these bits.
pub(super) fn actions_that_open(policy: &Policy, bits: u64) -> Vec<&str> {
    let opens = |index| sentinel_engine::GrantSet::of(index).0 & bits != 0;
    let actions = policy.actions.iter().filter(|(_, action)| action.grant.is_some_and(opens));
    actions.map(|(name, _)| name.as_str()).collect()
}

fn text(keys: &[String], last: &str, notes: &[String]) -> String {
    let mut text = String::new();
    for (depth, key) in keys.iter().enumerate() {
        let _infallible = writeln!(text, "{:1$}{key}:", "", depth.saturating_mul(2));
    }
    let _infallible = write!(text, "{:1$}{last}", "", keys.len().saturating_mul(2));
    if !notes.is_empty() {
        let _infallible = write!(text, "  # {}", printable(&notes.join("; ")));
    }
    text
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn is_interpreter(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    // `python3.11`, but not `python-config`.
    let is_version =
        |rest: &str| rest.chars().all(|character| character.is_ascii_digit() || character == '.');
    matches!(name, "sh") || INTERPRETERS.iter().any(|known| name.strip_prefix(known).is_some_and(is_version))
}

/// The text as YAML takes it for itself, in quotes only where it needs them.
fn plain_or_quoted(text: &str) -> String {
    let is_word = |character: char| character.is_ascii_alphanumeric() || "/._+-".contains(character);
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    // Words that YAML takes for something else.
    let is_special = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    if begins && text.chars().all(is_word) && !is_special { text.to_owned() } else { quoted(text) }
}

/// In double quotes, whose rules JSON's are too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(path: &str) -> Entry {
        Entry::Exec(Executable { path: path.to_owned(), script: None, is_changeable: false })
    }

    /// What the policy says, if the text is one.
    fn pasted(text: &str) -> Policy {
        sentinel_policy::parse(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).policy
    }

    #[test]
    fn outside_of_actions_it_is_for_the_baseline() {
        let told = allow(&Entry::Network("127.0.0.1:8080".to_owned()), &[], &[]);
        assert_eq!(told, "enforcement:\n  network:\n    allow:\n      - \"127.0.0.1:8080\"");
        assert_eq!(pasted(&told).grants[0].network.len(), 1);
    }

    #[test]
    fn in_an_action_it_is_for_that_action_alone() {
        let told = allow(&exec("/usr/bin/uname"), &["run_tool"], &[]);
        assert_eq!(told, "actions:\n  run_tool:\n    grants:\n      exec:\n        - /usr/bin/uname");
        let policy = pasted(&told);
        assert!(policy.grants[0].exec.is_empty() && policy.grants[1].exec.len() == 1, "{policy:?}");
        let told = allow(&exec("/usr/bin/uname"), &["b", "a"], &[]);
        assert!(told.ends_with("/uname  # or to another action that was in flight: `a`"), "{told}");
    }

    #[test]
    fn what_a_rule_opens_elsewhere_is_named() {
        let told = allow(&exec("/usr/bin/uname"), &[], &["a", "b"]);
        assert!(told.ends_with("# as it is, it opens while an action runs here: `a`, `b`"), "{told}");
        let told = allow(&exec("/usr/bin/uname"), &["c"], &["a"]);
        assert!(
            told.ends_with("# as it is, it opens in another action: `a`") && told.contains("  c:"),
            "{told}"
        );
        pasted(&told);
    }

    #[test]
    fn an_own_address_is_for_the_list_of_those() {
        let own = Entry::Listen("127.0.0.1:8080".to_owned());
        assert_eq!(pasted(&allow(&own, &[], &[])).grants[0].listen.len(), 1);
        assert_eq!(pasted(&allow(&own, &["serve"], &[])).grants[1].listen.len(), 1);
    }

    #[test]
    fn a_connection_that_outlives_its_action_is_told_how() {
        let told = keep_alive("fetch");
        assert!(told.starts_with("actions:\n  fetch:\n    grants:\n      keep_alive: true  # "), "{told}");
        sentinel_policy::parse(&told).unwrap();
    }

    #[test]
    fn what_the_host_can_not_see_is_said() {
        let told = allow(&exec("/usr/bin/python3.11"), &[], &[]);
        assert!(told.contains("# an interpreter: this allows all that it can be given"), "{told}");
        for harmless in ["/usr/bin/python3-config", "/usr/bin/shuf", "/usr/bin/nodes", "/usr/bin/envsubst"] {
            assert!(!allow(&exec(harmless), &[], &[]).contains('#'), "{harmless}");
        }
        let script = Executable {
            path: "/bin/sh".to_owned(),
            script: Some("/srv/tool".to_owned()),
            is_changeable: true,
        };
        let told = allow(&Entry::Exec(script), &[], &[]);
        assert!(
            told.contains("- {path: /bin/sh, writable: accept}  # the program's own user could"),
            "{told}"
        );
        assert!(told.contains("`/srv/tool` is a script"), "{told}");
        assert!(pasted(&told).grants[0].exec[0].writable_accepted);
    }

    #[test]
    fn what_yaml_would_take_for_something_else_stands_in_quotes() {
        for name in ["true", "No", "a: b", "7", "#x", "ünïcode", "- x", "{a}", "'", "\""] {
            let policy = pasted(&allow(&exec("/usr/bin/true"), &[name], &[]));
            assert_eq!(policy.actions.keys().next().unwrap().as_str(), name);
            let path = format!("/srv/{name}");
            assert_eq!(pasted(&allow(&exec(&path), &[], &[])).grants[0].exec[0].path.to_str(), Some(&*path));
        }
    }
}
