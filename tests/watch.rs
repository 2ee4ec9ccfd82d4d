//! The watch on a tree of modules: what is complete is noticed at once, and what is not is not read.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mapdev::modules::ModuleDb;
use mapdev::modules::scan::scan;
use mapdev::modules::watch::{News, Watch};

const RELEASE: &str = "6.1.0-test";
const PATIENCE: Duration = Duration::from_secs(20);

/// The least that is a module: an ELF header, and `.modinfo` among its sections.
fn module(info: &str) -> Vec<u8> {
    let text = info.replace('\n', "\0") + "\0";
    let names = b"\0.modinfo\0.shstrtab\0";
    let table = 64 + text.len() + names.len();
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([1, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend([0; 16]);
    elf.extend((table as u64).to_le_bytes());
    elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    elf.extend(text.as_bytes());
    elf.extend(names);
    let sections = [(0, 0, 0, 0), (1, 1, 64, text.len()), (10, 3, 64 + text.len(), names.len())];
    for (name, kind, offset, size) in sections {
        elf.extend([name, 0, 0, 0, kind, 0, 0, 0]);
        let words = [0, 0, offset as u64, size as u64, 0, 1, 0];
        words.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    }
    elf
}

fn tun() -> Vec<u8> {
    module("alias=devname:net/tun\nalias=char-major-10-200\nname=tun")
}

struct Rig {
    root: tempfile::TempDir,
    watch: Watch,
}

impl Rig {
    /// A tree with one module, watched.
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("lib/modules").join(RELEASE).join("kernel");
        fs::create_dir_all(&top).unwrap();
        fs::write(top.join("fuse.ko"), module("alias=devname:fuse\nalias=char-major-10-229"))
            .unwrap();
        Self::on(root).await
    }

    async fn on(root: tempfile::TempDir) -> Self {
        let db = Arc::new(scan(root.path(), RELEASE));
        let mut rig = Self { watch: Watch::new(root.path(), RELEASE, db), root };
        // the files are so new that the first reading does not trust their stamps
        let limit = Duration::from_millis(300);
        while let Ok(news) = tokio::time::timeout(limit, rig.watch.next()).await {
            assert!(matches!(news, News::Modules(_)), "{news:?}");
        }
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("lib/modules").join(RELEASE).join(name)
    }

    async fn next(&mut self) -> Arc<ModuleDb> {
        let news = tokio::time::timeout(PATIENCE, self.watch.next()).await;
        match news.expect("something is noticed") {
            News::Modules(db) => db,
            News::Deaf(problem) => panic!("{problem}"),
        }
    }

    /// Until the name is there, or is not.
    async fn until(&mut self, name: &str, there: bool) -> Arc<ModuleDb> {
        loop {
            let db = self.next().await;
            if db.devname(name.as_bytes()).is_some() == there {
                return db;
            }
        }
    }

    /// Nothing is noticed.
    async fn quiet(&mut self) {
        let limit = Duration::from_millis(250);
        let news = tokio::time::timeout(limit, self.watch.next()).await;
        assert!(news.is_err(), "{news:?}");
    }
}

#[tokio::test]
async fn a_module_that_is_moved_in_is_there_and_a_removed_one_is_not() {
    let mut rig = Rig::new().await;
    fs::write(rig.path("kernel/tun.ko.dpkg-new"), tun()).unwrap();
    rig.quiet().await;
    fs::rename(rig.path("kernel/tun.ko.dpkg-new"), rig.path("kernel/tun.ko")).unwrap();
    assert_eq!(rig.until("net/tun", true).await.devnames().len(), 2);
    fs::remove_file(rig.path("kernel/tun.ko")).unwrap();
    assert_eq!(rig.until("net/tun", false).await.devnames().len(), 1);
    fs::hard_link(rig.path("kernel/fuse.ko"), rig.path("kernel/cuse.ko")).unwrap();
    let db = rig.next().await;
    assert!(db.module(b"cuse").is_some());
}

#[tokio::test]
async fn a_module_that_is_being_written_is_read_when_it_is_closed() {
    let mut rig = Rig::new().await;
    let bytes = tun();
    let mut file = File::create(rig.path("kernel/tun.ko")).unwrap();
    // all but the last byte would do for its names
    file.write_all(&bytes[..bytes.len() - 1]).unwrap();
    rig.quiet().await;
    // another file makes us read: the one under way is left out, and said to be
    fs::write(rig.path("kernel/loop.ko"), module("alias=devname:loop-control")).unwrap();
    let db = rig.until("loop-control", true).await;
    assert!(db.devname(b"net/tun").is_none());
    assert!(db.problems()[0].to_string().contains("somebody is writing it"), "{:?}", db.problems());
    file.write_all(&bytes[bytes.len() - 1..]).unwrap();
    let closed = Instant::now();
    drop(file);
    let db = rig.until("net/tun", true).await;
    println!("noticed {:?} after the close", closed.elapsed());
    assert_eq!(db.problems(), []);
}

#[tokio::test]
async fn a_module_that_is_written_anew_in_place_is_gone_until_it_is_closed() {
    let mut rig = Rig::new().await;
    let bytes = tun();
    let mut file = File::create(rig.path("kernel/fuse.ko")).unwrap();
    file.write_all(&bytes[..100]).unwrap();
    rig.until("fuse", false).await;
    file.write_all(&bytes[100..]).unwrap();
    drop(file);
    let db = rig.until("net/tun", true).await;
    assert!(db.devname(b"fuse").is_none());
}

#[tokio::test]
async fn a_list_of_built_in_modules_is_read_when_it_is_closed() {
    let mut rig = Rig::new().await;
    let mut file = File::create(rig.path("modules.builtin.modinfo")).unwrap();
    file.write_all(b"mem.alias=char-major-1-*\0mem.alias=devname:me").unwrap();
    rig.quiet().await;
    fs::write(rig.path("kernel/tun.ko"), tun()).unwrap();
    let db = rig.until("net/tun", true).await;
    assert!(db.devname(b"me").is_none(), "half a name");
    assert!(db.problems()[0].file.ends_with("modules.builtin.modinfo"), "{:?}", db.problems());
    file.write_all(b"m\0").unwrap();
    drop(file);
    assert!(rig.until("mem", true).await.devname(b"mem").unwrap().builtin);
}

#[tokio::test]
async fn new_folders_are_watched_however_deep_and_wherever_they_come_from() {
    let mut rig = Rig::new().await;
    fs::create_dir_all(rig.path("updates/dkms/a/b")).unwrap();
    fs::write(rig.path("updates/dkms/a/b/tun.ko"), tun()).unwrap();
    rig.until("net/tun", true).await;
    fs::rename(rig.path("updates/dkms"), rig.path("extra")).unwrap();
    let db = rig.next().await;
    let db = if db.module(b"tun").is_some() { db } else { rig.until("net/tun", true).await };
    assert_eq!(db.module(b"tun").unwrap().file(), Some(Path::new("extra/a/b/tun.ko")));
    fs::remove_file(rig.path("extra/a/b/tun.ko")).unwrap();
    rig.until("net/tun", false).await;
    fs::create_dir(rig.root.path().join("aside")).unwrap();
    fs::write(rig.root.path().join("aside/tun.ko"), tun()).unwrap();
    fs::rename(rig.root.path().join("aside"), rig.path("kernel/aside")).unwrap();
    rig.until("net/tun", true).await;
}

#[tokio::test]
async fn a_tree_that_is_replaced_goes_or_comes_later_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let mut rig = Rig::on(root).await;
    let tree = rig.path("");
    let aside = rig.root.path().join("aside");
    fs::create_dir_all(aside.join("kernel")).unwrap();
    fs::write(aside.join("kernel/tun.ko"), tun()).unwrap();
    fs::create_dir_all(tree.parent().unwrap()).unwrap();
    fs::rename(&aside, &tree).unwrap();
    rig.until("net/tun", true).await;
    fs::rename(&tree, &aside).unwrap();
    rig.until("net/tun", false).await;
    // what happens to the old tree is nothing to us; the new one is
    fs::create_dir_all(tree.join("kernel")).unwrap();
    fs::write(aside.join("kernel/loop.ko"), module("alias=devname:loop-control")).unwrap();
    fs::write(tree.join("kernel/fuse.ko"), module("alias=devname:fuse")).unwrap();
    let db = rig.until("fuse", true).await;
    assert!(db.devname(b"loop-control").is_none());
    fs::remove_dir_all(rig.root.path().join("lib")).unwrap();
    assert!(rig.until("fuse", false).await.is_empty());
}

