#!/usr/bin/env bash
# vm.sh [RELEASE-PREFIX]: boots a small virtual machine whose /dev is the map, with a shell on this terminal.
# `poweroff` ends it, or Ctrl-A X. BINARIES is the folder of mapdevd and mapdevctl, if not target/release.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh qemu-system-x86 busybox-static kmod dbus-daemon cpio file gcc gcc-12 make xz-utils
binaries=${BINARIES:-}
if [ -z "$binaries" ]; then
    cargo build --release --locked --bins
    binaries=target/release
fi
scripts/shim.sh >/dev/null

NAME=try SECONDS_MAX=0
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh

# of those that fit, the newest
read -r root release < <(kernels "${1:-}" | tail -n 1)
new_guest scripts/vm-init.sh
program "$(command -v kmod)" /sbin/kmod
for name in modprobe insmod rmmod lsmod; do ln -s kmod "$guest/sbin/$name"; done
program "$binaries/mapdevd" /sbin/mapdevd
program "$binaries/mapdevctl" /bin/mapdevctl
program "$(command -v dbus-daemon)" /bin/dbus-daemon
cp tests/vm/bus.conf "$guest/etc/"
mkdir -p "$guest"/etc/mapdev/policy.d "$guest/home"
printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n' >"$guest/etc/passwd"
printf 'root:x:0:\ntty:x:5:\ndisk:x:6:\nuser:x:1000:\n' >"$guest/etc/group"
printf 'mode = "active"\nmount-dev = true\n' >"$guest/etc/mapdev/mapdev.toml"
cat >"$guest/etc/mapdev/policy.d/50-try.toml" <<'POLICY'
schema = 1
[[rule]]
id = "tun"
match.devname = "net/tun"
set = { owner = "user", mode = "0600" }
[[rule]]
id = "zram"
match.devname = "zram0"
set = { group = "disk", mode = "0660", module = "zram" }
POLICY
copy_modules "$root" "$release" tun loop uinput zram nvme-fabrics fuse
install -D -m 0644 -t "$guest/lib/modules/$release/extra" "target/shim/$release/mapdevfs/mapdevfs.ko"
depmod -b "$guest" "$release"
pack

# a child and not in our place, so that what was made for it is removed at the end
qemu-system-x86_64 -machine q35 "${machine[@]}" -cpu max -nodefaults -nographic -no-reboot \
    -kernel "$root/boot/vmlinuz-$release" -initrd "$work/initrd" -serial mon:stdio \
    -append "console=ttyS0 quiet no_timer_check oops=panic panic=-1"
