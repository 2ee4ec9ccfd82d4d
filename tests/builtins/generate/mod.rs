//! Machines made at random, in the form of recordings: likely ones, and some that no kernel would show.

mod input;
mod net;
mod place;
mod usb;

use crate::random::Random;
use crate::recording::Recording;

/// A recording that is being written.
pub(crate) struct Text<'a> {
    pub(crate) random: &'a mut Random,
    lines: Vec<String>,
    /// What is to be asked about.
    pub(crate) asked: Vec<String>,
}

/// A machine, and its devices that are asked about.
pub(crate) fn machine(random: &mut Random) -> (Recording, Vec<String>) {
    let mut text = Text { random, lines: Vec::new(), asked: Vec::new() };
    match text.random.below(9) {
        0 | 1 => usb::usb(&mut text),
        2..=4 => net::net(&mut text),
        5 | 6 => input::input(&mut text),
        _ => place::place(&mut text),
    }
    (Recording { lines: text.lines }, text.asked)
}

impl Text<'_> {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit)
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.random.below(count) == 0
    }

    pub(crate) fn of<'b>(&mut self, choices: &[&'b str]) -> &'b str {
        choices[self.random.below(choices.len())]
    }

    /// Begins a device; a subsystem may have a type behind a `:`.
    pub(crate) fn device(&mut self, path: &str, subsystem: &str) {
        self.lines.push(String::new());
        self.lines.push(format!("P: {path}"));
        let (subsystem, kind) = subsystem.split_once(':').unwrap_or((subsystem, ""));
        if !subsystem.is_empty() {
            self.property("SUBSYSTEM", subsystem);
        }
        if !kind.is_empty() {
            self.property("DEVTYPE", kind);
        }
    }

    pub(crate) fn ask(&mut self, path: &str) {
        self.asked.push(path.to_owned());
    }

    pub(crate) fn property(&mut self, key: &str, value: &str) {
        self.lines.push(format!("E: {key}={value}"));
    }

    pub(crate) fn attribute(&mut self, name: &str, value: &str) {
        self.lines.push(format!("A: {name}={value}\\n"));
    }

    /// An attribute that is there, is missing, or holds something odd.
    pub(crate) fn maybe(&mut self, name: &str, values: &[&str]) {
        match self.below(12) {
            0 | 1 => {}
            2 => {
                let odd = self.of(ODD);
                self.attribute(name, odd);
            }
            _ => {
                let value = self.of(values);
                self.attribute(name, value);
            }
        }
    }

    pub(crate) fn binary(&mut self, name: &str, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.lines.push(format!("H: {name}={digits}"));
    }

    pub(crate) fn link(&mut self, name: &str, target: &str) {
        self.lines.push(format!("L: {name}={target}"));
    }

    /// A way through bridges, with the host bridge; its last device is begun and not ended.
    pub(crate) fn pci(&mut self) -> String {
        let domain = if self.one_in(5) { "0001" } else { "0000" };
        let mut path = format!("/devices/pci{domain}:00");
        self.device(&path, "");
        for depth in 0..=self.below(3) {
            let slot = self.below(32);
            let function = if self.one_in(3) { self.below(8) } else { 0 };
            path = format!("{path}/{domain}:{depth:02x}:{slot:02x}.{function}");
            self.device(&path, "pci");
            self.pci_attributes();
        }
        path
    }

    fn pci_attributes(&mut self) {
        let class = self.of(&["bc02sc00i00", "bc06sc04i00", "bc06sc07i00", "bc0Csc03i30"]);
        self.attribute("modalias", &format!("pci:v00008086d0000100Esv0000sd0000{class}"));
        if self.one_in(2) {
            let mut config = vec![0; if self.one_in(6) { 16 } else { 64 }];
            config[14] = [0, 0x80, 0x81, 1][self.below(4)];
            self.binary("config", &config);
        }
        if self.one_in(6) {
            self.maybe("ari_enabled", &["0", "1"]);
        }
    }
}

/// What is no number, no address and no word.
const ODD: &[&str] = &[
    "",
    " ",
    "-1",
    "+1",
    " 1",
    "1 ",
    "0x1",
    "010",
    "x",
    "4294967296",
    "99999999999999999999",
    "ä",
    "\\xff",
    "a b",
    "1.5",
    "65536",
    "16384",
    "0",
    "/",
    "..",
];
