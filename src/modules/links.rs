//! Stage 3b: what a module's file is read for, and the order in which a module uses the others.
//!
//! `depends=` names all modules that one needs, but as the build happened to find them. depmod(8) takes
//! them in the order in which the symbol table first uses each, and its lists show that order.

use std::collections::hash_map::{Entry, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

use super::build::underscored;
use super::modinfo::{ModInfoError, Object};
use super::unpack::{self, Buffers};

/// What is taken from one file.
#[derive(Debug)]
pub(super) struct Linked {
    /// `.modinfo` as far as the database keeps it, less `depends`.
    info: Vec<u8>,
    /// Names as in /proc/modules.
    depends: Vec<Vec<u8>>,
    /// Hashes of names: the symbols that it offers, and those that it uses of others. Empty where
    /// there is nothing to put in order.
    exported: Vec<u64>,
    undefined: Vec<u64>,
}

/// Reads a module's file.
pub(super) fn read(path: &Path, buffers: &mut Buffers) -> Result<Linked, String> {
    linked(unpack::read(path, buffers)?).map_err(|error| error.to_string())
}

fn linked(file: &[u8]) -> Result<Linked, ModInfoError> {
    let object = Object::parse(file)?;
    let all = object.modinfo()?;
    let mut info = Vec::new();
    for (key, value) in all.entries() {
        if matches!(key, b"alias" | b"softdep") {
            entry(&mut info, key, value);
        }
    }
    let depends: Vec<_> = all.depends().map(underscored).collect();
    let undefined = match depends.len() {
        0 | 1 => Vec::new(),
        _ => object.undefined().map(hash).collect(),
    };
    Ok(Linked { info, depends, exported: object.exported().map(hash).collect(), undefined })
}

fn entry(info: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if !value.is_empty() {
        info.extend_from_slice(key);
        info.push(b'=');
        info.extend_from_slice(value);
        info.push(0);
    }
}

/// The same for the same bytes in one run, which is all that is wanted.
fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish()
}

/// Which module offers a symbol, for all that the files just read use of each other.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// The names of modules that were looked into, and their numbers.
    modules: HashMap<Vec<u8>, u32>,
    offered: HashMap<u64, u32>,
}

impl Symbols {
    /// Of files just read, by their modules' names; `find` gives the file of a module that was not.
    pub(super) fn of<'a>(
        read: impl Iterator<Item = (Vec<u8>, &'a Linked)> + Clone,
        find: impl Fn(&[u8]) -> Option<std::path::PathBuf>,
    ) -> Self {
        let mut symbols = Self::default();
        let ordered = read.clone().filter(|(_, linked)| !linked.undefined.is_empty());
        for name in ordered.flat_map(|(_, linked)| &linked.depends) {
            let number = u32::try_from(symbols.modules.len()).unwrap_or(u32::MAX);
            symbols.modules.entry(name.clone()).or_insert(number);
        }
        let mut unread = symbols.modules.clone();
        for (name, linked) in read {
            if let Some(number) = unread.remove(&name) {
                symbols.offer(number, &linked.exported);
            }
        }
        let mut buffers = Buffers::default();
        for (name, number) in unread {
            let path = find(&name);
            if let Some(Ok(linked)) = path.map(|path| self::read(&path, &mut buffers)) {
                symbols.offer(number, &linked.exported);
            }
        }
        symbols
    }

    fn offer(&mut self, module: u32, exported: &[u64]) {
        for symbol in exported {
            match self.offered.entry(*symbol) {
                Entry::Vacant(free) => drop(free.insert(module)),
                // whoever it is, both are needed, or none
                Entry::Occupied(_) => (),
            }
        }
    }

    /// What the database keeps of a file: with the modules that it needs in the order of their use.
    pub(super) fn kept(&self, linked: Linked) -> Vec<u8> {
        let Linked { mut info, depends, exported: _, undefined } = linked;
        let number = |name: &Vec<u8>| self.modules.get(name).copied();
        let numbers: Vec<_> = depends.iter().map(number).collect();
        let mut first_use = vec![usize::MAX; depends.len()];
        for (place, symbol) in undefined.iter().enumerate() {
            let module = self.offered.get(symbol);
            let index = module.and_then(|module| numbers.iter().position(|n| *n == Some(*module)));
            if let Some(first) = index.and_then(|index| first_use.get_mut(index)) {
                *first = place.min(*first);
            }
        }
        let mut order: Vec<_> = depends.iter().zip(first_use).collect();
        // stable: what is not used by a symbol stays last, as declared
        order.sort_by_key(|(_, first)| *first);
        let order: Vec<&[u8]> = order.into_iter().map(|(name, _)| &**name).collect();
        entry(&mut info, b"depends", &order.join(&b','));
        info
    }
}

#[cfg(test)]
mod tests {
    use super::super::modinfo::ModInfo;
    use super::*;

    fn module(depends: &[&[u8]], exported: &[&[u8]], undefined: &[&[u8]]) -> Linked {
        Linked {
            info: Vec::new(),
            depends: depends.iter().map(|name| name.to_vec()).collect(),
            exported: exported.iter().map(|name| hash(name)).collect(),
            undefined: undefined.iter().map(|name| hash(name)).collect(),
        }
    }

    fn depends(info: &[u8]) -> Vec<&[u8]> {
        ModInfo::of(info).depends().collect()
    }

    #[test]
    fn what_is_used_first_stands_first() {
        let (a, b) = (module(&[], &[b"a1", b"a2"], &[]), module(&[], &[b"b1"], &[]));
        let user = module(&[b"a", b"unused", b"b"], &[], &[b"printk", b"b1", b"a2", b"b1"]);
        let read = [(b"a".to_vec(), &a), (b"user".to_vec(), &user), (b"b".to_vec(), &b)];
        let symbols = Symbols::of(read.into_iter(), |_| None);
        assert_eq!(depends(&symbols.kept(user)), [&b"b"[..], b"a", b"unused"]);
        assert_eq!(depends(&symbols.kept(module(&[b"x"], &[], &[]))), [b"x"]);
    }
}
