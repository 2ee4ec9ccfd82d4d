//! What holds for any text of rules; for tests and for the fuzzer.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use mapdev::builtin::{Builtin, Call, Pair, Ran};
use mapdev::device::record::Record;
use mapdev::device::{Device, DeviceId, Sysfs};
use mapdev::exec::{Outcome, Said};
use mapdev::rules::Rules;
use mapdev::rules::decision::{Decision, Source};
use mapdev::rules::event::Event;
use mapdev::rules::lint::lint;
use mapdev::rules::names::Names;
use mapdev::rules::plan::Plan;
use mapdev::rules::rule::Constant;
use mapdev::rules::world::World;
use mapdev::uevent::{Action, Origin, Uevent};

/// A world that says the same bytes to every question.
#[derive(Debug)]
struct Parrot(Vec<u8>);

impl World for Parrot {
    fn program(&self, words: &[Vec<u8>], environment: &[Pair], _: &Source) -> Option<Said> {
        assert!(!words.is_empty(), "a program without a name");
        assert_eq!(environment[0].0, b"UDEV_DATABASE_VERSION");
        let outcome = Outcome::Exited(if words.len() > 1 { 0 } else { 1 });
        (words.len() < 4).then(|| Said { outcome, stdout: self.0.clone() })
    }

    fn builtin(&self, _: Builtin, call: &Call<'_>) -> Ran<Vec<Pair>> {
        if call.words.len() > 1 {
            Ran::Done(vec![(b"BUILT".into(), self.0.clone())])
        } else {
            Ran::Skipped
        }
    }

    fn file(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match path.len() % 3 {
            0 => Ok(None),
            1 => Ok(Some(self.0.clone())),
            _ => Err(io::Error::other("unreadable")),
        }
    }

    fn mode(&self, path: &[u8]) -> Option<u32> {
        path.len().is_multiple_of(2).then_some(0o644)
    }

    fn names(&self, _: &[u8]) -> Vec<Vec<u8>> {
        vec![b"one".into(), b"two".into()]
    }

    fn write(&self, root: &Path, path: &[u8], _: &[u8]) -> Option<io::Result<()>> {
        let path = Path::new(OsStr::from_bytes(path));
        assert!(path.starts_with(root), "{}", path.display());
        Some(Ok(()))
    }

    fn constant(&self, _: Constant) -> Vec<u8> {
        b"none".into()
    }

    fn command_line(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn record(&self, _: &DeviceId) -> Option<Record> {
        None
    }
}

fn load(text: &[u8]) -> Rules {
    let mut rules = Rules::default();
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    for problem in rules.add(Path::new("f"), text, &Names::default()) {
        let line = usize::try_from(problem.line).unwrap();
        assert!((1..=lines).contains(&line), "{problem} in {lines} lines");
        assert!(problem.render(text).lines().count() >= 3, "{problem} cannot be shown");
    }
    rules
}

/// Panics where the text is not read, checked or applied as it should be.
pub fn check(text: &[u8]) {
    let rules = load(text);
    let count = rules.iter().count();
    for (index, rule) in rules.iter().enumerate() {
        assert!(rule.goto.is_none_or(|goto| goto > index && goto < count), "{rule:?}");
        assert!(rule.tokens.is_sorted_by_key(|token| token.what.rank()), "{rule:?}");
    }
    drop(lint(&rules));
    // whatever the text is, it costs itself only; an empty line ends what it leaves unfinished, or
    // takes one of the backslashes at its end
    let backslashes = text.iter().filter(|byte| **byte == b'\\').count();
    let end = b"\n".repeat(backslashes + 2);
    let ended = load(&[text, &end].concat());
    let more = load(&[text, &end, b"TAG+=\"last\", MODE=\"0601\"\n"].concat());
    let last = more.iter().last().unwrap();
    assert_eq!(more.iter().count(), ended.iter().count() + 1, "the rule behind the text is lost");
    assert_eq!((last.tokens.len(), last.goto), (2, None), "{last:?}");
    assert_eq!(ended.static_nodes(), more.static_nodes());
    for action in [Action::Add, Action::Remove] {
        let decision = apply(&rules, action, text);
        assert_eq!(decision, apply(&rules, action, text));
        sane(&decision);
    }
}

fn apply(rules: &Rules, action: Action, text: &[u8]) -> Decision {
    let pairs: [(&[u8], &[u8]); 5] = [
        (b"SUBSYSTEM", b"block"),
        (b"MAJOR", b"8"),
        (b"MINOR", b"1"),
        (b"DEVNAME", b"sda1"),
        (b"DEVTYPE", b"partition"),
    ];
    let uevent = Uevent::synthetic(Origin::Kernel, action, b"/devices/x/sda/sda1", 7, &pairs);
    let device = Device::new(Sysfs::new("/nonexistent"), Arc::new(uevent));
    let world = Parrot(text.iter().copied().take(99).collect());
    let names = Names::default();
    let old = Record::parse(b"S:old\nE:OLD=1\nG:tag\nQ:tag\nV:1\n");
    let mut event = Event::new(&device, &world, &names, Some(&old), Decision::default());
    // a file that cannot be read ends the event, and what was decided stands
    let ended = rules.apply(&mut event);
    let mut planned = Event::new(&device, &world, &names, Some(&old), Decision::default());
    assert_eq!(rules.apply_plan(&Plan::new(rules, &device), &mut planned), ended);
    assert_eq!(planned.properties(), event.properties());
    let decision = event.finish();
    assert_eq!(planned.finish(), decision, "a plan decides otherwise");
    decision
}

fn sane(decision: &Decision) {
    for link in &decision.links {
        let mut parts = link.name.split(|byte| *byte == b'/');
        assert!(parts.all(|part| !matches!(part, b"" | b"." | b"..")), "{link:?}");
    }
    assert!(decision.mode.is_none_or(|mode| mode <= 0o7777));
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    for tag in &decision.tags.current {
        assert!(!tag.is_empty() && tag.iter().all(valid), "{tag:?}");
    }
    for run in &decision.run {
        assert!(run.command.len() < 16384 && run.source.place().is_some());
    }
    assert!(decision.steps.iter().all(|step| step.source.place().is_none_or(|p| p.line > 0)));
}
