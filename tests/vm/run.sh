#!/usr/bin/env bash
# run.sh PACKAGE.deb: installs the package in a Debian virtual machine with systemd as PID 1, runs
# guest.sh there, and shows its lines as they come. Fails on `not ok`, when the kernel complains and when
# time is up.
set -euo pipefail
cd "$(dirname "$0")/../.."

deb=$(realpath "$1")
NAME=package SECONDS_MAX=${VM_SECONDS:-280}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh
# shellcheck source=tests/vm/debian.sh
. tests/vm/debian.sh
machine=(-accel "$accel" -smp 2 -m 1536M)

# stable's kernel
read -r root release < <(kernels 6.1. | head -n 1)
new_overlay tests/vm/guest.sh
cp "$deb" "$guest/root/mapdev.deb"
copy_modules "$root" "$release" loop tun fuse uhid zram ext4
pack_overlay "$release"
boot "$root" "$release" "$debian_words"
exit "$failed"
