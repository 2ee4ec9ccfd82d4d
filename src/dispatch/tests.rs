//! Dispatch against a tree that stands for sysfs, one turn at a time, without a kernel that talks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::command::{Change, Terms};
use super::*;
use crate::map::layout::{E_LIVE, E_MODULE};
use crate::map::{Kind, Node};
use crate::rules::decision::Attribute;
use crate::uevent::socket::Options;

pub(super) struct Rig {
    pub(super) dispatch: Dispatch,
    pub(super) root: tempfile::TempDir,
}

impl Rig {
    pub(super) fn new(devices: &[u32]) -> Self {
        let root = tempfile::tempdir().unwrap();
        devices.iter().for_each(|minor| plug(root.path(), *minor));
        let dispatch = Dispatch::new(Self::parts(root.path(), Mode::Shadow)).unwrap();
        Self { dispatch, root }
    }

    fn parts(root: &Path, mode: Mode) -> Parts {
        let config = Config {
            mode,
            root: root.join("root"),
            sysfs: root.join("sys"),
            dev: root.join("dev"),
            runtime: root.join("run"),
            records: Some(root.join("run/data")),
            workers: 1,
            ..Config::default()
        };
        Parts {
            config,
            socket: KernelSocket::open(&Options { receive_buffer: 4096 }).unwrap(),
            map: MapWriter::create(64).unwrap(),
            modules: Arc::new(ModuleDb::default()),
            commands: commands().1,
            notices: Vec::new(),
            ready: oneshot::channel().0,
            keep_map: |_| {},
            stop: watch::channel(false).1,
        }
    }

    /// One turn of the loop, deaf to the kernel.
    pub(super) async fn turn(&mut self) {
        let dispatch = &mut self.dispatch;
        dispatch.start_jobs(0);
        tokio::select! {
            Some(done) = dispatch.done.recv() => dispatch.finish_batch(done),
            event = sweep::next(&mut dispatch.sweep) => dispatch.swept(event),
        }
    }

    /// Turns until a walk through all of sysfs is over.
    pub(super) async fn walk(&mut self) {
        self.dispatch.start_sweep();
        while self.dispatch.sweep.is_some() {
            self.turn().await;
        }
    }

    fn terms() -> Terms {
        let (by, reason): (Arc<str>, Arc<str>) = ("uid 0".into(), "".into());
        Terms { by, reason, persist: false, dry_run: false, instance: None }
    }

    fn change(&mut self, minor: u32) -> oneshot::Receiver<Result<(), ChangeError>> {
        self.change_on(minor, Self::terms())
    }

    fn change_on(
        &mut self,
        minor: u32,
        terms: Terms,
    ) -> oneshot::Receiver<Result<(), ChangeError>> {
        let change = Change::Set { attribute: Attribute::Owner, value: 7 };
        let (reply, answer) = oneshot::channel();
        self.dispatch.answer(Command::Change(id(minor), change, terms, reply));
        answer
    }

    fn hear(&mut self, action: Action, minor: u32) {
        let text = minor.to_string();
        let pairs: [(&[u8], &[u8]); 4] = [
            (b"SUBSYSTEM", b"misc"),
            (b"MAJOR", b"10"),
            (b"MINOR", text.as_bytes()),
            (b"DEVNAME", b"moved"),
        ];
        let devpath = format!("/devices/moved{minor}");
        let event = Uevent::synthetic(Origin::Kernel, action, devpath.as_bytes(), 9, &pairs);
        self.dispatch.take(event);
    }
}

pub(super) fn id(minor: u32) -> DeviceId {
    DeviceId::from_bytes(format!("c10:{minor}").as_bytes()).unwrap()
}

pub(super) fn plug(root: &Path, minor: u32) {
    let folder = root.join(format!("sys/devices/d{minor}"));
    fs::create_dir_all(&folder).unwrap();
    let text = format!("MAJOR=10\nMINOR={minor}\nDEVNAME=d{minor}\n");
    fs::write(folder.join("uevent"), text).unwrap();
    let class = root.join("sys/class/misc");
    fs::create_dir_all(&class).unwrap();
    symlink("../../class/misc", folder.join("subsystem")).unwrap();
    symlink(format!("../../devices/d{minor}"), class.join(format!("d{minor}"))).unwrap();
}

