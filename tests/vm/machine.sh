# shellcheck shell=bash disable=SC2034
# machine.sh, read by modules.sh and names.sh: machines that are an initramfs alone, one for each kernel
# of target/kernels. Wants NAME and SECONDS_MAX; gives $work, and $failed at the end.

accel=${VM_ACCEL:-tcg}
folder=$PWD/target/vm
mkdir -p "$folder"
work=$(mktemp -d "$folder/${NAME:?}.XXXXXX")
qemu_pid=''
failed=0
# shellcheck disable=SC2317 # called by trap
cleanup() {
    [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
# a folder without configuration
mkdir "$work/none"

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

# pack GUEST-ROOT: into the initramfs
pack() {
    (cd "$1" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) >"$work/initrd"
}

fail() {
    echo "# $1; the end of the console:"
    tail -n 30 "$work/console" | tr -d '\r' | sed 's/^/#   /'
    failed=1
}

# boot KERNEL-ROOT RELEASE [WORDS]: the machine with the initramfs made before, and these words more on
# its command line; shows its lines of TAP as they come
boot() {
    local root=$1 release=$2 words=${3:-} status=0 begun=$SECONDS
    : >"$work/lines"
    timeout --kill-after=5 "$SECONDS_MAX" qemu-system-x86_64 -machine "q35,accel=$accel" -cpu max -smp 2 -m 512M \
        -nodefaults -nographic -no-reboot -kernel "$root/boot/vmlinuz-$release" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet oops=panic panic=-1 $words" \
        -serial "file:$work/console" -serial stdio </dev/null >"$work/lines" 2>"$work/qemu.err" &
    qemu_pid=$!
    # shows each line when it comes; ends with the machine
    tail --pid=$qemu_pid -n +1 -f "$work/lines" | tr -d '\r'
    wait $qemu_pid || status=$?
    qemu_pid=''
    tr -d '\r' <"$work/lines" >"$work/tap"
    echo "# $release: $((SECONDS - begun)) s ($accel)"
    if [ $status -eq 124 ]; then fail "not finished after $SECONDS_MAX s"
    elif [ $status -ne 0 ]; then fail "qemu failed: $(cat "$work/qemu.err")"
    elif grep -qE 'Oops|BUG:|Kernel panic|general protection fault' "$work/console"; then fail "the kernel oopsed"
    elif ! grep -q '^1\.\.[0-9]' "$work/tap"; then fail "the checks did not come to their end"
    elif [ "$(grep -cE '^(not )?ok ' "$work/tap")" != "$(sed -n 's/^1\.\.//p' "$work/tap")" ]; then fail "lines are missing"
    elif grep -q '^not ok' "$work/tap"; then failed=1
    fi
}
