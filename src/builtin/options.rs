//! Stage 3e: the options of a builtin's command, read as getopt_long(3) reads them.
#![forbid(unsafe_code)]

/// An option that a builtin knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) short: u8,
    pub(super) long: &'static str,
    pub(super) wants_value: bool,
}

/// The options of a command less its name, by their short names and in order. What is unknown, or lacks
/// its value, is left out, and so is what is no option.
///
/// A long name can be cut short while it is the only one that begins so.
pub(super) fn options(words: &[Vec<u8>], known: &[Known]) -> Vec<Given> {
    separated(words, known).0
}

/// An option by its short name, and its value.
pub(super) type Given = (u8, Option<Vec<u8>>);

/// The options, and the words that are none.
pub(super) fn separated<'a>(words: &'a [Vec<u8>], known: &[Known]) -> (Vec<Given>, Vec<&'a [u8]>) {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let mut words = words.iter().map(Vec::as_slice);
    while let Some(word) = words.next().filter(|word| *word != b"--") {
        if !word.starts_with(b"-") || word.len() == 1 {
            others.push(word);
            continue;
        }
        if let Some(long) = word.strip_prefix(b"--") {
            let mut parts = long.splitn(2, |byte| *byte == b'=');
            let name = parts.next().unwrap_or_default();
            let value = parts.next().map(<[u8]>::to_vec);
            let Some(option) = by_name(name, known) else { continue };
            match (option.wants_value, value) {
                (false, None) => found.push((option.short, None)),
                (true, value) => {
                    let value = value.or_else(|| words.next().map(<[u8]>::to_vec));
                    found.extend(value.map(|value| (option.short, Some(value))));
                }
                (false, Some(_)) => {}
            }
            continue;
        }
        let mut letters = word.strip_prefix(b"-").unwrap_or_default();
        while let Some((letter, rest)) = letters.split_first() {
            letters = rest;
            let Some(option) = known.iter().find(|option| option.short == *letter) else {
                continue;
            };
            if !option.wants_value {
                found.push((option.short, None));
                continue;
            }
            let value = if rest.is_empty() { words.next() } else { Some(rest) };
            found.extend(value.map(|value| (option.short, Some(value.to_vec()))));
            letters = b"";
        }
    }
    others.extend(words);
    (found, others)
}

fn by_name(name: &[u8], known: &[Known]) -> Option<Known> {
    let exact = known.iter().find(|option| option.long.as_bytes() == name);
    let mut begun = known.iter().filter(|option| option.long.as_bytes().starts_with(name));
    exact.or_else(|| begun.next().filter(|_| begun.next().is_none())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Known] = &[
        Known { short: b'o', long: "offset", wants_value: true },
        Known { short: b'H', long: "hint", wants_value: true },
        Known { short: b'R', long: "noraid", wants_value: false },
        Known { short: b'n', long: "now", wants_value: false },
    ];

    fn read(command: &str) -> String {
        let words: Vec<_> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let shown = options(&words, KNOWN).into_iter().map(|(short, value)| {
            let value = value.unwrap_or_default().escape_ascii().to_string();
            format!("{}{value}", char::from(short))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_are_read_in_every_form_that_getopt_knows() {
        assert_eq!(read("--offset=12 --hint x=y --noraid"), "o12 Hx=y R");
        assert_eq!(read("-Ro1024 -H foo -o 3"), "R o1024 Hfoo o3");
        assert_eq!(read("--off=1 --nor --h=2 --no --n"), "o1 R H2");
        assert_eq!(read("--offset= --noraid"), "o R");
    }

    #[test]
    fn words_that_are_no_options_are_told_apart() {
        let words = ["a", "-o", "1", "-", "--", "-R"].map(|word| word.as_bytes().to_vec());
        let (found, others) = separated(&words, KNOWN);
        assert_eq!(found, [(b'o', Some(b"1".to_vec()))]);
        assert_eq!(others, [&b"a"[..], b"-", b"-R"]);
    }

    #[test]
    fn what_is_no_option_is_left_out() {
        assert_eq!(read("extra --bogus -x -R more -- -o1"), "R");
        assert_eq!(read("--noraid=3 -o"), "");
        assert_eq!(read("--hint"), "");
        assert_eq!(read("- -oR"), "oR");
    }
}
