#!/usr/bin/env bash
# `make check`: one step after the other, also when one failed; then a table, and a line for tools.
# Names as arguments run only those steps. Logs: target/check/STEP.log
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" = 0 ] && ! unshare --mount true 2>/dev/null; then
    echo "check: no mount namespace can be made here. In a plain chroot, make its root a mount point" \
        "first (mount --bind ROOT ROOT), or enter it with systemd-nspawn" >&2
    exit 1
fi

packages=(gcc libc6-dev git dbus-daemon dbus-bin systemd udev kmod polkitd pkexec acl procps iproute2 strace
    util-linux shellcheck lintian dpkg-dev mandoc mmdebstrap libarchive-tools cpio qemu-system-x86
    busybox-static binutils xz-utils file make gcc-12 sparse ethtool
    # what makes the disks that are probed
    e2fsprogs fdisk btrfs-progs xfsprogs dosfstools exfatprogs ntfs-3g xorriso squashfs-tools cryptsetup-bin
    f2fs-tools udftools nilfs-tools erofs-utils bcache-tools)
export RUSTFLAGS='' RUSTDOCFLAGS='-D warnings' CARGO_TERM_COLOR=never
logs=target/check
started=$SECONDS
rows=() names=() passed=0 failed=0

packages() { scripts/need.sh "${packages[@]}"; }
# with these, the tests of modules compare with depmod and modprobe
kernels() { scripts/kernels.sh; }
# with these, the rules of packages are loaded beside systemd-udevd
rules() { scripts/rules.sh; }
# `deny` works offline, and wants the crates of other platforms too
tools() { scripts/tools.sh cargo-deny cargo-deb && cargo fetch --locked; }
format() { cargo fmt --check; }
clippy() { cargo clippy --locked --all-targets -- -D warnings; }
docs() { cargo doc --locked --no-deps --document-private-items; }
# what is made at random is always the same here, so that only a change of ours turns it red; without the
# seed, each run looks at other cases
tests() { MAPDEV_TEST_SEED=${MAPDEV_TEST_SEED:-20261126} MAPDEV_REQUIRE_KERNELS=1 MAPDEV_REQUIRE_UDEV=1 MAPDEV_REQUIRE_RULES=1 cargo test --locked --no-fail-fast; }
deny() { target/tools/bin/cargo-deny --offline --locked check bans licenses sources; }
shell() { shellcheck .ci/run scripts/*.sh tests/*.sh tests/vm/*.sh packaging/debian/p* packaging/dkms/p* packaging/initramfs/*; }
man() { mandoc -T lint -W warning packaging/man/*; }
polkit() { scripts/polkit.sh; }
units() { scripts/units.sh; }
package() {
    make --no-print-directory deb
    lintian --fail-on error --suppress-tags-from-file packaging/debian/lintian-suppressed target/debian/mapdev_*.deb target/debian/mapdevfs-dkms_*.deb
}
dkms() { tests/dkms.sh target/debian/mapdevfs-dkms_*.deb; }
vm() {
    tests/vm/run.sh target/debian/mapdev_*.deb
    tests/vm/modules.sh target/release/mapdevctl
    tests/vm/shim.sh
    SHIM_COSTS=1 tests/vm/shim.sh
    tests/vm/names.sh target/release
    tests/vm/devices.sh target/release 6.12.
    tests/vm/dev.sh target/release
    # makes Debian's initramfs in a root of its own; the second time, udev is what happens where mapdevd fails
    if [ "$(id -u)" = 0 ]; then
        tests/vm/initramfs.sh target/release 6.12
        MODE=shadow tests/vm/initramfs.sh target/release 6.12
    fi
    tests/vm/try.sh target/release
}

# while a step runs on a terminal: its time and the last line of its log
watch_step() {
    while sleep 1; do
        printf '\r\033[K%-9s %4d s  %.*s' "$1" $((SECONDS - $2)) $((${COLUMNS:-80} - 22)) "$(tail -n 1 "$3" | tr -d '\r\t')"
    done
}

# the names of the tests that a log says have failed, and the place where each stopped; short, since CI
# shows the last 900 characters only
failures() {
    tr -d '\r' <"$1" | awk '
        /^not ok [0-9]/ || /^test .* \.\.\. FAILED$/ {
            sub(/^not ok [0-9]+ *-? *|^test /, ""); sub(/ \.\.\. FAILED$/, "")
            names[++count] = $0
        }
        /^#? *thread .* panicked at / {
            place = $0; sub(/.* panicked at /, "", place); sub(/:[0-9]+:$/, "", place)
            name = $0; gsub(/^#? *thread \047|\047 .*/, "", name)
            places[name] = place
        }
        END {
            for (n = 1; n <= count; n++) {
                name = names[n]; sub(/^[^ ]*: /, "", name)
                print substr(names[n], 1, 70) (name in places ? " at " places[name] : "")
            }
        }'
}

step() {
    local name=$1 log=$logs/$1.log begun=$SECONDS watcher='' result=ok counts ok bad bad_names
    if [ -t 1 ]; then
        watch_step "$name" $begun "$log" &
        watcher=$!
    else
        printf '%-9s ' "$name"
    fi
    # in a shell of its own, since `set -e` is off for functions after `if`
    (set -euo pipefail; "$name") >"$log" 2>&1 </dev/null &
    wait $! || result=FAILED
    [ -z "$watcher" ] || { kill "$watcher"; wait "$watcher" 2>/dev/null || true; printf '\r\033[K%-9s ' "$name"; }

    # a step that holds tests counts as these, any other as one
    counts=$(awk '/^test result:/ { p += $4; f += $6 } /^ok [0-9]/ { p++ } /^not ok [0-9]/ { f++ } END { print p + 0, f + 0 }' "$log")
    read -r ok bad <<<"$counts"
    if [ "$result" = ok ] && [ $((ok + bad)) -eq 0 ]; then ok=1; fi
    if [ "$result" = FAILED ] && [ "$bad" -eq 0 ]; then bad=1; fi
    passed=$((passed + ok)) failed=$((failed + bad))
    rows+=("$(printf '%-9s %4d s  %-6s %5d passed %3d failed' "$name" $((SECONDS - begun)) $result "$ok" "$bad")")
    printf '%4d s  %s\n' $((SECONDS - begun)) $result
    mapfile -t bad_names < <(failures "$log")
    if [ $result = FAILED ] && [ ${#bad_names[@]} -eq 0 ]; then bad_names=("see $log"); fi
    names+=("${bad_names[@]/#/$name: }")
    if [ $result = FAILED ]; then
        echo "---- the end of $log"
        tail -n 60 "$log" | sed 's/^/  /'
        echo "----"
    fi
}

mkdir -p $logs
steps=("$@")
[ $# -gt 0 ] || steps=(packages kernels rules tools format clippy docs tests deny shell man polkit units package dkms vm)
for name in "${steps[@]}"; do
    step "$name"
done

echo
printf '%s\n' "${rows[@]}"
printf 'in all    %4d s\n\n' $((SECONDS - started))
echo "$passed passed, $failed failed"
[ ${#names[@]} -eq 0 ] || printf '%s\n' "${names[@]:0:10}"
[ $failed -eq 0 ]
