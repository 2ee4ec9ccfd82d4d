#!/usr/bin/env bash
# kasan.sh: `make check-kasan`. A kernel that looks for wrong accesses (KASAN), wrong locking (lockdep,
# PROVE_RCU) and undefined behaviour (UBSAN) runs the tests of the kernel module; any report fails it.
# Then the same kernel lets each allocation fail, and looks for leaks (kmemleak).
# Building the kernel takes 2 cores 17 minutes, the first time; then it is kept in target/kasan. It runs
# 15 to 25 times slower than others. SHIM_TESTS, SHIM_SECONDS as in tests/vm/shim.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh gcc make flex bison bc libelf-dev libssl-dev xz-utils kmod cpio file busybox-static \
    dbus-daemon qemu-system-x86 procps sparse
source=$(scripts/kernels.sh source)
build=$PWD/target/kasan/build
root=$PWD/target/kasan/root
log=$PWD/target/kasan/build.log
config=$PWD/tests/vm/kasan.config
mkdir -p "$build"

kernel() { make -s -C "$source" O="$build" -j"$(nproc)" "$@"; }

# what the configuration asks for and did not get would be missed without a word
configure() {
    kernel allnoconfig KCONFIG_ALLCONFIG="$config"
    if grep '^CONFIG' "$config" | grep -vxFf "$build/.config"; then
        echo "the kernel does not have what stands above" >&2
        return 1
    fi
    cp "$config" "$build/wanted"
}

cmp -s "$config" "$build/wanted" || configure
echo "building the kernel; log: $log"
kernel bzImage modules >"$log" 2>&1 || { tail -n 30 "$log"; exit 1; }
release=$(cat "$build/include/config/kernel.release")
if [ ! -e "$root/boot/vmlinuz-$release" ] || [ "$build/arch/x86/boot/bzImage" -nt "$root/boot/vmlinuz-$release" ]; then
    rm -rf "$root"
    mkdir -p "$root/boot"
    kernel INSTALL_MOD_PATH="$root" DEPMOD=true modules_install
    depmod -b "$root" "$release"
    cp "$build/arch/x86/boot/bzImage" "$root/boot/vmlinuz-$release"
fi
# the kernel's own style, by the one checkpatch.pl that is at hand
CHECKPATCH=$source/scripts/checkpatch.pl scripts/shim.sh "$build" "$release"
# all but costs, disks, for which this kernel has no driver, and no_memory, which comes after
groups='c1_ c2_ c3_ c4_ c5_ c6_ acls:: held_open:: listing:: kept:: limits:: userspace:: watches::'
groups+=' differences:: waits:: publishing:: switching:: taking_over:: successors:: daemon:: hostile:: stress::'
export SHIM_KERNEL="$root $release" SHIM_PATIENCE=${SHIM_PATIENCE:-30} SHIM_SECONDS=${SHIM_SECONDS:-60}
export VM_SECONDS=${VM_SECONDS:-7200}
failed=0
SHIM_TESTS=${SHIM_TESTS-$groups} tests/vm/shim.sh || failed=1
# allocations that fail, and what is lost by that; looking for it makes all the rest slower
if [ -z "${SHIM_TESTS-}" ]; then
    SHIM_TESTS=no_memory:: SHIM_WORDS=kmemleak=on tests/vm/shim.sh || failed=1
fi
exit "$failed"
