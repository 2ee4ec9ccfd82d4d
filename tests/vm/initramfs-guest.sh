#!/bin/bash
# Runs inside the machine of initramfs.sh, as root: /dev was the map in the initramfs, and is the same one now.
set -u
# shellcheck source=tests/vm/tap.sh
. /root/tap.sh
is() { [ "$1" = "$2" ] || { echo "is '$1', wanted '$2'"; return 1; }; }
is_map() { is "$(stat -f -c %t /dev)" 6d617064; }
was_map() { is "$(cat /run/mark-kind)" 6d617064; }
alone() { is "$(findmnt -rn -o TARGET,FSTYPE | grep '^/dev ')" "/dev $1"; }
everything_up() { is "$(systemctl --failed --plain --no-legend | grep -v mapdev-check)" ""; }
said() { journalctl -b --no-pager -o cat | grep -q "$1" || { echo "not said: $1"; return 1; }; }
found_by() { is "$(findmnt -no SOURCE /)" /dev/vda && is "$(readlink -f /dev/disk/by-uuid/0d5c8a6e-8f3b-4f0c-9d1e-6d6170646576)" /dev/vda; }
ran() { grep -q "$1" /run/mark-processes || { cat /run/mark-processes; return 1; }; }
owner() { is "$(stat -c %u /dev/tty9)" 77; }
another() {
    local first second
    read -r first </run/mark-killed && read -r second </run/mark-pid && [ "$first" != "$second" ] &&
        said "mapdevd has ended, and is started again"
}
same() { is "$(stat -c %i /dev/tty9 /dev/mine)" "$(cat /run/mark)"; }
none_left() {
    if [ ! -e /run/held ] || [ -s /run/mark-not-ready ]; then
        echo "none was just being started"
        return 1
    fi
    ! grep -x mapdevd /run/mark-left
}
mine() { is "$(cat /dev/mine/file)" text; }

check "the root was found by its UUID" found_by
check "what the initramfs made in /dev is there" mine
check "and the owner that it gave" owner
check "they are the same objects" same
if grep -q mapdev.mode=shadow /proc/cmdline; then
    check "systemd-udevd was the initramfs's device manager" ran systemd-udevd
    check "/dev is devtmpfs" alone devtmpfs
else
    check "mapdevd was the initramfs's device manager" ran mapdevd
    check "it was killed, and another one took its place" another
    check "one that was just being started ended with the initramfs" none_left
    check "/dev is the map" is_map
    check "and nothing is beneath it" alone mapdevfs
    check "the map was on /dev before there was a systemd" was_map
    check "the daemon goes on with it" said "goes on with the map of the last run"
    check "and finds it on /dev" said "/dev is the map already"
    check "/dev becomes devtmpfs" mapdevctl shim detach /dev
    check "and the map again" mapdevctl shim attach /dev
    check "with what the initramfs made" mine
fi
check "no unit has failed" everything_up
journalctl -b --no-pager -o short-monotonic | grep -E 'mapdev|udevd' | head -n 60 | sed 's/^/#   /'
systemd-analyze 2>&1 | sed 's/^/# /' | head -n 2
echo "1..$count"
