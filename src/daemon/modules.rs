//! Tells dispatch of modules that are installed or removed while the daemon runs.
//!
//! It has a thread of its own: reading what changed takes as long as it takes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::Config;
use crate::dispatch::command::Command;
use crate::modules::watch::{News, Watch};
use crate::modules::{ModuleDb, cache};

/// The cache is written when nothing changed for this long: once for a package, not for each module.
const QUIET: Duration = Duration::from_secs(2);
/// Where it cannot be written it is tried again, ever more seldom: early at boot the disk is read-only.
const QUIET_MAX: Duration = Duration::from_secs(3600);

/// Starts to watch; ends with `stop` or with dispatch.
pub(super) fn start(
    config: &Config,
    db: Arc<ModuleDb>,
    commands: mpsc::Sender<Command>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (root, cache) = (config.root.clone(), config.module_cache(db.release()));
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = tell(&root, &cache, db, &commands) => {}
            }
        });
    };
    thread::Builder::new().name("modules".to_owned()).spawn(work).map(drop)
}

async fn tell(root: &Path, file: &Path, db: Arc<ModuleDb>, commands: &mpsc::Sender<Command>) {
    let release = db.release().to_owned();
    let mut told = db.problems().to_vec();
    // what is kept of a tree outlasts it: it may come back
    let worth = |db: &Arc<ModuleDb>| !db.folder().as_os_str().is_empty() && !cache::holds(db, file);
    let mut unwritten = Some(db.clone()).filter(worth);
    let (mut quiet, mut told_unkept) = (QUIET, false);
    let mut watch = Watch::new(root, &release, db);
    loop {
        let news = match &unwritten {
            None => watch.next().await,
            Some(db) => match timeout(quiet, watch.next()).await {
                Ok(news) => news,
                Err(_) => {
                    match cache::write(db, file) {
                        Ok(()) => (unwritten, quiet) = (None, QUIET),
                        Err(error) => {
                            if !std::mem::replace(&mut told_unkept, true) {
                                let file = file.display();
                                info!("modules: {file}: cannot keep the cache: {error}");
                            }
                            quiet = (2 * quiet).min(QUIET_MAX);
                        }
                    }
                    continue;
                }
            },
        };
        match news {
            News::Deaf(problem) => warn!("modules: {problem}"),
            News::Modules(db) => {
                let new = db.problems().iter().filter(|problem| !told.contains(problem));
                new.for_each(|problem| info!("modules: {problem}"));
                told = db.problems().to_vec();
                if commands.send(Command::Modules(db.clone())).await.is_err() {
                    return;
                }
                unwritten = Some(db).filter(worth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::modules::scan::scan;

    #[tokio::test]
    async fn a_cache_that_could_not_be_kept_at_the_start_is_kept_later() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("lib/modules/6.1")).unwrap();
        let db = Arc::new(scan(root.path(), "6.1"));
        let (way, file) = (root.path().join("var"), root.path().join("var/cache"));
        fs::write(&way, "in the way").unwrap();
        let (commands, _listening) = mpsc::channel(16);
        let telling = tell(root.path(), &file, db.clone(), &commands);
        let clear = async {
            // the first try comes to nothing
            tokio::time::sleep(QUIET + QUIET / 2).await;
            fs::remove_file(&way).unwrap();
            while !cache::holds(&db, &file) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = telling => panic!("it goes on"),
            done = timeout(Duration::from_secs(30), clear) => done.unwrap(),
        }
    }
}
