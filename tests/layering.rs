//! The house rules that a compiler does not know: `src/lib.rs` lists the modules in the order in which
//! an event meets them, and a module imports only modules above it. Reads the source as tokens, so
//! that comments and strings do not count.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the source fails")]

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// Words, `::` and single characters; comments, strings and character literals are left out.
fn tokens(source: &str) -> Vec<Token> {
    let bytes = source.as_bytes();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
        let length = match rest {
            [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'"', ..] | [b'b' | b'c', b'"', ..] => string(rest),
            [b'r', b'"' | b'#', ..] | [b'b' | b'c', b'r', b'"' | b'#', ..] => {
                raw_string(rest).unwrap_or(word)
            }
            [b'\'', b'\\', _, tail @ ..] => {
                3 + tail.iter().position(|b| *b == b'\'').map_or(tail.len(), |end| end + 1)
            }
            [b'\'', _, b'\'', ..] => 3,
            [b':', b':', ..] => 2,
            _ => word.max(1),
        };
        let text = &source.as_bytes()[at..at + length];
        if word == length || (length <= 2 && !text[0].is_ascii_whitespace() && text[0] != b'"') {
            found.push(Token { text: String::from_utf8_lossy(text).into_owned(), line });
        }
        line += text.iter().filter(|b| **b == b'\n').count();
        at += length;
    }
    found
}

