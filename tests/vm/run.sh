#!/usr/bin/env bash
# run.sh PACKAGE.deb: installs the package in a Debian virtual machine with systemd as PID 1, runs
# guest.sh there, and shows its lines as they come. Fails on `not ok`, on a kernel oops and when time
# is up.
#
# The machine's root is its initramfs: a base that is made once and kept in target/vm, and behind it a
# second archive with the package and the script. No disk image, no drivers, and no root but for
# mmdebstrap. The serial console goes to target/vm/console.log, guest.sh's lines to a second port.
set -euo pipefail
cd "$(dirname "$0")/../.."

deb=$(realpath "$1")
suite=bookworm
packages=systemd,systemd-sysv,udev,dbus,polkitd,kmod
seconds=${VM_SECONDS:-280}
folder=$PWD/target/vm
mkdir -p "$folder"
work=$(mktemp -d "$folder/work.XXXXXX")
qemu_pid=''
# shellcheck disable=SC2317 # called by trap
cleanup() {
    [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

make_base() {
    echo "# making the base system, once"
    local excluded=() path
    for path in doc man locale info zoneinfo lintian bug; do
        excluded+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    # shellcheck disable=SC2016 # mmdebstrap expands its $1
    mmdebstrap --quiet --variant=minbase "--include=$packages" "${excluded[@]}" \
        --customize-hook='echo 0123456789abcdef0123456789abcdef >"$1/etc/machine-id"' \
        --customize-hook='rm -rf "$1"/usr/lib/x86_64-linux-gnu/gconv "$1"/usr/lib/udev/hwdb.d "$1"/var/cache/*' \
        "$suite" "$work/base.tar"

    # the cloud kernel: small, with what a virtual machine has. Unpacked rather than installed, since
    # its scripts would make an initramfs.
    local kernel
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
    (cd "$work" && apt-get download -q "$kernel" >/dev/null 2>&1)
    mkdir "$work/kernel"
    dpkg-deb -x "$work/$kernel"_*.deb "$work/kernel"
    mv "$work"/kernel/boot/vmlinuz-* "$work/vmlinuz"
    local modules=("$work"/kernel/lib/modules/*)
    rm -rf "$work/kernel/boot" "${modules[0]}"/kernel/{sound,net,drivers/{gpu,infiniband,net/ethernet,scsi,nvme,md,hv}}
    rm -rf "$work/kernel/usr"
    mkdir "$work/kernel/usr"
    mv "$work/kernel/lib" "$work/kernel/usr/lib"
    depmod -b "$work/kernel/usr" "${modules[0]##*/}"

    { bsdtar -cf - --format=newc "@$work/base.tar"
        (cd "$work/kernel" && find usr | cpio --quiet -o -H newc -R 0:0); } >"$work/base.cpio"
    mv "$work/vmlinuz" "$folder/vmlinuz-$key"
    mv "$work/base.cpio" "$folder/base-$key.cpio"
}

make_overlay() {
    local root=$work/overlay
    mkdir -p "$root/root" "$root/etc/systemd/system"
    cp "$deb" "$root/root/mapdev.deb"
    install -m 0755 tests/vm/guest.sh "$root/root/guest.sh"
    cat >"$root/etc/systemd/system/mapdev-check.service" <<'EOF'
[Unit]
Description=mapdev's checks
After=multi-user.target dbus.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/root/guest.sh
StandardOutput=file:/dev/ttyS1
StandardError=journal+console
Environment=LC_ALL=C SYSTEMD_PAGER= SYSTEMD_COLORS=0
EOF
    (cd "$root" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) >"$work/overlay.cpio"
    # archives may follow each other, each at a multiple of four bytes
    cat "$folder/base-$key.cpio" "$work/overlay.cpio" >"$work/initrd"
}

key=$(sed -n '/^suite=/,/^packages=/p; /^make_base/,/^}/p' "$0" | sha256sum | cut -c1-12)
[ -e "$folder/base-$key.cpio" ] || make_base
make_overlay

# emulation, which works everywhere: VM_ACCEL=kvm where the machine has it
: >"$work/lines"
accel=${VM_ACCEL:-tcg}
echo "# booting ($accel, at most $seconds s)"
timeout --kill-after=5 "$seconds" qemu-system-x86_64 -machine "q35,accel=$accel" -cpu max -smp 2 -m 1280M \
    -nodefaults -nographic -no-reboot -kernel "$folder/vmlinuz-$key" -initrd "$work/initrd" \
    -append "rdinit=/sbin/init console=ttyS0 quiet oops=panic panic=-1 systemd.wants=mapdev-check.service systemd.mask=serial-getty@ttyS0.service systemd.mask=getty@tty1.service" \
    -serial "file:$folder/console.log" -serial stdio </dev/null >"$work/lines" 2>"$work/qemu.err" &
qemu_pid=$!

# shows each line when it comes; ends with the machine
tail --pid=$qemu_pid -n +1 -f "$work/lines" | tr -d '\r'
status=0
wait $qemu_pid || status=$?
qemu_pid=''
tr -d '\r' <"$work/lines" >"$folder/tap.log"

fail() {
    echo "# $1"
    echo "# the end of $folder/console.log:"
    tail -n 30 "$folder/console.log" | tr -d '\r' | sed 's/^/#   /'
    exit 1
}
[ $status -ne 124 ] || fail "not finished after $seconds s"
[ $status -eq 0 ] || fail "qemu failed: $(cat "$work/qemu.err")"
if grep -qE 'Oops|BUG:|Kernel panic|general protection fault' "$folder/console.log"; then fail "the kernel oopsed"; fi
grep -q '^1\.\.[0-9]' "$folder/tap.log" || fail "the checks did not come to their end"
[ "$(grep -cE '^(not )?ok ' "$folder/tap.log")" = "$(sed -n 's/^1\.\.//p' "$folder/tap.log")" ] || fail "lines are missing"
if grep -q '^not ok' "$folder/tap.log"; then fail "checks failed"; fi
