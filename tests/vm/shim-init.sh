#!/bin/sh
# PID 1 of the machine that shim.sh boots: runs the tests, says what became of them on the second port.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
exec >/dev/ttyS1 2>&1
export PATH=/bin:/sbin
# shellcheck source=/dev/null # made for this machine
. /etc/shim

# a line as the tests have them; what failed is told above it
check() {
    name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "not ok $name"; fi
}
removed() { rmmod mapdevfs && [ ! -e /sys/module/mapdevfs ]; }
refused() { ! rmmod mapdevfs 2>/dev/null; }
mounted() { mkdir -p /tmp/held && mount -t mapdevfs none /tmp/held; }

check "the module is loaded" modprobe mapdevfs
# shellcheck disable=SC2046 # a list of names
/bin/shim-tests --ignored --test-threads=1 --nocapture $(cat /etc/tests)
check "mounts" mounted
check "unloading is refused while it is mounted" refused
umount /tmp/held
exec 3</dev/mapdev
check "unloading is refused while its device is open" refused
exec 3<&-
check "it can be unloaded" removed
check "it can be loaded again" modprobe mapdevfs
echo "# the end"
poweroff -f
