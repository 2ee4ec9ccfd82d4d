//! The names that somebody may have meant.

/// Never more suggestions than fit a line.
const MOST: usize = 3;

/// The nearest of `candidates`, nearest first; compared without `/dev/` and without case.
#[must_use]
pub fn names<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = plain(wanted);
    let limit = (wanted.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = candidates
        .filter_map(|candidate| {
            let distance = distance(&wanted, &plain(candidate));
            (distance <= limit).then_some((distance, candidate))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(MOST).map(|(_, name)| name).collect()
}

fn plain(name: &str) -> String {
    name.strip_prefix("/dev/").unwrap_or(name).to_lowercase()
}

/// How many characters must be put in, left out or changed (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, c) in from.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let changed = diagonal + usize::from(c != *other);
            diagonal = *cell;
            left = changed.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{distance, names};

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("sda", "sdb", 1),
        ] {
            assert_eq!(distance(from, to), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn the_nearest_comes_first_and_strangers_stay_away() {
        let nodes = ["/dev/ttyUSB1", "/dev/ttyUSB0", "/dev/sda", "/dev/ttyS0", "/dev/null"];
        let near = names("ttyusb0", nodes.into_iter());
        assert_eq!(near, ["/dev/ttyUSB0", "/dev/ttyUSB1", "/dev/ttyS0"]);
        assert_eq!(names("/dev/nul", nodes.into_iter()), ["/dev/null"]);
        assert!(names("frobnicator", nodes.into_iter()).is_empty());
    }
}
