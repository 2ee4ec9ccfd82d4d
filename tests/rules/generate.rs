//! Rules made at random, over the whole language, and made small again when they show a difference.

use crate::random::Random;
use crate::table::Case;

/// A rule is its pairs; a text its rules.
pub(crate) type Text = Vec<Vec<String>>;

/// What a generated pair is, by its key and whether it compares: for counting.
pub(crate) fn kind(pair: &str) -> String {
    let end = pair.find(['=', '!', '+', '-', ':', '{', ' ']).unwrap_or(pair.len());
    let (key, rest) = pair.split_at(end);
    let brace = match key {
        "IMPORT" | "OPTIONS" | "RUN" => rest.split(['}', '=']).next().unwrap_or_default(),
        _ => "",
    };
    let option = if key == "OPTIONS" { rest.split('"').nth(1).unwrap_or_default() } else { "" };
    let option = option.split('=').next().unwrap_or_default();
    let compares = rest.contains("==\"") || rest.contains("!=\"") || rest.contains("==e\"");
    let acts = matches!(key, "IMPORT" | "PROGRAM" | "TEST");
    format!("{key}{brace}{option}{}", if compares && !acts { " compared" } else { "" })
}

pub(crate) fn text(rules: &Text) -> Vec<u8> {
    let lines: Vec<_> = rules.iter().map(|pairs| pairs.join(", ")).collect();
    format!("{}\n", lines.join("\n")).into_bytes()
}

fn one<'a>(random: &mut Random, list: &[&'a str]) -> &'a str {
    list[random.below(list.len())]
}

const DEVICES: [&str; 8] = ["disk", "disk", "disk", "partition", "bus", "port", "odd", "net"];
const ACTIONS: [&str; 5] = ["change", "change", "change", "add", "remove"];
const KEYS: [&str; 5] = ["A", "B", "C", ".D", "DISKSEQ"];

const PATTERNS: [&str; 18] = [
    "", "*", "?*", "x", "x*", "a|x|b", "a||b", "|x", "[a-z]*", "[!x]*", "?", "1", "*1*", "x y",
    "x\\*", "\\x*", "*x", "7|8",
];

/// Pieces of values; none begins a path or ends one.
const PIECES: [&str; 34] = [
    "x",
    "x",
    "1",
    "a b",
    " ",
    "-",
    ";",
    "é",
    "\\",
    "$$",
    "%%",
    "$foo",
    "%x",
    "$kernel",
    "%n",
    "$number",
    "$major",
    "%m",
    "$attr{size}",
    "$attr{model}",
    "$attr{only}",
    "$attr{idVendor}",
    "$attr{[dmi/id]vendor}",
    "$env{A}",
    "%E{B}",
    "$env{NONE}",
    "$env{DEVTYPE}",
    "$result",
    "%c{1}",
    "%c{2+}",
    "$id",
    "$driver",
    "$name",
    "$parent",
];

fn value(random: &mut Random) -> String {
    (0..=random.below(3)).map(|_| one(random, &PIECES)).collect()
}

fn pattern(random: &mut Random, likely: &str) -> String {
    match random.below(3) {
        0 => one(random, &PATTERNS).to_owned(),
        1 => likely.to_owned(),
        _ => format!("{}*", likely.chars().take(random.below(3)).collect::<String>()),
    }
}

fn compare(random: &mut Random, key: &str, likely: &str) -> String {
    let operator = if random.below(4) == 0 { "!=" } else { "==" };
    format!("{key}{operator}\"{}\"", pattern(random, likely))
}

