//! `kmod-shim/mapdev_abi.h` is the definition: C's offsets, sizes and constants are Rust's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::process::Command;

use mapdev::map::control::{self, Notify, Publish, ShimStats, event};
use mapdev::map::layout::{self, attr, chain, entry, header};

fn stats_of_rust(put: &mut impl FnMut(&str, u64)) {
    macro_rules! fields {
        ($($field:ident = $name:literal),* $(,)?) => {
            [$(($name, offset_of!(ShimStats, $field))),*]
        };
    }
    for (name, offset) in fields![
        epoch = "stats.epoch",
        gen_ = "stats.gen",
        chg = "stats.chg",
        len = "stats.len",
        entries = "stats.entries",
        publisher = "stats.publisher",
        mounted = "stats.mounted",
        lookups = "stats.lookups",
        revalidations = "stats.revalidations",
        invalidations = "stats.invalidations",
        busy = "stats.busy",
        pending_opens = "stats.pending_opens",
        loads = "stats.loads",
        timeouts = "stats.timeouts",
        publishes = "stats.publishes",
        syncs = "stats.syncs",
        notifies = "stats.notifies",
        events = "stats.events",
        overflows = "stats.overflows",
        collisions = "stats.collisions",
    ] {
        put(name, u64::try_from(offset).unwrap());
    }
}

fn layout_of_rust() -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: u64| {
        assert!(all.insert(name.to_owned(), value).is_none(), "{name} is here twice");
    };
    for (name, value) in [
        ("MAPDEV_VERSION", layout::VERSION),
        ("MAPDEV_HDR_LEN", layout::HDR_LEN),
        ("MAPDEV_ENTRY_SIZE", layout::ENTRY_SIZE),
        ("MAPDEV_ATTR_SIZE", layout::ATTR_SIZE),
        ("MAPDEV_CHAIN_SIZE", layout::CHAIN_SIZE),
        ("MAPDEV_ALIGN", layout::ALIGN),
        ("MAPDEV_MAX_PROBE", layout::MAX_PROBE),
        ("MAPDEV_PROBE_CAP", layout::PROBE_CAP),
        ("MAPDEV_MAX_ENTRIES", layout::MAX_ENTRIES),
        ("MAPDEV_NAME_MAX", layout::NAME_MAX),
        ("MAPDEV_AUX_MAX", layout::AUX_MAX),
        ("MAPDEV_RETRIES", layout::RETRIES),
        ("MAPDEV_SLOT_EMPTY", layout::SLOT_EMPTY),
        ("MAPDEV_SLOT_TOMBSTONE", layout::SLOT_TOMBSTONE),
        ("MAPDEV_ROOT_ENTRY", layout::ROOT_ENTRY),
        ("MAPDEV_ROOT_CELL", layout::ROOT_CELL),
        ("MAPDEV_E_BUILTIN", layout::E_BUILTIN),
        ("MAPDEV_E_MODULE", layout::E_MODULE),
        ("MAPDEV_E_LIVE", layout::E_LIVE),
        ("MAPDEV_E_PENDING", layout::E_PENDING),
        ("MAPDEV_MINOR_BITS", layout::MINOR_BITS),
        ("MAPDEV_PUB_CARRY", control::PUB_CARRY),
        ("MAPDEV_N_CREATE", control::N_CREATE),
        ("MAPDEV_N_DELETE", control::N_DELETE),
        ("MAPDEV_N_ISDIR", control::N_ISDIR),
        ("MAPDEV_EV_MODE", control::EV_MODE),
        ("MAPDEV_EV_UID", control::EV_UID),
        ("MAPDEV_EV_GID", control::EV_GID),
        ("MAPDEV_EV_OVERFLOW", control::EV_OVERFLOW),
        ("MAPDEV_IOC_MAGIC", control::IOC_MAGIC.into()),
        ("MAPDEV_PUBLISH", control::PUBLISH),
        ("MAPDEV_UNPUBLISH", control::UNPUBLISH),
        ("MAPDEV_STATS", control::STATS),
        ("MAPDEV_SYNC", control::SYNC),
        ("MAPDEV_NOTIFY", control::NOTIFY),
        ("MAPDEV_GETFD", control::GETFD),
    ] {
        put(name, value.into());
    }
    put("MAPDEV_MAGIC", layout::MAGIC);
    put("MAPDEV_ID_FREE", layout::ID_FREE);
    put("MAPDEV_ID_ROOT", layout::ID_ROOT);
    put("MAPDEV_GEN_REPLACED", layout::GEN_REPLACED);
    put("MAPDEV_CHG_ANY", control::CHG_ANY);
    put("sizeof.event", u64::try_from(event::SIZE).unwrap());
    put("sizeof.publish", u64::try_from(size_of::<Publish>()).unwrap());
    put("sizeof.notify", u64::try_from(size_of::<Notify>()).unwrap());
    put("sizeof.stats", u64::try_from(size_of::<ShimStats>()).unwrap());
    for (name, offset) in [
        ("header.magic", header::MAGIC),
        ("header.version", header::VERSION),
        ("header.hdr_len", header::HDR_LEN),
        ("header.total_len", header::TOTAL_LEN),
        ("header.n_entries", header::N_ENTRIES),
        ("header.entry_size", header::ENTRY_SIZE),
        ("header.entries_off", header::ENTRIES_OFF),
        ("header.n_buckets", header::N_BUCKETS),
        ("header.max_probe", header::MAX_PROBE),
        ("header.index_off", header::INDEX_OFF),
        ("header.attrs_off", header::ATTRS_OFF),
        ("header.strings_off", header::STRINGS_OFF),
        ("header.strings_len", header::STRINGS_LEN),
        ("header.seed", header::SEED),
        ("header.chains_off", header::CHAINS_OFF),
        ("header.seed2", header::SEED2),
        ("header.id_space", header::ID_SPACE),
        ("header.attr_size", header::ATTR_SIZE),
        ("header.chain_size", header::CHAIN_SIZE),
        ("header.gen", header::GEN),
        ("header.last_id", header::LAST_ID),
        ("header.chg", header::CHG),
        ("entry.seq", entry::SEQ),
        ("entry.flags", entry::FLAGS),
        ("entry.id", entry::ID),
        ("entry.parent", entry::PARENT),
        ("entry.name_off", entry::NAME_OFF),
        ("entry.name_len", entry::NAME_LEN),
        ("entry.aux_len", entry::AUX_LEN),
        ("entry.aux_off", entry::AUX_OFF),
        ("entry.mode", entry::MODE),
        ("entry.uid", entry::UID),
        ("entry.gid", entry::GID),
        ("entry.rdev", entry::RDEV),
        ("entry.cell", entry::CELL),
        ("entry.stamp", entry::STAMP),
        ("attr.seq", attr::SEQ),
        ("attr.mode", attr::MODE),
        ("attr.id", attr::ID),
        ("attr.uid", attr::UID),
        ("attr.gid", attr::GID),
        ("attr.stamp", attr::STAMP),
        ("chain.id", chain::ID),
        ("chain.entry", chain::ENTRY),
        ("chain.next", chain::NEXT),
        ("chain.head", chain::HEAD),
        ("publish.fd", offset_of!(Publish, fd)),
        ("publish.flags", offset_of!(Publish, flags)),
        ("publish.len", offset_of!(Publish, len)),
        ("publish.expect_chg", offset_of!(Publish, expect_chg)),
        ("notify.parent", offset_of!(Notify, parent)),
        ("notify.mask", offset_of!(Notify, mask)),
        ("notify.name_len", offset_of!(Notify, name_len)),
        ("notify.name", offset_of!(Notify, name)),
        ("event.id", event::ID),
        ("event.chg", event::CHG),
        ("event.stamp", event::STAMP),
        ("event.what", event::WHAT),
        ("event.mode", event::MODE),
        ("event.uid", event::UID),
        ("event.gid", event::GID),
        ("event.pid", event::PID),
        ("event.by", event::BY),
        ("event.cell", event::CELL),
    ] {
        put(name, u64::try_from(offset).unwrap());
    }
    stats_of_rust(&mut put);
    all
}

