#!/bin/sh
# Runs as the first process of a virtual machine, see modules.sh: loads modules with mapdevctl. One line
# a check, in TAP's form, with what was said where one fails.
set -u
export PATH=/bin:/usr/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec >/dev/ttyS1 2>&1

# shellcheck source=tests/vm/tap.sh
. /tap.sh

loads() { mapdevctl module load "$@"; }
there() { grep -q "^$1 " /proc/modules || { echo "$1 is not in /proc/modules"; cat /proc/modules; return 1; }; }
absent() { ! grep "^$1 " /proc/modules; }
# ends CODE TEXT COMMAND...: with this exit code, and having said this
ends() {
    code=$1 text=$2
    shift 2
    "$@" >/tmp/ended 2>&1
    is=$?
    cat /tmp/ended
    [ $is = "$code" ] || { echo "exit code $is, wanted $code"; return 1; }
    grep -q "$text" /tmp/ended || { echo "not said: $text"; return 1; }
}
parameter() { [ "$(cat "/sys/module/$1/parameters/$2")" = "$3" ] || { cat "/sys/module/$1/parameters/$2"; return 1; }; }

echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd
cat >/etc/modprobe.d/test.conf <<'EOF'
options loop max_loop=5
install veth echo "$MODPROBE_MODULE $CMDLINE_OPTS" >/tmp/veth && rm /etc/modprobe.d/veth.conf && mapdevctl module load -i veth
install ipvlan mapdevctl module load ipvlan
install fails exit 7
blacklist tun
alias my-dummy dummy
softdep dummy pre: nosuch post: nlmon
oops this is no command
EOF
# veth knows no options, so its install command takes this away
echo "options veth carefully=1" >/etc/modprobe.d/veth.conf

# --- dependencies, soft dependencies, and what is there already
all_of_ext4() { there ext4 && there jbd2 && there mbcache && there crc16 && there crc32c_generic; }
check "nothing is loaded at first" absent .
check "a module is looked up before it is loaded" ends 0 "not loaded" mapdevctl module lookup fs-ext4
check "a dry run loads nothing" ends 0 "insmod .*/ext4.ko" mapdevctl module load --dry-run ext4
check "so it is still not loaded" absent ext4
check "ext4 is loaded by the kernel's name for it" loads fs-ext4
check "with all that it needs, and its soft dependency" all_of_ext4
check "once more does no harm" ends 0 "already loaded" mapdevctl module load ext4
check "and it is seen to be live" ends 0 "live" mapdevctl module lookup ext4
check "a part of the kernel is there" ends 0 "builtin" mapdevctl module load rtc-cmos

# --- options: of modprobe.d, of the kernel's command line, of the caller
check "loop is loaded by a device number" loads b7:0 hw_queue_depth=64
check "with the option of modprobe.d" parameter loop max_loop 5
check "and that of the kernel's command line" parameter loop max_part 3
check "and the caller's" parameter loop hw_queue_depth 64

# --- aliases and soft dependencies of modprobe.d
alias_and_softdep() { loads my-dummy && there dummy && there nlmon; }
check "an alias of modprobe.d is followed, with a soft dependency" alias_and_softdep

# --- install commands
ran() { there veth && cat /tmp/veth && [ "$(cat /tmp/veth)" = "veth carefully=1" ]; }
check "an install command is run" ends 0 "command ran" mapdevctl module load veth
check "and has loaded the module" ran
check "one that calls itself is stopped" ends 1 "ended with exit code 1" mapdevctl module load ipvlan
check "one that fails is told" ends 1 "ended with exit code 7" mapdevctl module load fails

# --- blacklists
check "a blacklisted module is not loaded by its alias" ends 0 blacklisted mapdevctl module load /dev/net/tun
check "that is so" absent tun
check "nor by its name where that is wanted" ends 0 blacklisted mapdevctl module load -b tun
check "but by its name otherwise" loads tun
check "then its node is there" test -c /dev/net/tun
check "modprobe.blacklist= counts" ends 0 blacklisted mapdevctl module load rtnl-link-macvlan
check "what the kernel refuses is told" ends 4 "module_blacklist=" mapdevctl module load tap
check "also of what is needed" ends 4 "cannot load tap: " mapdevctl module load macvtap
check "and before it is tried" ends 0 "refused by the kernel" mapdevctl module lookup tap

# --- what cannot be loaded
check "an unknown module is exit code 3" ends 3 "no module of $release" mapdevctl module load nosuch
check "another kernel's module is refused with advice" ends 1 "built for another kernel" mapdevctl module load macsec
check "an unknown value of an option is refused" ends 1 "ifb.ko.*Invalid argument" mapdevctl module load ifb numifbs=x
check "another user is refused" ends 4 "needs root" \
    su nobody -s /bin/sh -c "mapdevctl module load ifb numifbs=1"
check "a line of modprobe.d that is wrong is shown" ends 1 "test.conf:8:1: " mapdevctl module scan

# --- packing that the kernel does not know, unloading, several at once
gzipped() { loads gtp && there gtp && there udp_tunnel; }
at_once() {
    mapdevctl module load --json ifb >/tmp/one &
    one=$!
    mapdevctl module load --json ifb >/tmp/two && wait $one && there ifb && cat /tmp/one /tmp/two
}
again() { rmmod veth && absent veth && loads -i veth && there veth; }
check "a module that only mapdevctl can unpack is loaded" gzipped
check "a module that was removed is loaded again" again
check "two at once both succeed" at_once

# --- beside kmod: the same modules in the same order, after loading and after removing
mods() { sed 's/ .*//' /proc/modules; }
clear_all() {
    for round in 1 2 3 4 5 6 7 8 9; do
        for module in $(mods); do rmmod "$module" 2>/dev/null; done
        [ "$(mods | wc -l)" = 0 ] && return 0
    done
    echo "after $round rounds these are there still:"
    mods
    return 1
}
as_kmod() {
    clear_all || return 1
    /kmod/modprobe "$1"
    mods >/tmp/kmod-loaded
    /kmod/modprobe -r "$1"
    mods >/tmp/kmod-removed
    clear_all || return 1
    mapdevctl module load "$1"
    mods >/tmp/own-loaded
    mapdevctl module unload "$1"
    mods >/tmp/own-removed
    echo "# kmod has loaded:" && cat /tmp/kmod-loaded
    diff /tmp/kmod-loaded /tmp/own-loaded && diff /tmp/kmod-removed /tmp/own-removed && wc -l /tmp/own-loaded
}
cat >/etc/modprobe.d/test.conf <<'EOF'
alias my-dummy dummy
alias both fou6
alias both ext4
softdep dummy pre: ifb post: nlmon fou6
softdep fou pre: veth
install veth /kmod/modprobe -i veth
remove veth rmmod veth
blacklist tun
EOF
rm -f /etc/modprobe.d/veth.conf
for name in ext4 fs-ext4 fou6 dummy my-dummy both veth loop devname:net/tun macvtap nosuch; do
    check "$name is loaded and removed as by kmod" as_kmod $name
done
keeps() { loads fou6 && ends 1 "used by fou6" mapdevctl module unload ip6_tunnel && there ip6_tunnel; }
check "what is used stays, and by whom is told" keeps
check "a part of the kernel stays" ends 1 "part of the kernel" mapdevctl module unload rtc-cmos
check "what is not loaded is not removed" ends 0 "not loaded" mapdevctl module unload loop

if [ -e /sys/module/compression ]; then
    echo "# $release unpacks $(cat /sys/module/compression) by itself"
fi
echo "1..$count"
poweroff -f
