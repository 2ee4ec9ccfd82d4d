#!/usr/bin/env bash
# names.sh [FOLDER]: boots the kernels of target/kernels with mapdevd and mapdevctl of FOLDER as their
# device manager and modprobe, and has names-guest.sh look at names that are there before their devices.
# Shows its lines as they come; fails on `not ok`, on a kernel oops and when time is up.
#
# Each machine is an initramfs alone, as for modules.sh: no disk image, no network, and no root.
set -euo pipefail
cd "$(dirname "$0")/../.."

binaries=$(realpath "${1:-target/release}")
seconds=${VM_SECONDS:-120}
accel=${VM_ACCEL:-tcg}
folder=$PWD/target/vm
mkdir -p "$folder"
work=$(mktemp -d "$folder/names.XXXXXX")
qemu_pid=''
# shellcheck disable=SC2317 # called by trap
cleanup() {
    [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# copy_modules KERNEL-ROOT RELEASE GUEST-ROOT MODULE...: each with all that it needs
copy_modules() {
    local root=$1 release=$2 guest=$3 module word path
    shift 3
    for module in "$@"; do
        modprobe -d "$root" -S "$release" -C "$work/none" --show-depends "$module" |
            while read -r word path _; do
                [ "$word" != insmod ] || install -D -m 0644 "$path" "$guest/lib/modules/${path#"$root/lib/modules/"}"
            done
    done
}

make_guest() {
    local root=$1 release=$2 guest=$3 program library list
    mkdir -p "$work/none" "$guest"/{bin,dev,proc,run,spare,sys,tmp,usr/bin,usr/sbin,var} \
        "$guest"/etc/{mapdev/policy.d,tmpfiles.d,udev/rules.d} "$guest/lib/modules/$release/extra"
    cp "$(command -v busybox)" "$guest/bin/busybox"
    ln -s busybox "$guest/bin/sh"
    ln -s ../run "$guest/var/run"
    strip -o "$guest/usr/sbin/mapdevd" "$binaries/mapdevd"
    strip -o "$guest/usr/bin/mapdevctl" "$binaries/mapdevctl"
    cp "$(command -v dbus-daemon)" "$guest/usr/bin/"
    for program in "$binaries/mapdevd" "$binaries/mapdevctl" "$(command -v dbus-daemon)"; do
        ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
            install -D -m 0755 "$library" "$guest$library"
        done
    done
    cat >"$guest/etc/bus.conf" <<EOF
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default"><allow user="*"/><allow own="*"/>
<allow send_type="method_call"/><allow send_type="signal"/><allow send_requested_reply="true"/>
<allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_requested_reply="true"/></policy>
</busconfig>
EOF
    install -m 0755 tests/vm/names-guest.sh "$guest/init"
    for list in order builtin builtin.modinfo; do
        cp "$root/lib/modules/$release/modules.$list" "$guest/lib/modules/$release/"
    done
    copy_modules "$root" "$release" "$guest" tun loop uhid zram
    find "$root/lib/modules/$release" -name 'cuse.ko*' -exec cp {} "$guest/spare/" \;
    (cd "$guest" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) >"$work/initrd"
}

fail() {
    echo "# $1; the end of the console:"
    tail -n 30 "$work/console" | tr -d '\r' | sed 's/^/#   /'
    failed=1
}

boot() {
    local root=$1 release=$2 status=0 begun=$SECONDS
    : >"$work/lines"
    timeout --kill-after=5 "$seconds" qemu-system-x86_64 -machine "q35,accel=$accel" -cpu max -smp 2 -m 512M \
        -nodefaults -nographic -no-reboot -kernel "$root/boot/vmlinuz-$release" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet oops=panic panic=-1" \
        -serial "file:$work/console" -serial stdio </dev/null >"$work/lines" 2>"$work/qemu.err" &
    qemu_pid=$!
    # shows each line when it comes; ends with the machine
    tail --pid=$qemu_pid -n +1 -f "$work/lines" | tr -d '\r'
    wait $qemu_pid || status=$?
    qemu_pid=''
    tr -d '\r' <"$work/lines" >"$work/tap"
    echo "# $release: $((SECONDS - begun)) s ($accel)"
    if [ $status -eq 124 ]; then fail "not finished after $seconds s"
    elif [ $status -ne 0 ]; then fail "qemu failed: $(cat "$work/qemu.err")"
    elif grep -qE 'Oops|BUG:|Kernel panic|general protection fault' "$work/console"; then fail "the kernel oopsed"
    elif ! grep -q '^1\.\.[0-9]' "$work/tap"; then fail "the checks did not come to their end"
    elif [ "$(grep -cE '^(not )?ok ' "$work/tap")" != "$(sed -n 's/^1\.\.//p' "$work/tap")" ]; then fail "lines are missing"
    elif grep -q '^not ok' "$work/tap"; then failed=1
    fi
}

failed=0
for root in target/kernels/bookworm target/kernels/bookworm-backports; do
    root=$(realpath "$root")
    for release in "$root"/lib/modules/*/; do
        release=$(basename "$release")
        [ -e "$root/boot/vmlinuz-$release" ] || continue
        rm -rf "$work/guest"
        make_guest "$root" "$release" "$work/guest"
        boot "$root" "$release"
    done
done
exit $failed
