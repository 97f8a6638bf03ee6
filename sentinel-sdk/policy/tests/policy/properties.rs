//! What holds for any text and any policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use sentinel_engine::{
    ActionRule, Allowlist, Approvals, Approver, Budgets, Cidr, CountLimit, CountLimits, DayLimit, ExecRule,
    Grant, Hours, Limit, Mode, NamePattern, NameRule, NetworkRule, OnExhausted, Policy, Protocol, RateLimit,
    Span, TimeZone, TlsNames,
};
use sentinel_policy::{parse, parse_bytes};
use sentinel_proto::{ActionName, HostName, Money, RiskLevel, Tag};

use crate::printer::{without_lines, yaml};
use crate::schema::schema;
use crate::validator::{fits, json_of};

const EXAMPLES: [&str; 4] = [
    include_str!("../../testdata/everything.yaml"),
    include_str!("../../testdata/mistyped.yaml"),
    include_str!("../../testdata/endpoints.yaml"),
    include_str!("../../testdata/surprises.yaml"),
];

/// Pieces that mean something to YAML or to us.
const PIECES: [&str; 30] = [
    "\n",
    "\n  ",
    "- ",
    ": ",
    ", ",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "#",
    "&a ",
    "*a",
    "!!str ",
    "|",
    ">",
    "? ",
    "---\n",
    "...\n",
    "<<: ",
    "\t",
    "\r\n",
    "\u{feff}",
    "budgets",
    "grants",
    "~",
    "0x1",
    "-1",
    "%TAG ! x\n",
];

/// A text is a policy that says the same when printed, or gives a report that is safe to show.
fn check(text: &str) {
    let problems = match parse(text) {
        Ok(parsed) => {
            let printed = yaml(&parsed.policy);
            let again =
                parse(&printed).unwrap_or_else(|problems| panic!("{}", problems.render("printed", &printed)));
            assert_eq!(yaml(&again.policy), printed);
            fits(&schema(), &json_of(text).unwrap()).unwrap();
            return;
        }
        Err(problems) => problems,
    };
    assert!(!problems.as_slice().is_empty());
    for problem in problems.as_slice() {
        assert!(problem.line >= 1 && problem.column >= 1 && problem.width >= 1, "{problem}");
        assert!(!problem.message.is_empty() && !problem.way_out.is_empty(), "{problem:?}");
    }
    let rendered = problems.render("p.yaml", text);
    assert!(!rendered.chars().any(|c| c.is_control() && c != '\n'), "{rendered:?}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>(), bytes in vec(any::<u8>(), 0..64)) {
        check(&text);
        let _either = parse_bytes(&bytes);
    }

    #[test]
    fn no_mutation_of_a_policy_makes_the_reader_panic(
        example in prop::sample::select(&EXAMPLES[..]),
        edits in vec((any::<prop::sample::Index>(), 0..4_usize, prop::sample::select(&PIECES[..])), 1..6),
    ) {
        let mut characters: Vec<char> = example.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(characters.len() + 1);
            let end = (at + removed).min(characters.len());
            characters.splice(at..end, inserted.chars());
        }
        check(&characters.into_iter().collect::<String>());
    }

    #[test]
    fn no_heap_of_yaml_makes_the_reader_panic(pieces in vec(prop::sample::select(&PIECES[..]), 0..40)) {
        check(&pieces.concat());
    }

    #[test]
    fn a_policy_that_is_printed_and_read_again_is_the_same(policy in any_policy()) {
        let text = yaml(&policy);
        let read = parse(&text).unwrap_or_else(|problems| panic!("{}", problems.render("printed", &text)));
        prop_assert_eq!(without_lines(read.policy), policy);
        prop_assert_eq!(fits(&schema(), &json_of(&text).unwrap()), Ok(()));
    }
}

fn names() -> impl Strategy<Value = ActionName> {
    "[a-z0-9_.': é-]{1,12}".prop_map(|text| ActionName::new(text).unwrap())
}

fn money() -> impl Strategy<Value = Money> {
    (0..=Money::MAX.nanos()).prop_map(|nanos| Money::from_nanos(nanos).unwrap())
}

fn limits() -> impl Strategy<Value = Limit> {
    money().prop_map(|amount| Limit { amount, line: 0 })
}

