//! The kernel trusts nothing that it reads: a map that is torn to pieces costs wrong answers only.
#![expect(clippy::print_stdout, reason = "seeds and counts belong into the log of a run")]

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use mapdev::map::kernel::Kernel;
use mapdev::map::layout::{ENTRY_SIZE, entry, header};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mknodat, open, unlinkat};

use super::acls::try_to_grant;
use super::world::{World, char_device, device, link, null, patient, seconds};

/// xorshift; the seed is printed, so that a failure can be repeated.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(what: &str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = u64::from(now.subsec_nanos()) | 1;
        println!("# {what}: seed {seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

const NONBLOCK_NOCTTY: i32 = 0o4400;

/// What may run modprobe, a program, for a module of any name.
const OPEN: u64 = 3;

/// Looks at everything in turn; results are of no interest, that they come is.
fn use_it(root: &Path, stop: &AtomicBool, done: &AtomicU64, slowest: [&AtomicU64; 2]) {
    let mut dice = Dice::new("user");
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let dir = format!("d{}", dice.roll(8));
        let name = root.join(&dir).join(format!("n{}", dice.roll(64)));
        let what = dice.roll(10);
        match what {
            0..=2 => drop(fs::symlink_metadata(&name)),
            OPEN => drop(File::options().read(true).custom_flags(NONBLOCK_NOCTTY).open(&name)),
            4 => {
                // an endless listing would never come back
                let listed = fs::read_dir(root.join(&dir)).map(|dir| dir.take(100_000).count());
                assert!(listed.is_err() || listed.unwrap() < 100_000);
            }
            5 => drop(chown(&name, Some(1), None)),
            6 => drop(try_to_grant(&name, 4)),
            7 => {
                let mine = root.join(&dir).join(format!("mine{}", dice.roll(4)));
                drop(fs::write(&mine, b""));
                drop(fs::remove_file(&mine));
            }
            8 => drop(fs::read_link(root.join(format!("l{}", dice.roll(8))))),
            _ => drop(fs::metadata(root.join(format!("l{}/n1", dice.roll(8))))),
        }
        let taken = u64::try_from(started.elapsed().as_millis()).unwrap();
        slowest[usize::from(what == OPEN)].fetch_max(taken, Ordering::Relaxed);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The longest time for which this machine, itself emulated on a busy one, lets a thread stand.
fn longest_stall(stop: &AtomicBool) -> u64 {
    let mut longest = 0;
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        std::thread::yield_now();
        longest = longest.max(u64::try_from(started.elapsed().as_millis()).unwrap());
    }
    longest
}

/// A word of a map's memory.
pub(crate) fn word(memory: &mut MmapRaw, at: usize) -> &AtomicU32 {
    assert!(at.is_multiple_of(4) && at + 4 <= memory.len());
    #[expect(unsafe_code, reason = "the map's memory is shared with the kernel on purpose")]
    // SAFETY: aligned, within the mapping, which lives as long as the borrow.
    unsafe {
        &*memory.as_mut_ptr().add(at).cast::<AtomicU32>()
    }
}

/// Writes words into the map that lead astray: numbers of entries, offsets, bits, noise.
fn corrupt(memory: &mut MmapRaw, dice: &mut Dice, copy: &[u8]) {
    let words = u64::try_from(memory.len() / 4).unwrap();
    let mut write = |at: u64, value: u32| {
        word(memory, usize::try_from(at).unwrap() * 4).store(value, Ordering::Relaxed);
    };
    let counter = u64::try_from(header::GEN / 4).unwrap();
    for _ in 0..dice.roll(32) {
        let at = dice.roll(words);
        let value = match dice.roll(5) {
            0 => u32::MAX,
            1 => 0,
            2 => u32::try_from(dice.roll(1024)).unwrap(),
            3 => 1 << dice.roll(32),
            _ => u32::try_from(dice.roll(1 << 32)).unwrap(),
        };
        write(at, value);
    }
    write(counter, u32::try_from(dice.roll(1 << 30)).unwrap());
    if dice.roll(16) == 0 {
        // sound again, so that much is cached to be wrong about
        let counted = header::GEN / 4..header::GEN / 4 + 2;
        let words = copy.chunks_exact(4).enumerate();
        for (at, word) in words.filter(|(at, _)| !counted.contains(at)) {
            write(u64::try_from(at).unwrap(), u32::from_ne_bytes(word.try_into().unwrap()));
        }
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_hostile_map_stops_nothing_and_nobody() {
    let mut world = World::new();
    for dir in 0..8 {
        for n in 0..64 {
            world.put(&format!("d{dir}/n{n}"), &char_device(1, 3, 0o666));
        }
        world.put(&format!("l{dir}"), &link(&format!("d{}", (dir + 1) % 8)));
    }
    fs::create_dir(world.path("d1/users")).unwrap();
    let mut memory = MmapOptions::new().map_raw(&world.map.as_fd()).unwrap();
    let mut copy = vec![0; memory.len()];
    rustix::io::pread(world.map.read_only_fd().unwrap(), &mut copy, 0).unwrap();

    // a name may become one that waits for its number, and is opened
    let limit = "/sys/module/mapdevfs/parameters/open_timeout_ms";
    let usual = fs::read_to_string(limit).unwrap();
    fs::write(limit, "200").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let [done, slowest, slowest_open] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    let users: Vec<_> = (0..3)
        .map(|_| {
            let root = world.root.clone();
            let (stop, done) = (stop.clone(), done.clone());
            let (others, opens) = (slowest.clone(), slowest_open.clone());
            std::thread::spawn(move || use_it(&root, &stop, &done, [&others, &opens]))
        })
        .collect();
    let pulse = {
        let stop = stop.clone();
        std::thread::spawn(move || longest_stall(&stop))
    };
    let (started, mut dice) = (Instant::now(), Dice::new("corrupter"));
    let wanted = std::env::var("SHIM_OPERATIONS").ok().and_then(|text| text.parse().ok());
    let wanted = wanted.unwrap_or(1000);
    while started.elapsed() < seconds() || done.load(Ordering::Relaxed) < wanted {
        corrupt(&mut memory, &mut dice, &copy);
        if dice.roll(64) == 0 {
            device().sync().unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    users.into_iter().for_each(|user| user.join().unwrap());
    let [done, slowest, opens] =
        [done, slowest, slowest_open].map(|number| number.load(Ordering::Relaxed));
    let stall = pulse.join().unwrap();
    fs::write(limit, usual.trim()).unwrap();
    println!(
        "# hostile: {done} operations, the slowest {slowest} ms, open {opens} ms, stalls {stall} ms"
    );
    println!("# {:?}", device().stats());
    assert!(done >= wanted);
    let limit = u64::try_from(patient(1).as_millis()).unwrap();
    assert!(slowest < limit + 2 * stall, "the slowest took {slowest} ms, stalls {stall} ms");
    assert!(opens < 3 * limit + 2 * stall, "the slowest open took {opens} ms, stalls {stall} ms");
}

/// The words of the id and the cell in the entry of an id.
fn identity(memory: &mut MmapRaw, copy: &[u8], id: u32) -> [usize; 3] {
    let number = |at: usize| u32::from_ne_bytes(copy[at..at + 4].try_into().unwrap());
    let first = usize::try_from(number(header::ENTRIES_OFF)).unwrap();
    let size = usize::try_from(ENTRY_SIZE).unwrap();
    let count = usize::try_from(number(header::N_ENTRIES)).unwrap();
    let found = (0..count).map(|n| first + n * size).find(|at| number(at + entry::ID) == id);
    let at = found.expect("the map has it");
    assert_eq!(word(memory, at + entry::ID).load(Ordering::Relaxed), id);
    [at + entry::SEQ, at + entry::ID, at + entry::CELL]
}

/// Lets two names have each other's objects.
fn exchange(memory: &mut MmapRaw, one: [usize; 3], other: [usize; 3]) {
    for [seq, ..] in [one, other] {
        word(memory, seq).fetch_add(1, Ordering::AcqRel);
    }
    for (this, that) in one.into_iter().zip(other).skip(1) {
        let value = word(memory, this).load(Ordering::Relaxed);
        let value = word(memory, that).swap(value, Ordering::Relaxed);
        word(memory, this).store(value, Ordering::Relaxed);
    }
    for [seq, ..] in [one, other] {
        word(memory, seq).fetch_add(1, Ordering::AcqRel);
    }
    word(memory, header::GEN).fetch_add(1, Ordering::Release);
}

/// Makes a name in a directory that is being moved; while it is there, nothing moves that one.
fn make_in_moved(root: &Path, mine: &str, dice: &mut Dice, made: &AtomicU64) {
    let name = format!("d{}", dice.roll(4));
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let Ok(dir) = open(root.join(name), flags, Mode::empty()) else { return };
    if mknodat(&dir, mine, FileType::Fifo, Mode::RWXU, 0).is_err() {
        return;
    }
    let place = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let place = || fs::read_link(&place).unwrap();
    let there = place();
    for _ in 0..4 {
        assert!(fs::symlink_metadata(there.join(mine)).is_ok(), "{there:?}, now {:?}", place());
    }
    assert_eq!(place(), there, "it was moved");
    unlinkat(&dir, mine, AtFlags::empty()).unwrap();
    made.fetch_add(1, Ordering::Relaxed);
}

#[test]
#[ignore = "in the virtual machine"]
fn a_directory_in_which_userspace_makes_things_is_moved_by_no_map() {
    let mut world = World::new();
    for dir in 0..4 {
        world.put(&format!("d{dir}/null"), &null());
    }
    let mut memory = MmapOptions::new().map_raw(&world.map.as_fd()).unwrap();
    let mut copy = vec![0; memory.len()];
    rustix::io::pread(world.map.read_only_fd().unwrap(), &mut copy, 0).unwrap();
    let numbers = [0, 1, 2, 3].map(|n| fs::metadata(world.path(&format!("d{n}"))).unwrap().ino());
    let dirs = numbers.map(|ino| identity(&mut memory, &copy, u32::try_from(ino / 2).unwrap()));
    let (stop, root) = (AtomicBool::new(false), &world.root);
    let [made, seen] = [(); 2].map(|()| AtomicU64::new(0));
    let exchanges = std::thread::scope(|scope| {
        let makers = ["mine0", "mine1"].map(|mine| {
            let (stop, made) = (&stop, &made);
            scope.spawn(move || {
                let mut dice = Dice::new(mine);
                while !stop.load(Ordering::Relaxed) {
                    make_in_moved(root, mine, &mut dice, made);
                }
            })
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for n in 0..4 {
                    let found = fs::metadata(root.join(format!("d{n}/null"))).is_ok();
                    seen.fetch_add(u64::from(found), Ordering::Relaxed);
                }
            }
        });
        let (started, mut dice, mut exchanges) = (Instant::now(), Dice::new("exchanger"), 0_u64);
        let enough = || [&made, &seen].iter().all(|count| count.load(Ordering::Relaxed) > 10);
        while (started.elapsed() < seconds() || !enough())
            && !makers.iter().any(|maker| maker.is_finished())
        {
            let [one, other] = [(); 2].map(|()| dirs[usize::try_from(dice.roll(4)).unwrap()]);
            if one != other {
                exchange(&mut memory, one, other);
                exchanges += 1;
            }
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        exchanges
    });
    let [made, seen] = [made, seen].map(|count| count.load(Ordering::Relaxed));
    println!("# moved: {exchanges} exchanges, {made} made, {seen} seen");
    assert!(made > 10 && seen > 10 && exchanges > 10);
    // each has its own again, and nothing is held
    for (dir, ino) in dirs.into_iter().zip(numbers) {
        let id = u32::try_from(ino / 2).unwrap();
        while word(&mut memory, dir[1]).load(Ordering::Relaxed) != id {
            let has_it = |at: &[usize; 3]| word(&mut memory, at[1]).load(Ordering::Relaxed) == id;
            let other = dirs.into_iter().find(has_it).unwrap();
            exchange(&mut memory, dir, other);
        }
    }
    for dir in 0..4 {
        assert!(world.map.remove(format!("d{dir}/null").as_bytes()));
        super::world::absent(fs::metadata(world.path(&format!("d{dir}"))));
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn no_result_is_torn_and_no_name_missed_while_the_map_is_written() {
    let mut world = World::new();
    for n in 0..64 {
        world.put(&format!("s{n}"), &char_device(4, 64 + n, 0o600));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let looks = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (root, stop, looks) = (world.root.clone(), stop.clone(), looks.clone());
            std::thread::spawn(move || {
                let mut dice = Dice::new("reader");
                while !stop.load(Ordering::Relaxed) {
                    let n = u32::try_from(dice.roll(64)).unwrap();
                    let stat = fs::symlink_metadata(root.join(format!("s{n}"))).unwrap();
                    // minor and owner are written together
                    let minor = stat.rdev() & 0xff;
                    assert!(minor == u64::from(64 + n) || minor == u64::from(128 + n), "{minor}");
                    if dice.roll(64) == 0 {
                        let seen = super::world::list(&root);
                        assert!((0..64).all(|n| seen.contains(&format!("s{n}"))), "{seen:?}");
                    }
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (started, mut dice, mut writes) = (Instant::now(), Dice::new("writer"), 0_u64);
    let enough = |writes| looks.load(Ordering::Relaxed).min(writes) > 1000;
    while (started.elapsed() < seconds() || !enough(writes))
        && !readers.iter().any(|reader| reader.is_finished())
    {
        let n = u32::try_from(dice.roll(64)).unwrap();
        let minor = if dice.roll(2) == 0 { 64 + n } else { 128 + n };
        world.put(&format!("s{n}"), &char_device(4, minor, 0o600));
        let name = format!("come{}", dice.roll(300));
        if dice.roll(2) == 0 {
            world.put(&name, &null());
        } else {
            world.map.remove(name.as_bytes());
        }
        writes += 2;
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let looks = looks.load(Ordering::Relaxed);
    let republished = world.map.stats().republished;
    println!("# stress: {writes} writes, {republished} replacements, {looks} looks");
    assert!(looks > 1000 && writes > 1000, "{looks} looks, {writes} writes");
}
