//! The disk that was booted from: its root partition is told, as it is to udev, by what the boot loader
//! left in a variable of the firmware.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mapdev::builtin::{Builtin, Call, Ran};

use crate::attached::{Attached, device, lines, theirs};
use crate::contents::PREPARE;
use crate::{images, kit, namespaces};

/// Firmware with variables, in a root without the files by which a container is known.
const FIRMWARE: &str = "
mount -t tmpfs tmpfs /sys/firmware
mkdir -p /sys/firmware/efi/efivars /run/root
mount -t tmpfs tmpfs /run/root
for path in /*; do
    if [ -L \"$path\" ]; then
        cp -P \"$path\" /run/root/
    elif [ -d \"$path\" ]; then
        mkdir \"/run/root$path\"
        mount --rbind \"$path\" \"/run/root$path\"
    fi
done
exec chroot /run/root \"$0\" \"$@\"
";

const VARIABLE: &str =
    "/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

const ESP: &str = "11111111-2222-4333-8444-555555555555";
const ROOT: &str = "99999999-2222-4333-8444-555555555555";

#[cfg(target_arch = "x86_64")]
const KIND: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
#[cfg(target_arch = "aarch64")]
const KIND: &str = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE";

/// The loader's word: attributes, then UTF-16.
fn boot_from(uuid: &str) {
    let units = uuid.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
    let bytes: Vec<u8> = [7, 0, 0, 0].into_iter().chain(units).collect();
    fs::write(VARIABLE, bytes).unwrap();
}

#[test]
fn the_root_partition_of_the_booted_disk_is_told() {
    let test = "the_root_partition_of_the_booted_disk_is_told";
    if !namespaces::inside() {
        let prepare = PREPARE.replace("exec \"$0\" \"$@\"", FIRMWARE);
        return namespaces::again(module_path!(), test, &prepare);
    }
    let table = format!(
        "printf 'label: gpt\nsize=2048, type={KIND}, attrs=GUID:63\n\
         size=2048, type=uefi, uuid={ESP}\nsize=2048, type={KIND}, uuid={ROOT}\n\
         size=2048, type={KIND}\n' | sfdisk -q $f"
    );
    let disk = Attached::new(&images::make(Path::new("/run/images"), "gpt", 8192, &table));
    let partitions = disk.partitions();
    let kit = kit(Duration::from_secs(60));
    let root = (b"ID_PART_GPT_AUTO_ROOT_UUID".to_vec(), ROOT.as_bytes().to_vec());
    let ours = |name: &str, inherited: bool| {
        let (device, words) = (device(name), [b"blkid".to_vec()]);
        let properties = if inherited { std::slice::from_ref(&root) } else { &[] };
        match kit.run(Builtin::Blkid, &Call { device: &device, properties, words: &words }) {
            Ran::Done(pairs) => lines(&pairs),
            Ran::Failed | Ran::Broken(_) | Ran::Skipped => panic!("{name}: wanted an answer"),
        }
    };
    for (loader, told) in [(ESP.to_uppercase(), true), (ROOT.to_uppercase(), false)] {
        boot_from(&loader);
        let said = ours(&disk.name, false);
        assert_eq!(Some(&said), theirs(&disk.name, "blkid").as_ref(), "booted from {loader}");
        let line = format!("ID_PART_GPT_AUTO_ROOT_UUID={ROOT}");
        assert_eq!(said.contains(&line), told, "{said:?}");
    }
    fs::create_dir_all("/run/udev/data").unwrap();
    let mut marked = 0;
    for name in partitions {
        let number = fs::read_to_string(format!("/sys/class/block/{name}/dev")).unwrap();
        // what rules have imported from the disk lies in the record
        let record = format!("I:1\nE:ID_PART_GPT_AUTO_ROOT_UUID={ROOT}\nV:1\n");
        fs::write(format!("/run/udev/data/b{}", number.trim()), record).unwrap();
        let said = ours(&name, true);
        marked += usize::from(said.iter().any(|line| line == "ID_PART_GPT_AUTO_ROOT=1"));
        assert_eq!(Some(said), theirs(&name, "blkid"), "{name}");
    }
    assert_eq!(marked, 1);
}
