#!/usr/bin/env bash
# dev.sh [FOLDER [RELEASE-PREFIX]]: boots Debian with systemd on the kernels of target/kernels, with mapdevd
# of FOLDER as its device manager and the map as its /dev, and has dev-guest.sh use it with ordinary
# programs. Shows its lines as they come; fails on `not ok`, when the kernel complains and when time is up.
set -euo pipefail
cd "$(dirname "$0")/../.."

binaries=$(realpath "${1:-target/release}")
NAME=dev SECONDS_MAX=${VM_SECONDS:-400}
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh
# shellcheck source=tests/vm/debian.sh
. tests/vm/debian.sh
machine=(-accel "$accel" -smp 2 -m 1536M)

make_guest() {
    local root=$1 release=$2
    new_overlay tests/vm/dev-guest.sh
    install_mapdev "$binaries"
    copy_modules "$root" "$release" loop dm-crypt dm-mod raid1 fuse nbd tun cuse ecb xts aes_generic algif_skcipher algif_hash
    add_shim "$release"
    pack_overlay "$release"
}

scripts/shim.sh >"$work/built"
while read -r root release <&3; do
    make_guest "$root" "$release"
    boot "$root" "$release" "$debian_words"
done 3< <(kernels "${2:-}")
exit "$failed"