/// Every constant and every field that the header defines, by its own text.
fn names_in_header(header: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut structure = None;
    for line in header.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (&words[..], structure) {
            (["#define", name, _, ..], _) => names.push((*name).to_owned()),
            (["struct", name, "{"], _) => structure = name.strip_prefix("mapdev_"),
            (["};"], _) => structure = None,
            ([kind, field, ..], Some(structure)) if kind.starts_with("__") => {
                let field = field.split(['[', ';']).next().unwrap();
                if !field.starts_with("reserved") {
                    names.push(format!("{structure}.{field}"));
                }
            }
            _ => {}
        }
    }
    names
}

fn layout_of_c(root: &str, names: &[String]) -> BTreeMap<String, u64> {
    let prints = names.iter().map(|name| match name.split_once('.') {
        None => format!("  SAY(\"{name}\", {name});\n"),
        Some((structure, field)) => {
            format!("  SAY(\"{name}\", offsetof(struct mapdev_{structure}, {field}));\n")
        }
    });
    let sizes = ["header", "entry", "attr", "chain", "publish", "notify", "stats", "event"];
    let sizes =
        sizes.map(|name| format!("  SAY(\"sizeof.{name}\", sizeof(struct mapdev_{name}));\n"));
    let program = format!(
        "#include <stdio.h>\n#include \"mapdev_abi.h\"\n\
         #define SAY(name, value) printf(\"%s %llu\\n\", name, (unsigned long long)(value))\n\
         int main(void) {{\n{}{}  return 0;\n}}\n",
        prints.collect::<String>(),
        sizes.concat(),
    );
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("abi.c"), dir.path().join("abi"));
    std::fs::write(&source, program).unwrap();
    let built = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Wpadded", "-Werror", "-I"])
        .arg(format!("{root}/kmod-shim"))
        .args([source.as_os_str(), "-o".as_ref(), binary.as_os_str()])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let said = Command::new(binary).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    said.lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn every_offset_size_and_constant_of_the_header_is_that_of_rust() {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/kmod-shim/mapdev_abi.h")).unwrap();
    let names = names_in_header(&text);
    assert!(names.len() > 60, "the header was read: {}", names.len());
    let mut c = layout_of_c(root, &names);
    for (name, size) in [
        ("sizeof.header", layout::HDR_LEN),
        ("sizeof.entry", layout::ENTRY_SIZE),
        ("sizeof.attr", layout::ATTR_SIZE),
        ("sizeof.chain", layout::CHAIN_SIZE),
    ] {
        assert_eq!(c.remove(name), Some(size.into()), "{name}");
    }
    assert_eq!(c, layout_of_rust());
}

#[test]
fn the_header_keeps_to_80_columns_of_kernel_style() {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/kmod-shim/mapdev_abi.h")).unwrap();
    for (number, line) in text.lines().enumerate() {
        let width = line.chars().fold(0, |at, c| if c == '\t' { (at / 8 + 1) * 8 } else { at + 1 });
        assert!(width <= 80 && line.trim_end() == line, "line {}: {line}", number + 1);
    }
}
