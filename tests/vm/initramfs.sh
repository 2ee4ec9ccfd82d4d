#!/usr/bin/env bash
# initramfs.sh [FOLDER [RELEASE-PREFIX]]: boots Debian from a disk by an initramfs that its update-initramfs
# makes, with mapdevd of FOLDER as device manager of both, and has initramfs-guest.sh look at what came of it;
# in the initramfs, mapdevd is killed, and killed again when the next one is not ready before the initramfs ends.
# Wants root. MODE=shadow says so on the kernel's command line: then all is as without mapdevd.
set -euo pipefail
cd "$(dirname "$0")/../.."

binaries=$(realpath "${1:-target/release}")
NAME=initramfs${MODE:+-$MODE} SECONDS_MAX=${VM_SECONDS:-400}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh
# shellcheck source=tests/vm/debian.sh
. tests/vm/debian.sh
disk=$work/disk tree=$work/tree
# shellcheck disable=SC2054 # commas of qemu's
machine=(-accel "$accel" -smp 2 -m 1024M -drive "if=none,id=disk,format=raw,file=$disk" -device virtio-blk-pci,drive=disk)
uuid=0d5c8a6e-8f3b-4f0c-9d1e-6d6170646576

make_disk() {
    local root=$1 release=$2
    new_overlay tests/vm/initramfs-guest.sh
    install_mapdev "$binaries"
    install -D -m 0755 /dev/stdin "$guest/etc/initramfs-tools/scripts/init-top/kill" <<'SCRIPT'
#!/bin/sh
case ${1:-} in prereqs) echo udev; exit 0 ;; esac
[ -s /run/mapdev/initramfs.pid ] || exit 0
read -r pid </run/mapdev/initramfs.pid
kill -9 "$pid"
echo "$pid" >/run/mark-killed
SCRIPT
    install -D -m 0755 /dev/stdin "$guest/etc/initramfs-tools/scripts/local-bottom/mark" <<'SCRIPT'
#!/bin/sh
case ${1:-} in prereqs) exit 0 ;; esac
chown 77 /dev/tty9
mkdir /dev/mine && echo text >/dev/mine/file
stat -c %i /dev/tty9 /dev/mine >/run/mark
stat -f -c %t /dev >/run/mark-kind
# the next one may not be ready yet
tries=0
while [ -e /run/mark-killed ] && [ "$tries" -lt 300 ]; do
    read -r pid </run/mapdev/initramfs.pid
    [ -z "$pid" ] || [ "$pid" = "$(cat /run/mark-killed)" ] || break
    sleep 0.1
    tries=$((tries + 1))
done
echo "${pid:-}" >/run/mark-pid
cat /proc/[0-9]*/comm >/run/mark-processes
[ -e /run/mark-killed ] || exit 0
# once more, and the next one has an event that lasts
: >/run/hold
kill -9 "$pid"
tries=0
while [ ! -e /run/held ] && [ "$tries" -lt 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
cat /run/mapdev/initramfs.pid >/run/mark-not-ready
SCRIPT
    install -D -m 0755 /dev/stdin "$guest/etc/initramfs-tools/scripts/init-bottom/mark" <<'SCRIPT'
#!/bin/sh
case ${1:-} in prereqs) echo udev; exit 0 ;; esac
cat /proc/[0-9]*/comm >/run/mark-left
mv /run/hold /run/was-held
SCRIPT
    # beside what klibc has
    install -D -m 0755 /dev/stdin "$guest/etc/initramfs-tools/hooks/mark" <<'SCRIPT'
#!/bin/sh
case ${1:-} in prereqs) exit 0 ;; esac
. /usr/share/initramfs-tools/hook-functions
copy_exec /usr/bin/chown
copy_exec /usr/bin/stat
mkdir -p "$DESTDIR/etc/udev/rules.d"
program=': >/run/held; while [ -e /run/hold ]; do sleep 0.1; done'
printf 'KERNEL=="tty9", TEST=="/run/hold", PROGRAM="/bin/sh -c '"'%s'"'"\n' "$program" >"$DESTDIR/etc/udev/rules.d/50-held.rules"
SCRIPT
    sed 's/^MAPDEV=.*/MAPDEV=yes/' packaging/initramfs/initramfs.conf >"$guest/etc/mapdev/initramfs.conf"
    printf 'MODULES=list\nCOMPRESS=gzip\nCOMPRESSLEVEL=1\n' |
        install -D -m 0644 /dev/stdin "$guest/etc/initramfs-tools/conf.d/test"
    printf 'virtio_pci\nvirtio_blk\next4\n' >"$guest/etc/initramfs-tools/modules"
    copy_modules "$root" "$release" virtio_pci virtio_blk ext4
    add_shim "$release"
    usr_merge "$release"
    rm -rf "$tree"
    mkdir "$tree"
    bsdtar -xf "$base" -C "$tree"
    cp -a "$guest/." "$tree/"
    install -D -m 0644 -t "$tree/boot" "$root/boot/config-$release"
    # Debian's programs, in a namespace of their own
    # shellcheck disable=SC2016 # the inner shell's
    unshare -m sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" update-initramfs -c -k "$2"' \
        - "$tree" "$release" >"$work/made" 2>&1 || { cat "$work/made"; return 1; }
    mv "$tree/boot/initrd.img-$release" "$work/initrd"
    rm -f "$disk"
    truncate -s 1200M "$disk"
    mke2fs -q -t ext4 -U $uuid -d "$tree" "$disk"
}

[ "$(id -u)" = 0 ] || { echo "# root wanted, as whom Debian's initramfs is made"; exit 1; }
scripts/shim.sh >"$work/built"
words="root=UUID=$uuid rw systemd.wants=mapdev-check.service systemd.mask=serial-getty@ttyS0.service systemd.mask=getty@tty1.service"
while read -r root release <&3; do
    make_disk "$root" "$release"
    boot "$root" "$release" "$words ${MODE:+mapdev.mode=$MODE}"
done 3< <(kernels "${2:-}")
exit "$failed"
