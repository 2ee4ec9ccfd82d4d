#!/usr/bin/env bash
# devices.sh [FOLDER [RELEASE-PREFIX]]: boots the kernels of target/kernels with input devices, disks and a network card,
# and has tests/devices look at them under systemd-udevd and under mapdevd of FOLDER, with the same rules.
# Shows its lines as they come; fails on `not ok`, when the kernel complains and when time is up.
# DEVICES_TESTS=NAME runs some tests.
#
# Each machine is an initramfs alone, as for modules.sh: no disk image, no network, and no root.
set -euo pipefail
cd "$(dirname "$0")/../.."

binaries=$(realpath "${1:-target/release}")
NAME=devices SECONDS_MAX=${VM_SECONDS:-240}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh
machine=(-accel "$accel" -smp 2 -m 1536M -device virtio-net-pci)

make_guest() {
    local root=$1 release=$2 name
    new_guest tests/vm/devices-guest.sh
    mkdir -p "$guest"/etc/udev/{rules.d,hwdb.d} "$guest"/usr/lib/{systemd,udev/rules.d}
    program "$tests" /bin/devices-tests
    program "$binaries/mapdevd" /usr/sbin/mapdevd
    program "$binaries/mapdevctl" /usr/bin/mapdevctl
    program "$binaries/mapdev-probe" /usr/lib/mapdev/mapdev-probe
    program "$(command -v dbus-daemon)" /usr/bin/dbus-daemon
    program "$(command -v mkfs.btrfs)" /sbin/mkfs.btrfs
    program "$(command -v kmod)" /sbin/kmod
    for name in modprobe rmmod; do ln -s kmod "$guest/sbin/$name"; done
    program "$(command -v udevadm)" /bin/udevadm
    ln -s /bin/udevadm "$guest/usr/lib/systemd/systemd-udevd"
    cp /usr/lib/udev/rules.d/* "$guest/usr/lib/udev/rules.d/"
    cp tests/vm/bus.conf /etc/passwd /etc/group "$guest/etc/"
    cp tests/vm/devices.rules "$guest/etc/udev/rules.d/50-test.rules"
    cp tests/vm/devices.hwdb "$guest/etc/udev/hwdb.d/50-test.hwdb"
    "$binaries/mapdevctl" hwdb update --root "$guest"
    copy_modules "$root" "$release" uhid hid-generic evdev joydev psmouse btrfs loop tun veth virtio-pci virtio-net \
        ahci i2c-i801 lpc-ich pcspkr
    depmod -b "$guest" "$release"
    printf 'DEVICES_TESTS="%s"\n' "${DEVICES_TESTS:-}" >"$guest/etc/devices"
    pack
}

tests=$(cargo test --locked --test devices --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/devices-')
while read -r root release <&3; do
    make_guest "$root" "$release"
    boot "$root" "$release"
done 3< <(kernels "${2:-}")
exit "$failed"
