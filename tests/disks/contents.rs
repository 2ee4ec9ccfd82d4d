//! Every kind of image, whole and with its partitions.

use std::path::Path;
use std::time::Duration;

use crate::attached::{Attached, ours, theirs};
use crate::images::{self, MADE};
use crate::{kit, namespaces};

/// A `/dev` of loop devices, and a place for images.
pub(crate) const PREPARE: &str = "
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/new /run/images
mount -t tmpfs -o mode=0755 tmpfs /run/new
mknod -m 0666 /run/new/null c 1 3
mknod -m 0666 /run/new/zero c 1 5
mknod -m 0666 /run/new/random c 1 8
mknod -m 0666 /run/new/urandom c 1 9
mknod -m 0600 /run/new/loop-control c 10 237
for n in $(seq 0 63); do mknod -m 0600 /run/new/loop$n b 7 $n; done
mount --move /run/new /dev
rmdir /run/new
exec \"$0\" \"$@\"
";

/// Runs the test again where `/dev` is its own; `body` runs there.
pub(crate) fn private(module: &str, test: &str, body: impl FnOnce()) {
    if namespaces::inside() {
        return body();
    }
    namespaces::again(module, test, PREPARE);
}

#[test]
fn disks_say_of_themselves_what_udev_hears() {
    private(module_path!(), "disks_say_of_themselves_what_udev_hears", || {
        let folder = Path::new("/run/images");
        let kit = kit(Duration::from_secs(60));
        let mut paths: Vec<_> = MADE
            .iter()
            .map(|(name, kib, commands)| images::make(folder, name, *kib, commands))
            .collect();
        paths.extend(images::written(folder));
        let (mut compared, mut wrong, mut said) = (0, 0, 0);
        for path in paths {
            let disk = Attached::new(&path);
            let names = std::iter::once(disk.name.clone()).chain(disk.partitions());
            for name in names {
                for command in ["blkid", "blkid --noraid", "blkid --offset=1024"] {
                    let (mine, other) = (ours(&kit, &name, command), theirs(&name, command));
                    compared += 1;
                    said += other.as_ref().map_or(0, Vec::len);
                    if mine != other {
                        wrong += 1;
                        println!("{} {name} {command}:\n{mine:#?}\n{other:#?}", path.display());
                    }
                }
            }
        }
        println!("{compared} comparisons, {said} properties, {wrong} differ");
        assert_eq!(wrong, 0);
        assert!(said > 500, "nearly nothing was found");
    });
}