prop_compose! {
    fn endpoints()(bits: u32, six: bool, shift in 0..=32_u32, port in option::of(1..=u16::MAX), udp: bool) -> NetworkRule {
        let bits = bits.checked_shl(shift).unwrap_or(0);
        let prefix = u8::try_from(32 - shift).unwrap();
        let cidr = if six {
            // Below 2000::/3, far from the addresses that stand for IPv4.
            let bits = (0x2001_u128 << 112) | (u128::from(bits) << 64);
            Cidr { address: IpAddr::V6(Ipv6Addr::from_bits(bits)), prefix: prefix + 32 }
        } else {
            Cidr { address: IpAddr::V4(Ipv4Addr::from_bits(bits)), prefix }
        };
        NetworkRule { protocol: if udp { Protocol::Udp } else { Protocol::Tcp }, cidr, port, line: 0 }
    }
}

prop_compose! {
    // Three labels below no public suffix, so that a wildcard may stand before them.
    fn host_names()(name in "([a-z0-9_]([a-z0-9_-]{0,2}[a-z0-9_])?\\.){2}example", wildcard: bool, port in option::of(1..=u16::MAX), udp: bool, allow_private: bool) -> NameRule {
        let name = HostName::parse(&name).unwrap();
        let name = if wildcard { NamePattern::OneBelow(name) } else { NamePattern::Exactly(name) };
        NameRule { protocol: if udp { Protocol::Udp } else { Protocol::Tcp }, name, port, allow_private, line: 0 }
    }
}

fn paths() -> impl Strategy<Value = PathBuf> {
    "(/[a-z0-9_.' é-]{0,6}[a-z]){1,4}".prop_map(PathBuf::from)
}

prop_compose! {
    fn grants()(network in vec(endpoints(), 0..4), names in vec(host_names(), 0..3), listen in vec(endpoints(), 0..3), keep: bool, exec in btree_map(paths(), any::<bool>(), 0..4)) -> Grant {
        let exec = exec.into_iter().map(|(path, writable_accepted)| ExecRule { path, writable_accepted, line: 0 });
        let keep_alive = keep && !(network.is_empty() && names.is_empty() && listen.is_empty());
        Grant { network, names, exec: exec.collect(), listen, keep_alive }
    }
}

prop_compose! {
    fn actions()(
        cost_floor in money(),
        tags in btree_set("[a-z]{1,8}", 0..4),
        max_seconds in 1..=86_400_u64,
        limits in counts(),
        hours in option::of(hours()),
        risk in option::of(risk_levels()),
        grant in option::of(grants()),
    ) -> (ActionRule, Option<Grant>) {
        let tags = tags.into_iter().map(|tag| Tag::new(tag).unwrap()).collect();
        (ActionRule { cost_floor, tags, grant: None, max_seconds, limits, hours, risk, line: 0 }, grant)
    }
}

prop_compose! {
    fn rates()(max_count in 0..=999_999_u64, seconds in 1..=2_678_400_u64) -> RateLimit {
        RateLimit { max_count, window: Duration::from_secs(seconds), line: 0 }
    }
}

fn counts() -> impl Strategy<Value = CountLimits> {
    let count = |most: u64| option::of((0..=most).prop_map(|most| CountLimit { most, line: 0 }));
    (count(999_999_999), count(1024)).prop_map(|(calls, concurrent)| CountLimits { calls, concurrent })
}

fn zones() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(&["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+12"][..])
        .prop_map(|name| name.parse().unwrap())
}

/// A span of these days: seven bits, Monday's the lowest.
fn span((days, from, length): (u8, u16, u16)) -> Span {
    let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let days: [bool; 7] = std::array::from_fn(|day| days >> day & 1 == 1);
    // Past midnight it goes on the next day; at midnight the day ends.
    let to = if from + length > 1440 { from + length - 1440 } else { from + length };
    let named: Vec<&str> = names.into_iter().zip(days).filter_map(|(name, on)| on.then_some(name)).collect();
    let text = format!("{} {:02}:{:02}-{:02}:{:02}", named.join(","), from / 60, from % 60, to / 60, to % 60);
    Span { days, from, to, text }
}