fn matching(random: &mut Random) -> String {
    let attributes = [("size", "1000"), ("blanks", "x"), ("empty", ""), ("none", "x")];
    let above = [("idVendor", "1d6b"), ("only", "port"), ("product", "A Hub"), ("size", "1000")];
    match random.below(30) {
        24 | 25 => compare(random, "ENV{DEVTYPE}", "disk"),
        0 => compare(random, "ACTION", "change"),
        1 => compare(random, "DEVPATH", "/devices/pci0"),
        2 => compare(random, "KERNEL", "sdz"),
        3 => compare(random, "SUBSYSTEM", "block"),
        4 => compare(random, "DRIVER", "usb"),
        5..=7 => {
            let key = one(random, &KEYS);
            compare(random, &format!("ENV{{{key}}}"), "x")
        }
        8 => compare(random, "TAG", "tx"),
        9 => compare(random, "SYMLINK", "x"),
        10 => compare(random, "NAME", "nx"),
        11 => compare(random, "CONST{arch}", "x86-64"),
        12 | 13 => {
            let (name, likely) = attributes[random.below(attributes.len())];
            compare(random, &format!("ATTR{{{name}}}"), likely)
        }
        14 => {
            let name = one(random, &["kernel/ostype", "kernel.ostype", "kernel/$env{NONE}ostype"]);
            compare(random, &format!("SYSCTL{{{name}}}"), "Linux")
        }
        15 => compare(random, "KERNELS", "usb1"),
        16 => compare(random, "SUBSYSTEMS", "usb"),
        17 => compare(random, "DRIVERS", "uas"),
        18 | 19 => {
            let (name, likely) = above[random.below(above.len())];
            compare(random, &format!("ATTRS{{{name}}}"), likely)
        }
        20 => compare(random, "TAGS", "ported"),
        21 => compare(random, "RESULT", "x"),
        22 => {
            let mask = one(random, &["", "", "{0400}", "{0111}", "{ 0444}"]);
            let path =
                one(random, &["size", "none", "*/rotational", "$env{A}", "queue", "/sys", "?*"]);
            format!("TEST{mask}{}\"{path}\"", one(random, &["==", "!="]))
        }
        _ => asking(random),
    }
}

/// What runs something or reads a file.
fn asking(random: &mut Random) -> String {
    let operator = one(random, &["=", "==", "!="]);
    match random.below(9) {
        0 => format!("PROGRAM{operator}\"/bin/echo {}\"", value(random).replace('\\', "")),
        1 => format!(
            "PROGRAM{operator}\"/bin/{}\"",
            one(random, &["true", "false", "none", "false"])
        ),
        2 => format!("IMPORT{{file}}{operator}\"/run/{}\"", one(random, &["props", "none"])),
        3 => format!("IMPORT{{db}}{operator}\"{}\"", one(random, &["A", "OLD", "NONE", "?*"])),
        4 | 7 | 8 => format!(
            "IMPORT{{parent}}{operator}\"{}\"",
            one(random, &["ID_*", "DEVT*", "DEVT*", "NO"])
        ),
        5 => format!(
            "IMPORT{{cmdline}}{operator}\"{}\"",
            one(random, &["quiet", "surely_not", "?*"])
        ),
        _ => format!(
            "IMPORT{{program}}{operator}\"/bin/echo A={}\"",
            one(random, &["x", "1", "$env{B}", "''"])
        ),
    }
}

