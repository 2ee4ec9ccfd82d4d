//! Input devices: some as they are made, some with what no designer would think of.

use super::Text;

/// Keys, axes and so on that mean something.
const KEYS: &[usize] = &[
    1, 29, 30, 58, 69, 110, 113, 140, 144, 155, 164, 224, 0xff, 0x100, 0x101, 0x102, 0x10f, 0x110,
    0x111, 0x112, 0x11f, 0x120, 0x121, 0x12f, 0x130, 0x131, 0x13f, 0x140, 0x141, 0x145, 0x14a,
    0x14b, 0x14c, 0x150, 0x160, 0x161, 0x1ff, 0x21f, 0x220, 0x221, 0x223, 0x224, 0x22f, 0x230,
    0x240, 0x2bf, 0x2c0, 0x2c1, 0x2e7, 0x2e8, 0x2ff,
];
const AXES: &[usize] =
    &[0, 1, 2, 3, 4, 5, 6, 0x10, 0x17, 0x18, 0x28, 0x2e, 0x2f, 0x30, 0x35, 0x36, 0x39];

pub(super) fn input(text: &mut Text<'_>) {
    let mut parent = text.pci();
    if text.one_in(2) {
        parent = format!("{parent}/usb2/2-1");
        text.device(&parent, "usb:usb_device");
        parent = format!("{parent}/2-1:1.0");
        text.device(&parent, "usb:usb_interface");
    }
    let path = format!("{parent}/input/input7");
    text.device(&path, "input");
    let bus = text.of(&["0003", "0018", "0005", "0011", "18", ""]);
    text.attribute("id/bustype", bus);
    if !text.one_in(20) {
        let kinds = bits(text, &[1, 2, 3, 5, 17, 20, 0], 2);
        text.attribute("capabilities/ev", &kinds);
    }
    let likely = 1 + text.below(12);
    let keys = match text.below(4) {
        0 => map(&(1..32).chain([58, 69, 110, 113]).collect::<Vec<_>>()),
        _ => bits(text, KEYS, likely),
    };
    text.attribute("capabilities/key", &keys);
    let axes = bits(text, AXES, 1 + likely / 3);
    text.attribute("capabilities/abs", &axes);
    let moves = bits(text, &[0, 1, 6, 8, 11], 2);
    text.attribute("capabilities/rel", &moves);
    let properties = bits(text, &[0, 1, 2, 5, 6], 3);
    text.attribute("properties", &properties);
    text.ask(&path);
    let name = text.of(&["event7", "mouse0", "js0", "eventx"]);
    let node = format!("{path}/{name}");
    text.device(&node, "input");
    text.ask(&node);
    if text.one_in(4) {
        let deep = format!("{parent}/hidraw/hidraw0");
        text.device(&deep, "hidraw");
        text.ask(&deep);
    }
}

/// Each with a chance of one in `rarity`.
fn bits(text: &mut Text<'_>, all: &[usize], rarity: usize) -> String {
    let chosen: Vec<_> = all.iter().copied().filter(|_| text.random.below(rarity) == 0).collect();
    map(&chosen)
}

/// Words of 64 bits, the highest first, as the kernel writes them.
fn map(bits: &[usize]) -> String {
    let mut words = [0_u64; 12];
    for bit in bits {
        words[bit / 64] |= 1 << (bit % 64);
    }
    let used = words.iter().rposition(|word| *word != 0).unwrap_or(0);
    let shown = words[..=used].iter().rev().map(|word| format!("{word:x}"));
    shown.collect::<Vec<_>>().join(" ")
}
