//! Configurations such as administrators and distributions write, and mistakes; each with the names
//! that are asked for.

use std::fs;

use mapdev::modules::modprobe::Config;

use super::peer::{Question, each, ours, same, theirs};
use crate::kernels;

/// What it is about, its lines, and the names, `-b` and `-i` before one as for modprobe.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: [Case; 40] = [
    ("an alias", "alias my-net tun\n", &["my-net", "my_net", "tun"]),
    (
        "an alias with wildcards",
        "alias my-* tun\nalias my-[0-9]x tap\n",
        &["my-9x", "my_foo", "my"],
    ),
    ("several aliases of one name", "alias x tun\nalias x tap\nalias x tun\n", &["x"]),
    ("an alias goes before a module", "alias ext4 tun\n", &["ext4", "fs-ext4"]),
    ("an alias goes before the modules' own", "alias fs-ext4 btrfs\n", &["fs-ext4"]),
    ("an alias is looked up once only", "alias a b\nalias b tun\n", &["a", "b"]),
    ("an alias for nothing", "alias x off\nalias net-pf-10 off\n", &["x", "net-pf-10"]),
    ("an alias in capitals", "alias X tun\n", &["x", "X"]),
    (
        "a modalias of a device",
        "alias pci:v00008086d0000100E* tun\n",
        &["pci:v00008086d0000100Esv0"],
    ),
    ("a module that is part of the kernel", "alias x unix\n", &["x", "unix", "rtc-cmos"]),
    ("options", "options loop max_loop=8\noptions loop max_part=4\n", &["loop", "block-major-7-0"]),
    (
        "options of what is needed",
        "options mbcache a=1\noptions jbd2 b=\"x y\"\n",
        &["ext4", "jbd2"],
    ),
    ("options of an alias", "alias e-* loop\noptions e-* a=1\noptions e-1 b=1\n", &["e-1", "loop"]),
    ("options of a modalias", "options fs-ext4 a=1\noptions fs_ext4 b=1\n", &["fs-ext4", "ext4"]),
    ("a minus is an underscore", "options dm_mod a=1\noptions dm-mod b=1\n", &["dm-mod", "dm_mod"]),
    ("blacklist by name", "blacklist loop\n", &["loop", "-b loop"]),
    (
        "blacklist by alias",
        "blacklist loop\nalias l loop\n",
        &["block-major-7-0", "l", "-b l", "fs-ext4"],
    ),
    (
        "blacklist of what is needed",
        "blacklist mbcache\nblacklist jbd2\n",
        &["-b ext4", "-b fs-ext4"],
    ),
    (
        "blacklist of one of several",
        "blacklist crc32c-intel\n",
        &["crc32c", "-b crc32c", "-b ext4"],
    ),
    ("blacklist of an alias", "alias l loop\nblacklist l\n", &["l", "-b l"]),
    (
        "an install command",
        "install loop /sbin/modprobe --ignore-install loop max_loop=2 $CMDLINE_OPTS\n",
        &["loop", "-i loop", "block-major-7-0"],
    ),
    (
        "an install command of what is needed",
        "install mbcache /bin/true\noptions mbcache a=1\n",
        &["ext4", "-i ext4", "mbcache"],
    ),
    ("an install command that loads itself", "install loop modprobe loop\n", &["loop", "-i loop"]),
    (
        "install commands in a circle",
        "install tun modprobe tap\ninstall tap modprobe tun\n",
        &["tun"],
    ),
    (
        "an install command of no module",
        "install pair modprobe tun && modprobe tap\n",
        &["pair", "-i pair"],
    ),
    (
        "an install command for a pattern",
        "install l* /bin/false\ninstall loop X\n",
        &["loop", "lp", "lxx"],
    ),
    (
        "an install command beside soft dependencies",
        "install tun X\nsoftdep tun pre: loop\n",
        &["tun"],
    ),
    ("a remove command makes a name known", "remove pair modprobe -r tun\n", &["pair", "tun"]),
    ("options of an install command", "install pair X\noptions pair a=1 b=2\n", &["pair"]),
    ("soft dependencies", "softdep tun pre: loop tap post: veth\n", &["tun", "-i tun", "loop"]),
    (
        "soft dependencies in a chain",
        "softdep tun pre: tap\nsoftdep tap pre: loop post: veth\n\
        softdep veth pre: ext4\n",
        &["tun", "tap", "veth"],
    ),
    (
        "soft dependencies in a circle",
        "softdep tun pre: tap\nsoftdep tap post: tun\n",
        &["tun", "tap"],
    ),
    (
        "soft dependencies by alias",
        "softdep tun pre: fs-ext4 nosuch crc32c\nblacklist ext4\n",
        &["tun", "-b tun"],
    ),
    ("soft dependencies of what is needed", "softdep mbcache pre: tun post: loop\n", &["ext4"]),
    (
        "the first soft dependencies hold",
        "softdep ext4 pre: tun\nsoftdep ext4 pre: tap\nsoftdep b* pre: tap\n",
        &["ext4", "btrfs"],
    ),
    (
        "soft dependencies without a side",
        "softdep tun loop pre:\nsoftdep tap  post:  \n",
        &["tun", "tap"],
    ),
    (
        "lines that go on, and comments",
        "# a\n#b \\\noptions loop x=1\nalias \\\n x \\\n loop\noptions loop \\\n a=1\n",
        &["x"],
    ),
    (
        "backslashes",
        "options loop a=\\\\1 b=\\n\ninstall tun echo \\\"x\\\\\\\"\n",
        &["loop", "tun"],
    ),
    (
        "lines that are wrong",
        "alias\nalias x\nblacklist\noptions loop\ninstall tun\nsoftdep loop\nfoo bar\n\
        include /etc/x\nweakdep tun tap\n  # late\nalias b] tun\nalias b[ tun\n\talias  ok\tloop more\n\
        \0options loop b=1\noptions loop a=1\0b\n",
        &["loop", "ok", "x", "b]", "b["],
    ),
    (
        "the end of a file in DOS' manner",
        "alias x loop\r\noptions loop a=1\r\nblacklist tun\r\n",
        &["x", "loop", "tun", "-b tun"],
    ),
];

