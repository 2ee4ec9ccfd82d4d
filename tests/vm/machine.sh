# shellcheck shell=bash disable=SC2034
# machine.sh, read by the scripts here that boot machines of an initramfs alone, one for each kernel of
# target/kernels. Wants NAME and SECONDS_MAX; gives $work, and $failed at the end. What a machine said
# is in target/vm: NAME-RELEASE.tap its lines, NAME-RELEASE.console the kernel's.

accel=${VM_ACCEL:-tcg,thread=multi}
# what a script may change: processors and memory
machine=(-accel "$accel" -smp 2 -m 512M)
folder=$PWD/target/vm
mkdir -p "$folder"
work=$(mktemp -d "$folder/${NAME:?}.XXXXXX")
guest=$work/guest
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

# new_guest INIT: an empty $guest with busybox, and INIT as its first process
new_guest() {
    rm -rf "$guest"
    mkdir -p "$guest"/{bin,sbin,dev,etc,proc,run,sys,tmp,usr/bin,usr/sbin,var}
    if file -L "$(command -v busybox)" | grep -q 'dynamically linked'; then
        echo "# busybox-static wanted"
        exit 1
    fi
    cp "$(command -v busybox)" "$guest/bin/busybox"
    ln -s busybox "$guest/bin/sh"
    ln -s ../run "$guest/var/run"
    install -m 0755 "$1" "$guest/init"
    cp tests/vm/tap.sh "$guest/"
}

# program FROM TO: into $guest, with the libraries that it is linked with
program() {
    local from=$1 to=$guest$2 path
    mkdir -p "${to%/*}"
    strip --strip-debug -o "$to" "$from" 2>/dev/null || install -m 0755 "$from" "$to"
    while read -r path; do
        [ -e "$guest$path" ] || install -D -m 0755 "$path" "$guest$path"
    done < <(ldd "$from" 2>/dev/null | grep -o '/[^ ]*[^: ]')
}

# copy_modules KERNEL-ROOT RELEASE MODULE...: into $guest, each with all that it needs
copy_modules() {
    local root=$1 release=$2 module word path
    shift 2
    mkdir -p "$guest/lib/modules/$release"
    cp "$root/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$guest/lib/modules/$release/"
    for module in "$@"; do
        modprobe -d "$root" -S "$release" -C "$work/none" --show-depends "$module" |
            while read -r word path _; do
                [ "$word" != insmod ] || install -D -m 0644 "$path" "$guest/lib/modules/${path#"$root/lib/modules/"}"
            done
    done
}

# pack: $guest into the initramfs
pack() {
    (cd "$guest" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) >"$work/initrd"
}

fail() {
    echo "# $1; the end of $console:"
    tail -n 30 "$console" | tr -d '\r' | sed 's/^/#   /'
    failed=1
}

# boot KERNEL-ROOT RELEASE [WORDS]: the machine with the initramfs made before, and these words more on
# its command line; shows its lines of TAP as they come. A warning of the kernel is a failure.
boot() {
    local root=$1 release=$2 words=${3:-} status=0 begun=$SECONDS
    local console=$folder/$NAME-$release.console tap=$folder/$NAME-$release.tap
    echo "# Linux $release"
    power_on
    # with several processors, qemu now and then runs an instruction that the kernel is just patching; that
    # shows as a breakpoint while it starts, before there is anything of ours
    if [ ! -s "$work/lines" ] && grep -q 'Oops: int3' "$console"; then
        echo "# $release: qemu ran what the kernel was patching; once more"
        power_on
    fi
    tr -d '\r' <"$work/lines" >"$tap"
    echo "# $release: $((SECONDS - begun)) s ($accel)"
    if [ $status -eq 124 ]; then fail "not finished after $SECONDS_MAX s"
    elif [ $status -ne 0 ]; then fail "qemu failed: $(cat "$work/qemu.err")"
    elif grep -qE 'WARNING|Oops|BUG:|UBSAN:|KASAN:|INFO: task|Kernel panic|general protection fault' "$console"; then fail "the kernel complained"
    elif ! grep -q '^1\.\.[0-9]' "$tap"; then fail "the checks did not come to their end"
    elif [ "$(grep -cE '^(not )?ok ' "$tap")" != "$(sed -n 's/^1\.\.//p' "$tap")" ]; then fail "lines are missing"
    elif grep -q '^not ok' "$tap"; then failed=1
    fi
}

# what boot does, with its words: runs the machine to its end
power_on() {
    status=0
    : >"$work/lines"
    timeout --kill-after=5 "$SECONDS_MAX" qemu-system-x86_64 -machine q35 "${machine[@]}" -cpu max \
        -nodefaults -nographic -no-reboot -kernel "$root/boot/vmlinuz-$release" -initrd "$work/initrd" \
        -append "console=ttyS0 quiet no_timer_check oops=panic panic=-1 panic_on_warn=1 $words" \
        -serial "file:$console" -serial stdio </dev/null >"$work/lines" 2>"$work/qemu.err" &
    qemu_pid=$!
    # shows each line when it comes; ends with the machine
    tail --pid=$qemu_pid -n +1 -f "$work/lines" | stdbuf -o0 tr -d '\r'
    wait $qemu_pid || status=$?
    qemu_pid=''
}

# kernels [RELEASE-PREFIX]: prints folder and release of each
kernels() {
    local root release
    for root in "$PWD"/target/kernels/bookworm "$PWD"/target/kernels/bookworm-backports; do
        root=$(realpath "$root")
        for release in "$root"/lib/modules/*/; do
            release=$(basename "$release")
            case $release in "${1:-}"*) [ ! -e "$root/boot/vmlinuz-$release" ] || echo "$root $release" ;; esac
        done
    done
}
