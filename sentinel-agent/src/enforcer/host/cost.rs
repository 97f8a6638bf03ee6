//! How much each program takes the verifier, which knows all of its ways: a program that grew is seen before anybody waits for it.
//!
//! Invariant: what a kernel counts is what `tests/instructions.toml` says of it, within a tenth. A kernel of `tests/kernels.toml` that isn't
//! recorded fails; another host's kernel is held to what holds anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aya::programs::ProgramInfo;

use super::*;

const RECORD: &str = include_str!("../../../../tests/instructions.toml");
/// `BPF_COMPLEXITY_LIMIT_INSNS`: where a kernel gives up.
const LIMIT: u32 = 1_000_000;

/// Of each program, how many instructions the verifier went through.
type Counts = BTreeMap<String, u32>;

/// The kernel that this runs on, by its name in the record; and whether that must have it.
fn kernel(tier: Tier) -> (String, bool) {
    if let Ok(name) = std::env::var("SENTINEL_VM_KERNEL") {
        return (name, true);
    }
    let uname = rustix::system::uname();
    let release = uname.release().to_str().unwrap();
    let version: Vec<&str> = release.split(['.', '-']).take(2).collect();
    (format!("{}-{}", version.join("."), tier.as_str()), false)
}

fn counts(places: &Places) -> Counts {
    let pins = std::fs::read_dir(&places.pins).unwrap().map(|entry| entry.unwrap().path());
    let counted = pins.filter_map(|pin| {
        let name = pin.file_name()?.to_str()?.strip_prefix("program_")?.to_owned();
        let info = ProgramInfo::from_pin(&pin).unwrap();
        Some((name, info.verified_instruction_count().unwrap_or(0)))
    });
    counted.collect()
}

/// What differs from the record by more than a tenth, a line each.
fn jumps(recorded: &Counts, found: &Counts) -> Vec<String> {
    let mut jumps = Vec::new();
    for (name, now) in found {
        match recorded.get(name) {
            None => jumps.push(format!("{name}: {now}, and not recorded")),
            Some(then) if now.abs_diff(*then).saturating_mul(10) > *then => {
                jumps.push(format!("{name}: {now}, and recorded {then}"));
            }
            Some(_) => {}
        }
    }
    let gone = recorded.keys().filter(|name| !found.contains_key(*name));
    jumps.extend(gone.map(|name| format!("{name}: recorded, and not loaded")));
    jumps
}

/// What the record has to say of a kernel.
fn entry(kernel: &str, counts: &Counts) -> String {
    let mut text = format!("[\"{kernel}\"]\n");
    for (name, count) in counts {
        writeln!(text, "{name} = {count}").unwrap();
    }
    text
}

#[test]
#[expect(clippy::print_stdout, reason = "whoever develops on another host's kernel can add it")]
fn the_verifier_counts_within_a_tenth_of_what_is_recorded() {
    let mut host = Host::new();
    let found = counts(&host.places);
    let attached = host.enforcer().examine().unwrap().programs;
    assert!(attached.iter().all(|program| found.contains_key(&program.name)), "{attached:?}: {found:?}");
    for (name, count) in &found {
        assert!((1..LIMIT).contains(count), "{name}: {count}");
    }
    let (kernel, is_listed) = kernel(host.tier);
    let record: BTreeMap<String, Counts> = toml::from_str(RECORD).unwrap();
    let entry = entry(&kernel, &found);
    match record.get(&kernel) {
        None if is_listed => panic!("`tests/instructions.toml` lacks this kernel; add\n{entry}"),
        None => println!("not recorded:\n{entry}"),
        Some(recorded) => {
            let jumps = jumps(recorded, &found);
            assert!(
                jumps.is_empty(),
                "more than a tenth from the record:\n{}\nIf that is meant, put this into `tests/instructions.toml`:\n{entry}",
                jumps.join("\n")
            );
        }
    }
}

#[test]
fn a_jump_of_more_than_a_tenth_is_told_and_a_tenth_is_not() {
    let counts = |of: &[(&str, u32)]| of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let recorded = counts(&[("grows", 100), ("shrinks", 100), ("steady", 100), ("gone", 7)]);
    let found = counts(&[("grows", 111), ("shrinks", 89), ("steady", 110), ("new", 3)]);
    assert_eq!(
        jumps(&recorded, &found),
        [
            "grows: 111, and recorded 100",
            "new: 3, and not recorded",
            "shrinks: 89, and recorded 100",
            "gone: recorded, and not loaded",
        ]
    );
    assert_eq!(jumps(&found, &found), [""; 0]);
}

#[test]
fn what_a_failure_prints_can_be_put_into_the_record_as_it_is() {
    let found: Counts = [("connect4".to_owned(), 1_234)].into();
    let record: BTreeMap<String, Counts> = toml::from_str(&entry("6.12", &found)).unwrap();
    assert_eq!(record, BTreeMap::from([("6.12".to_owned(), found)]));
}