fn unplug(root: &Path, minor: u32) {
    fs::remove_file(root.join(format!("sys/class/misc/d{minor}"))).unwrap();
    fs::remove_dir_all(root.join(format!("sys/devices/d{minor}"))).unwrap();
}

#[tokio::test]
async fn what_can_be_done_is_done_before_more_is_heard_unless_a_storm_goes_on() {
    let mut rig = Rig::new(&[]);
    rig.dispatch.socket = KernelSocket::open(&Options::default()).unwrap();
    let roomy = rig.dispatch.socket.granted() >= 64 << 20;
    (0..2000).for_each(|minor| rig.hear(Action::Add, minor));
    assert_eq!(rig.dispatch.has_enough(), roomy);
    rig.dispatch.rest.behind = 20_000;
    assert!(!rig.dispatch.has_enough(), "the socket has held enough");
    rig.dispatch.rest.behind = 0;
    while rig.dispatch.queue.waiting() > 1000 {
        rig.turn().await;
    }
    assert!(!rig.dispatch.has_enough());
}

#[tokio::test]
async fn what_waits_for_one_device_keeps_nobody_from_being_heard() {
    let mut rig = Rig::new(&[]);
    rig.dispatch.socket = KernelSocket::open(&Options::default()).unwrap();
    (0..2000).for_each(|_| rig.hear(Action::Change, 1));
    // as one that takes long
    let running = rig.dispatch.queue.next();
    assert_eq!(rig.dispatch.queue.waiting(), 1999);
    assert!(!rig.dispatch.has_enough());
    drop(running);
}

#[tokio::test]
async fn a_change_is_answered_by_what_became_of_it() {
    let mut rig = Rig::new(&[1, 2]);
    rig.walk().await;
    let (mut here, mut gone) = (rig.change(1), rig.change(2));
    unplug(rig.root.path(), 2);
    while !rig.dispatch.queue.is_idle() {
        rig.turn().await;
    }
    assert_eq!(here.try_recv(), Ok(Ok(())));
    assert_eq!(rig.dispatch.table.get(&id(1)).unwrap().permissions.uid, 7);
    assert_eq!(gone.try_recv(), Ok(Err(ChangeError::NoSuchDevice)));
}

#[tokio::test]
async fn a_change_that_waits_finds_its_device_where_it_moved() {
    let mut rig = Rig::new(&[1]);
    rig.walk().await;
    fs::create_dir_all(rig.root.path().join("sys/devices")).unwrap();
    let place = |name: &str| rig.root.path().join("sys/devices").join(name);
    fs::rename(place("d1"), place("moved1")).unwrap();
    rig.hear(Action::Move, 1);
    let mut answer = rig.change(1);
    while !rig.dispatch.queue.is_idle() {
        rig.turn().await;
    }
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    let known = rig.dispatch.table.get(&id(1)).unwrap();
    assert_eq!(known.devname(), Some(b"moved".as_slice()));
    assert_eq!(known.permissions.uid, 7);
}

#[tokio::test]
async fn a_change_does_not_bring_a_removed_device_back() {
    let mut rig = Rig::new(&[1]);
    rig.walk().await;
    // the kernel says so before sysfs forgets it
    rig.hear(Action::Remove, 1);
    let mut answer = rig.change(1);
    while !rig.dispatch.queue.is_idle() {
        rig.turn().await;
    }
    assert_eq!(answer.try_recv(), Ok(Err(ChangeError::NoSuchDevice)));
    assert!(rig.dispatch.table.get(&id(1)).is_none());
}

#[tokio::test]
async fn who_settles_during_a_walk_waits_for_what_it_finds_missing() {
    let mut rig = Rig::new(&[1, 2]);
    rig.walk().await;
    unplug(rig.root.path(), 2);
    rig.dispatch.start_sweep();
    let (reply, mut settled) = oneshot::channel();
    rig.dispatch.settlers.push((rig.dispatch.taken, reply));
    while settled.try_recv().is_err() {
        rig.turn().await;
    }
    assert!(rig.dispatch.table.get(&id(2)).is_none());
    assert_eq!(rig.dispatch.table.len(), 1);
}

