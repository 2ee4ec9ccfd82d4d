//! What mapdev would load for a name is what kmod's modprobe would.

mod configs;
mod peer;
mod random;

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use mapdev::modules::modprobe::Config;

use crate::{Kernel, kernels};
use peer::{Question, each, our_plan, ours, same, their_modules, theirs};

fn machine_cmdline() -> Vec<u8> {
    fs::read("/proc/cmdline").unwrap_or_default()
}

/// The modules that modules.builtin names.
fn listed_builtins(kernel: &Kernel) -> BTreeSet<String> {
    let list = fs::read_to_string(kernel.folder.join("modules.builtin")).unwrap();
    let name =
        |line: &str| line.rsplit('/').next()?.strip_suffix(".ko").map(|n| n.replace('-', "_"));
    list.lines().filter_map(name).collect()
}

/// Modaliases that devices of every bus have, and what the kernel itself asks for.
const MODALIASES: [&str; 20] = [
    "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
    "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00",
    "pci:v000010DEd00001CB3sv000010DEsd000011BEbc03sc00i00",
    "pci:v00008086d00002668sv00001AF4sd00001100bc04sc03i00",
    "usb:v0BDAp8153d3000dc00dsc00dp00icFFiscFFip00in00",
    "usb:v1D6Bp0002d0601dc09dsc00dp01ic09isc00ip00in00",
    "acpi:PNP0C0A:",
    "acpi:ACPI0003:PNP0C0A:",
    "hid:b0003g0001v0000046Dp0000C52B",
    "input:b0003v046DpC52Be0111-e0,1,2,4,k71,72,ram4,lsfw",
    "virtio:d00000001v00001AF4",
    "fs-btrfs",
    "net-pf-10",
    "net-pf-16-proto-16-family-wireguard",
    "char-major-10-200",
    "block-major-7-0",
    "devname:net/tun",
    "crypto-crc32c",
    "crypto-aes-all",
    "cpu:type:x86,ven0000fam0006mod003A:feature:,0000,0001,0002,0081,0093",
];

#[test]
fn a_modalias_loads_all_that_offer_it() {
    let empty = tempfile::tempdir().unwrap();
    let config = Config::of_folders(&[], &machine_cmdline());
    for kernel in kernels() {
        // some of the modules' own patterns as they stand: a star matches itself, a bracket does not
        let offered = kernel.db.modules().flat_map(|module| module.aliases());
        let offered = offered.filter(|alias| !alias.contains(&b'[')).step_by(25).map(Question::of);
        let questions: Vec<_> = MODALIASES.map(Question::of).into_iter().chain(offered).collect();
        // modprobe does everything once more for each further pattern of one module that fits, so
        // it is asked which modules it finds; the steps for each are compared above
        let compared = each(&questions, |asked| {
            let plan = our_plan(kernel, &config, asked);
            let ours = plan.iter().flat_map(|plan| &plan.targets);
            let ours: Vec<_> = ours.map(|t| String::from_utf8_lossy(&t.module)).collect();
            let theirs = their_modules(kernel, empty.path(), asked);
            let name = String::from_utf8_lossy(&asked.name).into_owned();
            (name, Some(ours.join("\n")), Some(theirs.join("\n")))
        });
        same(&format!("{}, modaliases", kernel.db.release()), &compared);
    }
}

#[test]
fn every_module_is_loaded_with_what_it_needs_in_modprobes_order() {
    let empty = tempfile::tempdir().unwrap();
    let config = Config::of_folders(&[], &machine_cmdline());
    for kernel in kernels() {
        let begun = Instant::now();
        let listed = listed_builtins(kernel);
        let known = kernel.db.modules().map(|module| module.name());
        let (known, only_described): (Vec<_>, Vec<_>) = known.partition(|name| {
            listed.contains(*name) || !kernel.db.module(name.as_bytes()).unwrap().is_builtin()
        });
        let questions: Vec<_> = known.into_iter().map(Question::of).collect();
        let compared = each(&questions, |asked| {
            let name = String::from_utf8_lossy(&asked.name).into_owned();
            (name, ours(kernel, &config, asked), theirs(kernel, empty.path(), None, asked))
        });
        let what = format!("{}, every module", kernel.db.release());
        println!("{what}: {:?}", begun.elapsed());
        same(&what, &compared);
        // what modules.builtin.modinfo alone names is no module for kmod; here it is what it is
        for name in only_described {
            let asked = Question::of(name);
            let theirs = theirs(kernel, empty.path(), None, &asked);
            let wanted = theirs.unwrap_or_else(|| format!("builtin {name}\n"));
            assert_eq!(ours(kernel, &config, &asked), Some(wanted));
        }
    }
}
