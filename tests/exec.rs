//! Programs as rules run them: what they get, what of their output counts, and how they are ended.
#![expect(clippy::unwrap_used, reason = "a test has failed when it cannot go on")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mapdev::exec::{OUTPUT_MAX, Outcome, Pause, Programs, Said, Task};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, setrlimit,
};

/// Longer than any machine is busy.
const LONG: Duration = Duration::from_secs(60);

fn run_in(programs: &Programs, words: &[&str], limit: Duration) -> Said {
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let environment = [(b"A".to_vec(), b"b c".to_vec()), (b".dot".to_vec(), b"\xff".to_vec())];
    let until = Instant::now() + limit;
    let by = "50-test.rules:1";
    programs.run(&Task { words: &words, environment: &environment, by, until })
}

fn shell(script: &str) -> Said {
    run_in(&Programs::default(), &["/bin/sh", "-c", script], LONG)
}

#[test]
fn a_program_gets_its_environment_and_nothing_else() {
    let said = run_in(&Programs::default(), &["/usr/bin/env", "-0"], LONG);
    let mut pairs: Vec<_> = said.stdout.split(|byte| *byte == 0).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [b"".as_slice(), b".dot=\xff", b"A=b c"]);
}

#[test]
fn a_program_has_nothing_to_read_and_no_descriptor_of_ours() {
    let file = fs::File::open("/etc/passwd").unwrap();
    let said = shell("cat; readlink /proc/self/fd/*; readlink /proc/$$/fd/0");
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(!text.contains("/etc/passwd"), "{text}");
    assert_eq!(text.lines().last(), Some("/dev/null"), "{text}");
    drop(file);
    assert_eq!(shell("pwd").stdout, b"/\n");
}

/// Signals that we ignore: SIGPIPE, as every program in Rust, and what whoever started us ignores (nohup).
fn ignored() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    u64::from_str_radix(mask, 16).unwrap()
}

#[test]
fn no_signal_of_ours_is_blocked_or_ignored_and_the_group_is_its_own() {
    let said = shell("grep -E '^Sig(Blk|Ign)' /proc/self/status; echo $(ps -o pgid= -p $$) $$");
    let text = String::from_utf8(said.stdout).unwrap();
    // two of them are the C library's own
    let masks = text.lines().filter_map(|line| line.strip_prefix("Sig")?.split_once(":\t"));
    let masks = masks.map(|(_, mask)| u64::from_str_radix(mask, 16).unwrap() & !(3 << 31));
    let pipe = 1 << 12;
    assert_ne!(ignored() & pipe, 0);
    assert_eq!(masks.collect::<Vec<_>>(), [0, ignored() & !pipe & !(3 << 31)], "{text}");
    let ids: Vec<_> = text.lines().last().unwrap().split(' ').collect();
    assert_eq!(ids[0], ids[1], "{text}");
}

/// Gives us more descriptors than programs get, as the unit gives the daemon; how many.
fn raise() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    assert!(maximum.is_none_or(|most| most > 1024), "nothing to lower");
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum
}

#[test]
fn a_program_has_the_usual_limit_of_descriptors_and_may_raise_it() {
    let maximum = raise();
    let said = shell("ulimit -Sn; ulimit -Hn");
    let most = maximum.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
    assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("1024\n{most}\n"));
    assert_eq!(getrlimit(Resource::Nofile).current, maximum, "ours stays");
}

#[test]
fn output_up_to_the_limit_counts_and_the_rest_is_read_and_dropped() {
    let said = shell("head -c 300000 /dev/zero | tr '\\0' x; echo more >&2; exit 3");
    assert_eq!((said.stdout.len(), said.outcome), (OUTPUT_MAX, Outcome::Exited(3)));
    assert!(said.stdout.iter().all(|byte| *byte == b'x'));
}

