//! What holds for any text of a `.link` file, for the fuzzer and for a test.

use std::path::Path;

use mapdev::net::{ALTERNATIVE_LIMIT, LinkFile, Machine, NAME_LIMIT, Text, is_interface_name};

/// Fails where a text leads to a panic, to a problem without place, or to a name that cannot be.
pub fn check(bytes: &[u8]) {
    let (main, drop_in) = match bytes.split_first() {
        // texts of two files, cut where the first byte says
        Some((cut, rest)) if *cut < 128 => rest.split_at(rest.len() * usize::from(*cut) / 128),
        Some((_, rest)) => (rest, [].as_slice()),
        None => (bytes, bytes),
    };
    let texts = [("a.link", main), ("a.link.d/b.conf", drop_in)];
    let texts = texts.map(|(path, bytes)| Text { path: Path::new(path), bytes });
    let (file, problems) = LinkFile::parse(&texts);
    for problem in &problems {
        let text = if problem.file == Path::new("a.link") { main } else { drop_in };
        let lines = text.split(|byte| *byte == b'\n').count();
        assert!(usize::try_from(problem.line).is_ok_and(|line| line <= lines), "{problem}");
        assert!(!problem.what.is_empty() && !problem.render(text).is_empty());
    }
    let Some(file) = file else {
        assert!(!problems.is_empty(), "a file that counts for nothing says why");
        return;
    };
    let machine = Machine::default();
    let holds = file.conditions.iter().filter(|condition| condition.holds(&machine)).count();
    assert_eq!(file.counts_on(&machine), holds == file.conditions.len());
    let settings = &file.settings;
    let named = settings.name.iter().all(|name| is_interface_name(name.as_bytes(), NAME_LIMIT));
    let others = settings.alternative_names.iter();
    let others = others.map(|name| is_interface_name(name.as_bytes(), ALTERNATIVE_LIMIT));
    assert!(named && others.into_iter().all(|valid| valid));
    assert!(settings.alias.as_ref().is_none_or(|alias| alias.len() < 256 && alias.is_ascii()));
    assert_eq!(LinkFile::parse(&texts).0.as_ref(), Some(&file), "read again, it is the same");
}
