#!/bin/sh
# Runs as the first process of the machine that shim.sh boots: each test of tests/shim is a check.
set -u
export PATH=/sbin:/bin:/usr/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
exec >/dev/ttyS1 2>&1

# shellcheck source=tests/vm/tap.sh
. /tap.sh
# shellcheck source=/dev/null # made for this machine
. /etc/shim

removed() { rmmod mapdevfs && [ ! -e /sys/module/mapdevfs ]; }
refused() { ! rmmod mapdevfs 2>/dev/null; }
mounted() { mkdir -p /tmp/held && mount -t mapdevfs none /tmp/held; }

# what the module has allocated and nobody can find; it must look so twice, and be older than 5 s. Modules
# that are unloaded have no names in it. The kernel itself loses the name of a cache that it cannot show
leaks=/sys/kernel/debug/kmemleak
leaked_nothing() {
    for _ in 1 2 3; do
        sleep 5
        echo scan >$leaks || return 1
    done
    awk '
        function tell() { if (ours && !known) { printf "%s", text; found = 1 } }
        /^unreferenced/ { tell(); text = ""; ours = 0; known = 0 }
        { text = text $0 "\n" }
        /\[mapdevfs\]/ || /^ *0xffffffff/ { ours = 1 }
        /sysfs_slab_add/ { known = 1 }
        END { tell(); exit found }
    ' $leaks
}

# only a kernel that can let allocations fail runs the tests of that
skip=''
[ -e /proc/self/fail-nth ] || skip='--skip no_memory::'

check "the module is loaded" modprobe mapdevfs open_timeout_ms=$((10000 * SHIM_PATIENCE))
# shellcheck disable=SC2086 # lists of words
for test in $(/bin/shim-tests --ignored --list --format terse $skip $SHIM_TESTS | sed -n 's/: test$//p'); do
    check "$test" /bin/shim-tests --ignored --exact --show-output "$test"
done
check "mounts" mounted
check "unloading is refused while it is mounted" refused
umount /tmp/held
if grep -q kmemleak=on /proc/cmdline; then
    [ -e $leaks ] || mount -t debugfs debugfs /sys/kernel/debug
    check "nothing has leaked" leaked_nothing
fi
exec 3</dev/mapdev
check "unloading is refused while its device is open" refused
exec 3<&-
check "it can be unloaded" removed
check "it can be loaded again" modprobe mapdevfs
echo "1..$count"
poweroff -f
