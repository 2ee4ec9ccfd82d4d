#!/usr/bin/env bash
# dev.sh [FOLDER [RELEASE-PREFIX]]: boots Debian with systemd on the kernels of target/kernels, with mapdevd
# of FOLDER as its device manager and the map as its /dev, and has dev-guest.sh use it with ordinary
# programs. Shows its lines as they come; fails on `not ok`, when the kernel complains and when time is up.
set -euo pipefail
cd "$(dirname "$0")/../.."

binaries=$(realpath "${1:-target/release}")
NAME=dev SECONDS_MAX=${VM_SECONDS:-400}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh
# shellcheck source=tests/vm/debian.sh
. tests/vm/debian.sh
machine=(-accel "$accel" -smp 2 -m 1536M)

make_guest() {
    local root=$1 release=$2 unit
    new_overlay tests/vm/dev-guest.sh
    install -D -m 0755 -s "$binaries/mapdevd" "$guest/usr/sbin/mapdevd"
    install -D -m 0755 -s "$binaries/mapdevctl" "$guest/usr/bin/mapdevctl"
    install -D -m 0755 -s "$binaries/mapdev-probe" "$guest/usr/lib/mapdev/mapdev-probe"
    install -D -m 0644 -t "$guest/usr/lib/systemd/system" units/mapdevd.service units/mapdevd-kernel.socket
    install -D -m 0644 -t "$guest/usr/share/dbus-1/system.d" dbus/org.mapdev1.conf
    install -D -m 0644 -t "$guest/usr/share/dbus-1/system-services" dbus/org.mapdev1.service
    install -D -m 0644 -t "$guest/usr/share/polkit-1/actions" dbus/org.mapdev1.policy
    # as packaging/active says
    cp -r packaging/active/* "$guest/usr/lib/systemd/system/"
    install -d "$guest/etc/mapdev" "$guest/etc/systemd/system/sysinit.target.wants"
    printf 'mode = "active"\nmount-dev = true\n' >"$guest/etc/mapdev/mapdev.toml"
    for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket; do
        ln -s /dev/null "$guest/etc/systemd/system/$unit"
    done
    ln -s /usr/lib/systemd/system/mapdevd.service "$guest/etc/systemd/system/sysinit.target.wants/"
    ln -s /usr/lib/systemd/system/mapdevd.service "$guest/etc/systemd/system/dbus-org.mapdev1.service"
    copy_modules "$root" "$release" loop dm-crypt dm-mod raid1 fuse nbd tun cuse ecb xts aes_generic algif_skcipher algif_hash
    install -D -m 0644 -t "$guest/lib/modules/$release/extra" "target/shim/$release/mapdevfs/mapdevfs.ko"
    pack_overlay "$release"
}

scripts/shim.sh >"$work/built"
while read -r root release <&3; do
    make_guest "$root" "$release"
    boot "$root" "$release" "$debian_words"
done 3< <(kernels "${2:-}")
exit "$failed"
