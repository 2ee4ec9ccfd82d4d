#!/usr/bin/env bash
# modules.sh [MAPDEVCTL [RELEASE-PREFIX]]: boots the kernels of target/kernels, the one whose modules are plain files and
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

# what the guest loads; of these, what they need is copied too
modules=(ext4 loop tun veth tap dummy macvlan macvtap ipvlan nlmon ifb fou6)

# a module of ANOTHER-ROOT as plain file, to be refused; one that this kernel cannot unpack by itself
copy_odd_ones() {
    local root=$1 release=$2 other=$3 file
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
    copy_modules "$root" "$release" gtp
    find "$guest/lib/modules" -path '*/kernel/*/gtp.ko*' -delete
}

make_guest() {
    local root=$1 release=$2 other=$3
    new_guest tests/vm/modules-guest.sh
    mkdir -p "$guest/etc/modprobe.d"
    program "$mapdevctl" /usr/bin/mapdevctl
    # kmod itself, to compare with
    program "$(command -v kmod)" /kmod/modprobe
    copy_modules "$root" "$release" "${modules[@]}"
    copy_odd_ones "$root" "$release" "$other"
    depmod -b "$guest" "$release"
    pack
}

while read -r root release <&3; do
    other=$PWD/target/kernels/bookworm
    [ "$root" != "$(realpath "$other")" ] || other=$PWD/target/kernels/bookworm-backports
    make_guest "$root" "$release" "$other"
    boot "$root" "$release" "module_blacklist=tap,macsec2 modprobe.blacklist=macvlan loop.max_part=3"
done 3< <(kernels "${2:-}")
exit "$failed"