#[tokio::test]
async fn what_no_event_told_after_an_overflow_is_found() {
    let mut rig = Rig::new().await;
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // nobody listens meanwhile; two names in turn, since equal events in a row are told once
    for n in 0..limit {
        fs::write(rig.path(if n % 2 == 0 { "kernel/a.txt" } else { "kernel/b.txt" }), "").unwrap();
    }
    fs::write(rig.path("kernel/tun.ko"), tun()).unwrap();
    rig.until("net/tun", true).await;
}

/// A limit of a user namespace of its own, so that nobody else is held up.
#[test]
fn that_the_limit_of_watches_is_reached_is_said_once() {
    const INSIDE: &str = "MAPDEV_TEST_INSIDE";
    let name = "that_the_limit_of_watches_is_reached_is_said_once";
    if std::env::var_os(INSIDE).is_none() {
        let script = "echo 4 >/proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-euc", script]);
        command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
        let output = command.env(INSIDE, "1").output().unwrap();
        let out = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && out.contains("1 passed"), "{out}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("lib/modules").join(RELEASE);
        fs::create_dir_all(tree.join("kernel")).unwrap();
        let db = Arc::new(scan(root.path(), RELEASE));
        let mut watch = Watch::new(root.path(), RELEASE, db);
        let News::Deaf(problem) = watch.next().await else { panic!("a folder is not watched") };
        assert!(problem.to_string().contains("max_user_watches"), "{problem}");
        // the top is watched, and the module comes with a folder that is not
        fs::create_dir(tree.join("extra")).unwrap();
        fs::write(tree.join("extra/tun.ko"), tun()).unwrap();
        let News::Modules(db) = watch.next().await else { panic!("it is told again") };
        assert!(db.devname(b"net/tun").is_some());
    });
}

