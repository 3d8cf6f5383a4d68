//! Names that are nearly another: what a slip of the finger makes of one.

/// The one of `known` that a name is most likely meant to be: it has one slip more or less, in names of eight characters or
/// more two. A slip is a character too few, too many, another one, or two exchanged; what differs in its digits is meant so.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_numbered = |other: &str| without_digits(name) == without_digits(other);
    let candidates = known.into_iter().filter(|other| *other != name && !is_numbered(other));
    let few = if name.chars().count() < 8 { 1 } else { 2 };
    let slips = candidates.map(|other| (slips(name, other, few), other)).filter(|(slips, _)| *slips <= few);
    slips.min_by_key(|(slips, _)| *slips).map(|(_, other)| other)
}

fn without_digits(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// How many slips lie between two names, in whatever case; more than `few` where there are more.
fn slips(one: &str, other: &str, few: usize) -> usize {
    let letters = |name: &str| name.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    if one.len().abs_diff(other.len()) > few {
        return few + 1;
    }
    // A row for each beginning of `one`, the last two of which are needed: slips to each beginning of `other`.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, counterpart) in other.iter().enumerate() {
            let other_letter = last[j] + usize::from(letter != counterpart);
            let mut least = other_letter.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *counterpart {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_seen_and_a_number_or_another_word_is_none() {
        let known = ["billing", "mailer", "shipping", "orders-1", "orders-2"];
        let meant = |name| nearest(name, known);
        assert_eq!(
            (meant("biling"), meant("billling"), meant("bulling")),
            (Some("billing"), Some("billing"), Some("billing"))
        );
        assert_eq!(
            (meant("iblling"), meant("Billing"), meant("shiping2")),
            (Some("billing"), Some("billing"), Some("shipping"))
        );
        assert_eq!((meant("orders-3"), meant("orders-12"), meant("order-1")), (None, None, Some("orders-1")));
        assert_eq!((meant("billing"), meant("mail"), meant("filming"), meant("")), (None, None, None, None));
    }
}
