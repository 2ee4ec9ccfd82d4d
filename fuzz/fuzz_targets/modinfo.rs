//! Any bytes as a module's file: no panic, and nothing is said that the file does not hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mapdev::modules::modinfo;

fuzz_target!(|bytes: &[u8]| {
    let Ok(info) = modinfo::parse(bytes) else { return };
    let within = |part: &[u8]| bytes.as_ptr_range().contains(&part.as_ptr()) || part.is_empty();
    let mut length = 0;
    for (key, value) in info.entries() {
        assert!(within(key) && within(value));
        length += key.len() + value.len();
    }
    assert!(length <= bytes.len());
    assert!(info.depends().chain(info.softdeps()).chain(info.firmware()).all(within));
    let declared = info.aliases().filter(|alias| alias.starts_with(b"devname:")).count();
    let names = info.devnames();
    assert_eq!(names.len(), declared);
    for (name, number) in names {
        assert!(within(name));
        assert!(number.is_none_or(|number| number.major < 1 << 12 && number.minor < 1 << 20));
    }
});
