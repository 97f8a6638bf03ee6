//! Texts made to hurt: they are refused, and soon.

use std::time::{Duration, Instant};

use sentinel_policy::{MAX_BYTES, MAX_DEPTH, MAX_NODES, parse};

/// Far above what any of these takes; what is square in the size of the text takes minutes.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn no_text_of_the_greatest_size_keeps_the_reader_busy() {
    for piece in [
        "[", "{", "- ", "? ", "a: ", "{a: ", "[a, ", "&a ", "!a ", "'", "\"\\", "#", "\n", "a\n", "- a\n",
        "x,", "[]", "- [", "|", "é",
    ] {
        let text = piece.repeat(MAX_BYTES / piece.len());
        let started = Instant::now();
        let problems = parse(&text).unwrap_err();
        let _report = problems.render("big.yaml", &text);
        assert!(started.elapsed() < SOON, "{piece:?} took {:?}", started.elapsed());
    }
}

#[test]
fn thousands_of_mistakes_are_all_known_and_reported_soon() {
    let text: String = (0..30_000).map(|number| format!("sesion{number}: *a\n")).collect();
    assert!(parse(&text).is_err());
    let text: String = (0..30_000).map(|number| format!("wrong_key_{number}: 1\n")).collect();
    let started = Instant::now();
    let problems = parse(&text).unwrap_err();
    assert_eq!(problems.as_slice().len(), 30_000);
    let report = problems.render("big.yaml", &text);
    assert!(report.ends_with("big.yaml: 30000 problems, of which the first 1000 are shown\n"));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[test]
fn a_list_with_as_many_values_as_allowed_is_read_and_one_with_more_is_not() {
    let with = |names: usize| {
        let names: Vec<String> = (0..names).map(|number| format!("a{number}")).collect();
        format!("denied_actions: [{}]", names.join(","))
    };
    // The mapping, its key and the list count too.
    assert!(parse(&with(MAX_NODES - 3)).is_ok());
    let problems = parse(&with(MAX_NODES - 2)).unwrap_err();
    assert!(problems.to_string().contains("more than 100000 values"), "{problems}");
}

#[test]
fn nesting_is_followed_to_its_limit_and_no_further() {
    let nested = |depth: usize| format!("x: {}{}", "[".repeat(depth), "]".repeat(depth));
    let too_deep = |depth: usize| parse(&nested(depth)).unwrap_err().to_string().contains("nested more than");
    // The outermost mapping counts too.
    assert!(!too_deep(MAX_DEPTH - 1));
    assert!(too_deep(MAX_DEPTH));
}
