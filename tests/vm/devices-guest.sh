#!/bin/sh
# Runs as the first process of the machine that devices.sh boots: each test of tests/devices is a check.
set -u
export PATH=/sbin:/bin:/usr/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs -o mode=0755 run /run
exec >/dev/ttyS1 2>&1

# shellcheck source=tests/vm/tap.sh
. /tap.sh
# shellcheck source=/dev/null # made for this machine
. /etc/devices

mkdir -p /run/dbus
dbus-daemon --config-file=/etc/bus.conf --fork
# the one driver that is there before a device manager: for devices that are no hardware
modprobe uhid
# one process, as all tests speak of the same two runs
# shellcheck disable=SC2086 # a list of names
/bin/devices-tests --ignored --test-threads=1 $DEVICES_TESTS >/tmp/all 2>&1
# shellcheck disable=SC2317 # called by check
is_ok() { grep -q "^test $1 \.\.\. .*ok$" /tmp/all; }
# shellcheck disable=SC2086 # a list of names
for test in $(/bin/devices-tests --ignored --list --format terse $DEVICES_TESTS | sed -n 's/: test$//p'); do
    check "$test" is_ok "$test"
done
grep -q '^test result: ok' /tmp/all || sed 's/^/#   /' /tmp/all
echo "1..$count"
poweroff -f