fn question(words: &str) -> Question {
    let name = words.trim_start_matches("-b ").trim_start_matches("-i ");
    Question {
        blacklist: words.starts_with("-b "),
        ignore_install: words.starts_with("-i "),
        ..Question::of(name)
    }
}

#[test]
fn configurations_mean_what_they_mean_to_modprobe() {
    for kernel in kernels() {
        let compared = each(&CASES, |(about, text, names)| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("x.conf"), text).unwrap();
            let folders = [folder.path().to_owned()];
            let config = Config::of_folders(&folders, &super::machine_cmdline());
            let compare = |words: &&str| {
                let asked = question(words);
                let theirs = theirs(kernel, folder.path(), None, &asked);
                (format!("{about}: {words}"), ours(kernel, &config, &asked), theirs)
            };
            names.iter().map(compare).collect::<Vec<_>>()
        });
        let what = format!("{}, {} configurations", kernel.db.release(), CASES.len());
        same(&what, &compared.concat());
    }
}

#[test]
fn files_come_in_the_order_of_their_names() {
    let files = [
        ("10-a.conf", "softdep tun pre: loop\noptions loop a=1\n"),
        ("20-b.conf", "softdep tun pre: tap\noptions loop b=1\nalias x tun\n"),
        ("5-c.conf", "options loop c=1\nalias x tap\n"),
        ("zz.conf", "softdep ext4 pre: tun\noptions loop d=1\n"),
        ("aa.conf", "softdep btrfs pre: tun\n"),
        ("old.alias", "options loop e=1\n"),
        (".hidden.conf", "options loop f=1\n"),
        ("note.txt", "options loop g=1\n"),
        ("x.conf~", "options loop h=1\n"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let config = Config::of_folders(&[folder.path().to_owned()], &super::machine_cmdline());
    for kernel in kernels() {
        let compared = ["tun", "loop", "x", "ext4", "btrfs"].map(|name| {
            let asked = Question::of(name);
            let theirs = theirs(kernel, folder.path(), None, &asked);
            (name.to_owned(), ours(kernel, &config, &asked), theirs)
        });
        same(&format!("{}, order of files", kernel.db.release()), &compared);
    }
}

/// modprobe reads /proc/cmdline, so a file is mounted over it where nobody else sees.
#[test]
fn the_kernels_command_line_means_what_it_means_to_modprobe() {
    const LINES: [&str; 22] = [
        "loop.max_loop=4 quiet tun.a ext4.b=\"x y\"",
        "\"loop.max_loop=4\" \"tun.a=x y\" \"ext4.b=\"",
        "modprobe.blacklist=loop,tun,crc32c-intel",
        "modprobe.blacklist=loop modprobe.blacklist=ext4",
        "\"modprobe.blacklist=loop,tun\"",
        "modprobe.blacklist=\"loop,tun\"",
        "modprobe.blacklist=crc32c_intel,",
        "modprobe.blacklist",
        "modprobe.blacklistx=loop",
        "modprobe.blacklist=",
        "module_blacklist=loop,tun",
        "root=/dev/loop.x loop.a.b=1 loop=1 lo\"op.x=1 \"lo op.x=1\"",
        "loop.a=1\tloop.b=2\nloop.c=3\rloop.d=4",
        "loop.a=\"1",
        "loop.a=\"1 loop.b=2\" loop.c=3",
        "loop.a=b=c.d loop.=1 .a=1 loop. .",
        "dm-mod.a=1 dm_mod.b=2 lo[op.c=1 lo]op.x=1",
        "loop.a=x\"y z\"w loop.b",
        "loop.\"a\"=1 \"loop\".b=2 loop\".c\"=3",
        "loop.a=1 -- loop.b=2",
        "",
        "\"\" \" \" loop.a=1 \"loop.b=2\" loop.c=\"3\"",
    ];
    const NAMES: [&str; 9] = [
        "loop",
        "tun",
        "ext4",
        "block-major-7-0",
        "devname:net/tun",
        "fs-ext4",
        "crc32c",
        "dm-mod",
        "-b loop",
    ];
    let folder = tempfile::tempdir().unwrap();
    for kernel in kernels() {
        let compared = each(&LINES, |line| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), format!("{line}\n")).unwrap();
            let config = Config::of_folders(&[], format!("{line}\n").as_bytes());
            let compare = |words: &str| {
                let asked = question(words);
                let theirs = theirs(kernel, folder.path(), Some(file.path()), &asked);
                (format!("{line}: {words}"), ours(kernel, &config, &asked), theirs)
            };
            NAMES.map(compare)
        });
        same(
            &format!("{}, {} command lines", kernel.db.release(), LINES.len()),
            &compared.concat(),
        );
    }
}
