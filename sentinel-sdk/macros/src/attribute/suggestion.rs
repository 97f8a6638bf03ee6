//! "Did you mean …?"

/// The candidate that was probably meant; none if nothing is close.
pub(super) fn closest<'c>(written: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let written = written.to_lowercase();
    let allowed = written.len().div_euclid(3).max(1);
    candidates
        .iter()
        .filter_map(|&meant| {
            let is_abbreviated = written.len() >= 3 && meant.starts_with(&written);
            let distance = if letters(&written) == letters(meant) { 1 } else { distance(&written, meant) };
            (is_abbreviated || distance <= allowed).then_some((distance, meant))
        })
        .min()
        .map(|(_, meant)| meant)
}

/// `` `a`, `b` and `c` ``.
pub(super) fn listed(candidates: &[&str]) -> String {
    let mut shown: Vec<String> = candidates.iter().map(|candidate| format!("`{candidate}`")).collect();
    match (shown.pop(), shown.is_empty()) {
        (Some(last), false) => format!("{} and {last}", shown.join(", ")),
        (Some(only), true) => only,
        (None, _) => String::new(),
    }
}

/// Letters that were swapped are the same letters.
fn letters(text: &str) -> Vec<char> {
    let mut letters: Vec<char> = text.chars().collect();
    letters.sort_unstable();
    letters
}

/// Insertions, deletions and replacements from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (above, a) in (1..).zip(from.chars()) {
        let mut before = above;
        let mut diagonal = above - 1;
        for (cell, b) in row.iter_mut().skip(1).zip(to.chars()) {
            let next = (diagonal + usize::from(a != b)).min(before + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, next);
            before = next;
        }
        if let Some(first) = row.first_mut() {
            *first = above;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{closest, distance, listed};
    use crate::attribute::KNOWN;

    #[test]
    fn a_slip_is_traced_to_the_option() {
        for (written, meant) in [
            ("nmae", "name"),
            ("cost", "cost_usd"),
            ("cost_us", "cost_usd"),
            ("actual_cost", "actual_cost_usd"),
            ("tag", "tags"),
            ("Tags", "tags"),
            ("risk", "risk_level"),
            ("input", "inputs"),
            ("ouptuts", "outputs"),
        ] {
            assert_eq!(closest(written, &KNOWN), Some(meant), "{written}");
        }
    }

    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        for written in ["", "xyz", "budget", "args", &"name".repeat(1_000)] {
            assert_eq!(closest(written, &KNOWN), None, "{written}");
        }
    }

    #[test]
    fn the_distance_is_the_fewest_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("abc", "abc")), (3, 3, 0));
    }

    #[test]
    fn a_list_reads_like_a_sentence() {
        assert_eq!(listed(&[]), "");
        assert_eq!(listed(&["a"]), "`a`");
        assert_eq!(listed(&["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
