//! What the attribute takes, and what it says to what it doesn't take.

#[test]
fn the_attribute_takes_what_it_should_and_says_what_is_wrong_with_the_rest() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