/// The kernel tells a removal before sysfs shows it: if that is lost, a walk may meet the device.
#[tokio::test]
async fn what_goes_untold_after_a_walk_is_removed_for_who_settles_and_in_the_end() {
    let mut rig = Rig::new(&[1, 2, 3]);
    rig.walk().await;
    unplug(rig.root.path(), 2);
    let (reply, mut settled) = oneshot::channel();
    rig.dispatch.answer(Command::Settle(reply));
    assert!(settled.try_recv().is_err(), "the removal is waited for");
    while settled.try_recv().is_err() {
        rig.turn().await;
    }
    assert!(rig.dispatch.table.get(&id(2)).is_none());
    unplug(rig.root.path(), 3);
    turn::at(rig.dispatch.doubt_until).await;
    rig.dispatch.end_doubt();
    while rig.dispatch.sweep.is_some() {
        rig.turn().await;
    }
    assert_eq!((rig.dispatch.table.len(), rig.dispatch.doubt_until), (1, None));
}

#[tokio::test]
async fn a_change_reaches_only_the_device_that_it_was_allowed_for() {
    let mut rig = Rig::new(&[1]);
    rig.walk().await;
    let allowed = rig.dispatch.table.get(&id(1)).unwrap().instance;
    let terms = Terms { instance: Some(allowed + 1), ..Rig::terms() };
    let refused = rig.change_on(1, terms).try_recv().unwrap();
    assert_eq!(refused, Err(ChangeError::NoSuchDevice));
    let terms = Terms { instance: Some(allowed), ..Rig::terms() };
    assert!(rig.change_on(1, terms).try_recv().is_err(), "it waits for its turn");
}

#[tokio::test]
async fn in_shadow_mode_no_change_is_kept() {
    let mut rig = Rig::new(&[1]);
    rig.walk().await;
    let refused = rig.change_on(1, Terms { persist: true, ..Rig::terms() }).try_recv().unwrap();
    assert_eq!(refused, Err(ChangeError::Shadow));
    assert!(!rig.root.path().join("root/etc").exists());
}

#[tokio::test]
async fn a_record_of_an_event_under_way_is_no_leftover() {
    let mut rig = Rig::new(&[1]);
    let record = |minor: u32| rig.root.path().join(format!("run/data/c10:{minor}"));
    let (left, under_way) = (record(8), record(9));
    fs::write(&left, "").unwrap();
    fs::write(&under_way, "").unwrap();
    rig.hear(Action::Add, 9);
    rig.dispatch.forget_leftovers();
    assert!(!left.exists() && under_way.exists());
}

#[tokio::test]
async fn a_walk_does_not_remove_what_was_heard_of_at_another_path() {
    let mut rig = Rig::new(&[1]);
    rig.walk().await;
    unplug(rig.root.path(), 1);
    fs::create_dir_all(rig.root.path().join("sys/devices/moved1")).unwrap();
    rig.hear(Action::Add, 1);
    rig.dispatch.remove_vanished();
    while !rig.dispatch.queue.is_idle() {
        rig.turn().await;
    }
    let known = rig.dispatch.table.get(&id(1)).unwrap();
    assert_eq!(known.uevent.devpath(), b"/devices/moved1");
}

#[tokio::test]
async fn a_merged_change_is_waited_for_and_one_that_says_more_is_not_merged() {
    let mut rig = Rig::new(&[1]);
    rig.walk().await;
    rig.dispatch.queue = Queue::new(Limits { merge_from: 1, storm: 1, full: 100 });
    let known = rig.dispatch.table.get(&id(1)).unwrap().uevent.clone();
    let change = |more: Option<(&'static [u8], &'static [u8])>| {
        let pairs: Vec<_> = known.properties().chain(more).collect();
        Uevent::synthetic(Origin::Kernel, Action::Change, known.devpath(), 9, &pairs)
    };
    rig.dispatch.take(change(None));
    let (reply, mut settled) = oneshot::channel();
    rig.dispatch.settlers.push((rig.dispatch.taken, reply));
    rig.dispatch.take(change(None));
    rig.dispatch.take(change(None));
    assert_eq!(rig.dispatch.queue.merged(), 2);
    assert!(settled.try_recv().is_err(), "what stands for it is not handled");
    rig.dispatch.take(change(Some((b"DISK_MEDIA_CHANGE", b"1"))));
    assert_eq!((rig.dispatch.queue.merged(), rig.dispatch.queue.waiting()), (2, 2));
    while !rig.dispatch.queue.is_idle() {
        rig.turn().await;
    }
    settled.try_recv().unwrap();
    assert!(rig.dispatch.open.is_empty() && rig.dispatch.stands_for.is_empty());
}

