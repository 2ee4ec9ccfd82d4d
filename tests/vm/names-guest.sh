#!/bin/sh
# Runs as the first process of a virtual machine, see names.sh: names before devices on a real kernel,
# with mapdevd as its device manager and mapdevctl as its modprobe. One line a check, in TAP's form, with
# what was said where one fails.
set -u
export PATH=/bin:/usr/bin:/usr/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 run /run
exec >/dev/ttyS1 2>&1

# shellcheck source=tests/vm/tap.sh
. /tap.sh
tree=/lib/modules/$release

# what the kernel runs when a node is opened whose driver is not loaded: modprobe -q -- ALIAS
cat >/bin/autoload <<'EOF'
#!/bin/sh
exec /usr/bin/mapdevctl module load "$3"
EOF
chmod 0755 /bin/autoload
echo /bin/autoload >/proc/sys/kernel/modprobe

printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >/etc/passwd
printf 'root:x:0:\ndisk:x:6:\nlab:x:77:\n' >/etc/group
cat >/etc/udev/rules.d/50-test.rules <<'EOF'
KERNEL=="tun", MODE="0666", OPTIONS+="static_node=net/tun", TAG+="uaccess"
KERNEL=="loop-control", GROUP="disk", OPTIONS+="static_node=loop-control"
EOF
echo 'z /dev/uhid 0640 - lab -' >/etc/tmpfiles.d/test.conf
cat >/etc/mapdev/policy.d/50-test.toml <<'EOF'
schema = 1
[[rule]]
id = "zram"
match.devname = "zram0"
set = { group = "lab", mode = "0660", module = "zram" }
EOF

# in NAME: how the map has it: mode, owner, group, number, origin
in_map() { mapdevctl map dump --numeric | awk -v name="$1" '$6 == name { print $1, $2, $3, $4, $5 }'; }
is() { [ "$1" = "$2" ] || { echo "is '$1', not '$2'"; return 1; }; }
map() { is "$(in_map "$1")" "$2"; }
node() { is "$(stat -c '%F %t:%T %u:%g %a' "/dev/$1" 2>&1)" "$2"; }
no_node() { ! ls -l "/dev/$1"; }
there() { grep "^$1 " /proc/modules; }
absent() { ! there "$1"; }
# waits for what the daemon does when nobody asks it to
soon() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || return 1
        mapdevctl settle
    done
}
opens() { su nobody -s /bin/sh -c "exec 3<>/dev/$1"; }
refused() { ! opens "$1"; }

mkdir -p /run/dbus
dbus-daemon --config-file=/etc/bus.conf --fork
# a driver that is there before the daemon: its node is the kernel's
mapdevctl module load loop >/dev/null 2>&1
mapdevd --mode active >/tmp/log 2>&1 &
tries=0
until mapdevctl settle >$said 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { sed 's/^/# /' $said /tmp/log; poweroff -f; }
done

# --- before any device
check "net/tun is in the map, its module is not loaded" map net/tun "crw-rw-rw- 0 0 10:200 module"
check "so it is in /dev" node net/tun "character special file a:c8 0:0 666"
check "and its module is not loaded" absent tun
check "it is tagged" is "$(readlink '/run/udev/static_node-tags/uaccess/net\x2ftun')" /dev/net/tun
check "uhid has what tmpfiles.d says" node uhid "character special file a:ef 0:77 640"
check "zram0 is in the map without number" map zram0 "brw-rw---- 0 77 - module,pending"
check "and not in /dev" no_node zram0
check "loop-control is live" map loop-control "crw-rw---- 0 6 10:237 module,live"

# --- opening loads, if one may open
check "who may not open does not load" refused uhid
check "that is so" absent uhid
check "who may open, loads" opens net/tun
check "that is so, too" there tun
check "the device has the name now" soon map net/tun "crw-rw-rw- 0 0 10:200 module,live"
check "policy names zram0's module" mapdevctl module load zram
check "its disk has the name now" soon map zram0 "brw-rw---- 0 77 $(cat /sys/block/zram0/dev) module,live"

# --- devices go, names come back
check "the driver goes" rmmod tun
check "the name stays" soon map net/tun "crw-rw-rw- 0 0 10:200 module"
check "the node too, which was ours" node net/tun "character special file a:c8 0:0 666"
check "a driver goes whose node was the kernel's" rmmod loop
check "its name stays" soon map loop-control "crw-rw---- 0 6 10:237 module"
check "its node is made anew" soon node loop-control "character special file a:ed 0:6 660"
check "and opening it loads the driver again" sh -c 'exec 3<>/dev/loop-control && grep "^loop " /proc/modules'

# --- modules come and go
check "there is no cuse yet" no_node cuse
cp /spare/cuse.ko* "$tree/extra/"
check "a module that is copied in has its name at once" soon map cuse "crw------- 0 0 10:203 module"
check "and its node" soon node cuse "character special file a:cb 0:0 600"
rm "$tree"/extra/cuse.ko*
check "a module that is removed has none" soon map cuse ""
check "nor a node" soon no_node cuse

grep -E ' (WARN|ERROR) ' /tmp/log | sed 's/^/# /'
echo "1..$count"
poweroff -f
