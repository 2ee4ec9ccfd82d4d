#!/usr/bin/env bash
# shim.sh [RELEASE-PREFIX]: boots Debian's kernels with the kernel module, the daemon and tests/shim. Test
# names as SHIM_TESTS run only these; SHIM_SECONDS is how long each stress lasts, SHIM_KILLS how often
# the daemon is killed; SHIM_COSTS=1 measures costs only, by counting instructions. SHIM_OPERATIONS is how
# many a hostile map must stand; SHIM_KERNEL="ROOT RELEASE" boots that kernel instead, which may be slower
# by SHIM_PATIENCE; SHIM_WORDS are more words of its command line.
set -euo pipefail
cd "$(dirname "$0")/../.."

SHIM_COSTS=${SHIM_COSTS:-}
NAME=shim${SHIM_COSTS:+-costs}${SHIM_WORDS:+-words} SECONDS_MAX=${VM_SECONDS:-900}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh

machine=(-accel "$accel" -smp 2 -m 2048M)
if [ -n "$SHIM_COSTS" ]; then
    # the machine's time is the number of its instructions
    # shellcheck disable=SC2054 # commas of qemu's
    machine=(-accel tcg,thread=single -icount shift=1,sleep=off -smp 1 -m 2048M)
    SHIM_TESTS=costs::
fi

make_guest() {
    local root=$1 release=$2 name
    new_guest tests/vm/shim-guest.sh
    program "$(command -v kmod)" /sbin/kmod
    for name in modprobe insmod rmmod lsmod; do ln -s kmod "$guest/sbin/$name"; done
    program "$tests" /bin/shim-tests
    program target/debug/mapdevd /bin/mapdevd
    program target/debug/mapdevctl /bin/mapdevctl
    program target/debug/mapdev-probe /bin/mapdev-probe
    program "$(command -v dbus-daemon)" /bin/dbus-daemon
    printf 'export SHIM_TESTS="%s" SHIM_SECONDS=%s SHIM_KILLS=%s SHIM_COSTS=%s SHIM_OPERATIONS=%s SHIM_PATIENCE=%s\n' \
        "${SHIM_TESTS:-}" "${SHIM_SECONDS:-10}" "${SHIM_KILLS:-5}" "$SHIM_COSTS" "${SHIM_OPERATIONS:-1000}" \
        "${SHIM_PATIENCE:-1}" >"$guest/etc/shim"
    printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' >"$guest/etc/passwd"
    printf 'root:x:0:\ntty:x:5:\nuser:x:1000:\n' >"$guest/etc/group"
    copy_modules "$root" "$release" tun loop uinput zram nvme-fabrics ${disk:+virtio_pci virtio_blk}
    install -D -m 0644 -t "$guest/lib/modules/$release/extra" "target/shim/$release"/{mapdevfs/mapdevfs,probe/mapdev_probe}.ko
    # where modprobe does not find it
    install -m 0644 "target/shim/$release/other/mapdevfs.ko" "$guest/lib/mapdevfs-other.ko"
    # of the probe it says that it declares no number, as it is meant to
    depmod -b "$guest" "$release" 2>&1 | { grep -v 'mapdev_probe.* lacks major and minor' || true; }
    pack
}

disk=''
cargo build --locked --bins
tests=$(cargo test --locked --test shim --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/shim-')
if [ -n "${SHIM_KERNEL:-}" ]; then
    # what looks on takes memory, and says more than a quiet console shows; nothing stalls but by being slow
    machine+=(-m 4096M)
    list=$SHIM_KERNEL words="loglevel=5 no_timer_check rcupdate.rcu_cpu_stall_suppress=1 ${SHIM_WORDS:-}"
else
    # a disk with something on it; the kernel that looks on has no driver for it
    disk=$work/disk
    truncate -s 4M "$disk"
    mke2fs -q -t ext2 "$disk"
    # shellcheck disable=SC2054 # commas of qemu's
    machine+=(-drive "if=none,id=disk,format=raw,file=$disk" -device virtio-blk-pci,drive=disk)
    scripts/shim.sh >"$work/built"
    list=$(kernels "${1:-}") words=''
fi
while read -r root release <&3; do
    make_guest "$root" "$release"
    boot "$root" "$release" "$words"
done 3<<<"$list"
exit "$failed"
