//! What the agent proves of this host by trying it.

use sentinel_proto::examination::{Hold, Proof};

use super::*;

#[test]
fn each_family_of_hooks_is_tried_at_its_tier() {
    let mut host = Host::new();
    let rows = host.enforcer().examine().unwrap().rows;
    let tried: Vec<&str> =
        rows.iter().filter(|row| row.proof == Proof::Tried).map(|row| row.what.as_str()).collect();
    for what in ["a TCP connect over IPv4", "a raw socket", "an exec of a file", "a packet with IP options"] {
        assert!(tried.contains(&what), "{what}: {tried:?}");
    }
    for what in [
        "a signal to a process outside",
        "bpf(2)",
        "moving a process to another cgroup",
        "a mount",
        "a unix socket that no rule names",
        "code from a file that the process could have written",
    ] {
        assert_eq!(tried.contains(&what), host.is_lsm(), "{what}: {tried:?}");
    }
    assert!(rows.iter().all(|row| !matches!(row.proof, Proof::Failed(_))), "{rows:?}");
    assert!(rows.iter().any(|row| row.hold == Hold::NotCovered), "and what isn't is said");
}
