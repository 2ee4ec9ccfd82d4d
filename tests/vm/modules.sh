#!/usr/bin/env bash
# modules.sh [MAPDEVCTL]: boots the kernels of target/kernels, the one whose modules are plain files and
# the one that packs them, and has modules-guest.sh load modules there with the real mapdevctl. Shows
# its lines as they come; fails on `not ok`, on a kernel oops and when time is up.
#
# Each machine is an initramfs alone: busybox, mapdevctl with its libraries, and a few modules. No disk
# image, no drivers, no network, and no root.
set -euo pipefail
cd "$(dirname "$0")/../.."

mapdevctl=$(realpath "${1:-target/release/mapdevctl}")
NAME=modules SECONDS_MAX=${VM_SECONDS:-240}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh

busybox=$(command -v busybox)
if file -L "$busybox" 2>/dev/null | grep -q 'dynamically linked'; then
    echo "# busybox-static wanted"
    exit 1
fi

# what the guest loads; of these, what they need is copied too
modules=(ext4 loop tun veth tap dummy macvlan macvtap ipvlan nlmon ifb fou6)

# a module of ANOTHER-ROOT as plain file, to be refused; one that this kernel cannot unpack by itself
copy_odd_ones() {
    local root=$1 release=$2 other=$3 guest=$4 file
    mkdir -p "$guest/lib/modules/$release/extra"
    file=$(find "$other/lib/modules" -name 'macsec.ko*')
    case $file in
        *.xz) xz -dc "$file" ;;
        *) cat "$file" ;;
    esac >"$guest/lib/modules/$release/extra/macsec.ko"
    file=$(find "$root/lib/modules" -name 'gtp.ko*')
    case $file in
        *.xz) xz -dc "$file" ;;
        *) cat "$file" ;;
    esac | gzip >"$guest/lib/modules/$release/extra/gtp.ko.gz"
    copy_modules "$root" "$release" "$guest" gtp
    find "$guest/lib/modules" -path '*/kernel/*/gtp.ko*' -delete
}

make_guest() {
    local root=$1 release=$2 other=$3 guest=$4 library list
    mkdir -p "$guest"/{bin,dev,etc/modprobe.d,proc,sys,tmp,usr/bin}
    cp "$busybox" "$guest/bin/busybox"
    ln -s busybox "$guest/bin/sh"
    strip -o "$guest/usr/bin/mapdevctl" "$mapdevctl"
    # kmod itself, to compare with
    install -D "$(command -v kmod)" "$guest/kmod/modprobe"
    ldd "$mapdevctl" "$guest/kmod/modprobe" | grep -o '/[^ ]*[^: ]' | grep '^/lib' | sort -u | while read -r library; do
        install -D -m 0755 "$library" "$guest$library"
    done
    install -m 0755 tests/vm/modules-guest.sh "$guest/init"
    cp tests/vm/tap.sh "$guest/"
    mkdir -p "$guest/lib/modules/$release"
    for list in order builtin builtin.modinfo; do
        cp "$root/lib/modules/$release/modules.$list" "$guest/lib/modules/$release/"
    done
    copy_modules "$root" "$release" "$guest" "${modules[@]}"
    copy_odd_ones "$root" "$release" "$other" "$guest"
    depmod -b "$guest" "$release"
    pack "$guest"
}

mapfile -t roots < <(realpath target/kernels/bookworm target/kernels/bookworm-backports)
for index in 0 1; do
    root=${roots[$index]}
    for release in "$root"/lib/modules/*/; do
        release=$(basename "$release")
        [ -e "$root/boot/vmlinuz-$release" ] || continue
        rm -rf "$work/guest"
        make_guest "$root" "$release" "${roots[1 - index]}" "$work/guest"
        boot "$root" "$release" "module_blacklist=tap,macsec2 modprobe.blacklist=macvlan loop.max_part=3"
    done
done
exit "$failed"
