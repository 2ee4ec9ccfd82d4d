#!/usr/bin/env bash
# newest.sh: `make check-newest`. Compiles the kernel module for the newest kernel that Debian has, with
# the compiler that it was built with, in a folder of its own (target/newest, 1 GB). Every warning is an
# error. Prints the release.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh mmdebstrap util-linux
mirror=http://deb.debian.org/debian
root=$PWD/target/newest
log=$PWD/target/newest.log
if [ ! -d "$root" ]; then
    # the mirror may lag behind; nothing of this is ever run outside of the folder
    rm -rf "$root.new"
    mmdebstrap --quiet --variant=apt --include=linux-headers-amd64,make,gcc,libc6-dev \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
        sid "$root.new" "$mirror" >&2
    mv "$root.new" "$root"
fi
headers=("$root"/usr/src/linux-headers-*-amd64)
folder=$root/tmp/mapdevfs
rm -rf "$folder"
mkdir "$folder"
cp kmod-shim/*.[ch] kmod-shim/Kbuild "$folder/"
# objtool reads its limits from /proc
# shellcheck disable=SC2016 # the inner shell expands
if ! unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" make -s -C "$2" M=/tmp/mapdevfs W=1 CONFIG_DEBUG_INFO_BTF_MODULES= modules' \
    sh "$root" "${headers[0]#"$root"}" >"$log" 2>&1 || [ -s "$log" ]; then
    cat "$log"
    exit 1
fi
echo "mapdevfs builds for $(basename "${headers[0]}" | sed 's/^linux-headers-//')"
