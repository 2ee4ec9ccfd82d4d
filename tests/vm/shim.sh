#!/usr/bin/env bash
# shim.sh [RELEASE-PREFIX]: boots Debian's kernels with the kernel module, the daemon and tests/shim, each
# in a virtual machine that is an initramfs only. Test names as SHIM_TESTS run only these; SHIM_SECONDS
# is how long each stress lasts, SHIM_KILLS how often the daemon is killed; SHIM_COSTS=1 measures costs
# only, by counting instructions. Consoles: target/shim/RELEASE/console.log
set -euo pipefail
cd "$(dirname "$0")/../.."

only=${1:-}
seconds=${VM_SECONDS:-900}
accel=${VM_ACCEL:-tcg,thread=multi}
modules=(tun loop uinput zram nvme-fabrics)
qemu_pid=''
work=''
clock=(-accel "$accel" -smp 2)
if [ -n "${SHIM_COSTS:-}" ]; then
    # the machine's time is the number of its instructions
    # shellcheck disable=SC2054 # commas of qemu's
    clock=(-accel tcg,thread=single -icount shift=1,sleep=off -smp 1)
    SHIM_TESTS=costs::
fi
# shellcheck disable=SC2317 # called by trap
cleanup() {
    [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
    [ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT

# a program with the libraries that it is linked with
program() {
    local from=$1 to=$2 path
    install -D -m 0755 "$from" "$root$to"
    strip --strip-debug "$root$to" 2>/dev/null || true
    while read -r path; do
        [ -e "$root$path" ] || install -D -m 0755 "$path" "$root$path"
    done < <(ldd "$from" 2>/dev/null | grep -o '/[^ ]*')
}

# the modules of the tests with all that they need, and depmod's files for just these
take_modules() {
    local suite=$1 release=$2 folder=$3 name path
    for name in "${modules[@]}"; do
        while read -r _ path _; do
            install -D -m 0644 "$path" "$root/lib/modules/$release/${path##*/lib/modules/"$release"/}"
        done < <(modprobe -d "$suite" -S "$release" --show-depends "$name" | grep '^insmod')
    done
    install -D -m 0644 "$folder/mapdevfs/mapdevfs.ko" "$root/lib/modules/$release/extra/mapdevfs.ko"
    install -D -m 0644 "$folder/probe/mapdev_probe.ko" "$root/lib/modules/$release/extra/mapdev_probe.ko"
    cp "$suite/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$release/"
    # of the probe it says that it declares no number, as it is meant to
    depmod -b "$root" "$release" 2>&1 | { grep -v 'mapdev_probe.* lacks major and minor' || true; }
}

make_initrd() {
    local suite=$1 release=$2 folder=$3 name
    root=$work/root
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp,run,etc,usr/bin}
    install -m 0755 /bin/busybox "$root/bin/busybox"
    for name in sh mount umount cat dmesg poweroff mkdir ls; do ln -s busybox "$root/bin/$name"; done
    program "$(command -v kmod)" /sbin/kmod
    for name in modprobe insmod rmmod lsmod; do ln -s kmod "$root/sbin/$name"; done
    program "$tests" /bin/shim-tests
    program target/debug/mapdevd /bin/mapdevd
    program target/debug/mapdevctl /bin/mapdevctl
    program "$(command -v dbus-daemon)" /bin/dbus-daemon
    install -m 0755 tests/vm/shim-init.sh "$root/init"
    echo "$SHIM_TESTS" >"$root/etc/tests"
    printf 'export SHIM_SECONDS=%s SHIM_KILLS=%s SHIM_COSTS=%s\n' "$SHIM_SECONDS" "$SHIM_KILLS" "$SHIM_COSTS" >"$root/etc/shim"
    printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\ntty:x:5:\nuser:x:1000:\n' >"$root/etc/group"
    take_modules "$suite" "$release" "$folder"
    (cd "$root" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$work/initrd"
}

boot() {
    local suite=$1 release=$2 folder=$3 status=0
    local console=$folder/console.log lines=$folder/lines.log
    echo "# Linux $release"
    work=$(mktemp -d "$folder/work.XXXXXX")
    make_initrd "$suite" "$release" "$folder"
    : >"$lines"
    # a warning of the kernel is a failure: it ends the machine, and the end of its lines is missing
    timeout --kill-after=5 "$seconds" qemu-system-x86_64 -machine q35 "${clock[@]}" -cpu max -m 2048 \
        -nodefaults -nographic -no-reboot -kernel "$suite/boot/vmlinuz-$release" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet oops=panic panic=-1 panic_on_warn=1" \
        -serial "file:$console" -serial stdio </dev/null >"$lines" 2>"$work/qemu.err" &
    qemu_pid=$!
    tail --pid=$qemu_pid -n +1 -f "$lines" | tr -d '\r'
    wait $qemu_pid || status=$?
    qemu_pid=''
    local fault=''
    [ $status -eq 0 ] || fault="qemu ended with $status: $(cat "$work/qemu.err")"
    [ $status -ne 124 ] || fault="not finished after $seconds s"
    grep -q '^# the end' "$lines" || fault=${fault:-the tests did not come to their end}
    if grep -qE 'WARNING|Oops|BUG:|Kernel panic|general protection fault' "$console"; then fault="the kernel complained"; fi
    if grep -q '^test .*FAILED\|^not ok' "$lines"; then fault=${fault:-tests failed}; fi
    rm -rf "$work"
    work=''
    [ -z "$fault" ] && return
    echo "# Linux $release: $fault; the end of $console:"
    tail -n 40 "$console" | tr -d '\r' | sed 's/^/#   /'
    failed=1
}

failed=0
export SHIM_TESTS=${SHIM_TESTS:-} SHIM_SECONDS=${SHIM_SECONDS:-10} SHIM_KILLS=${SHIM_KILLS:-5} SHIM_COSTS=${SHIM_COSTS:-}
cargo build --locked --bins
tests=$(cargo test --locked --test shim --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/shim-')
built=$(scripts/shim.sh)
while read -r suite release folder; do
    case $release in "$only"*) boot "$suite" "$release" "$folder" ;; esac
done <<<"$built"
[ $failed -eq 0 ]
