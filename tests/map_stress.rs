//! The map between processes' mappings under load, and who may open its memory.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test prints its figures, and has failed when it cannot go on"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mapdev::map::{Entry, Kind, Listing, Lookup, MapReader, MapWriter, Node};

const LOOKUPS: u64 = 1_000_000;
const NAMES: u32 = 64;

/// Every part of a state follows from `n`, so that a mixture of two shows.
fn state(name: u32, n: u32) -> Node {
    let minor = (name << 12) | (n % 4096);
    match n % 3 {
        0 => Node { kind: Kind::Char { major: 10, minor }, ..owned() },
        1 => Node { kind: Kind::Block { major: 11, minor }, ..owned() },
        _ => {
            let target = format!("{name}:{minor}:{}", "x".repeat((n % 40) as usize));
            let kind = Kind::Link { target: target.into_bytes().into() };
            Node { kind, mode: 0o777, ..owned() }
        }
    }
}

fn owned() -> Node {
    let kind = Kind::Char { major: 0, minor: 0 };
    Node { kind, mode: 0o600, uid: 0, gid: 0, flags: 0 }
}

fn is_whole(name: u32, entry: &Entry) -> bool {
    if !entry.is_link() {
        let n = entry.minor() % 4096;
        return entry.minor() >> 12 == name && Node::of(entry) == Some(state(name, n));
    }
    let number = entry.aux.split(|byte| *byte == b':').nth(1).unwrap_or_default();
    let minor: u32 = String::from_utf8_lossy(number).parse().unwrap_or(u32::MAX);
    Node::of(entry) == Some(state(name, minor % 4096))
}

fn path(name: u32) -> String {
    format!("dir{}/name{name}", name % 7)
}

#[derive(Default)]
struct Tally {
    found: u64,
    busy: u64,
    torn: u64,
    absent: u64,
    torn_owner: u64,
    missed: u64,
}

/// Looks every name up in turn. `owner` only changes owner, `comes` comes and goes.
fn read(reader: &MapReader, lookups: u64) -> Tally {
    let mut tally = Tally::default();
    let paths: Vec<String> = (0..NAMES).map(path).collect();
    for n in 0..lookups {
        let name = u32::try_from(n % u64::from(NAMES)).unwrap();
        match reader.lookup(paths[usize::try_from(name).unwrap()].as_bytes()) {
            Lookup::Found(entry) => {
                tally.found += 1;
                tally.torn += u64::from(!is_whole(name, &entry));
            }
            Lookup::Absent | Lookup::Replaced => tally.absent += 1,
            Lookup::Busy => tally.busy += 1,
        }
        if n % 16 == 0 {
            match reader.lookup(b"owner") {
                Lookup::Found(entry) => {
                    let node = Node::of(&entry).unwrap();
                    tally.torn_owner += u64::from(node.uid != node.gid);
                }
                Lookup::Absent | Lookup::Replaced => tally.absent += 1,
                Lookup::Busy => tally.busy += 1,
            }
            if let Lookup::Found(entry) = reader.lookup(b"comes") {
                tally.torn += u64::from(entry.minor() != 77);
            }
        }
        if n % 1000 == 0 {
            match reader.list(b"dir3") {
                Listing::Found(children) => {
                    let steady = (0..NAMES).filter(|name| name % 7 == 3);
                    let is_there = |name: u32| {
                        let name = format!("name{name}").into_bytes();
                        children.iter().filter(|child| child.name == name).count() == 1
                    };
                    tally.missed += u64::from(!steady.clone().all(is_there));
                }
                Listing::Busy => tally.busy += 1,
                end @ (Listing::Absent | Listing::NotADirectory | Listing::Replaced) => {
                    panic!("{end:?}")
                }
            }
        }
    }
    tally
}

/// Changes the map until it is told to stop, and counts the rounds.
fn write(map: &mut MapWriter, stop: &AtomicBool) -> u64 {
    let (mut n, mut rounds) = (0_u32, 0);
    while !stop.load(Ordering::Relaxed) {
        n = n.wrapping_add(1);
        let name = n.wrapping_mul(7) % NAMES;
        map.upsert(path(name).as_bytes(), &state(name, n % 4096)).unwrap();
        map.upsert(b"owner", &Node { uid: n, gid: n, ..owned() }).unwrap();
        let comes = Kind::Char { major: 1, minor: 77 };
        map.upsert(b"comes", &Node { kind: comes, ..owned() }).unwrap();
        let passing = format!("dir3/passing{}", n % 5);
        map.upsert(passing.as_bytes(), &owned()).unwrap();
        assert!(map.remove(passing.as_bytes()) && map.remove(b"comes"));
        assert!(!map.take_replaced(), "the map is large enough");
        rounds += 1;
    }
    rounds
}

