#!/bin/sh
# Runs inside the virtual machine, as root, from mapdev-check.service; see run.sh. One line a check,
# in TAP's form, with what was said where one fails.
set -u
count=0
said=$(mktemp)
null=/org/mapdev1/device/c1_3

check() {
    name=$1
    shift
    count=$((count + 1))
    if "$@" >"$said" 2>&1; then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name"
        sed 's/^/#   /' "$said"
    fi
}

# within COMMAND...: until it is true, for at most 20 s
within() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            echo "not within 20 s: $*"
            "$@"
            return 1
        fi
        sleep 0.2
    done
}

unit() { systemctl show -P "$1" mapdevd.service; }
main_pid() { unit MainPID; }
is() { [ "$1" = "$2" ] || { echo "is '$1', wanted '$2'"; return 1; }; }
manager() { busctl get-property org.mapdev1 /org/mapdev1 org.mapdev1.Manager "$1" | cut -d' ' -f2; }
owner() { busctl get-property org.mapdev1 "$null" org.mapdev1.Device Owner; }
serves() { manager Version && is "$(manager QueueLength)" 0; }
set_owner() { busctl call org.mapdev1 "$null" org.mapdev1.Device SetOwner 'sa{sv}' "$1" 0; }
nodes() { find /dev -printf '%p %y %m %U:%G %l\n' | grep -v '^/dev/\(pts\|char\|shm\|tty\)' | sort; }
files() {
    find /etc /usr /var /run ! -type s 2>/dev/null |
        grep -Ev '^/(run/(systemd|udev|log|dbus)|var/(log|tmp|cache|lib/(dpkg|apt|systemd)))(/|$)|^/run/dbus' | sort
}

# --- the package
before=$(mktemp) after=$(mktemp)
installs() { dpkg -i /root/mapdev.deb; }
not_enabled() { is "$(systemctl is-enabled mapdevd.service mapdevd-kernel.socket | sort -u)" disabled; }
not_started() { is "$(systemctl is-active mapdevd.service)" inactive; }
files >"$before"
check "the package installs" installs
check "neither the service nor its socket is enabled" not_enabled
check "nothing was started" not_started

# --- start
starts() { timeout 120 systemctl start mapdevd.service || { journalctl -b -u mapdevd -n 30 --no-pager; return 1; }; }
is_shadow() { is "$(manager Mode)" '"shadow"'; }
status_is_json() { mapdevctl --json status | grep '"mode":"shadow"' || { mapdevctl --json status; return 1; }; }
lists() { busctl tree --list org.mapdev1 | grep -q "^$null$" && mapdevctl list | grep -q null; }
mkdir -p /run/systemd/system/mapdevd.service.d
# time enough to send an event while it is dead
printf '[Service]\nRestartSec=3\n' >/run/systemd/system/mapdevd.service.d/check.conf
systemctl daemon-reload
udevadm settle
nodes >/tmp/nodes
check "systemctl start returns when the daemon is ready" starts
check "the bus answers and the queue is empty" within serves
check "it runs in shadow mode" is_shadow
check "mapdevctl status prints JSON" status_is_json
check "busctl and mapdevctl list the devices" lists

# --- ownership over the bus
refused() {
    if runuser -u nobody -- busctl call org.mapdev1 "$null" org.mapdev1.Device SetOwner 'sa{sv}' nobody 0; then
        echo "nobody was let in"
        return 1
    fi
}
owned_by_daemon() { is "$(owner)" "u 1"; }
change() { echo change >/sys/class/mem/null/uevent && udevadm settle && mapdevctl settle; }
check "root changes an owner with busctl" set_owner daemon
check "the device has its new owner" owned_by_daemon
check "another user is refused" refused
check "the refusal changed nothing" owned_by_daemon
check "an event of the device is handled" change
check "the owner outlives the event" owned_by_daemon

# --- reload
reloads() { pid=$(main_pid) && timeout 60 systemctl reload mapdevd && is "$(unit ActiveState) $(main_pid)" "active $pid"; }
check "systemctl reload keeps the process" reloads
check "the bus answers after the reload" within serves
check "the owner outlives the reload" owned_by_daemon

# --- death and restart
uevent_socket() {
    for fd in /proc/"$(main_pid)"/fd/*; do
        link=$(readlink "$fd")
        case $link in socket:*) inode=$(echo "$link" | tr -dc 0-9) ;; *) continue ;; esac
        awk -v inode="$inode" '$2 == 15 && $4 == "00000001" && $10 == inode { print inode }' /proc/net/netlink
    done
}
waiting() { awk -v inode="$1" '$10 == inode { print $5 }' /proc/net/netlink; }
memfd() { find "/proc/$(main_pid)/fd" -lname '/memfd:*' -exec stat -L -c %i {} + | sort -u | tr '\n' ' '; }
in_store() { [ "$(unit NFileDescriptorStore)" -ge 1 ] || { echo "fd store: $(unit NFileDescriptorStore)"; return 1; }; }
old_socket=$(uevent_socket) old_map=$(memfd) old_generation=$(manager MapGeneration) old_pid=$(main_pid)
dies() { systemctl kill -s KILL mapdevd.service && within dead; }
dead() { is "$(main_pid)" 0; }
event_waits() { echo change >/sys/class/mem/null/uevent && [ "$(waiting "$old_socket")" -gt 0 ]; }
back() { [ "$(main_pid)" != 0 ] && [ "$(main_pid)" != "$old_pid" ] && is "$(unit ActiveState)" active; }
same_socket() { is "$(uevent_socket)" "$old_socket"; }
drained() { is "$(waiting "$old_socket")" 0; }
handled() { [ "$(mapdevctl status | sed -n 's/^events handled\t//p')" -ge 1 ]; }
same_map() { [ -n "$old_map" ] && is "$(memfd)" "$old_map"; }
continues() {
    new=$(manager MapGeneration)
    [ "$new" -ge "$old_generation" ] || { echo "$old_generation, then $new"; return 1; }
}
check "the map is in the service manager's fd store" in_store
check "SIGKILL ends the process" dies
check "an event sent meanwhile waits in the socket" event_waits
check "the service is restarted" within back
check "the bus answers again" within serves
check "the kernel socket is the same" same_socket
check "the event that waited is taken" within drained
check "and handled" within handled
check "the map's memory is the same" same_map
check "the map's generation goes on" continues
check "the owner outlives the restart" owned_by_daemon

# --- beside udev
udev_manages() { systemctl is-active systemd-udevd.service && udevadm info /dev/null; }
untouched() { nodes >/tmp/nodes.now && diff /tmp/nodes /tmp/nodes.now; }
differences() { mapdevctl --json compare >/tmp/differences; }
check "systemd-udevd is the machine's manager" udev_manages
check "no node of /dev was touched" untouched
check "the report of differences from udev is there" differences
echo "# mapdevctl compare:"
mapdevctl compare | sed 's/^/#   /'
echo "# mapdevctl status:"
mapdevctl status | sed 's/^/#   /'
echo "# the log:"
journalctl -b -u mapdevd --no-pager -o cat | tail -n 25 | sed 's/^/#   /'
echo "# memory: $(unit MemoryCurrent) bytes, $(unit NRestarts) restart"

# --- away
purges() { dpkg -P mapdev; }
nothing_left() { files >"$after" && diff "$before" "$after"; }
gone() { is "$(systemctl show -P LoadState mapdevd.service)" not-found && ! pgrep -x mapdevd; }
rm -r /run/systemd/system/mapdevd.service.d
check "the package is purged" purges
check "process and units are gone" gone
check "no file is left" nothing_left

echo "1..$count"