fn assigning(random: &mut Random) -> String {
    let set = |random: &mut Random, with: &[&str]| one(random, with).to_owned();
    match random.below(22) {
        0 => {
            let owner = one(random, &["daemon", "1", "nobody-there", "$env{NONE}root", "65535"]);
            format!("OWNER{}\"{owner}\"", set(random, &["=", "=", ":=", "+="]))
        }
        1 => {
            let group = one(random, &["disk", "0", "nobody-there", "tty", "$env{A}"]);
            format!("GROUP{}\"{group}\"", set(random, &["=", "=", ":="]))
        }
        2 => {
            let mode =
                one(random, &["0640", "0600", " 0644", "4711", "x", "$attr{[misc/a!b0]mode}"]);
            format!("MODE{}\"{mode}\"", set(random, &["=", "=", ":="]))
        }
        3..=6 => {
            let key = one(random, &KEYS);
            let new = if random.below(6) == 0 { String::new() } else { value(random) };
            format!("ENV{{{key}}}{}\"{new}\"", set(random, &["=", "=", "+=", ":="]))
        }
        7 | 8 => {
            let tag = one(random, &["tx", "ty", "tz$number", "t$kernel", "t-_"]);
            format!("TAG{}\"{tag}\"", set(random, &["+=", "+=", "-=", "="]))
        }
        9 | 10 => {
            // no word is a node's own name: systemd 252 puts the link in the node's place
            let link = value(random).replace(['\\', '/'], "").replace(' ', " x");
            let link = link.replace("$result", "$result{1}").replace("2+", "2");
            let link = format!("x{link}");
            format!("SYMLINK{}\"{link}\"", set(random, &["+=", "+=", "=", ":="]))
        }
        11 => format!("NAME{}\"n{}\"", set(random, &["=", ":="]), value(random)),
        12 | 13 => {
            let kind = set(random, &["", "{program}", "{builtin}"]);
            let run = if kind == "{builtin}" { "kmod load x" } else { "/bin/x $kernel" };
            format!("RUN{kind}{}\"{run}\"", set(random, &["+=", "+=", "=", ":="]))
        }
        14 => format!("ATTR{{writable}}=\"{}\"", one(random, &["x", "new", "$kernel"])),
        15 => format!("OPTIONS+=\"link_priority={}\"", one(random, &["7", "-100", "0"])),
        16 => "OPTIONS+=\"db_persist\"".to_owned(),
        17 => format!("OPTIONS+=\"string_escape={}\"", one(random, &["none", "replace"])),
        18 => {
            let name = one(random, &["net/ipv4/ip_default_ttl", "net.ipv4.ip_default_ttl"]);
            format!("SYSCTL{{{name}}}=\"{}\"", one(random, &["65", "66", "$attr{size}", "x"]))
        }
        19 => {
            let text = one(random, &["x\\ty", "\\x41$kernel", "a\\\"b", "\\u00e9", "%n\\101"]);
            format!("ENV{{{}}}=e\"{text}\"", one(random, &KEYS))
        }
        20 => format!("GOTO=\"{}\"", one(random, &["one", "two"])),
        _ => format!("LABEL=\"{}\"", one(random, &["one", "two"])),
    }
}

/// A case of a few rules, and the rules once more.
pub(crate) fn case(random: &mut Random) -> (Case, Text) {
    let device = one(random, &DEVICES).to_owned();
    let mut action = one(random, &ACTIONS).to_owned();
    if device == "net" && action == "add" {
        // it would be renamed, and there is none of that name
        action = "change".to_owned();
    }
    let record = match random.below(3) {
        0 => "S:oldlink\nL:3\nI:1\nE:OLD=1\nE:A=x\nG:tx\nG:told\nQ:tx\nV:1\n".to_owned(),
        _ => String::new(),
    };
    let mut rules = Text::new();
    for _ in 0..=random.below(9) {
        let mut pairs = Vec::new();
        (0..random.below(3)).for_each(|_| pairs.push(matching(random)));
        (0..=random.below(3)).for_each(|_| pairs.push(assigning(random)));
        // the order in a rule is of no importance, as a rule
        let swapped = random.below(pairs.len());
        pairs.swap(0, swapped);
        rules.push(pairs);
    }
    // one alone: the peer's log does not say that another was taken back
    if random.below(4) == 0 {
        let module = one(random, &["selinux", "smack"]);
        let pair =
            format!("SECLABEL{{{module}}}+=\"l{}\"", value(random).replace(['\\', '\''], ""));
        let rule = random.below(rules.len());
        rules[rule].push(pair);
    }
    // what happened shows, whatever it was
    rules.push(vec!["ENV{Z}=\"$env{A}|$env{B}|$result|$id|$name|$driver\"".to_owned()]);
    let case = Case::new(device, action, record).with(text(&rules));
    (case, rules)
}

/// The smallest text that still fails: rules are left out, then pairs, as long as any can be.
pub(crate) fn shrunk(mut rules: Text, fails: impl Fn(&Text) -> bool) -> Text {
    loop {
        let without_rule = (0..rules.len()).map(|index| {
            let mut less = rules.clone();
            less.remove(index);
            less
        });
        let places = rules.iter().enumerate();
        let pairs = places.flat_map(|(rule, pairs)| (0..pairs.len()).map(move |pair| (rule, pair)));
        let without_pair = pairs.filter(|(rule, _)| rules[*rule].len() > 1).map(|(rule, pair)| {
            let mut less = rules.clone();
            less[rule].remove(pair);
            less
        });
        let Some(less) = without_rule.chain(without_pair).find(|less| fails(less)) else {
            return rules;
        };
        rules = less;
    }
}