fn block_comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(text: &[u8]) -> usize {
    let mut at = text.iter().position(|b| *b == b'"').map_or(text.len(), |open| open + 1);
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// None for a raw identifier such as `r#type`.
fn raw_string(text: &[u8]) -> Option<usize> {
    let start = text.iter().position(|b| *b == b'#' || *b == b'"')?;
    let hashes = text[start..].iter().take_while(|b| **b == b'#').count();
    if text.get(start + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let body = &text[start + hashes + 1..];
    let end = body.windows(close.len()).position(|window| window == close)?;
    Some(start + hashes + 1 + end + close.len())
}

/// Every path that begins at the crate's root, as the module it names and the line.
fn imports(source: &str, file_module: &[&str]) -> Vec<(String, usize)> {
    let tokens = tokens(source);
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut inline: Vec<usize> = Vec::new();
    let (mut found, mut depth, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        match word(at) {
            "mod" if word(at + 2) == "{" => inline.push(depth),
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.pop_if(|opened| *opened == depth);
            }
            // a program is a crate of its own
            "crate" | "super" if word(at + 1) == "::" && file_module == ["bin"] => {}
            start @ ("crate" | "mapdev" | "super") if word(at + 1) == "::" => {
                let mut above = file_module.len() + inline.len();
                let mut next = at;
                while start == "super" && word(next) == "super" && word(next + 1) == "::" {
                    (above, next) = (above.saturating_sub(1), next + 2);
                }
                if start != "super" {
                    (above, next) = (0, at + 2);
                }
                let reaches_root = above == 0 && word(at.wrapping_sub(1)) != "::";
                if reaches_root {
                    first_names(&tokens, next, &mut found);
                }
                // the group itself is walked no further than its opening: `{` counts for the depth
                at = next;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first name of a path, or of each path of a `{group}`.
fn first_names(tokens: &[Token], start: usize, found: &mut Vec<(String, usize)>) {
    let Some(first) = tokens.get(start) else { return };
    if first.text != "{" {
        found.push((first.text.clone(), first.line));
        return;
    }
    let (mut depth, mut expects_name) = (0, false);
    for token in &tokens[start..] {
        match token.text.as_str() {
            "{" => (depth, expects_name) = (depth + 1, depth == 0),
            "}" if depth == 1 => return,
            "}" => depth -= 1,
            "," => expects_name = depth == 1,
            _ if expects_name => {
                found.push((token.text.clone(), token.line));
                expects_name = false;
            }
            _ => {}
        }
    }
}

/// What is wrong with one file: names of modules that stand below its own in the list.
fn upward(order: &[String], file: &str, source: &str) -> Vec<String> {
    let module: Vec<&str> =
        file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    let place = |name: &str| order.iter().position(|entry| entry == name);
    let own = if module[0] == "bin" { Some(order.len()) } else { place(module[0]) };
    let Some(own) = own else { return vec![format!("{file}: not in the list of src/lib.rs")] };
    let mut problems = Vec::new();
    for (name, line) in imports(source, if module[0] == "bin" { &["bin"] } else { &module }) {
        match place(&name) {
            Some(other) if other <= own => {}
            Some(_) => problems.push(format!(
                "{file}:{line}: {} imports {name}, which stands below it",
                module[0]
            )),
            None => problems.push(format!("{file}:{line}: src/lib.rs lists no module {name}")),
        }
    }
    problems
}

fn order(lib: &str) -> Vec<String> {
    let tokens = tokens(lib);
    let names = tokens.windows(3).filter(|w| w[0].text == "mod" && w[2].text == ";");
    names.map(|w| w[1].text.clone()).collect()
}

/// The files under a folder of this package, as paths relative to it.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut waiting: Vec<PathBuf> = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn a_module_imports_only_modules_above_it() {
    let files = sources("src");
    let lib = &files.iter().find(|(name, _)| name == "lib.rs").unwrap().1;
    let order = order(lib);
    assert!(order.len() > 5, "the list of src/lib.rs was not understood: {order:?}");
    let files = files.iter().filter(|(name, _)| name != "lib.rs");
    let problems: Vec<_> = files.flat_map(|(name, source)| upward(&order, name, source)).collect();
    assert_none(&problems);
}

#[test]
fn goblin_zbus_and_libblkid_stay_in_their_rooms() {
    let rooms = [
        ("goblin", &["modules/modinfo"][..]),
        ("zbus", &["bus/", "bus.rs", "cli/"][..]),
        ("blkid_new_probe", &["bin/mapdev-probe/libblkid"][..]),
    ];
    let mut problems = Vec::new();
    for (name, source) in sources("src") {
        for (library, allowed) in rooms {
            let found = tokens(&source).into_iter().find(|token| token.text == library);
            if let Some(token) = found
                && !allowed.iter().any(|room| name.starts_with(room))
            {
                problems.push(format!("{name}:{}: {library} belongs in {allowed:?}", token.line));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn pure_files_forbid_unsafe_code_and_reach_no_world() {
    let pure = [
        "uevent/parse",
        "queue",
        "probe/protocol",
        "builtin/options",
        "modules/modinfo",
        "modules/alias",
        "rules/cursor",
        "rules/token",
        "rules/grammar",
        "rules/parse",
        "rules/settings",
        "rules/template",
        "rules/rule",
        "rules/lint",
        "rules/plan",
        "rules/matching",
        "rules/assign",
        "rules/import",
        "rules/event",
        "rules/static_node",
        "glob",
        "rules/subst",
        "rules/eval",
        "rules/decision",
        "nodes/claims",
        "nodes/statics",
        "map/layout",
    ];
    let mut problems = Vec::new();
    for (name, source) in sources("src") {
        if !pure.contains(&name.trim_end_matches(".rs").trim_end_matches("/mod")) {
            continue;
        }
        if !source.contains("\n#![forbid(unsafe_code)]\n") {
            problems.push(format!("{name}: wants #![forbid(unsafe_code)]"));
        }
        let tokens = tokens(&source);
        for word in tokens.windows(3) {
            let texts = [0, 1, 2].map(|at| word[at].text.as_str());
            if matches!(texts, ["tokio" | "rustix", "::", _])
                || matches!(texts, ["std", "::", "fs" | "net" | "process" | "env"])
            {
                problems.push(format!(
                    "{name}:{}: {} in a pure file",
                    word[0].line,
                    texts.concat()
                ));
            }
        }
    }
    assert_none(&problems);
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let folders = ["src", "tests", "benches", "fuzz/fuzz_targets"];
    let folders =
        folders.into_iter().filter(|f| Path::new(env!("CARGO_MANIFEST_DIR")).join(f).is_dir());
    let problems: Vec<_> = folders
        .flat_map(|folder| sources(folder).into_iter().map(move |file| (folder, file)))
        .map(|(folder, (name, source))| (format!("{folder}/{name}"), source.lines().count()))
        .filter(|(_, lines)| *lines > 400)
        .map(|(name, lines)| format!("{name}: {lines} lines: it does a second thing"))
        .collect();
    assert_none(&problems);
}

/// The reader itself, on a text that breaks the rule in every way it knows, and in ways that only
/// look like it.
#[cfg(test)]
mod sample {
    use super::{order, upward};

    const SAMPLE: &str = r##"//! See crate::daemon.
use crate::{config, map::{layout, daemon}, bus};
use super::nodes; /* crate::daemon /* nested */ crate::daemon */
const TEXT: &str = "use crate::daemon; \" crate::daemon";
const RAW: &str = r#"crate::daemon " crate::daemon"#;
fn quote<'a>(x: &'a u8) -> char { '"' }
mod tests {
    use super::*;
    use super::super::dispatch;
}
fn call() { crate::bus::start(); }
"##;

    #[test]
    fn each_import_of_a_lower_module_is_found() {
        let order = order(
            "// a\npub mod config;\n\npub mod queue;\npub mod nodes;\npub mod map;\npub mod dispatch;\npub mod bus;\npub mod daemon;\n",
        );
        let found = upward(&order, "queue.rs", SAMPLE);
        let expected = [
            "queue.rs:2: queue imports map, which stands below it",
            "queue.rs:2: queue imports bus, which stands below it",
            "queue.rs:3: queue imports nodes, which stands below it",
            "queue.rs:9: queue imports dispatch, which stands below it",
            "queue.rs:11: queue imports bus, which stands below it",
        ];
        assert_eq!(found, expected);
        assert_eq!(upward(&order, "bin/mapdevd.rs", "use mapdev::{daemon, cli};").len(), 1);
        assert_eq!(upward(&order, "bus/mod.rs", SAMPLE), Vec::<String>::new());
        assert_eq!(upward(&order, "extra.rs", "").len(), 1);
    }
}
