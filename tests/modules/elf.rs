//! Object files with a `.modinfo`, as small as they can be.

/// Writes relocatable ELF objects of either class and byte order with one section `.modinfo`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elf {
    wide: bool,
    big: bool,
}

pub(crate) const KINDS: [Elf; 4] = [
    Elf { wide: false, big: false },
    Elf { wide: false, big: true },
    Elf { wide: true, big: false },
    Elf { wide: true, big: true },
];
pub(crate) const NATIVE: Elf = KINDS[2];

impl Elf {
    fn number(self, out: &mut Vec<u8>, value: u64, size: usize) {
        let bytes = value.to_le_bytes();
        let low = &bytes[..size];
        if self.big { out.extend(low.iter().rev()) } else { out.extend(low) }
    }

    fn word(self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    pub(crate) fn write(self, entries: &[&str]) -> Vec<u8> {
        let mut info: Vec<u8> = entries.join("\0").into_bytes();
        info.push(0);
        let names = b"\0.text\0.modinfo\0.shstrtab\0";
        let head = if self.wide { 64 } else { 52 };
        let table = head + info.len() + names.len();
        let mut out = b"\x7fELF".to_vec();
        out.extend([1 + u8::from(self.wide), 1 + u8::from(self.big), 1]);
        out.resize(16, 0);
        for (value, size) in [(1, 2), (62, 2), (1, 4), (0, self.word()), (0, self.word())] {
            self.number(&mut out, value, size);
        }
        self.number(&mut out, table as u64, self.word());
        let entry = if self.wide { 64 } else { 40 };
        for (value, size) in [(0, 4), (head, 2), (0, 2), (0, 2), (entry, 2), (4, 2), (3, 2)] {
            self.number(&mut out, value as u64, size);
        }
        assert_eq!(out.len(), head);
        out.extend(&info);
        out.extend(names);
        let names_at = head + info.len();
        let sections = [
            (0, 0, 0, 0),
            (1, 1, head, 0),
            (7, 1, head, info.len()),
            (16, 3, names_at, names.len()),
        ];
        for (name, kind, offset, size) in sections {
            self.number(&mut out, name, 4);
            self.number(&mut out, kind, 4);
            for value in [0, 0, offset, size] {
                self.number(&mut out, value as u64, self.word());
            }
            self.number(&mut out, 0, 4);
            self.number(&mut out, 0, 4);
            self.number(&mut out, 1, self.word());
            self.number(&mut out, 0, self.word());
        }
        out
    }
}