#[test]
fn what_a_child_left_behind_keeps_open_is_not_waited_for() {
    let said = shell("echo before; sleep 1000 & echo $!");
    let text = String::from_utf8(said.stdout).unwrap();
    let (first, child) = text.trim().split_once('\n').unwrap();
    assert_eq!((first, &said.outcome), ("before", &Outcome::Exited(0)));
    let child = Pid::from_raw(child.parse().unwrap()).unwrap();
    rustix::process::kill_process(child, Signal::KILL).unwrap();
}

#[test]
fn how_a_program_failed_is_told() {
    assert_eq!(shell("exit 7").outcome, Outcome::Exited(7));
    assert_eq!(shell("kill -9 $$").outcome, Outcome::Killed(9));
    let missing = run_in(&Programs::default(), &["/nonexistent/program"], LONG);
    assert!(matches!(missing.outcome, Outcome::CannotRun(_)), "{missing:?}");
    assert!(!missing.is_success());
}

#[test]
fn a_name_without_a_slash_in_front_is_of_one_folder_and_no_shell_reads_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        // by a program: what we had open for writing could not be run while a child of another thread has our
        // descriptors
        let mut written = Command::new("sh");
        written.args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""]);
        assert!(written.arg(dir.path().join(name)).arg(text).status().unwrap().success());
    };
    put("helper", "#!/bin/sh\necho \"$0 $1\"\n");
    put("plain", "echo read\n");
    let programs = Programs { folder: dir.path().to_owned(), ..Programs::default() };
    let said = run_in(&programs, &["helper", "a  b"], LONG);
    let wanted = format!("{}/helper a  b\n", dir.path().display());
    assert_eq!(String::from_utf8(said.stdout).unwrap(), wanted);
    raise();
    let said = run_in(&programs, &["plain"], LONG);
    assert!(matches!(said.outcome, Outcome::CannotRun(_)), "{said:?}");
    let said = run_in(&programs, &["sh"], LONG);
    assert!(matches!(said.outcome, Outcome::CannotRun(_)), "no PATH is searched: {said:?}");
}

/// Whether a process ends, soon.
fn ends(pid: &str) -> bool {
    let Ok(pidfd) =
        pidfd_open(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), PidfdFlags::empty())
    else {
        return true;
    };
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) == Ok(1)
}

/// A program that hangs with a child which does not care for the signal; the child's id, if it came so
/// far in `seconds`.
fn hung(signal: Signal, seconds: u64) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child");
    let script = format!("trap '' TERM; sleep 1000 & echo $! >{}; echo here; wait", file.display());
    let programs = Programs { signal, ..Programs::default() };
    let said = run_in(&programs, &["/bin/sh", "-c", &script], Duration::from_secs(seconds));
    assert!(matches!(said.outcome, Outcome::TimeUp(_)), "{said:?}");
    (said.stdout == b"here\n").then(|| fs::read_to_string(file).unwrap())
}

#[test]
fn time_up_ends_the_whole_group_whatever_it_does_about_the_signal() {
    for signal in [Signal::KILL, Signal::TERM] {
        // a busy machine may need longer until the child is there
        let child = [1, 4, 16, 60].into_iter().find_map(|seconds| hung(signal, seconds)).unwrap();
        assert!(ends(&child), "the child lives on");
    }
}

#[test]
fn an_event_without_time_left_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let touched = dir.path().join("touched");
    let words = ["/bin/touch", touched.to_str().unwrap()];
    let said = run_in(&Programs::default(), &words, Duration::ZERO);
    assert!(matches!(said.outcome, Outcome::TimeUp(_)));
    assert!(!Path::new(&touched).exists());
}

#[derive(Debug, Default)]
struct Counted {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Pause for Counted {
    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_for_long_tells_so_and_is_back() {
    let counted = Arc::new(Counted::default());
    let programs = Programs { pause: Some(counted.clone()), ..Programs::default() };
    // longer than a wait that is worth telling
    run_in(&programs, &["/bin/sleep", "0.1"], LONG);
    run_in(&programs, &["/nonexistent"], LONG);
    let [begun, ended] = [&counted.begun, &counted.ended].map(|n| n.load(Ordering::Relaxed));
    assert_eq!((begun, ended), (1, 1));
}
