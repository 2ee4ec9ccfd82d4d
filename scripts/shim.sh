#!/usr/bin/env bash
# shim.sh: builds the kernel module, and the module for its tests, for both of Debian's kernels, with
# every warning an error, sparse's too. Uses $CHECKPATCH (checkpatch.pl of a kernel's source, which no
# package of Debian has by itself) if it is set. Prints "SUITE RELEASE FOLDER" for each.
# With HEADERS RELEASE, for that kernel alone.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v sparse >/dev/null; then
    echo "sparse is not installed; try: apt-get install sparse" >&2
    exit 1
fi

if [ -n "${CHECKPATCH:-}" ]; then
    # only compat.h asks for the version
    perl "$CHECKPATCH" --no-tree --strict --quiet -f kmod-shim/compat.h --ignore LINUX_VERSION_CODE >&2
    find kmod-shim tests/vm/module -name '*.[ch]' ! -name compat.h -exec perl "$CHECKPATCH" --no-tree --strict --quiet -f {} + >&2
fi

# two that build at once would build the same files
mkdir -p target/shim
exec 9>target/shim/lock
flock 9

# the headers name their common part by its installed place; -f names it by where it was unpacked
build() {
    local source=$1 folder=$2 log
    shift 2
    mkdir -p "$folder"
    # what has not changed is not built again
    cp -u "$source"/*.[ch] "$source/Kbuild" "$folder/"
    log=$folder/build.log
    # the type information of Debian's vmlinux is no part of the headers
    if ! make -s "$@" "M=$folder" W=1 C=2 \
        CONFIG_DEBUG_INFO_BTF_MODULES= modules >"$log" 2>&1 || [ -s "$log" ]; then
        cat "$log" >&2
        # or the next run would not see the warnings
        rm -f "$folder"/*.o "$folder"/*.ko
        return 1
    fi
}

# as of another version of the map, which refuses ours: only that number differs
other=$PWD/target/shim/other
mkdir -p "$other"
cp -u kmod-shim/*.[ch] kmod-shim/Kbuild "$other/"
sed 's/^\(#define MAPDEV_VERSION\s*\)1U$/\199U/' kmod-shim/mapdev_abi.h >"$other/new"
cmp -s "$other/new" "$other/mapdev_abi.h" || mv "$other/new" "$other/mapdev_abi.h"

if [ $# -eq 2 ]; then
    build kmod-shim "$PWD/target/shim/$2/mapdevfs" -C "$1"
    build "$other" "$PWD/target/shim/$2/other" -C "$1"
    build tests/vm/module "$PWD/target/shim/$2/probe" -C "$1"
    exit
fi
while read -r suite; do
    release=$(basename "$suite"/lib/modules/*)
    folder=$PWD/target/shim/$release
    headers=("$suite"/usr/src/linux-headers-*-amd64)
    common=("$suite"/usr/src/linux-headers-*-common)
    build kmod-shim "$folder/mapdevfs" -C "${headers[0]}" -f "${common[0]}/Makefile"
    build "$other" "$folder/other" -C "${headers[0]}" -f "${common[0]}/Makefile"
    build tests/vm/module "$folder/probe" -C "${headers[0]}" -f "${common[0]}/Makefile"
    echo "$suite $release $folder"
done < <(scripts/kernels.sh)
