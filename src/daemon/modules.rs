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
    let mut watch = Watch::new(root, &release, db);
    let mut unwritten: Option<Arc<ModuleDb>> = None;
    loop {
        let news = match &unwritten {
            None => watch.next().await,
            Some(db) => match timeout(QUIET, watch.next()).await {
                Ok(news) => news,
                Err(_) => {
                    if let Err(error) = cache::write(db, file) {
                        info!("modules: {}: cannot keep the cache: {error}", file.display());
                    }
                    unwritten = None;
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
                unwritten = Some(db);
            }
        }
    }
}