#[tokio::test]
async fn where_the_other_manager_is_faster_the_node_is_compared_in_the_end() {
    let mut rig = Rig::new(&[1]);
    rig.walk().await;
    rig.hear(Action::Add, 9);
    rig.dispatch.compare_at(b"/devices/moved9");
    rig.dispatch.compare_at(b"/devices/d1");
    assert_eq!(rig.dispatch.compare_later.len(), 1, "only what is not handled yet waits");
    while !rig.dispatch.queue.is_idle() {
        rig.turn().await;
    }
    assert!(rig.dispatch.compare_later.is_empty());
}

#[tokio::test]
async fn a_name_has_its_number_when_the_event_is_heard_and_loses_it_if_the_device_is_not_there() {
    let mut rig = Rig::new(&[]);
    let kind = Kind::Pending { block: true, alias: b"probe".as_slice().into() };
    let waits = Node { kind, mode: 0o640, uid: 7, gid: 8, flags: E_MODULE };
    rig.dispatch.publisher.map.upsert(b"moved", &waits).unwrap();
    let pairs: [(&[u8], &[u8]); 4] =
        [(b"SUBSYSTEM", b"misc"), (b"MAJOR", b"10"), (b"MINOR", b"9"), (b"DEVNAME", b"moved")];
    let walked =
        |action| Uevent::synthetic(Origin::Coldplug, action, b"/devices/moved9", 9, &pairs);
    rig.dispatch.take(walked(Action::Remove));
    let now = |rig: &Rig| rig.dispatch.publisher.map.get(b"moved").cloned();
    assert_eq!(now(&rig), Some(waits.clone()), "a removal gives no number");
    rig.dispatch.take(walked(Action::Add));
    let kind = Kind::Char { major: 10, minor: 9 };
    assert_eq!(now(&rig), Some(Node { kind, flags: E_LIVE, ..waits }), "with its owner and mode");
    while !rig.dispatch.queue.is_idle() {
        rig.turn().await;
    }
    assert_eq!(now(&rig), None, "nobody declares the name");
    assert!(rig.dispatch.publisher.numbered.is_empty());
}

#[tokio::test]
async fn a_reload_has_what_was_written_before_it_was_asked_for() {
    let mut rig = Rig::new(&[1]);
    let ask = |rig: &mut Rig| {
        let (reply, answer) = oneshot::channel();
        rig.dispatch.answer(Command::Reload(reply));
        answer
    };
    let (mut first, mut second) = (ask(&mut rig), ask(&mut rig));
    // a change that is kept was read and taken in while the first one reads
    rig.dispatch.book = Arc::new(Book { generation: 2, ..Book::clone(&rig.dispatch.book) });
    let mut reads = 0;
    while second.try_recv().is_err() {
        let read = rig.dispatch.reloads.read.recv().await.unwrap();
        rig.dispatch.reloaded(read);
        reads += 1;
    }
    // one that was stale, one for the first caller, and one for the other, who came when that one read
    assert_eq!((first.try_recv(), reads, rig.dispatch.book.generation), (Ok(3), 3, 4));
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever_for_a_program() {
    let mut rig = Rig::new(&[1]);
    let root = rig.root.path();
    let (over, folder) = (root.join("over"), root.join("root/etc/udev/rules.d"));
    fs::create_dir_all(&folder).unwrap();
    let slow = format!("/bin/sh -c 'sleep 5; echo >{}'", over.display());
    let rule = format!("KERNEL==\"moved7\", PROGRAM==\"{slow}\"\n");
    fs::write(folder.join("50-slow.rules"), rule).unwrap();
    rig.dispatch = Dispatch::new(Rig::parts(root, Mode::Active)).unwrap();
    rig.dispatch.stop_time = Duration::from_millis(1);
    rig.dispatch.stop = watch::channel(true).1;
    rig.hear(Action::Add, 7);
    let turn = rig.dispatch.turn(&AtomicBool::new(false)).await;
    assert!(matches!(turn, Ok(turn::Turn::Over)) && !over.exists(), "it was waited for");
}
