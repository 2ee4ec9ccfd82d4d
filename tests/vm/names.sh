#!/usr/bin/env bash
# names.sh [FOLDER]: boots the kernels of target/kernels with mapdevd and mapdevctl of FOLDER as their
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
    local root=$1 release=$2 guest=$3 program library list
    mkdir -p "$guest"/{bin,dev,proc,run,spare,sys,tmp,usr/bin,usr/sbin,var} \
        "$guest"/etc/{mapdev/policy.d,tmpfiles.d,udev/rules.d} "$guest/lib/modules/$release/extra"
    cp "$(command -v busybox)" "$guest/bin/busybox"
    ln -s busybox "$guest/bin/sh"
    ln -s ../run "$guest/var/run"
    strip -o "$guest/usr/sbin/mapdevd" "$binaries/mapdevd"
    strip -o "$guest/usr/bin/mapdevctl" "$binaries/mapdevctl"
    cp "$(command -v dbus-daemon)" "$guest/usr/bin/"
    for program in "$binaries/mapdevd" "$binaries/mapdevctl" "$(command -v dbus-daemon)"; do
        ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
            install -D -m 0755 "$library" "$guest$library"
        done
    done
    cat >"$guest/etc/bus.conf" <<EOF
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default"><allow user="*"/><allow own="*"/>
<allow send_type="method_call"/><allow send_type="signal"/><allow send_requested_reply="true"/>
<allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_requested_reply="true"/></policy>
</busconfig>
EOF
    install -m 0755 tests/vm/names-guest.sh "$guest/init"
    cp tests/vm/tap.sh "$guest/"
    for list in order builtin builtin.modinfo; do
        cp "$root/lib/modules/$release/modules.$list" "$guest/lib/modules/$release/"
    done
    copy_modules "$root" "$release" "$guest" tun loop uhid zram
    find "$root/lib/modules/$release" -name 'cuse.ko*' -exec cp {} "$guest/spare/" \;
    pack "$guest"
}

for root in target/kernels/bookworm target/kernels/bookworm-backports; do
    root=$(realpath "$root")
    for release in "$root"/lib/modules/*/; do
        release=$(basename "$release")
        [ -e "$root/boot/vmlinuz-$release" ] || continue
        rm -rf "$work/guest"
        make_guest "$root" "$release" "$work/guest"
        boot "$root" "$release"
    done
done
exit "$failed"