/// On a complete kernel: from the last write to the new database.
#[tokio::test]
async fn one_module_of_four_thousand_is_noticed_within_200_ms() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels/bookworm/lib/modules");
    let Some(tree) = fs::read_dir(suite).into_iter().flatten().flatten().next() else {
        assert!(std::env::var_os("MAPDEV_REQUIRE_KERNELS").is_none(), "no kernel is unpacked");
        println!("skipped: no kernel is unpacked (scripts/kernels.sh)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let top = root.path().join("lib/modules").join(RELEASE);
    fs::create_dir_all(top.parent().unwrap()).unwrap();
    // links to the files: nothing is copied, and nobody writes to them
    let copied = std::process::Command::new("cp").arg("-al").arg(tree.path()).arg(&top).status();
    assert!(copied.unwrap().success(), "the kernels are on another file system than /tmp");
    let real = fs::read(top.join("kernel/drivers/net/tun.ko")).unwrap();
    fs::remove_file(top.join("kernel/drivers/net/tun.ko")).unwrap();
    let mut rig = Rig::on(root).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        fs::write(rig.path("kernel/drivers/net/tun.new"), &real).unwrap();
        let moved = Instant::now();
        fs::rename(rig.path("kernel/drivers/net/tun.new"), rig.path("kernel/drivers/net/tun.ko"))
            .unwrap();
        rig.until("net/tun", true).await;
        times.push(moved.elapsed());
        fs::remove_file(rig.path("kernel/drivers/net/tun.ko")).unwrap();
        rig.until("net/tun", false).await;
    }
    times.sort_unstable();
    println!("noticed after {times:?}");
    // without optimization, and beside other tests, it takes several times as long
    assert!(cfg!(debug_assertions) || times[2] < Duration::from_millis(200), "{times:?}");
}
