//! What a tier is known not to hold, or to hold less well: shown beside what was tried, so that nobody has to find it out.
//!
//! Invariant: a row stands here only with its reason; SECURITY.md says the same at more length.

use sentinel_proto::examination::{Hold, Proof, Row};

use super::super::Tier;

type Known = (&'static str, Hold, &'static str);

/// On every tier.
const ALWAYS: &[Known] = &[
    (
        "a process moved out of its session by root",
        Hold::Detected,
        "the agent compares cgroups with marks each second, and kills what is in the wrong place",
    ),
    (
        "what goes through an open door",
        Hold::NotCovered,
        "an action's door is open for its whole process, and a server at a granted address or host can relay anything: a proxy, DNS over HTTPS",
    ),
    (
        "another host at the address of one that is granted by name",
        Hold::NotCovered,
        "a content network serves many hosts at one address; only where a policy says `tls_names: enforce` must TLS ask for a listed one, and then the server may still serve others over that",
    ),
    (
        "files that run later elsewhere (cron, shell profiles, authorised keys)",
        Hold::NotCovered,
        "files are guarded by their modes; give a session a user of its own",
    ),
];

/// Where no BPF LSM is.
const KILL: &[Known] = &[
    (
        "a script whose interpreter is granted",
        Hold::NotCovered,
        "at tier `kill` a script is judged by its interpreter alone",
    ),
    (
        "code that a granted program maps or loads",
        Hold::NotCovered,
        "executable mappings are judged at tier `lsm` only",
    ),
    (
        "unix sockets that are made after a session's start",
        Hold::NotCovered,
        "at tier `kill` the launcher hides those that are there; a bound session sees all",
    ),
    (
        "ptrace and signals to other processes of the same user",
        Hold::NotCovered,
        "at tier `kill` Landlock keeps them in, where the kernel has it, and in bound sessions nothing does",
    ),
];

/// Where BPF LSM is.
const LSM: &[Known] = &[
    (
        "code that a process writes into its own memory",
        Hold::NotCovered,
        "files are judged when they are mapped as code; memory without a file is not, for just-in-time compilers live by it",
    ),
    (
        "what is said over a unix socket that the policy lists",
        Hold::NotCovered,
        "the connection is judged, and nothing that goes through it",
    ),
];

/// The rows of a tier.
pub(super) fn rows(tier: Tier) -> impl Iterator<Item = Row> {
    let of_tier = match tier {
        Tier::Kill => KILL,
        Tier::Lsm => LSM,
        Tier::None => &[],
    };
    of_tier.iter().chain(ALWAYS).map(|(what, hold, why)| Row {
        what: (*what).to_owned(),
        hold: *hold,
        proof: Proof::Stated((*why).to_owned()),
    })
}