prop_compose! {
    fn hours()(timezone in zones(), spans in btree_set((1..128_u8, 0..1440_u16, 1..1440_u16), 0..4)) -> Hours {
        Hours { timezone, spans: spans.into_iter().map(span).collect(), line: 0 }
    }
}

fn risk_levels() -> impl Strategy<Value = RiskLevel> {
    "[a-z0-9._-]{1,8}".prop_map(|text| RiskLevel::new(text).unwrap())
}

/// A kind and a name: as keys of a set they are different.
fn approvers() -> impl Strategy<Value = Vec<Approver>> {
    btree_set((any::<bool>(), "[a-z0-9_.'$@é-]{1,8}"), 0..3).prop_map(|approvers| {
        let approver = |(group, name)| if group { Approver::Group(name) } else { Approver::User(name) };
        approvers.into_iter().map(approver).collect()
    })
}

prop_compose! {
    fn approvals()(
        actions in btree_set(names(), 0..3),
        tags in btree_set("[a-z]{1,8}", 0..3),
        levels in btree_set(risk_levels(), 0..3),
        from_cost in option::of(limits()),
        approvers in option::of(approvers()),
        seconds in 1..=604_800_u64,
    ) -> Approvals {
        Approvals {
            actions: actions.into_iter().map(|name| (name, 0)).collect(),
            tags: tags.into_iter().map(|tag| (Tag::new(tag).unwrap(), 0)).collect(),
            risk_levels: levels.into_iter().map(|level| (level, 0)).collect(),
            from_cost,
            approvers,
            timeout: Duration::from_secs(seconds),
            line: 0,
        }
    }
}

prop_compose! {
    fn any_policy()(
        (session, run) in (option::of(limits()), option::of(limits())),
        day in option::of((limits(), zones())),
        (counts, hours, approvals, strict) in (counts(), option::of(hours()), option::of(approvals()), any::<bool>()),
        limits in btree_map(names(), limits(), 0..4),
        (denied, allowed, unix, libraries) in (btree_set(names(), 0..4), option::of(btree_set(names(), 0..4)), btree_set(paths(), 0..3), btree_set(paths(), 0..3)),
        rates in btree_map(names(), rates(), 0..4),
        actions in btree_map(names(), actions(), 0..6),
        baseline in grants(),
        audit: bool,
        keep: bool,
        tls: bool,
    ) -> Policy {
        let unlined = |names: BTreeSet<ActionName>| names.into_iter().map(|name| (name, 0)).collect::<BTreeMap<_, _>>();
        let (mut grants, actions) = numbered(baseline, actions);
        if tls {
            // No host by UDP then.
            let names = grants.iter_mut().flat_map(|grant| &mut grant.names);
            names.for_each(|rule| rule.protocol = Protocol::Tcp);
        }
        Policy {
            budgets: Budgets {
                session,
                run,
                day: day.map(|(limit, timezone)| DayLimit { limit, timezone }),
                actions: limits,
            },
            limits: counts,
            hours,
            strict,
            approvals,
            denied: unlined(denied),
            allowed: allowed.map(|names| Allowlist { names: unlined(names), line: 0 }),
            rates,
            actions,
            grants,
            mode: if audit { Mode::Audit } else { Mode::Enforce },
            on_exhausted: if keep { OnExhausted::Keep } else { OnExhausted::Close },
            tls_names: if tls { TlsNames::Enforce } else { TlsNames::Off },
            unix_allow: unix.into_iter().collect(),
            exec_libraries: libraries.into_iter().collect(),
        }
    }
}

/// The grants in the order of the actions. Chance makes no two equal but empty ones.
fn numbered(
    baseline: Grant,
    actions: BTreeMap<ActionName, (ActionRule, Option<Grant>)>,
) -> (Vec<Grant>, BTreeMap<ActionName, ActionRule>) {
    // The baseline has no action that its connections could outlive.
    let mut grants = vec![Grant { keep_alive: false, ..baseline }];
    let actions = actions.into_iter().map(|(name, (mut rule, grant))| {
        if let Some(grant) = grant.filter(|grant| *grant != Grant::default()) {
            rule.grant = Some(grants.len());
            grants.push(grant);
        }
        (name, rule)
    });
    let actions = actions.collect();
    (grants, actions)
}
