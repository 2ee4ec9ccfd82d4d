//! What depmod(8) wrote beside the modules.

use std::fs;

use super::{Kernel, kernels, text};

/// The lines of one of depmod's files, without its comments.
fn lines(kernel: &Kernel, file: &str) -> Vec<String> {
    let text = fs::read_to_string(kernel.folder.join(file)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
}

/// Fails with the first lines that differ.
fn same(kernel: &Kernel, file: &str, mut ours: Vec<String>) {
    let mut theirs = lines(kernel, file);
    theirs.sort_unstable();
    ours.sort_unstable();
    let only = |a: &[String], b: &[String]| {
        let missing = a.iter().filter(|line| b.binary_search(line).is_err());
        (missing.clone().count(), missing.take(5).cloned().collect::<Vec<_>>())
    };
    let (extra, missing) = (only(&ours, &theirs), only(&theirs, &ours));
    let release = kernel.db.release();
    println!("{release} {file}: {} lines, {} and {} differ", theirs.len(), extra.0, missing.0);
    assert!(ours == theirs, "{release} {file}: only ours {extra:#?}, only depmod's {missing:#?}");
}

#[test]
fn all_that_depmod_finds_is_found() {
    for kernel in kernels() {
        let loadable = || kernel.db.modules().filter(|module| !module.is_builtin());
        assert!(kernel.db.problems().is_empty(), "{:?}", kernel.db.problems());

        let aliases = loadable().flat_map(|module| {
            module.aliases().map(move |alias| format!("alias {} {}", text(alias), module.name()))
        });
        same(kernel, "modules.alias", aliases.collect());

        let soft = loadable().flat_map(|module| {
            module.softdeps().map(move |deps| format!("softdep {} {}", module.name(), text(deps)))
        });
        same(kernel, "modules.softdep", soft.collect());

        let names = kernel.db.devnames().filter(|devname| !devname.builtin);
        let names = names.filter_map(|devname| {
            Some(format!("{} {} {}", devname.module, text(devname.name), devname.number?))
        });
        same(kernel, "modules.devname", names.collect());

        let needs = loadable().map(|module| {
            let mut all: Vec<_> = module.load_order().collect();
            all.reverse();
            let paths = all.into_iter().map(|m| format!(" {}", m.file().unwrap().display()));
            format!("{}:{}", module.file().unwrap().display(), paths.collect::<String>())
        });
        same(kernel, "modules.dep", needs.collect());

        let builtin = kernel.db.modules().filter(|module| module.is_builtin());
        let mut wanted: Vec<String> = lines(kernel, "modules.builtin")
            .iter()
            .filter_map(|line| {
                Some(line.rsplit('/').next()?.strip_suffix(".ko")?.replace('-', "_"))
            })
            .collect();
        wanted.sort_unstable();
        let said: Vec<&str> = builtin.map(|module| module.name()).collect();
        assert!(wanted.iter().all(|name| said.contains(&name.as_str())));
    }
}
