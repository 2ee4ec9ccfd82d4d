//! Modes of nodes: octal and symbolic, read and written.

/// The bits that chmod(2) can change.
const PERMISSIONS: u32 = 0o7777;

/// `0660`.
#[must_use]
pub fn octal(mode: u32) -> String {
    format!("{:04o}", mode & PERMISSIONS)
}

/// `crw-rw----`, with the letter of the file's type in front.
#[must_use]
pub fn symbolic(kind: char, mode: u32) -> String {
    let mut shown = String::from(kind);
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    for (shift, (bit, with, without)) in [6, 3, 0].into_iter().zip(special) {
        let class = mode >> shift;
        shown.push(if class & 4 != 0 { 'r' } else { '-' });
        shown.push(if class & 2 != 0 { 'w' } else { '-' });
        shown.push(match (mode & bit != 0, class & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => with,
            (true, false) => without,
        });
    }
    shown
}

/// The mode that `wanted` makes of `current`, as chmod(1) reads it.
///
/// Octal digits, or clauses such as `u+rw,g=r,o=` and `g=u`. No `who` means everybody: the caller's
/// umask has no say over a device. An error says what was wanted.
pub fn parse(wanted: &str, current: u32) -> Result<u32, String> {
    let current = current & PERMISSIONS;
    if wanted.starts_with(|c: char| c.is_ascii_digit()) {
        let mode = u32::from_str_radix(wanted, 8).ok().filter(|mode| *mode <= PERMISSIONS);
        return mode.ok_or_else(|| {
            format!("'{wanted}' is no mode: wanted up to four octal digits, such as 0660")
        });
    }
    wanted.split(',').try_fold(current, |mode, clause| apply(clause, mode))
}

/// Whether `wanted` depends on the current mode.
#[must_use]
pub fn is_relative(wanted: &str) -> bool {
    !wanted.starts_with(|c: char| c.is_ascii_digit())
}

fn apply(clause: &str, mode: u32) -> Result<u32, String> {
    let wrong =
        || format!("'{clause}' is no change of a mode: wanted one such as u+rw, g=r, o= or 0660");
    let start = clause.find(['+', '-', '=']).ok_or_else(wrong)?;
    let (who, mut rest) = clause.split_at(start);
    let who = classes(who).ok_or_else(wrong)?;
    let mut mode = mode;
    while let Some(operation) = rest.chars().next() {
        let tail = rest.get(1..).unwrap_or_default();
        let end = tail.find(['+', '-', '=']).unwrap_or(tail.len());
        let (letters, next) = tail.split_at(end);
        let bits = bits(letters, who, mode).ok_or_else(wrong)?;
        mode = match operation {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !scope(who)) | bits,
        };
        rest = next;
    }
    Ok(mode)
}

/// The permission bits of `ugo`, as in 0777.
fn classes(who: &str) -> Option<u32> {
    if who.is_empty() {
        return Some(0o777);
    }
    who.chars().try_fold(0, |classes, c| {
        let class = match c {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
        Some(classes | class)
    })
}

/// What `=` clears: the permissions, and the special bits that belong to these classes.
fn scope(who: u32) -> u32 {
    who | special(who, 's') | special(who, 't')
}

fn special(who: u32, letter: char) -> u32 {
    let bit = |class: u32, bit: u32| if who & class == 0 { 0 } else { bit };
    match letter {
        's' => bit(0o700, 0o4000) | bit(0o070, 0o2000),
        // sticky belongs to no class: it is meant when everybody is
        _ => {
            if who == 0o777 {
                0o1000
            } else {
                0
            }
        }
    }
}

fn bits(letters: &str, who: u32, mode: u32) -> Option<u32> {
    let copied = |shift: u32| (((mode >> shift) & 7) * 0o111) & who;
    match letters {
        "u" => return Some(copied(6)),
        "g" => return Some(copied(3)),
        "o" => return Some(copied(0)),
        _ => {}
    }
    letters.chars().try_fold(0, |bits, letter| {
        let added = match letter {
            'r' => 0o444 & who,
            'w' => 0o222 & who,
            'x' => 0o111 & who,
            's' | 't' => special(who, letter),
            _ => return None,
        };
        Some(bits | added)
    })
}

#[cfg(test)]
mod tests {
    use super::{is_relative, octal, parse, symbolic};

    #[test]
    fn symbolic_modes_are_those_of_ls() {
        for (mode, shown) in [
            (0o660, "crw-rw----"),
            (0o755, "crwxr-xr-x"),
            (0o7000, "c--S--S--T"),
            (0o7777, "crwsrwsrwt"),
        ] {
            assert_eq!(symbolic('c', mode), shown);
        }
    }

    #[test]
    fn octal_modes_are_taken_as_they_are() {
        for (wanted, mode) in [("660", 0o660), ("0660", 0o660), ("0", 0), ("7777", 0o7777)] {
            assert_eq!(parse(wanted, 0o644), Ok(mode), "{wanted}");
        }
    }

    #[test]
    fn clauses_change_the_current_mode_as_chmod_does() {
        for (wanted, current, mode) in [
            ("u+rw,g=r,o=", 0o177, 0o740),
            ("g+w", 0o640, 0o660),
            ("a-w", 0o666, 0o444),
            ("+r", 0o000, 0o444),
            ("=rw", 0o777, 0o666),
            ("o=g", 0o640, 0o644),
            ("go=u", 0o600, 0o666),
            ("u=rwx-x", 0o000, 0o600),
            ("ug+s", 0o660, 0o6660),
            ("u=rw", 0o4600, 0o600),
            ("+t", 0o660, 0o1660),
            ("o-", 0o666, 0o666),
            ("u+w", 0o20_440, 0o640),
        ] {
            assert_eq!(parse(wanted, current), Ok(mode), "{wanted} of {current:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused_with_an_example() {
        for wanted in
            ["", "8", "99999", "0o660", "u", "u+q", "z+r", "u+rw,", "+rü", "660,u+r", "rw"]
        {
            let error = parse(wanted, 0o600).unwrap_err();
            assert!(error.contains("0660"), "{wanted}: {error}");
        }
    }

    #[test]
    fn a_mode_is_shown_with_four_digits_and_without_its_type() {
        assert_eq!(octal(0o20_620), "0620");
        assert!(is_relative("u+r") && !is_relative("0600"));
    }
}
