//! "Did you mean …?"

/// Beyond this length nobody's slip of the finger is looked for.
const MAX_LENGTH: usize = 64;

/// The candidate that was probably meant; none if nothing is close.
pub(crate) fn closest<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let lower = text.to_lowercase();
    if lower.is_empty() || lower.len() > MAX_LENGTH {
        return None;
    }
    let written: Vec<char> = lower.chars().map(|c| if c == '-' || c == ' ' { '_' } else { c }).collect();
    let allowed = written.len().div_euclid(3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let meant: Vec<char> = candidate.chars().collect();
            let abbreviated = written.len() >= 3 && meant.starts_with(&written);
            let distance = distance(&written, &meant);
            (distance <= allowed || abbreviated).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours from one text to the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut previous_from = None;
    for (row, &a) in (1_usize..).zip(from) {
        let mut current = vec![row];
        let mut previous_to = None;
        for (column, &b) in (1_usize..).zip(to) {
            let at = |row: &[usize], back: usize| {
                let cell = column.checked_sub(back).and_then(|column| row.get(column)).copied();
                cell.unwrap_or(usize::MAX)
            };
            let replaced = at(&last, 1).saturating_add(usize::from(a != b));
            let deleted = at(&last, 0).saturating_add(1);
            let inserted = at(&current, 1).saturating_add(1);
            let swapped = if previous_from == Some(b) && previous_to == Some(a) {
                at(&before_last, 2).saturating_add(1)
            } else {
                usize::MAX
            };
            current.push(replaced.min(deleted).min(inserted).min(swapped));
            previous_to = Some(b);
        }
        before_last = std::mem::replace(&mut last, current);
        previous_from = Some(a);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 5] = ["budgets", "denied_actions", "max_count", "window_seconds", "run"];

    #[test]
    fn a_slip_is_traced_to_the_key() {
        for (written, meant) in [
            ("budget", "budgets"),
            ("budgtes", "budgets"),
            ("denied-actions", "denied_actions"),
            ("Denied_Action", "denied_actions"),
            ("max", "max_count"),
            ("window", "window_seconds"),
            ("rnu", "run"),
        ] {
            assert_eq!(closest(written, KEYS), Some(meant), "{written}");
        }
    }

    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        for written in ["", "xyz", "evidence", &"budgets".repeat(1_000)] {
            assert_eq!(closest(written, KEYS), None, "{written}");
        }
    }

    #[test]
    fn a_swap_of_neighbours_counts_once() {
        let distance_of =
            |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(distance_of("ab", "ba"), 1);
        assert_eq!(distance_of("kitten", "sitting"), 3);
        assert_eq!(distance_of("", "abc"), 3);
    }
}
