//! modprobe itself, and the same question to both.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use mapdev::modules::modprobe::{Blacklist, Config, Plan, PlanError, Request, plan};

use crate::Kernel;

/// What is asked, of both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) name: Vec<u8>,
    /// `-b`
    pub(crate) blacklist: bool,
    /// `--ignore-install`
    pub(crate) ignore_install: bool,
    /// Options behind the name.
    pub(crate) options: String,
}

impl Question {
    pub(crate) fn of(name: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// What would be done, a line each; `None` if the name is not known.
pub(crate) type Answer = Option<String>;

/// What modprobe says; `cmdline` takes the place of the kernel's command line.
pub(crate) fn theirs(
    kernel: &Kernel,
    folder: &Path,
    cmdline: Option<&Path>,
    asked: &Question,
) -> Answer {
    modprobe(kernel, "--show-depends", folder, cmdline, asked)
}

/// The modules that modprobe finds for a name, each once, in order.
pub(crate) fn their_modules(kernel: &Kernel, folder: &Path, asked: &Question) -> Vec<String> {
    let found = modprobe(kernel, "--resolve-alias", folder, None, asked).unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for name in found.lines() {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn modprobe(
    kernel: &Kernel,
    what: &str,
    folder: &Path,
    cmdline: Option<&Path>,
    asked: &Question,
) -> Answer {
    let mut command = match cmdline {
        None => Command::new("modprobe"),
        Some(file) => {
            let mut command = Command::new("unshare");
            let user = (!rustix::process::geteuid().is_root()).then_some("--map-root-user");
            let script = "mount --bind \"$0\" /proc/cmdline && exec modprobe \"$@\"";
            command.args(user).args(["--mount", "sh", "-ec", script]).arg(file);
            command
        }
    };
    command.env_remove("MODPROBE_OPTIONS").arg("-d").arg(&kernel.root).arg("-C").arg(folder);
    command.args(["-S", kernel.db.release(), what]);
    command.args(asked.blacklist.then_some("-b"));
    command.args(asked.ignore_install.then_some("--ignore-install"));
    command.arg("--").arg(OsStr::from_bytes(&asked.name));
    let options = asked.options.split(' ').filter(|option| !option.is_empty());
    let output = command.args(options).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Some(trimmed(&output.stdout)),
        Some(1) if said.contains("not found in directory") => None,
        code => panic!("modprobe, asked for {asked:?}: {code:?}, {said}"),
    }
}

/// What mapdev says.
pub(crate) fn ours(kernel: &Kernel, config: &Config, asked: &Question) -> Answer {
    our_plan(kernel, config, asked).map(|plan| trimmed(&plan.show_depends()))
}

pub(crate) fn our_plan(kernel: &Kernel, config: &Config, asked: &Question) -> Option<Plan> {
    let request = Request {
        name: &asked.name,
        options: asked.options.as_bytes(),
        blacklist: if asked.blacklist { Blacklist::Names } else { Blacklist::Aliases },
        ignore_install: asked.ignore_install,
    };
    match plan(&kernel.db, config, &request) {
        Ok(plan) => Some(plan),
        Err(PlanError::NotFound | PlanError::Brackets) => None,
        Err(error @ PlanError::TooDeep(_)) => panic!("{asked:?}: {error}"),
    }
}

/// modprobe puts a blank where there are no options.
fn trimmed(shown: &[u8]) -> String {
    let shown = String::from_utf8_lossy(shown);
    let lines = shown.split_terminator('\n');
    lines.map(|line| format!("{}\n", line.trim_end_matches(' '))).collect()
}

/// Does the work for every item on all processors, and gives what came of it in order.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut all: Vec<(usize, R)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Fails with the first of these that are not the same.
pub(crate) fn same(what: &str, compared: &[(String, Answer, Answer)]) {
    let differ: Vec<_> = compared.iter().filter(|(_, ours, theirs)| ours != theirs).collect();
    println!("{what}: {} compared, {} differ", compared.len(), differ.len());
    let shown = differ.iter().take(5).map(|(asked, ours, theirs)| {
        let text = |answer: &Answer| answer.clone().unwrap_or_else(|| "not found\n".to_owned());
        format!("--- {asked}\nours:\n{}modprobe's:\n{}", text(ours), text(theirs))
    });
    let shown: String = shown.collect();
    assert!(differ.is_empty(), "{what}: {} differ\n{shown}", differ.len());
}
