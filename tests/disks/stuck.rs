//! Probes that do not answer, and probes that die.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mapdev::builtin::{Builtin, Call, Kit, Pair, Ran};
use mapdev::probe::Probe;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::attached::{Attached, device, ours};
use crate::contents::private;
use crate::{images, kit};

fn ask(kit: &Kit, name: &str) -> Ran<Vec<Pair>> {
    let (device, words) = (device(name), [b"blkid".to_vec()]);
    kit.run(Builtin::Blkid, &Call { device: &device, properties: &[], words: &words })
}

/// The probes that run in this namespace.
fn probes() -> Vec<Pid> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_probe = |number: &i32| {
        let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
        name.trim() == "mapdev-probe"
    };
    numbers.filter(is_probe).filter_map(Pid::from_raw).collect()
}

#[test]
fn a_probe_that_hangs_is_ended_and_its_device_marked_while_others_go_on() {
    private(
        module_path!(),
        "a_probe_that_hangs_is_ended_and_its_device_marked_while_others_go_on",
        || {
            let image = images::make(Path::new("/run/images"), "ext2", 1024, "mke2fs -q $f");
            let disk = Attached::new(&image);
            let limit = Duration::from_secs(4);
            let stuck = kit(limit);
            let said = ours(&stuck, &disk.name, "blkid").unwrap();
            let [pid] = probes()[..] else { panic!("one probe is kept") };
            kill_process(pid, Signal::STOP).unwrap();
            let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
            let stuck = std::thread::scope(|scope| {
                let name = &disk.name;
                let hangs = scope.spawn(move || {
                    let begun = Instant::now();
                    (ask(&stuck, name), begun.elapsed(), stuck)
                });
                let others = kit(limit);
                for _ in 0..100 {
                    assert_eq!(ours(&others, &disk.name, "blkid").as_ref(), Some(&said));
                }
                assert!(!hangs.is_finished(), "100 others were asked meanwhile");
                let (ran, took, stuck) = hangs.join().unwrap();
                assert_eq!(ran, Ran::Broken(vec![(b"MAPDEV_PROBE".to_vec(), b"time-up".to_vec())]));
                assert!(took < limit + Duration::from_secs(1), "{took:?}");
                stuck
            });
            let mut end = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut end, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap();
            assert!(end[0].revents().contains(PollFlags::IN), "it was ended");
            assert_eq!(ours(&stuck, &disk.name, "blkid"), Some(said));
        },
    );
}

#[test]
fn a_probe_that_died_is_replaced_and_nobody_sees_it() {
    private(module_path!(), "a_probe_that_died_is_replaced_and_nobody_sees_it", || {
        let image = images::make(Path::new("/run/images"), "ext2", 1024, "mke2fs -q $f");
        let disk = Attached::new(&image);
        let kit = kit(Duration::from_secs(20));
        let said = ours(&kit, &disk.name, "blkid");
        assert!(said.as_ref().is_some_and(|said| !said.is_empty()));
        for _ in 0..10 {
            let [pid] = probes()[..] else { panic!("one probe is kept") };
            kill_process(pid, Signal::KILL).unwrap();
            assert_eq!(ours(&kit, &disk.name, "blkid"), said);
        }
    });
}

#[test]
fn without_a_probe_the_builtin_fails() {
    private(module_path!(), "without_a_probe_the_builtin_fails", || {
        let image = images::make(Path::new("/run/images"), "ext2", 1024, "mke2fs -q $f");
        let disk = Attached::new(&image);
        for program in ["/nonexistent/mapdev-probe", "/bin/true"] {
            let probe = Probe::new(program, "/dev", Duration::from_secs(20));
            let kit = Kit::default().probing(probe);
            assert_eq!(ask(&kit, &disk.name), Ran::Failed, "{program}");
        }
    });
}