/// Prepares a reading of a map, and has it done beside a writer.
fn beside_a_writer(lookups: u64, read: impl FnOnce(&MapWriter) -> Reading) {
    let mut map = MapWriter::create(256).unwrap();
    for name in 0..NAMES {
        map.upsert(path(name).as_bytes(), &state(name, 0)).unwrap();
    }
    map.upsert(b"owner", &owned()).unwrap();
    let reading = read(&map);
    let (stop, started) = (AtomicBool::new(false), Instant::now());
    let (tally, rounds) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&mut map, &stop));
        let tally = reading();
        stop.store(true, Ordering::Relaxed);
        (tally, writer.join().unwrap())
    });
    let took = started.elapsed().as_secs_f64();
    println!("{lookups} look-ups in {took:.2} s under {rounds} rounds; {} busy", tally.busy);
    assert_eq!(tally.torn + tally.torn_owner, 0, "torn entries");
    assert_eq!(tally.absent, 0, "false absences");
    assert_eq!(tally.missed, 0, "listings that miss a name");
    assert!(rounds > 1000, "the writer was at work: {rounds}");
    assert!(tally.found > lookups * 9 / 10, "{} found, {} busy", tally.found, tally.busy);
    let reader = MapReader::open(map.read_only_fd().unwrap()).unwrap();
    assert_eq!(reader.verify(), Vec::<String>::new());
}

type Reading = Box<dyn FnOnce() -> Tally>;

#[test]
fn a_million_lookups_under_a_writer_are_whole_and_miss_nothing() {
    beside_a_writer(LOOKUPS, |map| {
        let reader = MapReader::open(map.read_only_fd().unwrap()).unwrap();
        Box::new(move || read(&reader, LOOKUPS))
    });
}

#[test]
fn the_kernels_reader_sees_whole_entries_under_a_writer_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("reader");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/map_stress.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o"]);
    let built = compiler.arg(&program).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // several times as fast
    let lookups = 8 * LOOKUPS;
    beside_a_writer(lookups, |map| {
        let mut command = Command::new(&program);
        command.arg(lookups.to_string()).stdin(Stdio::from(map.read_only_fd().unwrap()));
        Box::new(move || {
            let said = command.output().unwrap();
            assert!(said.status.success(), "{said:?}");
            let said = String::from_utf8(said.stdout).unwrap();
            let counts: Vec<u64> = said.split_whitespace().map(|n| n.parse().unwrap()).collect();
            let [found, busy, torn, absent, torn_owner, missed] = counts[..] else {
                panic!("{said}")
            };
            Tally { found, busy, torn, absent, torn_owner, missed }
        })
    });
}

/// Opens standard input anew through /proc as uid 65534, with a shell's redirection.
fn opens_as_nobody(fd: OwnedFd, redirection: &str) -> bool {
    let script = format!("exec 3{redirection}/proc/self/fd/0");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).uid(65534).gid(65534);
    shell.stdin(Stdio::from(fd)).stderr(Stdio::null());
    shell.status().unwrap().success()
}

#[test]
fn another_user_that_holds_the_descriptor_cannot_open_it_for_writing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let map = MapWriter::create(16).unwrap();
    for redirection in [">>", "<>", ">"] {
        assert!(!opens_as_nobody(map.read_only_fd().unwrap(), redirection), "{redirection}");
        let writable = map.as_fd().try_clone_to_owned().unwrap();
        assert!(!opens_as_nobody(writable, redirection), "{redirection}");
    }
    // the same way in does exist where the mode allows it
    let open = rustix::fs::memfd_create(c"open", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::fchmod(&open, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    assert!(opens_as_nobody(open, ">>"), "the check can tell");
}

#[test]
fn a_read_only_descriptor_maps_no_writable_memory() {
    let map = MapWriter::create(16).unwrap();
    let fd = map.read_only_fd().unwrap();
    let writable = memmap2::MmapOptions::new().map_raw(&fd);
    assert!(writable.is_err());
    assert!(MapWriter::adopt(fd).is_err());
}
