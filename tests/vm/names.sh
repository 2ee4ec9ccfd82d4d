#!/usr/bin/env bash
# names.sh [FOLDER [RELEASE-PREFIX]]: boots the kernels of target/kernels with mapdevd and mapdevctl of FOLDER as their
# device manager and modprobe, and has names-guest.sh look at names that are there before their devices.
# Shows its lines as they come; fails on `not ok`, on a kernel oops and when time is up.
#
# Each machine is an initramfs alone, as for modules.sh: no disk image, no network, and no root.
set -euo pipefail
cd "$(dirname "$0")/../.."

binaries=$(realpath "${1:-target/release}")
NAME=names SECONDS_MAX=${VM_SECONDS:-120}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh

make_guest() {
    local root=$1 release=$2
    new_guest tests/vm/names-guest.sh
    mkdir -p "$guest"/spare "$guest"/etc/{mapdev/policy.d,tmpfiles.d,udev/rules.d} "$guest/lib/modules/$release/extra"
    program "$binaries/mapdevd" /usr/sbin/mapdevd
    program "$binaries/mapdevctl" /usr/bin/mapdevctl
    program "$(command -v dbus-daemon)" /usr/bin/dbus-daemon
    cp tests/vm/bus.conf "$guest/etc/"
    copy_modules "$root" "$release" tun loop uhid zram
    find "$root/lib/modules/$release" -name 'cuse.ko*' -exec cp {} "$guest/spare/" \;
    pack
}

while read -r root release <&3; do
    make_guest "$root" "$release"
    boot "$root" "$release"
done 3< <(kernels "${2:-}")
exit "$failed"
