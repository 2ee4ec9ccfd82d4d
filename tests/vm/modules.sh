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
seconds=${VM_SECONDS:-240}
accel=${VM_ACCEL:-tcg}
folder=$PWD/target/vm
mkdir -p "$folder"
work=$(mktemp -d "$folder/modules.XXXXXX")
qemu_pid=''
# shellcheck disable=SC2317 # called by trap
cleanup() {
    [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

busybox=$(command -v busybox)
if file -L "$busybox" 2>/dev/null | grep -q 'dynamically linked'; then
    echo "# busybox-static wanted"
    exit 1
fi

# what the guest loads; of these, what they need is copied too
modules=(ext4 loop tun veth tap dummy macvlan macvtap ipvlan nlmon ifb fou6)

# copy_module KERNEL-ROOT RELEASE GUEST-ROOT MODULE: with all that it needs
copy_module() {
    local word path
    modprobe -d "$1" -S "$2" -C "$work/none" --show-depends "$4" | while read -r word path _; do
        if [ "$word" = insmod ]; then install -D -m 0644 "$path" "$3/lib/modules/${path#"$1/lib/modules/"}"; fi
    done
}

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
    copy_module "$root" "$release" "$guest" gtp
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
    mkdir -p "$guest/lib/modules/$release" "$work/none"
    for list in order builtin builtin.modinfo; do
        cp "$root/lib/modules/$release/modules.$list" "$guest/lib/modules/$release/"
    done
    for list in "${modules[@]}"; do copy_module "$root" "$release" "$guest" "$list"; done
    copy_odd_ones "$root" "$release" "$other" "$guest"
    depmod -b "$guest" "$release"
    (cd "$guest" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) >"$work/initrd"
}

fail() {
    echo "# $1; the end of the console:"
    tail -n 30 "$work/console" | tr -d '\r' | sed 's/^/#   /'
    failed=1
}

boot() {
    local root=$1 release=$2 status=0 begun=$SECONDS
    : >"$work/lines"
    timeout --kill-after=5 "$seconds" qemu-system-x86_64 -machine "q35,accel=$accel" -cpu max -smp 2 -m 512M \
        -nodefaults -nographic -no-reboot -kernel "$root/boot/vmlinuz-$release" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet oops=panic panic=-1 module_blacklist=tap,macsec2 modprobe.blacklist=macvlan loop.max_part=3" \
        -serial "file:$work/console" -serial stdio </dev/null >"$work/lines" 2>"$work/qemu.err" &
    qemu_pid=$!
    # shows each line when it comes; ends with the machine
    tail --pid=$qemu_pid -n +1 -f "$work/lines" | tr -d '\r'
    wait $qemu_pid || status=$?
    qemu_pid=''
    tr -d '\r' <"$work/lines" >"$work/tap"
    echo "# $release: $((SECONDS - begun)) s ($accel)"
    if [ $status -eq 124 ]; then fail "not finished after $seconds s"
    elif [ $status -ne 0 ]; then fail "qemu failed: $(cat "$work/qemu.err")"
    elif grep -qE 'Oops|BUG:|Kernel panic|general protection fault' "$work/console"; then fail "the kernel oopsed"
    elif ! grep -q '^1\.\.[0-9]' "$work/tap"; then fail "the checks did not come to their end"
    elif [ "$(grep -cE '^(not )?ok ' "$work/tap")" != "$(sed -n 's/^1\.\.//p' "$work/tap")" ]; then fail "lines are missing"
    elif grep -q '^not ok' "$work/tap"; then failed=1
    fi
}

failed=0
mapfile -t roots < <(realpath target/kernels/bookworm target/kernels/bookworm-backports)
for index in 0 1; do
    root=${roots[$index]}
    for release in "$root"/lib/modules/*/; do
        release=$(basename "$release")
        [ -e "$root/boot/vmlinuz-$release" ] || continue
        rm -rf "$work/guest"
        make_guest "$root" "$release" "${roots[1 - index]}" "$work/guest"
        boot "$root" "$release"
    done
done
exit $failed
